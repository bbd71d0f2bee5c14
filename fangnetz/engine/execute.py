"""Carry out one step: claim its line, keep the lease alive, do the effect, settle, hand on. The same for every step.

A message is only a doorbell: what arrives late, twice or out of order finds its line settled, leased or refused.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fangnetz.core.actions import Happened
from fangnetz.core.errors import Conflict, StaleToken, StoreUnreachable, WorldError
from fangnetz.core.operations import (
    Operation,
    OperationState,
    Outcome,
    Step,
    StepKind,
    StepState,
    handed_on,
    is_ready,
)
from fangnetz.core.policy import Policy
from fangnetz.core.units import Incarnation, Instant, OperationId, Seconds
from fangnetz.engine.faults import point
from fangnetz.ports import Assign, Claim, Clock, Dispatcher, Journal

PLAN_TRIES_MAX = 20
"""A plan that others overtook is made anew so many times in one claim."""
PLAN_PAUSE_S = 0.02
"""Up to so long before the next try, by chance, so that two planners do not run in step."""


class Next(StrEnum):
    """What the task that carried the message should do."""

    GO_ON = "go_on"
    """The next link of the chain may run."""
    AGAIN = "again"
    """Come back after `wait_s`."""
    STOP = "stop"
    """The rest of this chain is not wanted; the journal says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    next: Next
    sentence: str
    wait_s: Seconds = Seconds(0.0)


@dataclass(slots=True)
class Settlement:
    """What an effect hands back: the outcome, the VMs it assigns, and what to log."""

    outcome: Outcome
    assigns: Sequence[Assign] = ()
    placements: int = 0
    events: Sequence[Happened] = ()
    after: Callable[[], None] | None = None
    """Runs once the outcome is written."""


@dataclass(slots=True)
class Context:
    """One claimed step in the hands of its executor."""

    claim: Claim
    journal: Journal
    policy: Policy
    clock: Clock
    lost: threading.Event = field(default_factory=threading.Event)
    _until: float = 0.0

    @property
    def operation(self) -> Operation:
        return self.claim.operation

    @property
    def step(self) -> Step:
        return self.claim.step

    def renew(self) -> Instant:
        """Extend the lease, counting from before the question was sent. StaleToken if we are no longer in charge."""
        before = self.clock.monotonic()
        until = self.journal.renew(self.claim, self.policy.step_lease_s)
        self._until = before + self.policy.step_lease_s
        return until

    def guard(self) -> None:
        """Ask right before an effect: the store still wants it, and our own deadline has not passed."""
        if self.lost.is_set():
            raise StaleToken(f"{self.operation.id} {self.step.key}: its lease was lost")
        self.renew()
        if self.clock.monotonic() >= self._until:
            raise StaleToken(f"{self.operation.id} {self.step.key}: the answer came after the lease's end")


Effect = Callable[[Context], Settlement]


class Executor:
    """Carries out steps of the kinds it has effects for."""

    def __init__(
        self,
        *,
        name: str,
        journal: Journal,
        dispatcher: Dispatcher,
        clock: Clock,
        policy: Policy,
        effects: Mapping[StepKind, Effect],
        incarnation: Incarnation = Incarnation(""),
    ) -> None:
        self._name, self._journal, self._dispatcher = name, journal, dispatcher
        self._clock, self._policy, self._effects = clock, policy, effects
        self._incarnation = incarnation
        self.in_hand: set[str] = set()
        """`<operation>/<step>` of everything being carried out now."""

    def carry_out(self, identity: OperationId, key: str, kind: StepKind) -> Done:
        """Claim and do one step. Never raises for a world that says no: that is an outcome."""
        operation = self._journal.operation(identity)
        step = operation.step(key) if operation else None
        if operation is None or step is None or step.kind is not kind:
            return Done(next=Next.STOP, sentence=f"the journal holds no {kind} {identity} {key}: nothing is done")
        if step.settled:
            ahead = step.state in (StepState.DONE, StepState.SKIPPED)
            return Done(next=Next.GO_ON if ahead else Next.STOP, sentence=f"{identity} {key} is {step.state} already")
        if not is_ready(operation, step):
            return Done(next=Next.STOP, sentence=f"{identity} {key} waits for {', '.join(step.after)}")
        token = uuid.uuid4().hex
        claim = self._journal.claim(
            identity,
            key,
            token=token,
            executor=self._name,
            incarnation=self._incarnation,
            lease=self._policy.step_lease_s,
        )
        if not isinstance(claim, Claim):
            if claim.code == "later":
                return Done(next=Next.AGAIN, sentence=claim.sentence, wait_s=Seconds(claim.wait_s + 0.02))
            return Done(next=Next.STOP, sentence=claim.sentence)
        point("step.claimed")
        context = Context(claim=claim, journal=self._journal, policy=self._policy, clock=self._clock)
        hand = f"{identity}/{key}"
        self.in_hand.add(hand)
        keeper = LeaseKeeper(context)
        keeper.start()
        try:
            return self._effect(context)
        except StaleToken as stale:
            return Done(next=Next.STOP, sentence=str(stale))
        except StoreUnreachable as away:
            return Done(next=Next.STOP, sentence=f"{identity} {key}: {away}; the sweep takes it up again")
        finally:
            keeper.stop()
            self.in_hand.discard(hand)

    def _effect(self, context: Context) -> Done:
        effect = self._effects[context.step.kind]
        for _ in range(PLAN_TRIES_MAX):
            try:
                settlement = effect(context)
            except StoreUnreachable:
                raise
            except WorldError as error:
                settlement = Settlement(Outcome(state=StepState.READY, sentence=str(error), retry_after_s=Seconds(0.5)))
            try:
                return self._settle(context, settlement)
            except Conflict:
                context.clock.sleep(Seconds(PLAN_PAUSE_S * random.random()))
        return Done(next=Next.STOP, sentence=f"{context.operation.id} {context.step.key}: the world changes too fast")

    def _settle(self, context: Context, settlement: Settlement) -> Done:
        outcome = settlement.outcome
        point("step.before_settle")
        operation = self._journal.settle(context.claim, outcome, settlement.assigns, settlement.placements)
        point("step.settled")
        events = list(settlement.events)
        if outcome.closes is not None:
            events.append(closed_event(operation))
        self._journal.log(events)
        if settlement.after is not None:
            settlement.after()
        if outcome.state is StepState.READY:
            return Done(next=Next.AGAIN, sentence=outcome.sentence, wait_s=Seconds(outcome.retry_after_s + 0.02))
        if operation.state is OperationState.OPEN:
            chains = handed_on(operation, context.step.key, [step.key for step in outcome.adds])
            if chains:
                self._dispatcher.dispatch(operation, chains)
        else:
            self._dispatcher.nudge()
        forward = outcome.state is StepState.DONE and outcome.closes is None
        return Done(next=Next.GO_ON if forward else Next.STOP, sentence=outcome.sentence)


class LeaseKeeper:
    """Renews a claim's lease from a thread of its own while the effect runs; sets `lost` when it no longer can."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease {context.step.key}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()

    def _run(self) -> None:
        context = self._context
        while not self._end.wait(context.policy.step_lease_s / 3):
            try:
                context.renew()
            except StaleToken:
                if not self._end.is_set():
                    context.lost.set()
                return
            except StoreUnreachable:
                continue


def closed_event(operation: Operation) -> Happened:
    """Return the event of an operation that has ended."""
    return Happened(
        kind="operation_closed",
        subject=operation.subject,
        sentence=f"{operation.kind} of {operation.subject} is {operation.state}: {operation.sentence}",
        facts={"id": operation.id, "kind": operation.kind.value, "state": operation.state.value},
    )


__all__ = ["Context", "Done", "Effect", "Executor", "Next", "Settlement", "closed_event"]
