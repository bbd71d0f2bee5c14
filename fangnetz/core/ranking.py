"""Which of the hosts that fit is best for a VM, and why. Pure; never says whether one fits.

A weight given by rule goes first, then where the VM belongs, then how busy the hosts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fangnetz.core.demand import Demand, Demands, total
from fangnetz.core.model import VmSpec
from fangnetz.core.policy import RankBy
from fangnetz.core.room import HostRoom
from fangnetz.core.rules import RuleBook, Whereabouts
from fangnetz.core.units import HostId, VmId

NAMED_MAX = 3
"""So many VMs are named in a reason, and the others counted."""
Rank = tuple[int, int, float, float, int, str]


class Ranking:
    """`preferred`: where a VM belongs; `demand`: what each VM takes, those that are to be placed among them."""

    def __init__(self, rank_by: RankBy, preferred: Mapping[VmId, HostId], rules: RuleBook, demand: Demands) -> None:
        self._measured = rank_by is RankBy.MEASURED
        self._preferred, self._rules, self._demand = preferred, rules, demand
        self._taken: dict[tuple[HostId, frozenset[VmId]], Demand] = {}

    def rank(self, unit: Sequence[VmSpec], room: HostRoom, where: Whereabouts) -> Rank:
        """Lower is better: the most preferred by rule, then where they belong, then the least busy if that is measured,
        then the emptiest by share of memory, then the fewest VMs, then the name.
        """
        host, after = room.spec.id, room.with_more(unit)
        share = after.memory_used_mib / max(1, room.spec.memory_mib)
        busy = self._busy(unit, room) if self._measured else 0.0
        return (-self._weight(unit, host), -self._at_home(unit, host), busy, round(share, 6), len(room.residents), host)

    def why(self, unit: Sequence[VmSpec], best: HostRoom, fits: Sequence[HostRoom], where: Whereabouts) -> str:
        """Return why the best of them is."""
        host = best.spec.id
        if any(self._weight(unit, room.spec.id) < self._weight(unit, host) for room in fits):
            return "it is preferred by rule"
        if self._at_home(unit, host):
            return "it is where it belongs"
        if self._measured:
            return self._why_measured(unit, best, fits)
        return f"it has the most room of {len(fits)} that fit"

    def _weight(self, unit: Sequence[VmSpec], host: HostId) -> int:
        return sum(self._rules.weight(vm.id, host) for vm in unit)

    def _at_home(self, unit: Sequence[VmSpec], host: HostId) -> int:
        return sum(self._preferred.get(vm.id) == host for vm in unit)

    # -- by what was measured --

    def _busy(self, unit: Sequence[VmSpec], room: HostRoom) -> float:
        """Return the share of the host that would be taken then, to a hundredth: less is noise."""
        new = (self._demand[vm.id] for vm in unit if vm.id not in room.residents)
        return round(total((self._taken_of(room), *new)).share(room.spec), 2)

    def _taken_of(self, room: HostRoom) -> Demand:
        """Return what the VMs on a host take of it; added up once for all that are placed until one goes there."""
        key = room.spec.id, room.residents
        if key not in self._taken:
            self._taken[key] = total(self._demand[vm] for vm in sorted(room.residents) if vm in self._demand)
        return self._taken[key]

    def _why_measured(self, unit: Sequence[VmSpec], best: HostRoom, fits: Sequence[HostRoom]) -> str:
        """Return what was compared, and which VMs counted as configured for want of a measurement."""
        taken, spec = self._taken_of(best), best.spec
        said = (
            f"it is the least busy of {len(fits)} that fit, with {taken.cpus:.1f} of {spec.cpus} cpus and "
            f"{taken.memory_mib:.0f} of {spec.memory_mib} MiB in use"
        )
        guessed = sorted(total((*map(self._taken_of, fits), *(self._demand[vm.id] for vm in unit))).guessed)
        if not guessed:
            return said
        named = ", ".join(guessed[:NAMED_MAX])
        more = f" and {len(guessed) - NAMED_MAX} more" if len(guessed) > NAMED_MAX else ""
        count = "counts" if len(guessed) == 1 else "count"
        return f"{said}; {named}{more} {count} as configured, nothing fresh was measured"
