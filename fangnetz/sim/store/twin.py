"""The store as one client has it: `ports.Store` and `ports.Operators`, each call one or a few trips to the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from fangnetz.core.actions import Alarm, Happened
from fangnetz.core.convergence import Progress
from fangnetz.core.detector import Watch
from fangnetz.core.errors import StaleToken, StoreUnreachable
from fangnetz.core.model import (
    ClusterView,
    ControlLease,
    Heartbeat,
    HostRecord,
    HostSpec,
    PowerReading,
    ProbeRound,
    Reports,
    StoreLife,
    VmDoc,
    VmRecord,
    VmState,
    Wish,
)
from fangnetz.core.operations import Operation, OperationState, Outcome, Step, StepState
from fangnetz.core.roll.values import Roll
from fangnetz.core.units import (
    ControllerId,
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    Seconds,
    VmId,
)
from fangnetz.ports import Assign, Claim, LedgerEntry, LoggedEvent, NotClaimed, WishResult
from fangnetz.sim.store import journal, life, look, records, reports
from fangnetz.sim.store.server import NotConfirmed

T = TypeVar("T")


class Line(Protocol):
    """A client's way to the server. StoreUnreachable if no answer came: then it may or may not have been done."""

    def __call__(self, script: Callable[..., T], *args: Any, confirmed: bool = False) -> T:
        """Run `script(memory, *args)` in one atomic step. `confirmed`: replicas must have it where there are any."""
        ...


class StoreTwin:
    """One process's handle. Keeps no more than the real one: the highest epoch and the latest instant it saw."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._epoch_seen = Epoch(0)
        self._clock_seen = Instant(0.0)

    def now(self) -> Instant:
        return self._line(life.now)

    # -- life and lease --

    def meet(self) -> StoreLife:
        return self._line(life.meet, self._clock_seen)

    def take_lease(self, controller: ControllerId, ttl: Seconds) -> ControlLease | None:
        lease: ControlLease | None = self._line(life.take_lease, controller, ttl, self._epoch_seen, confirmed=True)
        if lease is not None:
            self._epoch_seen = max(self._epoch_seen, lease.epoch)
        return lease

    def drop_lease(self, controller: ControllerId) -> None:
        self._line(life.drop_lease, controller)

    def control_lease(self) -> ControlLease | None:
        return self._line(life.control_lease)

    # -- the view --

    def view(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId | None) -> ClusterView:
        under_way: look.UnderWay = self._line(look.operations_reading)
        first: look.First = self._line(look.first_reading, hosts)
        if first.life != under_way[0]:
            return self.view(hosts, controller)
        outside = sorted(doc.id for doc in first.docs.hosts.values() if doc.incarnation and doc.id not in hosts)
        second: look.Second = self._line(look.second_reading, first, outside, controller)
        owners = sorted({r.owner for r in second[1].values() if r.owner is not None} - {*hosts, *outside})
        strangers: look.Hosts = self._line(look.hosts_reading, owners) if owners else ({}, {}, {})
        self._clock_seen = max(self._clock_seen, first.now)
        return look.together(hosts, controller, first, second, strangers, under_way[1])

    def reports(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId) -> Reports:
        reports = self._line(look.reports_reading, hosts, controller)
        self._clock_seen = max(self._clock_seen, reports.now)
        return reports

    def unfinished(self, controller: ControllerId) -> bool:
        return self._line(life.unfinished, controller)

    # -- observation --

    def put_watch(self, controller: ControllerId, watch: Watch) -> None:
        self._line(reports.put_watch, controller, watch)

    def holder_watch(self) -> Watch | None:
        return self._line(reports.holder_watch)

    def put_files(self, controller: ControllerId, digest: str) -> None:
        self._line(reports.put_files, controller, digest)

    def put_heartbeat(self, beat: Heartbeat) -> Instant:
        at: Instant | None = self._line(reports.put_heartbeat, beat)
        if at is None:
            raise StaleToken(
                f"{beat.host} was reported by a later boot already: does another machine carry its FANGNETZ_HOST?"
            )
        return at

    def put_probe_round(self, probe: ProbeRound) -> None:
        self._line(reports.put_probe_round, probe)

    def put_reading(self, reading: PowerReading) -> None:
        self._line(reports.put_reading, reading)

    # -- records --

    def put_host(self, record: HostRecord, expected: HostRecord | None, epoch: Epoch) -> bool:
        return self._line(records.put_host, record, expected, epoch)

    def put_vm(self, record: VmRecord, expected: Generation | None, epoch: Epoch) -> bool:
        return self._line(records.put_vm, record, expected, epoch)

    def mark_vm(self, vm: VmId, generation: Generation, state: VmState, reason: str, epoch: Epoch) -> bool:
        return self._line(records.mark_vm, vm, generation, state, reason, epoch)

    def forget_vm(self, vm: VmId, epoch: Epoch) -> None:
        self._line(records.forget_vm, vm, epoch)

    def put_alarms(self, alarms: Sequence[Alarm], epoch: Epoch) -> None:
        self._line(records.put_alarms, alarms, epoch)

    def alarms(self) -> tuple[Alarm, ...]:
        return self._line(records.alarms)

    # -- ledger --

    def ledger(self, known: int) -> tuple[int, tuple[LedgerEntry, ...]] | None:
        return self._line(records.ledger, known)

    def put_ledger(self, entries: Sequence[LedgerEntry]) -> None:
        if entries:
            self._line(records.put_ledger, entries)

    def definition(self, vm: VmId) -> VmDoc | None:
        return self._line(records.definition, vm)

    # -- wishes and events --

    def add_wish(self, wish: Wish) -> None:
        self._line(records.add_wish, wish)

    def wishes_waiting(self) -> int:
        return self._line(records.wishes_waiting)

    def settle_wish(self, wish: Wish, result: WishResult, epoch: Epoch) -> None:
        self._line(records.settle_wish, wish, result, epoch)

    def wish_result(self, identity: str) -> WishResult | None:
        return self._line(records.wish_result, identity)

    def roll(self) -> Roll | None:
        return self._line(records.roll)

    def put_roll(self, roll: Roll, expected: Roll | None) -> bool:
        return self._line(records.put_roll, roll, expected, confirmed=True)

    def drop_roll(self) -> None:
        self._line(records.drop_roll)

    def log(self, events: Sequence[Happened]) -> None:
        if events:
            self._line(records.log, events)

    def events(self, after: str, limit: int, block: Seconds) -> tuple[LoggedEvent, ...]:
        return self._line(records.events, after, limit)

    # -- journal --

    def operation(self, identity: OperationId) -> Operation | None:
        return self._line(journal.operation, identity)

    def operations(self, limit: int) -> tuple[Operation, ...]:
        return self._line(journal.operations, limit)

    def open_operation(self, operation: Operation) -> bool:
        return self._line(journal.open_operation, operation)

    def claim(
        self, identity: OperationId, key: str, *, token: str, executor: str, incarnation: Incarnation, lease: Seconds
    ) -> Claim | NotClaimed:
        answer: tuple[Claim | NotClaimed, StepState]
        try:
            answer = self._line(journal.claim, identity, key, token, executor, incarnation, lease, confirmed=True)
        except NotConfirmed as unconfirmed:
            self._unclaim(identity, key, token, unconfirmed.answer)
            raise
        return answer[0]

    def _unclaim(self, identity: OperationId, key: str, token: str, answer: Any) -> None:
        """Give a claim back that nobody was granted: it was no attempt. Where that fails, it stays counted as one."""
        if isinstance(answer, tuple) and isinstance(answer[0], Claim):
            with suppress(StoreUnreachable):
                self._line(journal.unclaim, identity, key, token, answer[1])

    def renew(self, claim: Claim, lease: Seconds, progress: Progress | None = None, *, begins: bool = False) -> Instant:
        return self._line(journal.renew, claim, lease, progress, begins, confirmed=True)

    def settle(self, claim: Claim, outcome: Outcome, assigns: Sequence[Assign] = (), placements: int = 0) -> Operation:
        return self._line(journal.settle, claim, outcome, assigns, placements)

    def give_up(
        self, operation: Operation, step: Step, skips: Sequence[str], sentence: str, *, void: bool = False
    ) -> bool:
        facts = {**step.facts, **({"superseded": True} if void else {})}
        return self._line(journal.give_up, operation.id, operation.epoch, step.key, skips, sentence, facts, void)

    def mark_dispatched(self, identity: OperationId, keys: Sequence[str]) -> None:
        if keys:
            self._line(journal.mark_dispatched, identity, keys)

    def adopt_operation(self, identity: OperationId, epoch: Epoch) -> None:
        self._line(journal.adopt_operation, identity, epoch)

    def end_operation(self, identity: OperationId, state: OperationState, sentence: str, epoch: Epoch) -> None:
        self._line(journal.end_operation, identity, state, sentence, epoch)

    def archive(self) -> None:
        self._line(journal.archive)
