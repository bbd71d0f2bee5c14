"""Which host takes a VM: filters first, then a rank; every reason is kept. No healthy VM is ever stopped for room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fangnetz.core.demand import Demands, configured
from fangnetz.core.model import VmSpec
from fangnetz.core.policy import Capacity, Policy
from fangnetz.core.ranking import Ranking, Zones
from fangnetz.core.room import HostRoom
from fangnetz.core.rules import RuleBook, Whereabouts
from fangnetz.core.units import HostId, VmId

NO_BOOK = RuleBook()


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
    running: bool = False,
    demand: Demands | None = None,
    zones: Zones | None = None,
    no_host: str = "no host is online and open for VMs",
) -> tuple[Placed | NotPlaced, ...]:
    """Place VMs, highest priority first, then biggest, then by name; each takes its room before the next is asked.

    `preferred`: the host that wins if the VM fits there; `forbidden`: hosts that may not take it, and why; `where`: for
    `rules`, of VMs that are not placed here, and if those placed are `running`, theirs as well: they are there until
    they have left; `demand`: what VMs really take, to rank by; `zones`: of all hosts. VMs that run together are placed
    as one; if no host has room for all of them, one after the other, and the rest wait.
    """
    wanted = tuple(vms)
    takes = {vm.id: configured(vm) for vm in wanted} | dict(demand or {})
    ranking = Ranking(policy.rank_by, preferred or {}, rules, takes, zones or {})
    return _Placing(
        wanted, rooms, policy, ranking, forbidden or {}, rules, where or {}, running=running, no_host=no_host
    ).place()


class _Placing:
    """One placing: what is put somewhere takes its room, and binds those that are asked after it."""

    def __init__(
        self,
        vms: Iterable[VmSpec],
        rooms: Iterable[HostRoom],
        policy: Policy,
        ranking: Ranking,
        forbidden: Mapping[VmId, Mapping[HostId, str]],
        rules: RuleBook,
        where: Whereabouts,
        *,
        running: bool,
        no_host: str,
    ) -> None:
        self.vms = sorted(vms, key=lambda v: (-v.priority, -v.memory_mib, v.id))
        self.rooms = {room.spec.id: room for room in rooms}
        self.policy, self.forbidden, self.rules, self.no_host = policy, forbidden, rules, no_host
        self.ranking = ranking
        here = frozenset[VmId]() if running else {vm.id for vm in self.vms}
        self.where = {vm: hosts for vm, hosts in where.items() if vm not in here}

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
        best = min(fits, key=lambda room: self.ranking.rank(unit, room, self.where))
        host = best.spec.id
        why = self.ranking.why(unit, best, fits, self.where)
        self.rooms[host] = best.with_more(unit)
        self.where.update({vm.id: self.where.get(vm.id, frozenset()) | {host} for vm in unit})
        because = f"{host}: {why} ({best.free_mib(unit)} MiB free before)"
        return [Placed(vm=vm.id, host=host, reason=because) for vm in unit]
