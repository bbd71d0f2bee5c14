"""The tick: look at the cluster once, decide, write down, dispatch. One instance lives in each controller's process.

Without the control lease it only watches, so that a new holder already knows what it has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from fangnetz.core.actions import (
    Action,
    AdoptOperation,
    Alarm,
    AskPower,
    Decision,
    Define,
    EndOperation,
    ForgetRecord,
    ForgetVm,
    Happened,
    OpenOperation,
    PutHost,
    PutHostDoc,
    PutPause,
    PutVm,
    PutVmDoc,
    Remember,
    RememberProof,
    SettleWish,
)
from fangnetz.core.decide import decide
from fangnetz.core.decide.moves import OPENED_BY_WISH
from fangnetz.core.decide.openings import wished_operation_id
from fangnetz.core.detector import Watch, heard, look, still
from fangnetz.core.errors import StoredContentError
from fangnetz.core.fencing import holds
from fangnetz.core.model import ClusterView, HostSpec, Reports, VmDoc, VmRecord, VmState
from fangnetz.core.operations import Fact, Operation, OperationKind, Step, StepKind, StepState, chain_from, ready_steps
from fangnetz.core.pause import may_be_claimed, to_be_withdrawn
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, Epoch, HostId, Seconds, VmId
from fangnetz.engine.execute import closed_event
from fangnetz.engine.ledger import Ledger
from fangnetz.ports import Dispatcher, Store, WishResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """What a tick tells its caller: whether it was in charge, and when the next one is due at the latest."""

    in_charge: bool
    due_in: Seconds | None
    decision: Decision | None
    """None where nothing had changed since a look that called for nothing."""


LATE_BEAT = 1.25
"""Where no beat has come after so many of its intervals, the alarm clock's tick looks at everything in its place."""
NOT_IN_CHARGE = Ticked(
    in_charge=False, due_in=None, decision=Decision(actions=(), verdicts=(), alarms=(), next_due=None)
)


class Controller:
    """Holds this controller's own observation between ticks. Not thread-safe: its queue has one slot."""

    def __init__(
        self,
        *,
        me: ControllerId,
        store: Store,
        dispatcher: Dispatcher,
        ledger: Ledger,
        hosts: Mapping[HostId, HostSpec],
        declared: Mapping[VmId, VmDoc],
        policy: Policy,
    ) -> None:
        self._me, self._store, self._dispatcher, self._ledger = me, store, dispatcher, ledger
        self._hosts, self._declared, self._policy = hosts, declared, policy
        self._digest = file_digest(hosts, declared, policy)
        self._watch: Watch | None = None
        self._alarms: dict[tuple[str, str], Alarm] | None = None
        self._calm: ClusterView | None = None
        """What it looked at last, if that called for nothing and nothing was under way."""

    def tick(self, *, rung: bool = False) -> Ticked:
        """One look, one decision. StoreUnreachable if the store is away; StaleToken if the lease went elsewhere.

        `rung`: between two beats, for nothing but that silence may have crossed a threshold. Where it has not, nobody
        says anything new, and the last look called for nothing, only reports are read.
        """
        if rung and (due := self._still_calm()) is not None:
            return Ticked(in_charge=True, due_in=due, decision=None)
        self._calm = None
        self._store.meet()
        self._ledger.sync()  # before the lease: who cannot read or write its own files must not stay in charge
        if self._store.take_lease(self._me, self._policy.control_lease_s) is None:
            self._watch_on(self._store.reports(self._hosts, self._me))
            return NOT_IN_CHARGE
        try:
            view = self._store.view(self._hosts, self._me)
        except StoredContentError:
            self._store.drop_lease(self._me)  # a controller that understands it may take over
            raise
        watch = self._watch_on(view)
        lease = view.lease
        if lease is None:
            return NOT_IN_CHARGE
        if view.files.get(self._me) != self._digest:
            view = replace(view, files={**view.files, self._me: self._digest})
        view = self._without_carried_out(view, lease.epoch)
        decision = decide(view, watch, self._policy, self._declared)
        self._apply(decision, view, lease.epoch)
        if not (decision.actions or view.operations or view.wishes):
            self._calm = view
        due = None if decision.next_due is None else Seconds(max(0.0, decision.next_due - view.now))
        if any(_calls_for_a_look(action) for action in decision.actions):
            due = Seconds(0.0)
        return Ticked(in_charge=True, due_in=due, decision=decision)

    def _still_calm(self) -> Seconds | None:
        """Return when silence may cross a threshold next, or None if it is time to look at everything."""
        before = self._calm
        if before is None:
            return None
        reports = self._store.reports(self._hosts, self._me)
        self._watch = look(self._watch, reports, self._policy)
        since = reports.now - before.now
        if reports.life != before.life or not 0.0 <= since < self._policy.tick_s:
            return None  # a beat is missing, or the store is another one
        due = still(before, reports, self._watch, self._policy)
        return None if due is None else Seconds(min(due, LATE_BEAT * self._policy.tick_s - since))

    def _watch_on(self, reports: Reports) -> Watch:
        """Add what was just read to this controller's own observation, and tell the others both of it and its file."""
        self._watch = look(self._watch, reports, self._policy)
        self._store.put_watch(self._me, self._watch)
        if reports.files.get(self._me) != self._digest:
            self._store.put_files(self._me, self._digest)
        return self._watch

    def leave(self) -> None:
        """Give the control lease back; whoever has left has no say in what the cluster file is."""
        self._store.drop_lease(self._me)
        self._store.put_files(self._me, "")

    def sweep(self) -> int:
        """Send on its way again whatever an open operation waits for and nobody holds; return how many chains."""
        if not self._store.unfinished(self._me):
            return 0
        view = self._store.view(self._hosts, self._me)
        if view.lease is None:
            return 0
        sent = 0
        for operation in view.operations.values():
            if operation.epoch != view.lease.epoch:
                self._store.adopt_operation(operation.id, view.lease.epoch)
            sent += self._resume(operation, view)
        self._store.archive()
        return sent

    def _resume(self, operation: Operation, view: ClusterView) -> int:
        now = view.now
        chains: list[tuple[str, ...]] = []
        for step in ready_steps(operation):
            if step.state is StepState.RUNNING and step.lease_until > now:
                continue
            if self._given_up(operation, step, view):
                chains.extend((other.key,) for other in operation.steps if other.kind is StepKind.CLOSE)
                continue
            if view.paused is not None and not may_be_claimed(step):
                continue
            young = now - step.dispatched_at < self._policy.step_lease_s
            if step.not_before <= now and not young:
                chains.append(chain_from(operation, step.key))
        if chains:
            self._send(operation, chains)
        return len(chains)

    def _given_up(self, operation: Operation, step: Step, view: ClusterView) -> bool:
        """Settle an order that can never be carried out any more, or that was not answered in time."""
        order = step.order
        if order is None or step.kind is StepKind.HAND_OVER:  # its VM has been let go, and waits for nobody else
            return False
        followers = chain_from(operation, step.key)[1:]
        void = void_order(step, view) or to_be_withdrawn(step, view)
        if void:
            given = self._store.give_up(operation, step, followers, void, void=True)
            if given and step.kind is StepKind.START:  # it never began to start there: that is no failure of its
                self._store.mark_vm(order.vm, order.generation, VmState.WAITING, void, operation.epoch)
            return given
        if order.deadline >= view.now:
            return False
        sentence = (
            f"{order.host} was asked to start {order.vm} and has not answered within {self._policy.start_bound_s:g} s; "
            f"it may be running there, so it starts nowhere else. It is taken up again when {order.host} answers; "
            "or fence it"
        )
        if step.kind is StepKind.STOP:
            sentence = (
                f"{order.host} was asked to stop {order.vm} and has not answered in time; it may be running there, so "
                f"it starts nowhere else. It is taken up again when {order.host} answers; or fence it"
            )
        if step.kind in (StepKind.PREPARE, StepKind.MIGRATE):
            sentence = (
                f"{order.host} was asked to help move {order.vm} and has not answered within "
                f"{self._policy.start_bound_s:g} s: the move is given up, {order.vm} stays where it runs"
            )
        if step.kind is StepKind.PAUSE:
            sentence = f"{order.host} did not pause {order.vm} within {self._policy.start_bound_s:g} s: {step.sentence}"
        given = self._store.give_up(operation, step, followers, sentence)
        if given:
            kind = _UNANSWERED.get(step.kind, "start_unanswered")
            self._store.log([_event(kind, order.vm, sentence, host=order.host)])
        return given

    # -- carrying a decision out --

    def _without_carried_out(self, view: ClusterView, epoch: Epoch) -> ClusterView:
        """Settle the first wish if a controller that crashed has carried it out already; return the view after it."""
        for wish in view.wishes[:1]:
            identity = wished_operation_id(wish, OPENED_BY_WISH.get(wish.kind, OperationKind.FAILOVER))
            if self._store.operation(identity) is not None:
                sentence = f"{identity} carries it out"
                result = WishResult(id=wish.id, granted=True, sentence=sentence, operation=identity)
                self._store.settle_wish(wish, result, epoch)
                return replace(view, wishes=view.wishes[1:])
        return view

    def _apply(self, decision: Decision, view: ClusterView, epoch: Epoch) -> None:
        events: list[Happened] = []
        for action in decision.actions:
            events.extend(self._act(action, view, epoch))
        events.extend(self._alarm_events(decision.alarms))
        self._store.put_alarms(decision.alarms, epoch)
        self._store.log(events)

    def _act(self, action: Action, view: ClusterView, epoch: Epoch) -> Iterable[Happened]:  # noqa: PLR0912 - one case an action
        match action:
            case PutHost(record=record):
                old = view.host_records.get(record.id)
                done = self._store.put_host(record, old, epoch)
                if done and (old is None or old.state is not record.state):
                    sentence = f"{record.id} is {record.state}: {record.reason}"
                    return [_event("host_state", record.id, sentence, host=record.id, state=record.state.value)]
            case PutVm(record=record, expected=expected):
                before = view.vm_records.get(record.id)
                written = self._store.put_vm(record, expected, epoch)
                if written and (before is None or before.state is not record.state):
                    return _vm_events(record)
            case ForgetVm(vm=vm):
                self._ledger.forget(vm, view.now)
                self._store.forget_vm(vm, epoch)
            case ForgetRecord(vm=vm):
                self._store.forget_vm(vm, epoch)
            case PutVmDoc(doc=doc):
                self._ledger.write([doc], view.now)
            case Define(docs=docs):
                self._ledger.write(docs, view.now)
            case PutHostDoc(doc=host_doc):
                self._ledger.write([host_doc], view.now)
            case PutPause(doc=pause_doc):
                self._ledger.write([pause_doc], view.now)
            case Remember(binding=binding):
                self._ledger.write([binding], view.now)
            case RememberProof(proof=proof):
                self._ledger.write([proof], view.now)
            case AskPower(host=host, devices=devices):
                self._dispatcher.ask_power(host, devices)
            case OpenOperation(operation=operation):
                if self._store.open_operation(operation):
                    self._send(operation, [chain_from(operation, operation.steps[0].key)])
                    sentence = f"{operation.kind} of {operation.subject} begins: {operation.reason}"
                    return [_event("operation_opened", operation.subject, sentence, id=operation.id)]
            case AdoptOperation(id=identity):
                self._store.adopt_operation(identity, epoch)
            case EndOperation(id=identity, state=state, sentence=sentence):
                self._store.end_operation(identity, state, sentence, epoch)
                ended = self._store.operation(identity)
                return [closed_event(ended)] if ended else []
            case SettleWish(wish=wish, granted=granted, sentence=sentence, operation=opened):
                result = WishResult(id=wish.id, granted=granted, sentence=sentence, operation=opened)
                self._store.settle_wish(wish, result, epoch)
                kind = "wish_granted" if granted else "wish_refused"
                noun, verb = wish.kind.value.split("_", 1)  # host_fence, vm_start
                facts: dict[str, Fact] = {"wish": verb, noun: wish.subject}
                return [_event(kind, wish.subject, f"{wish.by}: {sentence}", **facts)]
            case Happened():
                return [action]
        return []

    def _send(self, operation: Operation, chains: Iterable[tuple[str, ...]]) -> None:
        wanted = list(chains)
        self._store.mark_dispatched(operation.id, [key for chain in wanted for key in chain])
        self._dispatcher.dispatch(operation, wanted)

    def _alarm_events(self, alarms: Iterable[Alarm]) -> list[Happened]:
        now = {(alarm.kind, alarm.subject): alarm for alarm in alarms}
        before = self._alarms
        if before is None:
            with suppress(StoredContentError):  # then all of them are news
                before = {(alarm.kind, alarm.subject): alarm for alarm in self._store.alarms()}
            before = before or {}
        self._alarms = now
        news = [
            _event("alarm", alarm.subject, alarm.sentence, what=alarm.kind, highest=alarm.highest)
            for key, alarm in now.items()
            if key not in before
        ]
        held = [
            _event("decided_not_to", alarm.subject, alarm.sentence, **facts)
            for key, alarm in now.items()
            if key not in before and (facts := _decided_not_to(alarm))
        ]
        return [*news, *held] + [
            _event("alarm_over", alarm.subject, f"over: {alarm.sentence}", what=alarm.kind)
            for key, alarm in before.items()
            if key not in now
        ]


def _calls_for_a_look(action: Action) -> bool:
    """Whether what was just written is acted on by the next look: it is not to wait for the next beat."""
    match action:
        case SettleWish(granted=granted):
            return granted
        case PutHostDoc():  # a host that is empty now goes out, or has its VMs back
            return True
        case _:
            return False


def file_digest(hosts: Mapping[HostId, HostSpec], declared: Mapping[VmId, VmDoc], policy: Policy) -> str:
    """Return a short name of what a cluster file says to the decisions: equal files, equal names."""
    told = (sorted(hosts.items()), sorted((vm, replace(doc, xml="")) for vm, doc in declared.items()), policy)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


_OF_ONE_COPY = frozenset({StepKind.STOP, StepKind.PAUSE, StepKind.PREPARE})
"""About one copy of one generation, whatever generation the VM has by now."""
_UNANSWERED = {
    StepKind.STOP: "stop_unanswered",
    StepKind.PAUSE: "pause_unanswered",
    StepKind.PREPARE: "move_unanswered",
    StepKind.MIGRATE: "move_unanswered",
}
_ORDERED = _OF_ONE_COPY | {StepKind.START, StepKind.SEE_RUNNING, StepKind.MIGRATE, StepKind.RESUME}


def void_order(step: Step, view: ClusterView) -> str:
    """Return why a step's order can never be carried out any more, or an empty string.

    Its boot is gone (proven off, or booted anew), or its VM has another generation: every claim of it is refused.
    """
    order = step.order
    if order is None or step.kind not in _ORDERED:
        return ""
    if order.life != view.life.incarnation:
        return "the store has begun a new life since it was ordered"
    beat, host = heard(view, order.host), view.host_records.get(order.host)
    if host is not None and holds(view, host.proof, order.incarnation):
        return f"{order.host} was proven off before it could answer"
    if beat is not None and beat.incarnation != order.incarnation:
        return f"{order.host} has booted anew before it could answer"
    record = view.vm_records.get(order.vm)
    if step.kind not in _OF_ONE_COPY and (record is None or record.generation != order.generation):
        return f"{order.vm} has moved on to another owner meanwhile"
    return ""


def _vm_events(record: VmRecord) -> list[Happened]:
    """Return what is told of a VM whose state has changed."""
    sentence = f"{record.id} is {record.state}: {record.reason}"
    told = [_event("vm_state", record.id, sentence, vm=record.id, state=record.state.value)]
    if record.state is VmState.LOST:
        lost: dict[str, Fact] = {"vm": record.id, "host": record.owner, "generation": record.generation}
        told.append(_event("vm_lost", record.id, sentence, **lost))
    return told


def _decided_not_to(alarm: Alarm) -> dict[str, Fact]:
    """Return what an alarm says is held back, and for whom; empty if it says no such thing."""
    if alarm.kind.startswith("braked_"):
        return {"what": "fence", "host": alarm.subject, "why": alarm.kind.removeprefix("braked_")}
    if alarm.kind == "vm_waiting":
        return {"what": "start", "vm": alarm.subject}
    return {}


def _event(kind: str, subject: str, sentence: str, **facts: Fact) -> Happened:
    return Happened(kind=kind, subject=subject, sentence=sentence, facts=facts)
