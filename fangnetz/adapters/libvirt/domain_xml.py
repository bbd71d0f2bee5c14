"""The mark of ours inside a domain's metadata, in a namespace of our own: its generation, when its start was sent, and
whether it was paused by us as the later of two copies.

Never changes anything else in the document: it is edited as a tree that keeps every prefix and foreign element.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from fangnetz.core.errors import HypervisorRefused
from fangnetz.core.units import Generation, Instant, VmId

NAMESPACE = "https://fangnetz.net/xmlns/domain/1"
PREFIX = "fangnetz"
ELEMENT = "vm"
YES = "yes"

_NUMBER = re.compile(r"[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What our element says. `start_sent_at`: in it as whole microseconds of the store's clock.

    `held`: set right before we pause the copy as the later of two, and never taken off a copy that we paused.
    `arriving`: it came by a migration of ours and was not let run yet.
    """

    generation: Generation | None
    start_sent_at: Instant | None = None
    held: bool = False
    arriving: bool = False


NO_MARK = Mark(generation=None)


def with_mark(xml: str, vm: VmId, mark: Mark) -> str:
    """Return the domain XML with `<fangnetz:vm generation="…" start_sent_at="…"/>` as its only element of ours.

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
    ours = document.createElementNS(NAMESPACE, f"{PREFIX}:{ELEMENT}")
    ours.setAttribute(f"xmlns:{PREFIX}", NAMESPACE)
    for name, value in _attributes(mark).items():
        ours.setAttribute(name, value)
    metadata.appendChild(ours)
    return domain.toxml()


def as_element(mark: Mark) -> str:
    """Return our element as libvirt takes it for a domain that runs; libvirt adds the namespace."""
    element = minidom.Document().createElement(ELEMENT)
    for name, value in _attributes(mark).items():
        element.setAttribute(name, value)
    return element.toxml()


def _attributes(mark: Mark) -> dict[str, str]:
    found = {"generation": str(mark.generation)}
    if mark.start_sent_at is not None:
        found["start_sent_at"] = str(round(mark.start_sent_at * 1_000_000))
    if mark.held:
        found["held"] = YES
    if mark.arriving:
        found["arriving"] = YES
    return found


def mark_in(metadata: str) -> Mark:
    """Return what our element says as libvirt gives it back; None for whatever is not there or no number."""
    try:
        element = minidom.parseString(metadata).documentElement  # noqa: S318 - libvirt's own answer
    except ExpatError:
        return NO_MARK
    if element is None:
        return NO_MARK
    number, sent = element.getAttribute("generation"), element.getAttribute("start_sent_at")
    return Mark(
        generation=Generation(int(number)) if _NUMBER.fullmatch(number) else None,
        start_sent_at=Instant(int(sent) / 1_000_000) if _NUMBER.fullmatch(sent) else None,
        held=element.getAttribute("held") == YES,
        arriving=element.getAttribute("arriving") == YES,
    )


def _children(element: minidom.Element, tag: str) -> list[minidom.Element]:
    return [node for node in element.childNodes if isinstance(node, minidom.Element) and node.tagName == tag]


def _text(element: minidom.Element) -> str:
    return "".join(node.data for node in element.childNodes if isinstance(node, minidom.Text)).strip()
