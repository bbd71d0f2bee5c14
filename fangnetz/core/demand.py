"""What VMs take of a host: what was measured of them lately, else the sizes they are configured with. Pure.

Only ranks hosts. Whether a VM fits somewhere is asked of the configured sizes, whatever was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fangnetz.core.detector import heard
from fangnetz.core.model import ClusterView, HostSpec, VmSpec, VmUse
from fangnetz.core.units import Instant, VmId

FRESH_S = 60.0
"""An older measurement says nothing about now. Five may fail in a row, and a host may be lost and proven off meanwhile:
what it last said of its VMs still counts when they are placed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a VM, or several of them, take of a host. `guessed`: those of which nothing fresh was measured."""

    cpus: float = 0.0
    memory_mib: float = 0.0
    guessed: frozenset[VmId] = frozenset()

    def share(self, host: HostSpec) -> float:
        """Return the share of what the host has less of: that is what is felt first."""
        return max(self.cpus / max(1, host.cpus), self.memory_mib / max(1, host.memory_mib))


Demands = Mapping[VmId, Demand]


def demands(view: ClusterView) -> Demands:
    """Return what each known VM takes: by the youngest fresh measurement, else by its configured size."""
    found: dict[VmId, tuple[Instant, VmUse]] = {}
    for host in view.heartbeats:
        beat = heard(view, host)
        if beat is None:
            continue
        at = Instant(beat.received_at - beat.uses_age_s)
        if view.now - at > FRESH_S:
            continue
        for use in beat.uses:
            if _sound(use) and (use.vm not in found or found[use.vm][0] < at):
                found[use.vm] = at, use
    return {
        vm: Demand(cpus=found[vm][1].cpus, memory_mib=found[vm][1].memory_mib) if vm in found else configured(doc.spec)
        for vm, doc in view.vms.items()
    }


def configured(vm: VmSpec) -> Demand:
    """Return what a VM takes as far as its definition says."""
    return Demand(cpus=vm.cpus, memory_mib=vm.memory_mib, guessed=frozenset((vm.id,)))


def total(of: Iterable[Demand]) -> Demand:
    """Return what they take together."""
    each = tuple(of)
    return Demand(
        cpus=math.fsum(one.cpus for one in each),
        memory_mib=math.fsum(one.memory_mib for one in each),
        guessed=frozenset().union(*(one.guessed for one in each)),
    )


def _sound(use: VmUse) -> bool:
    """Whether a host's word can be reckoned with at all."""
    return math.isfinite(use.cpus) and use.cpus >= 0 and use.memory_mib >= 0
