#!/bin/bash
# Starts the services of a lab host: libvirt's daemons and, unless the lab is bare, the Fangnetz host worker.
# They are kept up as systemd would keep them (Restart=always). Never ends by itself: its end is a power loss.
set -u
dir=$1
scripts=$(dirname "$0")
. "$dir/env"

keep() { # keep NICE ROLE COMMAND...
    nice -n "$1" /bin/bash "$scripts/supervise.sh" "$NAME" "$NODE" "$2" "$dir/log" "${@:3}" &
}

mkdir -p /run/libvirt
keep -10 virtlogd virtlogd
keep -10 virtlockd virtlockd
keep 0 libvirtd libvirtd --listen # QEMU inherits its niceness
if [ -n "$WORKER" ]; then
    for _ in {1..100}; do
        [ -S /run/libvirt/libvirt-sock ] && break
        sleep 0.1
    done
    export FANGNETZ_CONFIG=$CONFIG FANGNETZ_HOST=$NODE FANGNETZ_STATE_DIR=$dir/disk/fangnetz FANGNETZ_RUN_DIR=/run/fangnetz
    keep -10 worker "$WORKER" host
fi
wait
while :; do sleep 3600; done
