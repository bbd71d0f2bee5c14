"""What the cluster must know of a domain XML: name, size, the disks it alone may write. Never edits it.

Units and elements: https://libvirt.org/formatdomain.html
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET  # expat bounds expansion, and a DOCTYPE is refused below
from dataclasses import dataclass
from math import ceil

from fangnetz.core.errors import SettingsError
from fangnetz.core.model import NO_RULES, Rules, VmDoc, VmSpec, VmWish
from fangnetz.core.policy import Fallback
from fangnetz.core.retries import NO_RETRIES, Retries
from fangnetz.core.units import MiB, VmId

XML_BYTES_MAX = 1 << 20
"""No domain XML is longer."""
_MIB = 1 << 20
_UNITS = {
    "b": 1,
    "bytes": 1,
    "kb": 10**3,
    "k": 1 << 10,
    "kib": 1 << 10,
    "mb": 10**6,
    "m": 1 << 20,
    "mib": 1 << 20,
    "gb": 10**9,
    "g": 1 << 30,
    "gib": 1 << 30,
    "tb": 10**12,
    "t": 1 << 40,
    "tib": 1 << 40,
}
_UUID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFacts:
    """Facts of one domain XML. `uuid` is lower case without dashes, empty if none is given.

    `disks` names every source it opens for writing and shares with nobody, in one spelling per source.
    """

    name: str
    uuid: str
    memory_mib: MiB
    cpus: int
    disks: tuple[str, ...]


class _NoDoctype(ET.TreeBuilder):
    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        raise SettingsError("it must not hold a DOCTYPE")


def parse_domain(xml: str) -> ET.Element:
    """Return the `<domain>` element. Raises SettingsError with the rule it breaks."""
    if len(xml.encode(errors="replace")) > XML_BYTES_MAX:
        raise SettingsError(f"it must be at most {XML_BYTES_MAX} bytes long")
    try:
        root = ET.fromstring(xml, parser=ET.XMLParser(target=_NoDoctype()))  # noqa: S314
    except ET.ParseError as error:
        line, column = error.position
        raise SettingsError(
            f"it must be valid XML ({str(error).split(':')[0]}, line {line}, column {column})"
        ) from error
    except (ValueError, LookupError) as error:
        raise SettingsError("it must be valid XML in UTF-8") from error
    if root.tag != "domain":
        raise SettingsError("its outermost element must be <domain>")
    return root


def read_domain(xml: str) -> DomainFacts:
    """Return what the XML says of its domain. Raises SettingsError with the rule it breaks."""
    root = parse_domain(xml)
    name = (root.findtext("name") or "").strip()
    if not name:
        raise SettingsError("it must have a <name>")
    uuid = (root.findtext("uuid") or "").strip().replace("-", "").lower()
    if uuid and not _UUID.fullmatch(uuid):
        raise SettingsError("its <uuid> must be 32 hexadecimal digits")
    return DomainFacts(
        name=name, uuid=uuid, memory_mib=_memory(root), cpus=_cpus(root), disks=tuple(_exclusive_disks(root))
    )


def vm_doc_from_xml(
    xml: str,
    *,
    priority: int = 0,
    wish: VmWish = VmWish.RUNNING,
    source: str = "cli",
    rules: Rules = NO_RULES,
    live: bool = True,
    retries: Retries = NO_RETRIES,
    fallback: Fallback | None = None,
) -> VmDoc:
    """Return the definition that a domain XML stands for; its digest is the SHA-256 of the XML in UTF-8.

    Raises SettingsError with the rule the XML breaks. What makes it unfit is `unfit_for_ha`'s matter.
    """
    facts = read_domain(xml)
    spec = VmSpec(
        id=VmId(facts.name),
        memory_mib=facts.memory_mib,
        cpus=facts.cpus,
        priority=priority,
        digest=hashlib.sha256(xml.encode()).hexdigest(),
        uuid=facts.uuid,
        disks=tuple(sorted(set(facts.disks))),
        rules=rules,
        live=live,
        retries=retries,
        fallback=fallback,
    )
    return VmDoc(spec=spec, xml=xml, wish=wish, source=source)


def _memory(root: ET.Element) -> MiB:
    element = root.find("memory")
    text = (element.text or "").strip() if element is not None else ""
    unit = element.get("unit", "KiB").strip().lower() if element is not None else ""
    if not re.fullmatch(r"[0-9]{1,18}", text) or unit not in _UNITS or int(text) == 0:
        raise SettingsError("its <memory> must be a whole number above 0 with a unit libvirt knows")
    return MiB(ceil(int(text) * _UNITS[unit] / _MIB))


def _cpus(root: ET.Element) -> int:
    text = (root.findtext("vcpu") or "1").strip()
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0:
        raise SettingsError("its <vcpu> must be a whole number above 0")
    return int(text)


def _exclusive_disks(root: ET.Element) -> list[str]:
    found: list[str] = []
    for disk in root.findall("devices/disk"):
        source = disk.find("source")
        alone = disk.find("readonly") is None and disk.find("shareable") is None
        if source is None or not alone or disk.get("device", "disk") not in ("disk", "lun"):
            continue
        where = _source(disk.get("type", "file"), source)
        if where:
            found.append(where)
    return found


def _source(kind: str, source: ET.Element) -> str:
    match kind:
        case "file":
            return source.get("file", "")
        case "block":
            return source.get("dev", "")
        case "network" if source.get("protocol") == "iscsi":
            # An iSCSI name is unique in the world: another portal leads to the same disk.
            return f"iscsi {source.get('name', '').lower()}"
        case "network":
            hosts = ",".join(sorted(host.get("name", "").lower() for host in source.findall("host")))
            return f"{source.get('protocol', '')} {source.get('name', '')} at {hosts}"
        case "volume":
            return f"volume {source.get('pool', '')}/{source.get('volume', '')}"
        case _:
            return ""
