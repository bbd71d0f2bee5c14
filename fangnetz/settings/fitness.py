"""What makes a domain unfit to be started on another host. Judges the XML alone; never looks at a machine.

`refuse`: another host cannot start it, or it would give a secret away. `warn`: it may work; know it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fangnetz.settings.domain_facts import parse_domain

_LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/var/lib/libvirt", "/root", "/home", "/run", "/dev/shm")  # noqa: S108
_LOCAL_DEVICES = ("/dev/sd", "/dev/vd", "/dev/hd", "/dev/nvme")


class UnfitLevel(StrEnum):
    """How bad it is."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """One thing that makes a domain unfit, in a sentence."""

    level: UnfitLevel
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def unfit_for_ha(xml: str) -> tuple[Unfit, ...]:
    """Return everything in a domain XML that speaks against high availability, the refused things first.

    Raises SettingsError if the XML cannot be read. Whether a path is shared cannot be known from here.
    """
    root = parse_domain(xml)
    found = [*_whole(root), *_disks(root), *_interfaces(root), *_host_devices(root), *_files(root)]
    return tuple(sorted(dict.fromkeys(found), key=lambda unfit: unfit.level is UnfitLevel.WARN))


def _refuse(sentence: str) -> Unfit:
    return Unfit(level=UnfitLevel.REFUSE, sentence=sentence)


def _warn(sentence: str) -> Unfit:
    return Unfit(level=UnfitLevel.WARN, sentence=sentence)


def _is_local(path: str) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in _LOCAL_FOLDERS)


def _whole(root: ET.Element) -> Iterator[Unfit]:
    if root.get("type") not in ("kvm", "qemu"):
        yield _refuse("the domain's type must be kvm or qemu: other kinds are not managed")
    if any(graphics.get("passwd") for graphics in root.findall("devices/graphics")):
        yield _refuse("a password stands in <graphics passwd>: it would be stored and shown with the definition")
    if not (root.findtext("uuid") or "").strip():
        yield _warn("the domain has no <uuid>: the guest gets another one at every start")
    for event in ("on_poweroff", "on_crash"):
        if (root.findtext(event) or "").strip() in ("preserve", "coredump-restart", "restart"):
            yield _warn(f"<{event}> does not end the domain: whether the VM runs is the cluster's matter")
    if (cpu := root.find("cpu")) is not None and cpu.get("mode") == "host-passthrough":
        yield _warn("the CPU is passed through: live migration works between equal CPUs only")


def _disks(root: ET.Element) -> Iterator[Unfit]:
    for disk in root.findall("devices/disk"):
        source = disk.find("source")
        if source is None:
            continue
        target = disk.find("target")
        name = f"disk {target.get('dev', '?')}" if target is not None else "a disk"
        removable = disk.get("device") in ("cdrom", "floppy")
        path = source.get("file") or source.get("dev") or ""
        match disk.get("type", "file"):
            case "nvme" | "vhostuser" | "vhostvdpa":
                yield _refuse(f"{name} is a device of one host: no other host can open it")
            case "file" if removable and source.get("startupPolicy") != "optional":
                yield _warn(f"{name} has the medium {path} in: the VM starts only where that file exists")
            case "file" if not removable and _is_local(path):
                yield _warn(f"{name} is the file {path}, which may be local to one host")
            case "block" if path.startswith(_LOCAL_DEVICES):
                yield _warn(f"{name} is {path}, which may be another disk on another host: use /dev/disk/by-id")
            case "dir":
                yield _warn(f"{name} is a folder, which may be local to one host")
            case "volume":
                yield _warn(f"{name} is in a storage pool: every host must have that pool on shared storage")
            case _:
                pass
        driver = disk.find("driver")
        if driver is not None and driver.get("cache") == "unsafe":
            yield _warn(f"{name} has cache unsafe: a power loss destroys what the guest believed written")


def _interfaces(root: ET.Element) -> Iterator[Unfit]:
    for interface in root.findall("devices/interface"):
        match interface.get("type"):
            case "hostdev" | "vdpa" | "vhostuser":
                yield _refuse("a network interface is a device of one host (passthrough): no other host can give it")
            case "direct":
                yield _warn("a network interface is bound to a device of the host (macvtap): every host must have it")
            case "user" | "network" | "internal":
                yield _warn("a network interface has a network of the host: every host must have the same one")
            case _:
                pass
        if interface.find("mac") is None and interface.get("type") != "hostdev":
            yield _warn("a network interface has no <mac>: the guest gets another address at every start")


def _host_devices(root: ET.Element) -> Iterator[Unfit]:
    for hostdev in root.findall("devices/hostdev"):
        kind = hostdev.get("type") or hostdev.get("mode") or "device"
        yield _refuse(f"a {kind} device of the host is passed through: no other host can start it without the same one")
    for tpm in root.findall("devices/tpm/backend"):
        if tpm.get("type") == "emulator":
            yield _warn("the state of the emulated TPM lies on one host: elsewhere the guest finds an empty TPM")
        else:
            yield _refuse("the host's TPM is passed through: no other host has its keys")
    for tag in ("serial", "console", "parallel", "channel"):
        if any(device.get("type") == "dev" for device in root.findall(f"devices/{tag}")):
            yield _warn(f"a {tag} port is a device of the host: every host must have it")


def _files(root: ET.Element) -> Iterator[Unfit]:
    nvram = root.find("os/nvram")
    boot = root.find("os")
    if nvram is not None:
        source = nvram.find("source")
        path = (nvram.text or "").strip() or (source.get("file", "") if source is not None else "")
        if not path or _is_local(path):
            yield _warn("the firmware's variables (nvram) may be local to one host: elsewhere they start anew")
    elif boot is not None and boot.get("firmware") == "efi":
        yield _warn("the firmware's variables (nvram) may be local to one host: elsewhere they start anew")
    for share in root.findall("devices/filesystem"):
        if share.get("type", "mount") == "mount":
            yield _warn("a folder of the host is shared into the guest: every host must have it")
            break
