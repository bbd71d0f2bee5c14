"""What the machine must offer before a lab can come up. Only looks; says in one sentence what is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fangnetz.lab.errors import LabError

_PROGRAMS = {
    "ip": "iproute2",
    "ebtables-nft": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "tini": "tini",
    "libvirtd": "libvirt-daemon-system",
    "virtlogd": "libvirt-daemon-system",
    "virtlockd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "redis-server": "redis-server",
    "tgtd": "tgt",
    "ipmi_sim": "openipmi",
    "gcc": "gcc",
    "cpio": "cpio",
}
_FOLDERS = {
    "/etc/libvirt": "libvirt-daemon-system",
    "/var/lib/libvirt": "libvirt-daemon-system",
    "/var/cache/libvirt": "libvirt-daemon-system",
    "/var/log/libvirt": "libvirt-daemon-system",
}


def check_root() -> None:
    """Raise LabError unless we are root, which namespaces and links need."""
    if os.geteuid() != 0:
        raise LabError("a lab needs root: run it again with sudo")


def check_machine() -> None:
    """Raise LabError naming every missing package, or the mount a plain chroot lacks."""
    check_root()
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    missing |= {package for folder, package in _FOLDERS.items() if not Path(folder).is_dir()}
    if not any(Path("/usr/lib").glob("*/qemu/block-iscsi.so")):
        missing.add("qemu-block-extra")
    if not Path("/usr/include").is_dir() or not any(Path("/usr/lib").glob("*/libc.a")):
        missing.add("libc6-dev")
    if missing:
        raise LabError(
            "missing packages: run `make setup` or "
            f"`apt-get install --no-install-recommends {' '.join(sorted(missing))}`"
        )
    if not os.path.ismount("/"):
        raise LabError(
            "the root folder is no mount point, as in a plain chroot: "
            "run `mount --bind DIR DIR` before `chroot DIR`, then try again"
        )
