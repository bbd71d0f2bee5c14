#!/bin/bash
# First process of a lab host, inside its fresh namespaces: host-init.sh HOST_FOLDER.
# Gives the host folders of its own and hands over to tini, since PID 1 must reap what dies.
# Never changes the machine's own mounts: all happens in a private mount namespace.
set -eu
dir=$1
scripts=$(dirname "$0")
. "$dir/env"

# /proc is still the machine's: this is our number out there, by which the plug is pulled.
read -r line </proc/self/stat
pid=${line%% *}
line=${line##*) }
# shellcheck disable=SC2086
set -- $line
echo "$pid ${20}" >"$dir/init.pid.new"
mv "$dir/init.pid.new" "$dir/init.pid"

mount -n -t proc proc /proc
mount -n -t sysfs -o ro sysfs /sys
mount -n -t tmpfs -o mode=1777 tmpfs /dev/shm
# A /run that ends with the boot; the lab's own folder stays visible in it.
mount -n -t tmpfs -o mode=755 tmpfs "$dir/run"
case $LAB in
/run/*)
    mkdir -p "$dir/run/${LAB#/run/}"
    mount -n --bind "$LAB" "$dir/run/${LAB#/run/}"
    ;;
esac
mount -n --move "$dir/run" /run
for folder in etc/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt; do
    mount -n --bind "$dir/disk/$folder" "/$folder"
done
mount -n --bind "$dir/hosts" /etc/hosts
if [ -e /dev/kvm ]; then
    # An empty file, read-only: a KVM device that only pretends costs minutes of probing, /dev/null a probe each start.
    mount -n --bind "$dir/no-kvm" /dev/kvm
    mount -n -o remount,bind,ro /dev/kvm
fi
install -m 0644 "$dir/bmc-guid" /run/bmc-guid
hostname "$NODE"
cd /
exec tini -g -- /bin/bash "$scripts/host-services.sh" "$dir"
