#!/bin/bash
# Runs inside fresh mount, PID, network, UTS, IPC and cgroup namespaces, and becomes systemd as PID 1 over a copy of this
# machine's files: an overlay whose changes live in memory. Nothing it writes reaches the machine.
# Usage: boot.sh ROOT_FOLDER SHARED_FOLDER PROJECT_FOLDER PYTHON
set -eu
root=$1 shared=$2 project=$3 python=$4
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir "$root/upper" "$root/work" "$root/root"
root=$root/root
mount -t overlay overlay -o "lowerdir=/,upperdir=${root%/root}/upper,workdir=${root%/root}/work" "$root"
for each in run tmp var/tmp var/log var/lib/systemd etc/systemd etc/init.d; do mount -t tmpfs -o mode=755 tmpfs "$root/$each"; done
chmod 1777 "$root/tmp" "$root/var/tmp"
mount -t proc proc "$root/proc"
for each in sys sysrq-trigger; do
    [ -e "$root/proc/$each" ] || continue
    mount --bind "$root/proc/$each" "$root/proc/$each"
    mount -o remount,bind,ro "$root/proc/$each"
done
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for each in null zero full random urandom tty; do
    touch "$root/dev/$each"
    mount --bind "/dev/$each" "$root/dev/$each"
done
mkdir -p "$root$project" "$root/shared" "$root/old"
mount --bind "$project" "$root$project"
mount -o remount,bind,ro "$root$project"
mount --bind "$shared" "$root/shared"
touch "$root/shared/console"
touch "$root/dev/console"
mount --bind "$root/shared/console" "$root/dev/console"
touch "$root/shared/mounted"
ROOT="$root" PROJECT="$project" PYTHON="$python" bash -eu "$(dirname "$0")/setup.sh"
cd "$root"
pivot_root . old
umount -l /old
# `container`: systemd then leaves the machine's clock, swap, loop devices and consoles alone.
exec env -i container=fangnetz-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=console --log-level=info --show-status=no >/dev/console 2>&1 </dev/null
