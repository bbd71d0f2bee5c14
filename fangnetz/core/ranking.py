"""Which of the hosts that fit is best for a VM, and why. Pure; never says whether one fits.

A weight given by rule goes first, then where the VM belongs, then that VMs which run apart are in different zones, then
how busy the hosts are.
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
Zones = Mapping[HostId, str]
Rank = tuple[int, int, int, float, float, int, str]


class Ranking:
    """`preferred`: where a VM belongs; `demand`: what each VM takes, those that are to be placed among them; `zones`:
    of all hosts that have one, also of those that take no VMs now.
    """

    def __init__(
        self, rank_by: RankBy, preferred: Mapping[VmId, HostId], rules: RuleBook, demand: Demands, zones: Zones
    ) -> None:
        self._measured = rank_by is RankBy.MEASURED
        self._preferred, self._rules, self._demand, self._zones = preferred, rules, demand, zones
        self._taken: dict[tuple[HostId, frozenset[VmId]], Demand] = {}

    def rank(self, unit: Sequence[VmSpec], room: HostRoom, where: Whereabouts) -> Rank:
        """Lower is better: the most preferred by rule, then where they belong, then the zone with the fewest of those
        that run apart from them, then the least busy if that is measured, then the emptiest by share of memory, then
        the fewest VMs, then the name.
        """
        host, after = room.spec.id, room.with_more(unit)
        share = after.memory_used_mib / max(1, room.spec.memory_mib)
        busy = self._busy(unit, room) if self._measured else 0.0
        near = len(self._near(unit, room, where)) if self._zones else 0
        weight, home = self._weight(unit, host), self._at_home(unit, host)
        return (-weight, -home, near, busy, round(share, 6), len(room.residents), host)

    def why(self, unit: Sequence[VmSpec], best: HostRoom, fits: Sequence[HostRoom], where: Whereabouts) -> str:
        """Return why the best of them is, and who that runs apart is in its zone all the same."""
        near = self._near(unit, best, where)
        beside = (
            f"; {_named(near)}, which must run apart, {_is(near)} in its zone {best.spec.zone}, too" if near else ""
        )
        return self._why(unit, best, fits, where) + beside

    def _why(self, unit: Sequence[VmSpec], best: HostRoom, fits: Sequence[HostRoom], where: Whereabouts) -> str:
        host = best.spec.id
        if any(self._weight(unit, room.spec.id) < self._weight(unit, host) for room in fits):
            return "it is preferred by rule"
        if self._at_home(unit, host):
            return "it is where it belongs"
        near, elsewhere = self._near(unit, best, where), self._near_any(unit, fits, where)
        if any(len(self._near(unit, room, where)) > len(near) for room in fits):
            zone = f"zone {best.spec.zone}" if best.spec.zone else "no zone"
            return f"it is in {zone}, away from {_named(sorted(elsewhere - set(near)))}"
        if self._measured:
            return self._why_measured(unit, best, fits)
        return f"it has the most room of {len(fits)} that fit"

    def _weight(self, unit: Sequence[VmSpec], host: HostId) -> int:
        return sum(self._rules.weight(vm.id, host) for vm in unit)

    def _at_home(self, unit: Sequence[VmSpec], host: HostId) -> int:
        return sum(self._preferred.get(vm.id) == host for vm in unit)

    # -- by zones --

    def _near(self, unit: Sequence[VmSpec], room: HostRoom, where: Whereabouts) -> list[VmId]:
        """Return those that run apart from the VMs and are, or may be, in the zone of that host, if it has one."""
        zone = room.spec.zone
        if not zone:
            return []
        others = frozenset().union(*(self._rules.apart(vm.id) for vm in unit))
        return sorted(vm for vm in others if any(self._zones.get(host) == zone for host in where.get(vm, ())))

    def _near_any(self, unit: Sequence[VmSpec], rooms: Sequence[HostRoom], where: Whereabouts) -> frozenset[VmId]:
        return frozenset(vm for room in rooms for vm in self._near(unit, room, where))

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
        count = "counts" if len(guessed) == 1 else "count"
        return f"{said}; {_named(guessed)} {count} as configured, nothing fresh was measured"


def _named(vms: Sequence[VmId]) -> str:
    more = f" and {len(vms) - NAMED_MAX} more" if len(vms) > NAMED_MAX else ""
    return ", ".join(vms[:NAMED_MAX]) + more


def _is(vms: Sequence[VmId]) -> str:
    return "is" if len(vms) == 1 else "are"
