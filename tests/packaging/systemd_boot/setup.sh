# Fills the tree of the machine to be booted (ROOT): the project's own units, Debian's for libvirt, and stand-ins for the
# network and the shared storage.
units=$ROOT/etc/systemd/system
mkdir -p "$units/multi-user.target.wants" "$units/sockets.target.wants"
ln -s /lib/systemd/system/multi-user.target "$units/default.target"
: >"$ROOT/etc/machine-id"
# What would reach for the machine below, or is of no use here.
for each in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
    systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service systemd-hwdb-update.service \
    systemd-random-seed.service systemd-tmpfiles-clean.timer getty.target systemd-networkd.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
    systemd-firstboot.service systemd-remount-fs.service; do
    ln -s /dev/null "$units/$each"
done
want() { for each; do ln -s "/lib/systemd/system/$each" "$units/multi-user.target.wants/$each"; done; }
want libvirtd.service libvirt-guests.service remote-fs.target
for each in libvirtd.socket libvirtd-ro.socket virtlockd.socket virtlogd.socket; do
    ln -s "/lib/systemd/system/$each" "$units/sockets.target.wants/$each"
done
# Whoever has not said how long a stop may take is not waited for.
printf '[Manager]\nDefaultTimeoutStopSec=2\n' >"$ROOT/etc/systemd/system.conf"
# The shared storage: `_netdev` makes it a remote file system to systemd, as NFS is.
mkdir -p "$ROOT/srv/images"
echo 'tmpfs /srv/images tmpfs _netdev 0 0' >"$ROOT/etc/fstab"
# The network, as Debian's networking.service orders itself.
cat >"$units/test-network.service" <<'END'
[Unit]
DefaultDependencies=no
After=local-fs.target network-pre.target
Before=network.target network-online.target shutdown.target
Wants=network.target
Conflicts=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip link set lo up; ip link add net0 type veth peer net1; ip link set net0 up'
ExecStop=/bin/sh -c 'ip link delete net0'
END
ln -s ../test-network.service "$units/multi-user.target.wants/"
# Guests that do not obey are not waited for.
printf 'ON_SHUTDOWN=shutdown\nSHUTDOWN_TIMEOUT=1\n' >"$ROOT/etc/default/libvirt-guests"
cp "$PROJECT"/config/systemd/*.service "$PROJECT"/config/systemd/*.target "$units/"
mkdir -p "$ROOT/etc/fangnetz" "$ROOT/opt/fangnetz/venv/bin"
printf 'FANGNETZ_HOST=h1\nFANGNETZ_CONFIG=/etc/fangnetz/cluster.yaml\n' >"$ROOT/etc/fangnetz/environment"
# With a cluster file `stay` and `leave` are the product's own; without one everything is recorded.
# A controller's user may not read where this Python lives, and its processes are only to be up.
cat >"$ROOT/opt/fangnetz/venv/bin/fangnetz-worker" <<END
#!/bin/sh
case \$1 in control | work | fence | beat) exec sleep infinity ;; esac
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PROJECT
if [ -e /etc/fangnetz/cluster.yaml ] && [ "\$1" != host ]; then
    exec $PYTHON -c 'from workers.launch import main; main()' "\$@"
fi
exec $PYTHON $PROJECT/tests/packaging/systemd_boot/recorder.py "\$@"
END
chmod 755 "$ROOT/opt/fangnetz/venv/bin/fangnetz-worker"
mkdir "$ROOT/var/log/redis"
chown redis: "$ROOT/var/log/redis"
# A controller on the same machine, as config/systemd/README.md has it; it is started by the test that wants it.
echo 'fangnetz:x:990:990::/nonexistent:/usr/sbin/nologin' >>"$ROOT/etc/passwd"
echo 'fangnetz:x:990:' >>"$ROOT/etc/group"
for each in control work fence beat; do
    mkdir "$units/fangnetz-$each.service.d"
    printf '[Service]\nStateDirectory=\nStateDirectory=fangnetz-controller\nRuntimeDirectory=\nRuntimeDirectory=fangnetz-controller\n' \
        >"$units/fangnetz-$each.service.d/both.conf"
done
for each in host leave; do ln -s "../fangnetz-$each.service" "$units/multi-user.target.wants/"; done
