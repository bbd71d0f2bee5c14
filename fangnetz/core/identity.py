"""Which VMs are one and the same for their storage: one disk, or one uuid, under two names.

Two definitions of one disk are two writers to be. Compares definitions only; who may run is `ownership`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fangnetz.core.model import VmDoc, VmSpec
from fangnetz.core.units import VmId


def marks(spec: VmSpec) -> tuple[str, ...]:
    """Return what no second VM may have, each as words for a sentence."""
    uuid = (f"the uuid {spec.uuid}",) if spec.uuid else ()
    return (*(f"the disk {disk}" for disk in spec.disks), *uuid)


def shared(spec: VmSpec, others: Iterable[VmDoc]) -> dict[VmId, str]:
    """Return every other VM that has a mark of `spec`, and which."""
    mine = marks(spec)
    return {
        other.spec.id: both
        for other in others
        if other.spec.id != spec.id and (both := next((mark for mark in mine if mark in marks(other.spec)), ""))
    }


def _any_shared(docs: Iterable[VmDoc]) -> bool:
    """Whether anything stands in two definitions: asked in every tick, and nearly always not so."""
    names = [name for doc in docs for name in (*doc.spec.disks, doc.spec.uuid) if name]
    return len(set(names)) < len(names)


def rivals(docs: Mapping[VmId, VmDoc]) -> dict[VmId, dict[VmId, str]]:
    """Return for each VM that shares a mark the VMs it shares it with, and which mark. Empty for a sound cluster."""
    if not _any_shared(docs.values()):
        return {}
    holders: dict[str, list[VmId]] = {}
    for vm, doc in docs.items():
        for mark in marks(doc.spec):
            holders.setdefault(mark, []).append(vm)
    found: dict[VmId, dict[VmId, str]] = {}
    for mark, vms in holders.items():
        for vm in vms:
            for other in vms:
                if other != vm:
                    found.setdefault(vm, {}).setdefault(other, mark)
    return found
