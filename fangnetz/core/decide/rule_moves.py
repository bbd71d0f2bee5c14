"""VMs that run where a rule would not put them any more, or away from a host that they are to go back to.

They move while they run, one step at a time, after everything else there is to do. Each move makes what stands written
true of more VMs or gives one a host that it prefers more, so no two of them undo each other. None is stopped for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fangnetz.core.actions import Action, Alarm
from fangnetz.core.decide.pacing import Pace
from fangnetz.core.detector import Verdict, Watch
from fangnetz.core.leaving import leaving
from fangnetz.core.model import ClusterView, HostState, VmState
from fangnetz.core.moving import Move, Stays, place_moves
from fangnetz.core.operations import OperationKind
from fangnetz.core.policy import Policy
from fangnetz.core.rooms import rooms, whereabouts
from fangnetz.core.units import HostId, VmId

_PATIENCE_DOUBLES_MAX = 6
"""After so many moves in a row that came to nothing the wait grows no longer: 64 times `move_again_s`."""

_LAST = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Want:
    """VMs that leave one host together, the hosts that would do, and why. `turn`: the lowest is tried first."""

    vms: tuple[VmId, ...]
    hosts: frozenset[HostId]
    why: str
    must: bool
    """Whether a rule is broken meanwhile: then it is said why they stay."""
    turn: int = 0


def may_call_for_moves(view: ClusterView) -> bool:
    """Whether there are rules, and no host is being recovered: its VMs come first."""
    recovering = any(op.kind is OperationKind.FAILOVER for op in view.operations.values())
    return not recovering and any(doc.spec.rules.say_something for doc in view.vms.values())


class RuleMoves:
    """The decisions on such VMs in one tick; asked only when the tick has nothing else to begin."""

    def __init__(
        self, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy, *, pace: Pace
    ) -> None:
        self.view, self.watch, self.verdicts, self.policy, self.pace = view, watch, verdicts, policy, pace
        self.rules = pace.rules
        self.where = whereabouts(view)

    def decide(self) -> tuple[list[Action], list[Alarm]]:
        wants = self._wants()
        why_not: dict[VmId, str] = {}
        for turn in sorted({want.turn for want in wants}):
            for vm, because in self._begin([want for want in wants if want.turn == turn]).items():
                why_not.setdefault(vm, because)
            if self.pace.begun:
                break
        broken = {vm: want.why for want in wants if want.must for vm in want.vms}
        alarms = [
            Alarm(kind="rule_waits", subject=vm, sentence=f"{broken[vm]}; {vm} cannot be moved: {because}")
            for vm, because in why_not.items()
            if vm in broken and vm not in self.pace.busy
        ]
        return list(self.pace.begun), alarms

    def _begin(self, wants: list[_Want]) -> dict[VmId, str]:
        """Open the moves that can begin now; return why the other VMs cannot be moved."""
        hosts = self.view.hosts.keys()
        banned = {vm: dict.fromkeys(hosts - want.hosts, "") for want in wants for vm in want.vms}
        found = {one.vm: one for one in place_moves(banned, self.view, self.watch, self.verdicts, self.policy)}
        why_not = {one.vm: one.because for one in found.values() if isinstance(one, Stays)}
        for want in wants:
            moves = [one for vm in want.vms if isinstance(one := found[vm], Move)]
            fixed = [move.vm for move in moves if not move.live]
            if fixed:  # it would have to be stopped: nobody asked for that
                told = f"{_and(tuple(fixed))} cannot be moved while it runs (live: false)"
                why_not |= dict.fromkeys(want.vms, f"{told}: `fangnetz vm relocate {fixed[0]}` stops it for that")
            else:
                self.pace.begin_all(moves, want.why)
        return why_not

    # -- who wants to go --

    def _wants(self) -> list[_Want]:
        """Return what is to be tried, the least important first: of two that run apart that one leaves, if it can."""
        wants: list[_Want] = []
        going: set[VmId] = set()
        for unit in self._units():
            for want in self._wants_of(unit, going):
                going.update(want.vms)
                wants.append(want)
        return wants

    def _units(self) -> list[tuple[VmId, ...]]:
        """Return the VMs that some rule names and that run undisturbed, as groups that run together."""
        units = {self.rules.group(vm) for vm in self.rules.bound() if vm in self.view.vms}
        settled = [tuple(sorted(vm for vm in unit if self._runs(vm))) for unit in units if self._undisturbed(unit)]
        return sorted((unit for unit in settled if unit), key=self._importance)

    def _importance(self, unit: tuple[VmId, ...]) -> tuple[int, int, tuple[VmId, ...]]:
        specs = [self.view.vms[vm].spec for vm in unit]
        return max(spec.priority for spec in specs), sum(spec.memory_mib for spec in specs), unit

    def _runs(self, vm: VmId) -> bool:
        record = self.view.vm_records.get(vm)
        return record is not None and record.state is VmState.RUNNING and vm in self.view.vms

    def _undisturbed(self, unit: frozenset[VmId]) -> bool:
        """Whether nothing is under way with any of them, and none was moved by itself too short a while ago."""
        for vm in unit:
            record = self.view.vm_records.get(vm)
            if vm in self.pace.busy or (record is not None and (record.moving is not None or self._rests(vm))):
                return False
            at_rest = (VmState.RUNNING, VmState.STOPPED, VmState.WAITING, VmState.FAILED)
            if record is not None and record.owner is not None and record.state not in at_rest:
                return False
        owners = {self.view.vm_records[vm].owner for vm in unit if self._runs(vm)}
        return all(self._is_online(owner) for owner in owners)

    def _is_online(self, host: HostId | None) -> bool:
        """Whether nothing else is to become of the VMs on that host: it is not emptied, worked on, or going down."""
        if host is None:
            return False
        record, doc = self.view.host_records.get(host), self.view.host_docs.get(host)
        at_work = doc is not None and (doc.maintenance or doc.evacuate)
        goes_down = leaving(self.view, host) is not None
        return record is not None and record.state is HostState.ONLINE and not at_work and not goes_down

    def _rests(self, vm: VmId) -> bool:
        record = self.view.vm_records[vm]
        wait = self.policy.move_again_s * 2.0 ** min(max(record.tries - 1, 0), _PATIENCE_DOUBLES_MAX)
        return 0.0 <= self.view.now - record.tried_at < wait

    def _wants_of(self, unit: tuple[VmId, ...], going: set[VmId]) -> Iterator[_Want]:
        owners = {vm: owner for vm in unit if (owner := self.view.vm_records[vm].owner) is not None}
        hosts = set(owners.values())
        if len(hosts) > 1:
            yield from self._joined(unit, owners)
            return
        (host,) = hosts
        broken = self.rules.why_not(unit, host, self.where)
        if broken:
            stays = {vm: on for vm, on in self.where.items() if vm not in going}
            turn = 0 if self.rules.why_not(unit, host, stays) else 1
            others = frozenset(self.view.hosts) - {host}
            yield _Want(vms=unit, hosts=others, why=broken, must=True, turn=turn)
        elif self._goes_back(unit):
            weight = self._weight(unit, host)
            open_ones = {room.spec.id for room in rooms(self.view, self.verdicts)}
            better = frozenset(other for other in open_ones - {host} if self._weight(unit, other) > weight)
            if better:
                why = f"{_and(unit)} {'goes' if len(unit) == 1 else 'go'} back to a host that is preferred to {host}"
                yield _Want(vms=unit, hosts=better, why=why, must=False, turn=_LAST)

    def _joined(self, unit: tuple[VmId, ...], owners: Mapping[VmId, HostId]) -> Iterator[_Want]:
        """Yield the ways to bring a group onto one of the hosts where it runs, the best first."""
        count = {host: list(owners.values()).count(host) for host in set(owners.values())}
        best = sorted(count, key=lambda host: (-self._weight(unit, host), -count[host], host))
        for turn, host in enumerate(best):
            movers = tuple(vm for vm in unit if owners[vm] != host)
            why = f"{_and(unit)} are to run together, and run on {_and(tuple(sorted(count)))}"
            yield _Want(vms=movers, hosts=frozenset((host,)), why=why, must=True, turn=turn)

    def _goes_back(self, unit: tuple[VmId, ...]) -> bool:
        """Whether those of them that prefer a host at all are to go back to it; not while they end by themselves.

        A VM that ended too often on the host it prefers was started elsewhere for that.
        """
        if any(self.view.vm_records[vm].failures for vm in unit):
            return False
        choosy = [vm for vm in unit if self.rules.prefers(vm)]
        return bool(choosy) and all(self.rules.fails_back(vm, self.policy.failback) for vm in choosy)

    def _weight(self, unit: tuple[VmId, ...], host: HostId) -> int:
        return sum(self.rules.weight(vm, host) for vm in unit)


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(names)
