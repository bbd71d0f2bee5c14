"""Moves that the cluster begins by itself: how many at once, which of them now, and none of the same VM in a row.

An operator's move asks nobody here; it only counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

from fangnetz.core.actions import Action, OpenOperation, PutVm
from fangnetz.core.decide.openings import order_to, stops_under_way, vm_operation
from fangnetz.core.leaving import STOPS_PER_HOST_MAX
from fangnetz.core.model import ClusterView, VmState
from fangnetz.core.moving import Move
from fangnetz.core.operations import Operation, OperationKind, StepKind, migrate_steps, stop_steps
from fangnetz.core.ownership import newer_than_shown
from fangnetz.core.policy import Policy
from fangnetz.core.rules import RuleBook
from fangnetz.core.units import Epoch, Generation, HostId, VmId

MOVES = frozenset({OperationKind.MIGRATE, OperationKind.RELOCATE})


class Pace:
    """The moves under way in one tick, and room for more of them."""

    def __init__(
        self, view: ClusterView, policy: Policy, epoch: Epoch, *, opened: Iterable[Operation], but: Collection[str]
    ) -> None:
        """`opened`: operations that this tick opens already; `but`: hosts and VMs whose record it changes already."""
        self.view, self.policy, self.epoch = view, policy, epoch
        self.rules = RuleBook.of(view.vms.values())
        operations = [*view.operations.values(), *opened]
        self.busy = {op.subject for op in operations} | set(but)
        self.on_the_way = {op.subject for op in operations if op.kind in MOVES}
        self.moving = len(self.on_the_way)
        self.awaited = {
            step.order.host
            for op in operations
            if op.kind in MOVES
            for step in (*op.of_kind(StepKind.MIGRATE), *op.of_kind(StepKind.STOP))
            if step.order is not None
        }
        """Hosts that a VM leaves which nobody has seen running elsewhere yet, or which may come back: none is in
        maintenance so soon."""
        self.unclear = any(
            newer_than_shown(view, record)
            for op in operations
            if op.kind in MOVES and (record := view.vm_records.get(VmId(op.subject))) is not None
        )
        """Whether a VM has just been given away by a move of which this look does not show yet from where."""
        self.leaving: Counter[HostId] = Counter()
        self.coming: Counter[HostId] = Counter()
        for op in operations:
            record = view.vm_records.get(VmId(op.subject))
            if op.kind not in MOVES or record is None or record.owner is None:
                continue
            if op.of_kind(StepKind.START):  # stopped and given away: it comes to whoever owns it now
                self.coming[record.owner] += 1
                continue
            self.leaving[record.owner] += 1
            to = record.moving.host if record.moving is not None else op.target
            if to is not None:
                self.coming[to] += 1
        self.stopping = stops_under_way(operations)
        self.begun: list[Action] = []
        """What opens the moves and stops that were begun here."""

    def begin_all(self, moves: Iterable[Move], reason: str) -> list[Move]:
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

    def begin_stop(self, vm: VmId, reason: str, *, kept: bool, again: bool) -> bool:
        """Open the stop of one VM on its own host if it has its turn, and say whether it had. `kept`: it is to start
        again with that host, whoever has that one come back; `again`: an earlier stop of it came to nothing.
        """
        record = self.view.vm_records[vm]
        host, generation = record.owner, record.generation
        if self.view.paused is not None or host is None or vm in self.busy or self.tried_lately(vm):
            return False
        order = order_to(self.view, vm, host, generation, self.policy.stop_bound_s + self.policy.start_bound_s)
        if order is None or self.stopping[host] >= STOPS_PER_HOST_MAX:
            return False
        self.busy.add(vm)
        self.stopping[host] += 1
        now = self.view.now
        stopping = replace(record, state=VmState.STOPPING, since=now, reason=reason, tried_at=now,
                           tries=record.tries + 1 if again else 0,
                           kept=generation if kept else Generation(0))  # fmt: skip
        self.begun += [
            PutVm(record=stopping, expected=generation),
            OpenOperation(
                operation=vm_operation(OperationKind.STOP, vm, reason, stop_steps(order), self.view, self.epoch)
            ),
        ]
        return True

    def tried_lately(self, vm: VmId) -> bool:
        """Whether a move of it, or its stop, began a short while ago, whatever became of that."""
        return 0.0 <= self.view.now - self.view.vm_records[vm].tried_at < self.policy.move_again_s

    def _has_its_turn(self, unit: Collection[Move]) -> bool:
        limit = self.policy.moves_per_host_max
        full = any(self.leaving[m.source] >= limit or self.coming[m.target] >= limit for m in unit)
        waits = any(m.vm in self.busy or self.tried_lately(m.vm) for m in unit)
        return not full and not waits and self.moving < self.policy.moves_max

    def _begin(self, move: Move, reason: str) -> None:
        record = self.view.vm_records[move.vm]
        self.busy.add(move.vm)
        self.moving += 1
        self.leaving[move.source] += 1
        self.coming[move.target] += 1
        kind = OperationKind.MIGRATE if move.live else OperationKind.RELOCATE
        operation = vm_operation(kind, move.vm, reason, migrate_steps(), self.view, self.epoch)
        tried = replace(record, tried_at=self.view.now, tries=record.tries + 1)
        self.begun += [
            PutVm(record=tried, expected=record.generation),
            OpenOperation(operation=replace(operation, target=move.target)),
        ]
