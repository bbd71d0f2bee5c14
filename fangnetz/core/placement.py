"""Which host takes a VM: filters first, then a rank; every reason is kept. No healthy VM is ever stopped for room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fangnetz.core.demand import Demand, Demands, configured, total
from fangnetz.core.model import HostSpec, VmSpec
from fangnetz.core.policy import Capacity, Policy, RankBy
from fangnetz.core.rules import RuleBook, Whereabouts
from fangnetz.core.units import HostId, VmId

NO_BOOK = RuleBook()
NAMED_MAX = 3
"""So many VMs are named in a reason, and the others counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoom:
    """A host that may take VMs, with what is already promised to others on it."""

    spec: HostSpec
    memory_used_mib: int
    cpus_used: int
    residents: frozenset[VmId] = frozenset()
    """The VMs that memory and cpus are promised to: one of them takes no more if it is put there."""

    def free_mib(self, unit: Sequence[VmSpec]) -> int:
        """Return the memory that is left beside these VMs' own share; the same way `free_cpus`."""
        own = sum(vm.memory_mib for vm in unit if vm.id in self.residents)
        return self.spec.memory_mib - self.memory_used_mib + own

    def free_cpus(self, unit: Sequence[VmSpec], overcommit: float) -> float:
        own = sum(vm.cpus for vm in unit if vm.id in self.residents)
        return self.spec.cpus * overcommit - self.cpus_used + own

    def with_more(self, unit: Sequence[VmSpec]) -> HostRoom:
        """Return this room once these VMs are there."""
        new = [vm for vm in unit if vm.id not in self.residents]
        return replace(
            self,
            memory_used_mib=self.memory_used_mib + sum(vm.memory_mib for vm in new),
            cpus_used=self.cpus_used + sum(vm.cpus for vm in new),
            residents=self.residents | {vm.id for vm in new},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    vm: VmId
    host: HostId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPlaced:
    vm: VmId
    reason: str


def place(
    vms: Iterable[VmSpec],
    rooms: Iterable[HostRoom],
    policy: Policy,
    *,
    preferred: Mapping[VmId, HostId] | None = None,
    forbidden: Mapping[VmId, Mapping[HostId, str]] | None = None,
    rules: RuleBook = NO_BOOK,
    where: Whereabouts | None = None,
    demand: Demands | None = None,
    no_host: str = "no host is online and open for VMs",
) -> tuple[Placed | NotPlaced, ...]:
    """Place VMs, highest priority first, then biggest, then by name; each takes its room before the next is asked.

    `preferred`: the host that wins if the VM fits there; `forbidden`: hosts that may not take it, and why; `where`: of
    VMs that are not placed here, for `rules`; `demand`: what VMs really take, to rank by. VMs that run together are placed as one; if no host has room for all of
    them, one after the other, and the rest wait.
    """
    placing = _Placing(vms, rooms, policy, preferred or {}, forbidden or {}, rules, where or {}, demand or {}, no_host)
    return placing.place()


class _Placing:
    """One placing: what is put somewhere takes its room, and binds those that are asked after it."""

    def __init__(
        self,
        vms: Iterable[VmSpec],
        rooms: Iterable[HostRoom],
        policy: Policy,
        preferred: Mapping[VmId, HostId],
        forbidden: Mapping[VmId, Mapping[HostId, str]],
        rules: RuleBook,
        where: Whereabouts,
        demand: Demands,
        no_host: str,
    ) -> None:
        self.vms = sorted(vms, key=lambda v: (-v.priority, -v.memory_mib, v.id))
        self.rooms = {room.spec.id: room for room in rooms}
        self.policy, self.preferred, self.forbidden = policy, preferred, forbidden
        self.rules, self.no_host = rules, no_host
        here = {vm.id for vm in self.vms}
        self.where = {vm: hosts for vm, hosts in where.items() if vm not in here}
        self.measured = policy.rank_by is RankBy.MEASURED
        self.demand = {vm.id: configured(vm) for vm in self.vms} | dict(demand)
        self.taken: dict[HostId, Demand] = {}

    def place(self) -> tuple[Placed | NotPlaced, ...]:
        results: list[Placed | NotPlaced] = []
        for unit in self._units():
            fits, reasons = self._fitting(unit)
            if fits or len(unit) == 1:
                results.extend(self._put(unit, fits, reasons))
                continue
            for vm in unit:
                fits, reasons = self._fitting([vm])
                results.extend(self._put([vm], fits, reasons))
        return tuple(results)

    def _units(self) -> list[list[VmSpec]]:
        """Return the VMs as groups that run together, in the order of the first of each."""
        found: dict[VmId, list[VmSpec]] = {}
        for vm in self.vms:
            found.setdefault(min(self.rules.group(vm.id)), []).append(vm)
        return list(found.values())

    def _fitting(self, unit: Sequence[VmSpec]) -> tuple[list[HostRoom], list[str]]:
        fits: list[HostRoom] = []
        reasons: list[str] = []
        for host, room in self.rooms.items():
            banned = next((why[host] for vm in unit if host in (why := self.forbidden.get(vm.id, {}))), None)
            if banned is None:
                banned = self.rules.why_not([vm.id for vm in unit], host, self.where) or self._misfit(unit, room)
                if not banned:
                    fits.append(room)
                    continue
            reasons.append(banned)
        return fits, reasons

    def _misfit(self, unit: Sequence[VmSpec], room: HostRoom) -> str:
        """Return why the VMs do not fit there, or an empty string."""
        if self.policy.capacity is Capacity.RANK:
            return ""
        who, many = (unit[0].id, "needs") if len(unit) == 1 else (" and ".join(vm.id for vm in unit), "need")
        memory, cpus = sum(vm.memory_mib for vm in unit), sum(vm.cpus for vm in unit)
        free = room.free_mib(unit)
        if memory > free:
            return f"{room.spec.id} has {free} MiB free of {room.spec.memory_mib}, {who} {many} {memory}"
        left = room.free_cpus(unit, self.policy.cpu_overcommit)
        if cpus > left:
            whole = room.spec.cpus * self.policy.cpu_overcommit
            return f"{room.spec.id} has {left:g} of {whole:g} cpus left, {who} {many} {cpus}"
        return ""

    def _put(self, unit: Sequence[VmSpec], fits: list[HostRoom], reasons: list[str]) -> list[Placed | NotPlaced]:
        if not fits:
            return [NotPlaced(vm=vm.id, reason="; ".join(dict.fromkeys(reasons)) or self.no_host) for vm in unit]
        best = min(fits, key=lambda room: self._rank(unit, room))
        host = best.spec.id
        why = self._why(unit, best, fits)
        self.rooms[host] = best.with_more(unit)
        self.taken.pop(host, None)
        self.where.update(dict.fromkeys((vm.id for vm in unit), frozenset((host,))))
        because = f"{host}: {why} ({best.free_mib(unit)} MiB free before)"
        return [Placed(vm=vm.id, host=host, reason=because) for vm in unit]

    def _rank(self, unit: Sequence[VmSpec], room: HostRoom) -> tuple[int, int, float, float, int, str]:
        """Lower is better: the most preferred by rule, then where they belong, then the least busy if that is measured,
        then the emptiest by share of memory, then the fewest VMs, then the name.
        """
        host, after = room.spec.id, room.with_more(unit)
        share = after.memory_used_mib / max(1, room.spec.memory_mib)
        busy = self._busy(unit, room) if self.measured else 0.0
        return (-self._weight(unit, host), -self._at_home(unit, host), busy, round(share, 6), len(room.residents), host)

    def _busy(self, unit: Sequence[VmSpec], room: HostRoom) -> float:
        """Return the share of the host that would be taken then, to a hundredth: less is noise."""
        new = (self.demand[vm.id] for vm in unit if vm.id not in room.residents)
        return round(total((self._taken(room), *new)).share(room.spec), 2)

    def _taken(self, room: HostRoom) -> Demand:
        """Return what the VMs on a host take of it; added up once for all that are placed until one goes there."""
        host = room.spec.id
        if host not in self.taken:
            self.taken[host] = total(self.demand[vm] for vm in sorted(room.residents) if vm in self.demand)
        return self.taken[host]

    def _weight(self, unit: Sequence[VmSpec], host: HostId) -> int:
        return sum(self.rules.weight(vm.id, host) for vm in unit)

    def _at_home(self, unit: Sequence[VmSpec], host: HostId) -> int:
        return sum(self.preferred.get(vm.id) == host for vm in unit)

    def _why(self, unit: Sequence[VmSpec], best: HostRoom, fits: list[HostRoom]) -> str:
        host = best.spec.id
        if any(self._weight(unit, room.spec.id) < self._weight(unit, host) for room in fits):
            return "it is preferred by rule"
        if self._at_home(unit, host):
            return "it is where it belongs"
        if self.measured:
            return self._why_measured(unit, best, fits)
        return f"it has the most room of {len(fits)} that fit"

    def _why_measured(self, unit: Sequence[VmSpec], best: HostRoom, fits: list[HostRoom]) -> str:
        """Return what was compared, and which VMs counted as configured for want of a measurement."""
        taken, spec = self._taken(best), best.spec
        said = (
            f"it is the least busy of {len(fits)} that fit, with {taken.cpus:.1f} of {spec.cpus} cpus and "
            f"{taken.memory_mib:.0f} of {spec.memory_mib} MiB in use"
        )
        guessed = sorted(total((*map(self._taken, fits), *(self.demand[vm.id] for vm in unit))).guessed)
        if not guessed:
            return said
        named = ", ".join(guessed[:NAMED_MAX])
        more = f" and {len(guessed) - NAMED_MAX} more" if len(guessed) > NAMED_MAX else ""
        count = "counts" if len(guessed) == 1 else "count"
        return f"{said}; {named}{more} {count} as configured, nothing fresh was measured"
