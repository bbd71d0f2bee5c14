"""The generation inside a domain's metadata, in a namespace of our own.

Never changes anything else in the document: it is edited as a tree that keeps every prefix and foreign element.
"""

from __future__ import annotations

import re
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from fangnetz.core.errors import HypervisorRefused
from fangnetz.core.units import Generation, VmId

NAMESPACE = "https://fangnetz.net/xmlns/domain/1"
PREFIX = "fangnetz"
ELEMENT = "vm"

_NUMBER = re.compile(r"[1-9][0-9]{0,18}")


def with_generation(xml: str, vm: VmId, generation: Generation) -> str:
    """Return the domain XML with `<fangnetz:vm generation="…"/>` as its only element of ours.

    Raises HypervisorRefused for what is not one domain of this name.
    """
    try:
        document = minidom.parseString(xml)  # noqa: S318 - the operator's own file, size-limited by expat
    except ExpatError as error:
        raise HypervisorRefused(f"The definition of {vm} is not well-formed XML ({error}).") from error
    domain = document.documentElement
    if domain is None or domain.tagName != "domain":
        raise HypervisorRefused(f"The definition of {vm} is not a domain.")
    names = [_text(child) for child in _children(domain, "name")]
    if names != [vm]:
        raise HypervisorRefused(f"The definition of {vm} names the domain {', '.join(names) or 'nothing'}.")
    metadata = next(iter(_children(domain, "metadata")), None)
    if metadata is None:
        metadata = document.createElement("metadata")
        domain.appendChild(metadata)
    for old in metadata.getElementsByTagNameNS(NAMESPACE, "*"):
        if old.parentNode is not None:
            old.parentNode.removeChild(old)
    mark = document.createElementNS(NAMESPACE, f"{PREFIX}:{ELEMENT}")
    mark.setAttribute(f"xmlns:{PREFIX}", NAMESPACE)
    mark.setAttribute("generation", str(generation))
    metadata.appendChild(mark)
    return domain.toxml()


def generation_in(metadata: str) -> Generation | None:
    """Return the number in our element as libvirt gives it back; None for anything else."""
    try:
        element = minidom.parseString(metadata).documentElement  # noqa: S318 - libvirt's own answer
    except ExpatError:
        return None
    number = element.getAttribute("generation") if element is not None else ""
    return Generation(int(number)) if _NUMBER.fullmatch(number) else None


def _children(element: minidom.Element, tag: str) -> list[minidom.Element]:
    return [node for node in element.childNodes if isinstance(node, minidom.Element) and node.tagName == tag]


def _text(element: minidom.Element) -> str:
    return "".join(node.data for node in element.childNodes if isinstance(node, minidom.Text)).strip()
