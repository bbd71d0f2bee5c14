"""Hosts that are being emptied, and VMs on their way home: which moves begin in this tick, and what is still left.

Asked anew in every tick from what is so: whatever moved by other means has left, and what failed is tried again later.
A VM that does not move stays and runs where it is; nothing else waits for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from fangnetz.core.actions import Action, Alarm, OpenOperation, PutHost, PutHostDoc, PutVm
from fangnetz.core.decide.openings import vm_operation
from fangnetz.core.detector import Verdict, Watch, heard
from fangnetz.core.evacuation import plan_evacuation, vms_on
from fangnetz.core.model import ClusterView, HostDoc, HostState, HypervisorHealth
from fangnetz.core.moving import Move, Stays, plan_moves
from fangnetz.core.operations import Operation, OperationKind, migrate_steps
from fangnetz.core.policy import Policy
from fangnetz.core.rules import RuleBook
from fangnetz.core.units import Epoch, HostId, VmId

_EMPTIED = (HostState.EVACUATING, HostState.ONLINE)
"""Online: in this very tick it becomes the other."""


class Evacuations:
    """The decisions on hosts that are emptied or filled again, in one tick."""

    def __init__(
        self,
        view: ClusterView,
        watch: Watch,
        verdicts: Mapping[HostId, Verdict],
        policy: Policy,
        epoch: Epoch,
        *,
        opened: Iterable[Operation],
        but: Collection[str],
        documented: Collection[HostId],
    ) -> None:
        """`opened`: operations that this tick opens already; `but`: hosts and VMs whose record it changes already;
        `documented`: hosts whose document it writes already: one written over it would lose what it says.
        """
        self.documented = frozenset(documented)
        self.view, self.watch, self.verdicts, self.policy, self.epoch = view, watch, verdicts, policy, epoch
        self.rules = RuleBook.of(view.vms.values())
        operations = [*view.operations.values(), *opened]
        self.busy = {op.subject for op in operations} | set(but)
        self.moving = sum(op.kind is OperationKind.MIGRATE for op in operations)
        self.leaving: Counter[HostId] = Counter()
        self.coming: Counter[HostId] = Counter()
        for op in operations:
            record = view.vm_records.get(VmId(op.subject))
            if op.kind is OperationKind.MIGRATE and record is not None and record.owner is not None:
                self.leaving[record.owner] += 1
                to = record.moving.host if record.moving is not None else op.target
                if to is not None:
                    self.coming[to] += 1
        self.actions: list[Action] = []
        self.alarms: list[Alarm] = []

    def decide(self) -> tuple[list[Action], list[Alarm]]:
        for host, doc in sorted(self.view.host_docs.items()):
            if host not in self.view.hosts or host in self.documented:
                continue
            if doc.evacuate and not doc.maintenance:
                self._empty(host, doc)
            elif doc.failback and not doc.maintenance:
                self._fill(host, doc)
        return self.actions, self.alarms

    # -- emptying --

    def _empty(self, host: HostId, doc: HostDoc) -> None:
        record, verdict = self.view.host_records.get(host), self.verdicts[host]
        if record is None or record.state not in _EMPTIED or not verdict.fresh:
            return  # while it is silent or lost, its failover decides on its VMs
        left = vms_on(host, self.view)
        if not left:
            if (
                record.state is HostState.EVACUATING
                and self._knows_its_vms(host)
                and host not in self.busy
                and not self.coming[host]
            ):
                reason = f"{doc.reason}; every VM has left it"
                self.actions.append(PutHostDoc(doc=replace(doc, maintenance=True, reason=reason)))
            return
        plan = plan_evacuation(host, self.view, self.watch, self.verdicts, self.policy)
        begun = self._begin_all(plan.moves, f"{host} is being emptied: {doc.reason}")
        if begun:
            away = tuple(sorted({*doc.away, *(move.vm for move in begun)} - self._at_home_elsewhere(host)))
            if away != doc.away:
                self.actions.insert(0, PutHostDoc(doc=replace(doc, away=away)))
        self._say_what_is_left(host, doc, left, plan.stays)

    def _at_home_elsewhere(self, host: HostId) -> frozenset[VmId]:
        """Return the VMs that came only because another host was emptied: that one is where they go home to."""
        return frozenset(vm for other in self.view.host_docs.values() if other.id != host for vm in other.away)

    def _knows_its_vms(self, host: HostId) -> bool:
        beat = heard(self.view, host)
        return beat is not None and beat.hypervisor is HypervisorHealth.OK

    def _say_what_is_left(self, host: HostId, doc: HostDoc, left: tuple[VmId, ...], stays: tuple[Stays, ...]) -> None:
        why = {one.vm: one.because for one in stays if one.vm not in self.busy}
        for vm in left:
            record = self.view.vm_records.get(vm)
            if vm not in why and vm not in self.busy and record is not None and self._tried_lately(vm):
                why[vm] = f"its move came to nothing; it is tried again within {self.policy.move_again_s:g} s"
        if why:
            told = "; ".join(f"{vm}: {because}" for vm, because in sorted(why.items()))
            self.alarms.append(
                Alarm(kind="evacuation_waits", subject=host, sentence=f"{host} has {len(left)} left, because {told}")
            )
        known = self.view.host_records[host]
        reason = f"{doc.reason}; {len(left)} left"
        if known.reason != reason and host not in self.busy:
            self.actions.append(PutHost(record=replace(known, reason=reason)))

    # -- filling again --

    def _fill(self, host: HostId, doc: HostDoc) -> None:
        record = self.view.host_records.get(host)
        if record is None or record.state is not HostState.ONLINE or not self.verdicts[host].fresh:
            return
        away = tuple(vm for vm in doc.away if self._is_away(vm, host))
        found = plan_moves(away, self.view, self.watch, self.verdicts, self.policy, target=host)
        self._begin_all((move for move in found if isinstance(move, Move)), f"{host} is back: it goes home")
        for one in found:
            if isinstance(one, Stays) and one.vm not in self.busy:
                sentence = f"{one.vm} cannot go home to {host} yet: {one.because}"
                self.alarms.append(Alarm(kind="failback_waits", subject=one.vm, sentence=sentence))
        if away != doc.away or not away:
            self.actions.insert(0, PutHostDoc(doc=replace(doc, away=away, failback=bool(away))))

    def _is_away(self, vm: VmId, home: HostId) -> bool:
        """Whether it still runs elsewhere: one that was stopped or removed meanwhile has no way home to go."""
        doc, record = self.view.vms.get(vm), self.view.vm_records.get(vm)
        return doc is not None and doc.to_run and record is not None and record.owner not in (None, home)

    # -- moves --

    def _begin_all(self, moves: Iterable[Move], reason: str) -> list[Move]:
        """Open the moves that have their turn, and return them; VMs that run together move at once or not at all."""
        if self.view.paused is not None:
            return []  # and nothing is written that says a move was tried
        units: dict[VmId, list[Move]] = {}
        for move in moves:
            units.setdefault(min(self.rules.group(move.vm)), []).append(move)
        begun: list[Move] = []
        for unit in units.values():
            if self._has_its_turn(unit):
                begun += unit
                for move in unit:
                    self._begin(move, reason)
        return begun

    def _has_its_turn(self, unit: Collection[Move]) -> bool:
        limit = self.policy.moves_per_host_max
        full = any(self.leaving[m.source] >= limit or self.coming[m.target] >= limit for m in unit)
        waits = any(m.vm in self.busy or self._tried_lately(m.vm) for m in unit)
        return not full and not waits and self.moving < self.policy.moves_max

    def _begin(self, move: Move, reason: str) -> None:
        record = self.view.vm_records[move.vm]
        self.busy.add(move.vm)
        self.moving += 1
        self.leaving[move.source] += 1
        self.coming[move.target] += 1
        operation = vm_operation(OperationKind.MIGRATE, move.vm, reason, migrate_steps(), self.view, self.epoch)
        tried = replace(record, tried_at=self.view.now)
        self.actions += [
            PutVm(record=tried, expected=record.generation),
            OpenOperation(operation=replace(operation, target=move.target)),
        ]

    def _tried_lately(self, vm: VmId) -> bool:
        return 0.0 <= self.view.now - self.view.vm_records[vm].tried_at < self.policy.move_again_s
