"""Operations as data: kinds, steps, what may run next, and what an outcome changes.

An operation is a list of steps kept in the journal. Nothing here dispatches, waits or writes; the engine does, and
asks `ready_steps`, `chain_from` and `settle` what is next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fangnetz.core.convergence import Progress
from fangnetz.core.errors import IllegalTransition
from fangnetz.core.model import Destination, OffProof
from fangnetz.core.units import (
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    Seconds,
    StoreIncarnation,
    VmId,
)

ALL_OTHERS = "*"
"""In `Step.after`: ready when every other step is settled (a join, counted in the journal)."""

Fact = str | int | float | bool | None
Facts = Mapping[str, Fact]


class OperationKind(StrEnum):
    FAILOVER = "failover"
    """Recover the VMs of one incarnation of one host."""
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    """Hold the later of two running copies of one generation."""
    MIGRATE = "migrate"
    """Move one VM to another host while it runs."""
    RELOCATE = "relocate"
    """Stop one VM, and start it on another host; of one that is stopped, change its record only."""
    RESUME = "resume"
    """Let a copy run that has arrived on its new owner and waits."""
    RETURN = "return"
    """Switch a host on again that a fence of ours cut."""


class OperationState(StrEnum):
    """ARCHITECTURE's words for an operation."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NEEDS_PERSON = "needs_person"


class StepKind(StrEnum):
    """One Celery task each; the value is the task's name after `fangnetz.`."""

    CONFIRM = "confirm_loss"
    FENCE = "fence_host"
    PROVE = "prove_off"
    PLAN = "plan_recovery"
    START = "start_vm"
    SEE_RUNNING = "see_running"
    STOP = "stop_vm"
    PAUSE = "pause_vm"
    PLAN_MOVE = "plan_move"
    PREPARE = "prepare_vm"
    """Its new host says whether the VM can run there, before anything is sent."""
    MIGRATE = "migrate_vm"
    HAND_OVER = "hand_over_vm"
    RESUME = "resume_vm"
    POWER_ON = "power_on_host"
    CLOSE = "close_operation"


class StepState(StrEnum):
    READY = "ready"
    """Not settled; may be claimed once all it waits for is done."""
    RUNNING = "running"
    """Claimed under a lease; claimable again when that lease ran out."""
    DONE = "done"
    REFUSED = "refused"
    """A typed refusal: the effect did not and will not happen because of this step."""
    FAILED = "failed"
    SKIPPED = "skipped"


SETTLED = frozenset({StepState.DONE, StepState.REFUSED, StepState.FAILED, StepState.SKIPPED})

STEP_TABLE: Mapping[tuple[StepState, StepState], bool] = {
    (StepState.READY, StepState.RUNNING): True,
    (StepState.READY, StepState.SKIPPED): True,
    (StepState.RUNNING, StepState.RUNNING): True,  # claimed again after its lease ran out
    (StepState.RUNNING, StepState.READY): True,  # given back, to be tried again later
    (StepState.RUNNING, StepState.DONE): True,
    (StepState.RUNNING, StepState.REFUSED): True,
    (StepState.RUNNING, StepState.FAILED): True,
}
"""What is not in here cannot happen: a settled step never changes again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a host is told to do with one VM, and all that must still hold right before the effect (SAFETY rule 3)."""

    vm: VmId
    host: HostId
    incarnation: Incarnation
    generation: Generation
    life: StoreIncarnation
    deadline: Instant
    force: bool = False
    beside: tuple[HostId, ...] = ()
    """For a pause: where the other copies of that generation run, by name: its host may have an older cluster file."""
    arriving: bool = False
    """For a stop: only while that copy was not let run yet. One that runs is somebody's VM."""
    to: Destination | None = None
    """For a migration: where to, and the generation of the copy that arrives there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the journal. `attempt` counts claims, `token` names the last one."""

    key: str
    kind: StepKind
    after: tuple[str, ...] = ()
    state: StepState = StepState.READY
    order: Order | None = None
    attempt: int = 0
    token: str = ""
    executor: str = ""
    lease_until: Instant = Instant(0.0)
    not_before: Instant = Instant(0.0)
    dispatched_at: Instant = Instant(0.0)
    claimed_at: Instant = Instant(0.0)
    """Last claim."""
    started_at: Instant = Instant(0.0)
    """First claim."""
    ended_at: Instant = Instant(0.0)
    sentence: str = ""
    facts: Facts = field(default_factory=dict)
    progress: Progress | None = None
    """How its effect was last seen to come on, for people: nothing is decided by it, and it may be lost."""

    @property
    def settled(self) -> bool:
        return self.state in SETTLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An open or closed matter. `incarnation`: of the host it is about; `forced_by`: the person who asked for it."""

    id: OperationId
    kind: OperationKind
    subject: str
    epoch: Epoch
    opened_at: Instant
    reason: str
    steps: tuple[Step, ...]
    state: OperationState = OperationState.OPEN
    closed_at: Instant | None = None
    sentence: str = ""
    incarnation: Incarnation = Incarnation("")
    incident: OperationId | None = None
    forced_by: str = ""
    proof: OffProof | None = None
    """A proof that was already there when it was opened."""
    suspected_at: Instant | None = None
    last_heard_at: Instant | None = None
    target: HostId | None = None
    """Where the decision that opened it saw room; the plan step prefers it and checks anew."""

    def step(self, key: str) -> Step | None:
        return next((step for step in self.steps if step.key == key), None)

    def of_kind(self, kind: StepKind) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.kind is kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a step ended. `adds` joins the operation atomically with it; `closes` ends the operation with this state."""

    state: StepState
    sentence: str
    facts: Facts = field(default_factory=dict)
    retry_after_s: Seconds = Seconds(0.0)
    """With READY: not claimed again before this span has passed."""
    adds: tuple[Step, ...] = ()
    skips: tuple[str, ...] = ()
    closes: OperationState | None = None


QUEUE_WORK = "work"
QUEUE_FENCE = "fence"


AT_A_HOST = frozenset(
    {StepKind.START, StepKind.STOP, StepKind.PAUSE, StepKind.PREPARE, StepKind.MIGRATE, StepKind.RESUME}
)
"""Carried out by the worker of the order's host, on its own libvirt."""


def host_queue(host: HostId) -> str:
    """Return the queue only that host's worker reads."""
    return f"host.{host}"


def queue_of(step: Step) -> str:
    """Return the queue a step travels on: the host's for its VMs, `fence` for power, else `work`."""
    if step.kind in AT_A_HOST:
        if step.order is None:
            raise IllegalTransition(f"step {step.key} has no order")
        return host_queue(step.order.host)
    return QUEUE_FENCE if step.kind in (StepKind.FENCE, StepKind.POWER_ON) else QUEUE_WORK


# --- what a fresh operation looks like ---------------------------------------------------------------------------


def failover_steps() -> tuple[Step, ...]:
    """confirm -> fence -> prove -> plan; the plan adds starts, and `close` waits for all."""
    return (
        Step(key="confirm", kind=StepKind.CONFIRM),
        Step(key="fence", kind=StepKind.FENCE, after=("confirm",)),
        Step(key="prove", kind=StepKind.PROVE, after=("fence",)),
        Step(key="plan/1", kind=StepKind.PLAN, after=("prove",)),
        Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,)),
    )


def start_steps() -> tuple[Step, ...]:
    return (
        Step(key="plan/1", kind=StepKind.PLAN),
        Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,)),
    )


def stop_steps(order: Order) -> tuple[Step, ...]:
    return (
        Step(key=f"stop/{order.vm}", kind=StepKind.STOP, order=order),
        Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,)),
    )


def pause_steps(order: Order) -> tuple[Step, ...]:
    return (
        Step(key=f"pause/{order.vm}", kind=StepKind.PAUSE, order=order),
        Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,)),
    )


def migrate_steps() -> tuple[Step, ...]:
    """plan_move -> prepare -> migrate -> hand_over -> resume -> running; the plan adds all between.

    Of a relocation: plan_move -> prepare -> stop -> plan -> start -> running; the second plan adds the start.
    """
    return (
        Step(key="plan/1", kind=StepKind.PLAN_MOVE),
        Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,)),
    )


def resume_steps(order: Order) -> tuple[Step, ...]:
    resume, running = _resume_and_see(order, attempt=1, after=())
    return (resume, running, Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,)))


def return_steps() -> tuple[Step, ...]:
    return (
        Step(key="power_on", kind=StepKind.POWER_ON),
        Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,)),
    )


def vm_start_steps(order: Order, *, attempt: int, after: str) -> tuple[Step, Step]:
    """Return the pair that starts one VM on one host and sees it run."""
    start = f"start/{order.vm}/{attempt}"
    return (
        Step(key=start, kind=StepKind.START, after=(after,), order=order),
        Step(key=f"running/{order.vm}/{attempt}", kind=StepKind.SEE_RUNNING, after=(start,), order=order),
    )


def vm_move_steps(order: Order, there: Order, *, attempt: int, after: str) -> tuple[Step, ...]:
    """Return the steps that move one VM. `order`: to the host it leaves; `there`: to the one it goes to."""
    vm = order.vm
    prepare, move, hand = f"prepare/{vm}/{attempt}", f"migrate/{vm}/{attempt}", f"hand_over/{vm}/{attempt}"
    return (
        Step(key=prepare, kind=StepKind.PREPARE, after=(after,), order=there),
        Step(key=move, kind=StepKind.MIGRATE, after=(prepare,), order=order),
        Step(key=hand, kind=StepKind.HAND_OVER, after=(move,), order=order),
        *_resume_and_see(there, attempt=attempt, after=(hand,)),
    )


def vm_relocate_steps(vm: VmId, stop: Order | None, there: Order | None, *, after: str) -> tuple[Step, ...]:
    """Return the steps up to the plan that gives a VM another host. `stop`: to the host that has it, None if that has
    let it go already; `there`: to the one that is asked first whether it could run the VM, None for one that is
    stopped.
    """
    steps: list[Step] = []
    if there is not None:
        steps.append(Step(key=f"prepare/{vm}/1", kind=StepKind.PREPARE, after=(after,), order=there))
    if stop is not None:
        before = steps[-1].key if steps else after
        steps.append(Step(key=f"stop/{vm}/1", kind=StepKind.STOP, after=(before,), order=stop))
    return (*steps, Step(key="plan/2", kind=StepKind.PLAN, after=(steps[-1].key if steps else after,)))


def _resume_and_see(order: Order, *, attempt: int, after: tuple[str, ...]) -> tuple[Step, Step]:
    resume = f"resume/{order.vm}/{attempt}"
    return (
        Step(key=resume, kind=StepKind.RESUME, after=after, order=order),
        Step(key=f"running/{order.vm}/{attempt}", kind=StepKind.SEE_RUNNING, after=(resume,), order=order),
    )


# --- what may run next -------------------------------------------------------------------------------------------


def is_ready(operation: Operation, step: Step) -> bool:
    """Whether all it waits for is done or was skipped. A refused or failed predecessor leaves only joins ready."""
    if step.settled:
        return False
    if step.after == (ALL_OTHERS,):
        return all(other.settled for other in operation.steps if other.key != step.key)
    before = [operation.step(key) for key in step.after]
    return all(b is not None and b.state in (StepState.DONE, StepState.SKIPPED) for b in before)


def ready_steps(operation: Operation) -> tuple[Step, ...]:
    """Return every step that may be claimed now as far as order goes (leases are the journal's matter)."""
    if operation.state is not OperationState.OPEN:
        return ()
    return tuple(step for step in operation.steps if is_ready(operation, step))


def chain_from(operation: Operation, key: str) -> tuple[str, ...]:
    """Return `key` and every step that waits for nothing but the one before it: what one Celery chain carries."""
    keys = [key]
    while True:
        followers = [step.key for step in operation.steps if step.after == (keys[-1],) and not step.settled]
        if len(followers) != 1:
            return tuple(keys)
        keys.append(followers[0])


def handed_on(operation: Operation, finished: str, added: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the chains to dispatch after `finished` settled: fan-outs it added, and joins it completed.

    Its only follower is not among them: that one travels in the same Celery chain already.
    """
    new = set(added)
    starts = [
        step
        for step in ready_steps(operation)
        if step.state is StepState.READY and (step.key in new or step.after in ((ALL_OTHERS,), ()))
    ]
    return tuple(chain_from(operation, step.key) for step in starts if step.key != finished)


def settle(operation: Operation, key: str, outcome: Outcome, now: Instant) -> Operation:
    """Return the operation after `outcome` of step `key`; IllegalTransition for what the table does not hold."""
    step = operation.step(key)
    if step is None:
        raise IllegalTransition(f"operation {operation.id} has no step {key}")
    if not STEP_TABLE.get((step.state, outcome.state), False):
        raise IllegalTransition(f"step {key} of {operation.id} cannot go from {step.state} to {outcome.state}")
    retry = outcome.state is StepState.READY
    changed = replace(
        step,
        state=outcome.state,
        sentence=outcome.sentence,
        facts={**step.facts, **outcome.facts},
        ended_at=step.ended_at if retry else now,
        not_before=Instant(now + outcome.retry_after_s) if retry else step.not_before,
        lease_until=Instant(0.0),
    )
    steps: list[Step] = []
    for old in operation.steps:
        if old.key == key:
            steps.append(changed)
        elif old.key in outcome.skips and STEP_TABLE.get((old.state, StepState.SKIPPED), False):
            steps.append(replace(old, state=StepState.SKIPPED, ended_at=now, sentence=outcome.sentence))
        else:
            steps.append(old)
    known = {old.key for old in steps}
    clash = [new.key for new in outcome.adds if new.key in known]
    if clash:
        raise IllegalTransition(f"operation {operation.id} already has steps {', '.join(clash)}")
    steps.extend(outcome.adds)
    closed = outcome.closes is not None and operation.state is OperationState.OPEN
    return replace(
        operation,
        steps=tuple(steps),
        state=outcome.closes if outcome.closes and closed else operation.state,
        closed_at=now if closed else operation.closed_at,
        sentence=outcome.sentence if closed else operation.sentence,
    )
