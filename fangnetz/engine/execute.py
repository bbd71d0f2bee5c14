"""Carry out one step: claim its line, keep the lease alive, do the effect, settle, hand on. The same for every step.

A message is only a doorbell: what arrives late, twice or out of order finds its line settled, leased or refused. A
lease is never kept for longer than the step's bound: whoever hangs loses it, and has no effect any more.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import assert_never

from fangnetz.core.actions import Happened
from fangnetz.core.convergence import Progress
from fangnetz.core.errors import (
    Conflict,
    FangnetzError,
    Paused,
    StaleToken,
    StoredContentError,
    StoreUnreachable,
    WorldError,
)
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
from fangnetz.engine.faults import FaultInjected, point, step_point
from fangnetz.ports import Assign, Claim, Clock, Dispatcher, Journal, Process

PLAN_TRIES_MAX = 20
"""A plan that others overtook is made anew so many times in one claim."""
PLAN_PAUSE_S = 0.02
"""Up to so long before the next try, by chance, so that two planners do not run in step."""
THINKING_BOUND_S = Seconds(10.0)
"""A step that only reads and writes the store and our files: a few calls, each given up after about 2 s."""
AGAIN_AFTER_S = Seconds(0.5)
"""A world that said no is asked again after this long."""

PROGRESS_EVERY_S = 1.0
"""How an effect comes on is written down, and told on, no more often: only people look at it."""

ENDED_MAX = 256
"""So many steps that ended are remembered for `in_hand_since`: a host's worker carries out a few a minute."""


def bound_of(kind: StepKind, policy: Policy) -> Seconds:
    """Return how long one claim of a step may be kept: what its effect may take, and a step lease for the rest."""
    match kind:
        case StepKind.FENCE | StepKind.POWER_ON:
            span = policy.fence_bound_s
        case StepKind.START | StepKind.PAUSE | StepKind.PREPARE | StepKind.RESUME:
            span = policy.start_bound_s
        case StepKind.MIGRATE:
            span = policy.migrate_bound_s
        case StepKind.STOP:
            span = Seconds(policy.stop_bound_s + policy.start_bound_s)  # as long as its order holds
        case StepKind.CONFIRM | StepKind.PROVE | StepKind.PLAN | StepKind.SEE_RUNNING | StepKind.CLOSE:
            span = THINKING_BOUND_S
        case StepKind.PLAN_MOVE | StepKind.HAND_OVER:
            span = THINKING_BOUND_S
        case _:
            assert_never(kind)
    return Seconds(span + policy.step_lease_s)


def makes_room(kind: StepKind, outcome: Outcome) -> bool:
    """Whether another move may begin now: a VM that goes on elsewhere has left, though its operation is still open.

    Not as soon as it was handed over: its guest stands still until it is let run, and nothing may delay that.
    """
    return kind is StepKind.RESUME and outcome.state is StepState.DONE


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


def _nobody(_now: Progress) -> None: ...


@dataclass(slots=True)
class Context:
    """One claimed step in the hands of its executor. `began`: monotonic, from before the claim was asked for.

    `listener` is told how the effect comes on; it returns at once and never raises.
    """

    claim: Claim
    journal: Journal
    policy: Policy
    clock: Clock
    began: float
    listener: Callable[[Progress], None] = _nobody
    lost: bool = False
    _until: float = 0.0
    _progress: Progress | None = None
    _written_at: float = -math.inf
    _told_at: float = -math.inf

    @property
    def operation(self) -> Operation:
        return self.claim.operation

    @property
    def step(self) -> Step:
        return self.claim.step

    @property
    def ends(self) -> float:
        """The instant (monotonic) from which this claim is not renewed any more and allows no effect."""
        return self.began + bound_of(self.step.kind, self.policy)

    def stage(self, stage: str) -> None:
        """Pass a stage of this step: a test may have it fail here."""
        step_point(self.step.kind, stage, _subject(self.operation, self.step))

    def renew(self, *, begins: bool = False) -> Instant:
        """Extend the lease, counting from before the question was sent. StaleToken if we are no longer in charge.

        `begins`: as in `Journal.renew`.
        """
        self.stage("before_renew")
        before = self.clock.monotonic()
        progress = self._progress if before - self._written_at >= PROGRESS_EVERY_S else None
        until = self.journal.renew(self.claim, self.policy.step_lease_s, progress, begins=begins)
        self._until = before + self.policy.step_lease_s
        if progress is not None:
            self._written_at = before
        self.stage("renewed")
        return until

    def comes_on(self, now: Progress) -> None:
        """Say how the effect comes on: the next renewal of the lease takes it along. Asks nobody, and never waits."""
        self._progress = now
        at = self.clock.monotonic()
        if at - self._told_at >= PROGRESS_EVERY_S:
            self._told_at = at
            self.listener(now)

    def guard(self, *, begins: bool = True) -> float:
        """Ask right before an effect: the store still wants it, and our own deadline has not passed.

        Returns until when (monotonic) that permission lasts; an effect that comes later must not come at all.
        `begins`: Paused if the cluster is paused. False for what brings to its end that which has begun.
        """
        self.still_held()
        self.renew(begins=begins)
        permitted_until = min(self._until, self.ends)
        if self.clock.monotonic() >= permitted_until:
            raise StaleToken(f"{self.operation.id} {self.step.key}: the answer came after the lease's end")
        return permitted_until

    def last_look(self, point_name: str, subject: str, *, begins: bool = True) -> float:
        """Guard, pass a fault point, and see that the permission outlasted it: the effect is the very next thing.

        Returns what `guard` does.
        """
        permitted_until = self.guard(begins=begins)
        point(point_name, subject)
        if self.clock.monotonic() >= permitted_until:
            raise StaleToken(f"{self.operation.id} {self.step.key}: it was held up right before its effect")
        return permitted_until

    def still_held(self) -> None:
        """StaleToken if the lease was lost or this claim has used up its bound. Asks nobody."""
        if self.lost or self.clock.monotonic() >= self.ends:
            raise StaleToken(f"{self.operation.id} {self.step.key}: its lease was lost")


Effect = Callable[[Context], Settlement]


class Executor:
    """Carries out steps of the kinds it has effects for."""

    def __init__(
        self,
        *,
        name: str,
        journal: Journal,
        dispatcher: Dispatcher,
        process: Process,
        policy: Policy,
        effects: Mapping[StepKind, Effect],
        incarnation: Incarnation = Incarnation(""),
    ) -> None:
        self._name, self._journal, self._dispatcher = name, journal, dispatcher
        self._process, self._policy, self._effects = process, policy, effects
        self._incarnation = incarnation
        self._in_hand: Counter[str] = Counter()
        self._ended: deque[tuple[float, str]] = deque(maxlen=ENDED_MAX)
        self._lock = process.lock()

    @property
    def in_hand(self) -> frozenset[str]:
        """`<operation>/<step>` of everything being carried out now, by however many threads."""
        with self._lock:
            return frozenset(self._in_hand)

    def in_hand_since(self, at: float) -> frozenset[str]:
        """What is in hand or was after this instant (monotonic).

        An inventory taken at that instant says nothing about what such steps did; one that ended earlier it shows.
        """
        with self._lock:
            lately = takewhile(lambda ended: ended[0] >= at, reversed(self._ended))  # kept in the order they ended
            return frozenset((*self._in_hand, *(hand for _, hand in lately)))

    def carry_out(
        self, identity: OperationId, key: str, kind: StepKind, listener: Callable[[Progress], None] = _nobody
    ) -> Done:
        """Claim and do one step. Never raises for a world that says no: that is an outcome.

        `listener`: as in `Context`.
        """
        try:
            return self._carry_out(identity, key, kind, listener)
        except StaleToken as stale:
            return Done(next=Next.STOP, sentence=str(stale))
        except (StoreUnreachable, StoredContentError, FaultInjected) as away:
            return Done(next=Next.STOP, sentence=f"{identity} {key}: {away}; the sweep takes it up again")

    def _carry_out(self, identity: OperationId, key: str, kind: StepKind, listener: Callable[[Progress], None]) -> Done:
        operation = self._journal.operation(identity)
        step = operation.step(key) if operation else None
        if operation is None or step is None or step.kind is not kind:
            return Done(next=Next.STOP, sentence=f"the journal holds no {kind} {identity} {key}: nothing is done")
        if step.settled:
            ahead = step.state in (StepState.DONE, StepState.SKIPPED)
            return Done(next=Next.GO_ON if ahead else Next.STOP, sentence=f"{identity} {key} is {step.state} already")
        if not is_ready(operation, step):
            return Done(next=Next.STOP, sentence=f"{identity} {key} waits for {', '.join(step.after)}")
        step_point(kind, "before_claim", _subject(operation, step))
        began = self._process.monotonic()
        claim = self._journal.claim(
            identity,
            key,
            token=self._process.token(),
            executor=self._name,
            incarnation=self._incarnation,
            lease=self._policy.step_lease_s,
        )
        if not isinstance(claim, Claim):
            if claim.code == "later":
                return Done(next=Next.AGAIN, sentence=claim.sentence, wait_s=Seconds(claim.wait_s + 0.02))
            return Done(next=Next.STOP, sentence=claim.sentence)
        context = Context(
            claim=claim,
            journal=self._journal,
            policy=self._policy,
            clock=self._process,
            began=began,
            listener=listener,
        )
        with self._hold(f"{identity}/{key}"), LeaseKeeper(context, self._process):
            return self._claimed(context)

    @contextlib.contextmanager
    def _hold(self, hand: str) -> Iterator[None]:
        with self._lock:
            self._in_hand[hand] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_hand[hand] -= 1
                self._ended.append((self._process.monotonic(), hand))
                if not self._in_hand[hand]:
                    del self._in_hand[hand]

    def _claimed(self, context: Context) -> Done:
        try:
            return self._effect(context)
        except Paused as paused:
            # Given back at once: nobody is to find it out only when its lease has run out.
            self._give_back(context, f"{paused}: nothing was sent", self._policy.step_lease_s)
            return Done(next=Next.STOP, sentence=str(paused))
        except (StaleToken, StoreUnreachable, StoredContentError):
            raise
        except FaultInjected as asked:
            self._give_back(context, str(asked), AGAIN_AFTER_S)
            raise
        except Exception as error:
            # A fault of ours is loud, but the step does not wait for its lease and the journal says what it was.
            sentence = f"{context.operation.id} {context.step.key}: {type(error).__name__}: {error}"
            self._give_back(context, sentence, self._policy.step_lease_s)
            raise

    def _give_back(self, context: Context, sentence: str, after: Seconds) -> None:
        """Make the step claimable again, if its outcome is not written yet; whoever cannot leaves it to the lease."""
        with contextlib.suppress(FangnetzError):
            self._journal.settle(context.claim, Outcome(state=StepState.READY, sentence=sentence, retry_after_s=after))

    def _effect(self, context: Context) -> Done:
        effect = self._effects[context.step.kind]
        context.stage("claimed")
        for _ in range(PLAN_TRIES_MAX):
            try:
                settlement = effect(context)
            except StoreUnreachable:
                raise
            except WorldError as error:
                settlement = Settlement(
                    Outcome(state=StepState.READY, sentence=str(error), retry_after_s=AGAIN_AFTER_S)
                )
            try:
                return self._settle(context, settlement)
            except Conflict:
                self._process.sleep(Seconds(PLAN_PAUSE_S * self._process.chance()))
        return Done(next=Next.STOP, sentence=f"{context.operation.id} {context.step.key}: the world changes too fast")

    def _settle(self, context: Context, settlement: Settlement) -> Done:
        outcome = settlement.outcome
        context.stage("before_settle")
        operation = self._journal.settle(context.claim, outcome, settlement.assigns, settlement.placements)
        context.stage("settled")
        events = list(settlement.events)
        if outcome.closes is not None:
            events.append(closed_event(operation))
        self._journal.log(events)
        if settlement.after is not None:
            settlement.after()
        if outcome.state is StepState.READY:
            return Done(next=Next.AGAIN, sentence=outcome.sentence, wait_s=Seconds(outcome.retry_after_s + 0.02))
        context.stage("before_hand_on")
        if operation.state is OperationState.OPEN:
            chains = handed_on(operation, context.step.key, [step.key for step in outcome.adds])
            if chains:
                self._dispatcher.dispatch(operation, chains)
        if operation.state is not OperationState.OPEN or makes_room(context.step.kind, outcome):
            self._dispatcher.nudge()
        context.stage("handed_on")
        forward = outcome.state is StepState.DONE and outcome.closes is None
        return Done(next=Next.GO_ON if forward else Next.STOP, sentence=outcome.sentence)


class LeaseKeeper:
    """Renews a claim's lease from a thread of its own while the effect runs; sets `lost` when it no longer can.

    Never renews beyond the step's bound: a thread that hangs in a library must not hold an incident for ever.
    """

    def __init__(self, context: Context, process: Process) -> None:
        self._context, self._process = context, process
        self._end = process.flag()

    def __enter__(self) -> None:
        self._process.spawn(f"lease {self._context.step.key}", self._run)

    def __exit__(self, *_how: object) -> None:
        self._end.set()

    def _run(self) -> None:
        context = self._context
        while not self._end.wait(context.policy.step_lease_s / 3):
            if context.clock.monotonic() >= context.ends:
                context.lost = True
                return
            try:
                context.renew()
            except StaleToken:
                if not self._end.is_set():
                    context.lost = True
                return
            except WorldError:
                continue


def _subject(operation: Operation, step: Step) -> str:
    """Return whom a step is about: the VM of its order, else what its operation is about."""
    return step.order.vm if step.order is not None else operation.subject


def closed_event(operation: Operation) -> Happened:
    """Return the event of an operation that has ended."""
    return Happened(
        kind="operation_closed",
        subject=operation.subject,
        sentence=f"{operation.kind} of {operation.subject} is {operation.state}: {operation.sentence}",
        facts={"id": operation.id, "kind": operation.kind.value, "state": operation.state.value},
    )


__all__ = ["Context", "Done", "Effect", "Executor", "Next", "Settlement", "bound_of", "closed_event"]
