"""The domain XML of the short form of a VM, as a careful admin writes it. Holds no generation and no secret.

Made for transient domains on any host of the cluster: nothing in it comes from the machine it is built on,
uuid and MAC address are computed from the names, and the same settings give the same bytes everywhere.
"""

from __future__ import annotations

import posixpath
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from fangnetz.core.units import MiB, VmId

_NAMESPACE = uuid.UUID("5b0a3f3e-6f0c-5d0e-9a43-6d9f1f8f7c11")
"""Root of all uuids of short-form VMs. Changing it gives every guest another machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiDisk:
    """A LUN opened by QEMU's own initiator."""

    address: str
    port: int
    target: str
    lun: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDisk:
    """An image on storage that every host mounts at the same path; `format` is raw or qcow2."""

    path: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDisk:
    """A block device that every host sees at the same path."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLease:
    """virtlockd's lock in a shared folder. `path`: the lockspace's folder; the file `path`/VM must exist."""

    lockspace: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortVm:
    """What the short form says of a VM. `virt` is kvm or qemu; empty texts mean: not given."""

    cluster: str
    vm: VmId
    memory_mib: MiB
    cpus: int
    disk: IscsiDisk | FileDisk | BlockDisk
    virt: str = "kvm"
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    bridge: str = ""
    lease: StorageLease | None = None


def domain_uuid(cluster: str, vm: VmId) -> uuid.UUID:
    """Return the uuid that a short-form VM keeps for its whole life."""
    return uuid.uuid5(_NAMESPACE, f"{cluster}/{vm}")


def domain_xml(short: ShortVm) -> str:
    """Return the domain XML; equal input gives equal text."""
    identity = domain_uuid(short.cluster, short.vm)
    domain = ET.Element("domain", type=short.virt)
    _text(domain, "name", short.vm)
    _text(domain, "uuid", str(identity))
    _text(domain, "memory", str(short.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(short.cpus))
    _boot(domain, short)
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if short.virt == "kvm":
        ET.SubElement(domain, "cpu", mode="host-model")
    ET.SubElement(domain, "clock", offset="utc")
    # A guest that powers off is gone from the host; whether it starts again is the cluster's matter alone.
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    devices = ET.SubElement(domain, "devices")
    _disk(devices, short.disk)
    if short.bridge:
        _interface(devices, short.bridge, identity)
    _console(devices)
    if short.lease is not None:
        _lease(devices, short.lease, short.vm)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _boot(domain: ET.Element, short: ShortVm) -> None:
    boot = ET.SubElement(domain, "os")
    _text(boot, "type", "hvm", arch="x86_64", machine="q35")
    if not short.kernel:
        ET.SubElement(boot, "boot", dev="hd")
        return
    _text(boot, "kernel", short.kernel)
    if short.initrd:
        _text(boot, "initrd", short.initrd)
    if short.cmdline:
        _text(boot, "cmdline", short.cmdline)


def _disk(devices: ET.Element, disk: IscsiDisk | FileDisk | BlockDisk) -> None:
    # cache none: a write the guest was told is safe lies on the shared storage, not in a dead host's memory.
    match disk:
        case IscsiDisk():
            element = ET.SubElement(devices, "disk", type="network", device="disk")
            ET.SubElement(element, "driver", name="qemu", type="raw", cache="none")
            source = ET.SubElement(element, "source", protocol="iscsi", name=f"{disk.target}/{disk.lun}")
            ET.SubElement(source, "host", name=disk.address, port=str(disk.port))
        case FileDisk():
            element = ET.SubElement(devices, "disk", type="file", device="disk")
            ET.SubElement(element, "driver", name="qemu", type=disk.format, cache="none")
            ET.SubElement(element, "source", file=disk.path)
        case BlockDisk():
            element = ET.SubElement(devices, "disk", type="block", device="disk")
            ET.SubElement(element, "driver", name="qemu", type="raw", cache="none")
            ET.SubElement(element, "source", dev=disk.path)
    ET.SubElement(element, "target", dev="vda", bus="virtio")


def _interface(devices: ET.Element, bridge: str, identity: uuid.UUID) -> None:
    tail = identity.bytes[-3:]
    interface = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(interface, "mac", address=f"52:54:00:{tail[0]:02x}:{tail[1]:02x}:{tail[2]:02x}")
    ET.SubElement(interface, "source", bridge=bridge)
    ET.SubElement(interface, "model", type="virtio")


def _console(devices: ET.Element) -> None:
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "target", port="0")
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "target", type="serial", port="0")


def _lease(devices: ET.Element, lease: StorageLease, vm: VmId) -> None:
    element = ET.SubElement(devices, "lease")
    _text(element, "lockspace", lease.lockspace)
    _text(element, "key", vm)
    # virtlockd joins target path and lockspace to the folder it was told of (file_lockspace_dir).
    ET.SubElement(element, "target", path=posixpath.dirname(lease.path))
