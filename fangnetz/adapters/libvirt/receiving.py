"""Whether this host could run a VM that is to arrive: asked of libvirt and of this machine, before anything is sent.

Changes nothing. What it cannot judge it lets pass: libvirt looks again when the VM comes, and refuses for good then.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import libvirt

from fangnetz.core.errors import HypervisorRefused
from fangnetz.core.units import VmId

NET = Path("/sys/class/net")
_SAYS_NO = frozenset({libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_CONFIG_UNSUPPORTED})
"""libvirt knows of no such emulator, architecture or machine here."""


def refuse_what_it_lacks(connection: libvirt.virConnect, vm: VmId, xml: str) -> None:
    """Raise HypervisorRefused with all that this host lacks for the VM; libvirtError if libvirt does not answer."""
    try:
        domain = ET.fromstring(xml)  # noqa: S314 - the operator's own file, size-limited where it was read
    except ET.ParseError as error:
        raise HypervisorRefused(f"The definition of {vm} is not well-formed XML ({error}).") from error
    lacking = [*_machine(connection, domain), *_networks(connection, domain), *_disks(domain)]
    if lacking:
        raise HypervisorRefused(f"{'; '.join(lacking)}.")


def _machine(connection: libvirt.virConnect, domain: ET.Element) -> Iterator[str]:
    """Machine type and CPU model, by what libvirt says this host's emulator can do."""
    kind = domain.find("./os/type")
    if kind is None:
        return
    emulator = domain.findtext("./devices/emulator")
    try:
        text = connection.getDomainCapabilities(
            emulator, kind.get("arch"), kind.get("machine"), domain.get("type", "kvm"), 0
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() in _SAYS_NO:
            yield f"it has no {domain.get('type')} machine {kind.get('machine') or ''}: {error.get_error_message()}"
            return
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return
        raise
    cpu = domain.find("./cpu")
    model = cpu.findtext("model") if cpu is not None and cpu.get("mode") == "custom" else None
    if model is None:
        return
    known = ET.fromstring(text).findall("./cpu/mode[@name='custom']/model")  # noqa: S314 - libvirt's own answer
    found = {one.text: one.get("usable") for one in known}
    if known and model not in found:
        yield f"it knows no CPU {model}"
    elif found.get(model) == "no":
        yield f"its CPU cannot be a {model}"


def _networks(connection: libvirt.virConnect, domain: ET.Element) -> Iterator[str]:
    for source in domain.findall("./devices/interface/source"):
        network, bridge = source.get("network"), source.get("bridge")
        if network is not None and not _is_active(connection, network):
            yield f"it has no active network {network}"
        if bridge is not None and not (NET / bridge).exists():
            yield f"it has no bridge {bridge}"


def _is_active(connection: libvirt.virConnect, network: str) -> bool:
    try:
        return bool(connection.networkLookupByName(network).isActive())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_NETWORK:
            return False
        raise


def _disks(domain: ET.Element) -> Iterator[str]:
    for source in domain.findall("./devices/disk/source"):
        path = source.get("file") or source.get("dev")
        if path is not None and not Path(path).exists():
            yield f"it does not see the disk {path}"
