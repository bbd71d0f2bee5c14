"""The journal's scripts: open_operation, claim, renew, settle, give_up and their like, one atomic step each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fangnetz.core.convergence import Progress
from fangnetz.core.errors import Conflict, Paused, StaleToken
from fangnetz.core.model import Destination, VmState
from fangnetz.core.operations import (
    AT_A_HOST,
    Facts,
    Operation,
    OperationState,
    Order,
    Outcome,
    Step,
    StepKind,
    StepState,
)
from fangnetz.core.pause import GOES_ON, may_be_claimed
from fangnetz.core.units import Epoch, Generation, Incarnation, Instant, OperationId, Seconds
from fangnetz.ports import Assign, Claim, NotClaimed
from fangnetz.sim.store.memory import CLOSED_MAX, Memory, instant, micros
from fangnetz.sim.store.records import documents, must_be_in_charge

WHY = {
    "gone": "the journal does not know this step",
    "closed": "its operation is closed",
    "epoch": "it was ordered under an epoch that is no longer in charge",
    "settled": "it is done already",
    "deadline": "its deadline has passed",
    "life": "it was ordered in another life of the store",
    "incarnation": "it was meant for another boot of this host",
    "generation": "the VM has moved on to another generation",
    "leased": "somebody else is at it",
    "placements": "other VMs were placed meanwhile",
    "clash": "the step it adds is there already",
    "later": "its next try is not due yet",
    "token": "somebody else has claimed it meanwhile",
    "paused": "the cluster is paused",
}


def operation(m: Memory, identity: OperationId) -> Operation | None:
    return m.operations.get(identity)


def operations(m: Memory, limit: int) -> tuple[Operation, ...]:
    """Return open ones and the latest closed ones, newest first."""
    latest = sorted(m.closed, key=lambda identity: (m.closed[identity], identity), reverse=True)[:limit]
    found = [m.operations[identity] for identity in dict.fromkeys([*m.open.values(), *latest])]
    return tuple(sorted(found, key=lambda op: op.opened_at, reverse=True)[:limit])


def open_operation(m: Memory, made: Operation) -> bool:
    must_be_in_charge(m, made.epoch)
    if m.lease_until <= m.now_us():
        raise StaleToken(f"epoch {made.epoch} is no longer in charge")
    index = (made.kind.value, made.subject)
    if made.id in m.operations or index in m.open:
        return False
    m.open[index] = made.id
    m.operations[made.id] = replace(
        made,
        steps=tuple(_fresh(step) for step in made.steps),
        state=OperationState.OPEN,
        opened_at=instant(m.now_us()),
        closed_at=None,
        sentence="",
    )
    return True


def _fresh(step: Step) -> Step:
    order = step.order
    if order is not None:
        order = replace(order, deadline=instant(micros(order.deadline)))
    return Step(key=step.key, kind=step.kind, after=step.after, state=step.state, order=order, facts=dict(step.facts))


def _obstacle(m: Memory, identity: OperationId, key: str, me: Incarnation, now: int) -> str:  # noqa: PLR0911 - one line a reason
    """Return everything that must hold right before an effect (guard.lua): a code, or an empty string."""
    if m.life is None or m.life[0] != m.identity:
        return "life"
    found = m.operations.get(identity)
    if found is None:
        return "gone"
    if found.state is not OperationState.OPEN:
        return "closed"
    if not m.in_charge(found.epoch):
        return "epoch"
    step = found.step(key)
    if step is None:
        return "gone"
    if step.settled:
        return "settled"
    order = step.order
    if step.kind not in AT_A_HOST:
        return ""
    begun = step.kind is StepKind.MIGRATE and step.state is StepState.RUNNING
    if order is None or (_us(order.deadline) <= now and not begun):
        return "deadline"
    if order.life != m.life[1]:
        return "life"
    if order.incarnation != me:
        return "incarnation"
    return "" if _is_as_ordered(m, step.kind, order) else "generation"


def _is_as_ordered(m: Memory, kind: StepKind, order: Order) -> bool:
    """Whether the VM belongs to whom the order says, and is being moved where it says."""
    vm = m.vms.get(order.vm)
    here = (order.host, order.incarnation, order.generation)
    if kind in (StepKind.START, StepKind.MIGRATE, StepKind.RESUME) and (
        vm is None or (vm.owner, vm.owner_incarnation, vm.generation) != here
    ):
        return False
    if kind not in (StepKind.PREPARE, StepKind.MIGRATE):
        return True
    there = (
        order.to
        if kind is StepKind.MIGRATE
        else Destination(host=order.host, incarnation=order.incarnation, generation=order.generation)
    )
    asked = kind is StepKind.PREPARE and vm is not None and vm.moving is None and vm.owner != order.host
    if asked and vm is not None and vm.generation == order.generation:
        return True  # a host is asked before a VM of another one is stopped, to start there
    return vm is not None and vm.moving == there


def claim(
    m: Memory, identity: OperationId, key: str, token: str, executor: str, incarnation: Incarnation, lease: Seconds
) -> tuple[Claim | NotClaimed, StepState]:
    """Return also the state of the step before it."""
    found = m.operations.get(identity)
    step = found.step(key) if found is not None else None
    if found is None or step is None:
        return _refused(identity, key, "gone"), StepState.READY
    now = m.now_us()
    code = _obstacle(m, identity, key, incarnation, now)
    if code:
        return _refused(identity, key, code), step.state
    if not may_be_claimed(step) and _is_paused(m, now):
        return _refused(identity, key, "paused"), step.state
    mine = step.state is StepState.RUNNING and step.token == token
    until, not_before = _us(step.lease_until), _us(step.not_before)
    if step.state is StepState.RUNNING and not mine and until > now:
        return _refused(identity, key, "leased", until - now), step.state
    if not_before > now:
        return _refused(identity, key, "later", not_before - now), step.state
    line = replace(
        step,
        state=StepState.RUNNING,
        token=token,
        executor=executor,
        attempt=step.attempt if mine else step.attempt + 1,
        lease_until=instant(now + micros(lease)),
        claimed_at=step.claimed_at if mine else instant(now),
        started_at=step.started_at or instant(now),
    )
    fresh = _with(m, found, line)
    return Claim(operation=fresh, step=line, token=token, now=instant(now), until=line.lease_until), step.state


def unclaim(m: Memory, identity: OperationId, key: str, token: str, before: StepState) -> bool:
    """Take back a claim that was written and never granted; False if another claim has followed."""
    found = m.operations.get(identity)
    step = found.step(key) if found is not None else None
    if found is None or step is None or step.state is not StepState.RUNNING or step.token != token:
        return False
    attempt = max(step.attempt - 1, 0)
    line = replace(
        step,
        state=before,
        token="",
        executor="",
        lease_until=Instant(0.0),
        attempt=attempt,
        claimed_at=step.claimed_at if attempt else Instant(0.0),
        started_at=step.started_at if attempt else Instant(0.0),
    )
    _with(m, found, line)
    return True


def _us(at: Instant) -> int:
    """Back to the whole microseconds it was made from."""
    return round(at * 1_000_000)


def _refused(identity: OperationId, key: str, code: str, wait_us: int = 0) -> NotClaimed:
    sentence = f"{identity} {key}: {WHY[code]}"
    return NotClaimed(code=code, sentence=sentence, wait_s=Seconds(wait_us / 1_000_000))


def _with(m: Memory, found: Operation, *lines: Step) -> Operation:
    """Keep the operation with these lines in place of those of the same key."""
    by_key = {line.key: line for line in lines}
    m.operations[found.id] = changed = replace(found, steps=tuple(by_key.get(s.key, s) for s in found.steps))
    return changed


def _is_paused(m: Memory, now: int) -> bool:
    pause = documents(m).pause
    return pause is not None and pause.lasts(instant(now))


def renew(m: Memory, held: Claim, lease: Seconds, progress: Progress | None, begins: bool) -> Instant:
    identity, key, order = held.operation.id, held.step.key, held.step.order
    now = m.now_us()
    code = _obstacle(m, identity, key, order.incarnation if order else Incarnation(""), now)
    found = m.operations.get(identity)
    step = found.step(key) if found is not None else None
    if not code and (step is None or step.state is not StepState.RUNNING or step.token != held.token):
        code = "token"
    if code or found is None or step is None:
        raise StaleToken(f"{identity} {key}: {WHY[code]}")
    if begins and step.kind not in GOES_ON and _is_paused(m, now):
        raise Paused(f"{identity} {key}: {WHY['paused']}")
    until = instant(now + micros(lease))
    _with(m, found, replace(step, lease_until=until, progress=progress or step.progress))
    return until


def settle(m: Memory, held: Claim, outcome: Outcome, assigns: Sequence[Assign], placements: int) -> Operation:
    """Write an outcome with its assignments, all or none."""
    identity, key = held.operation.id, held.step.key
    found = m.operations.get(identity)
    step = found.step(key) if found is not None else None
    if found is None or step is None:
        raise StaleToken(f"{identity} {key}: {WHY['gone']}")
    if step.token != held.token:
        raise StaleToken(f"{identity} {key}: {WHY['token']}")
    if step.state is not StepState.RUNNING:
        return found
    now = m.now_us()
    is_open = found.state is OperationState.OPEN
    _may_settle(m, found, held, outcome, assigns, placements, is_open=is_open)
    facts: Facts = {**held.step.facts, **outcome.facts}
    retry = outcome.state is StepState.READY
    after = replace(
        step,
        state=outcome.state,
        sentence=outcome.sentence,
        facts=facts,
        lease_until=Instant(0.0),
        not_before=instant(now + micros(outcome.retry_after_s)) if retry else step.not_before,
        ended_at=step.ended_at if retry else instant(now),
    )
    skipped = [
        replace(other, state=StepState.SKIPPED, ended_at=instant(now), sentence=outcome.sentence)
        for other in found.steps
        if other.key in outcome.skips and other.state is StepState.READY
    ]
    generations: dict[str, Generation] = {}
    for give in assigns:
        number = Generation(m.next_number(give.expected, give.floor))
        generations |= dict.fromkeys(give.steps, number)
        if give.moving:
            m.vms[give.vm] = replace(
                m.vms[give.vm],
                moving=Destination(host=give.owner, incarnation=give.incarnation, generation=number),
                state=VmState.MOVING,
                since=instant(now),
                reason=give.reason,
                operation=identity,
            )
            continue
        m.vms[give.vm] = replace(
            m.vms[give.vm],
            owner=give.owner,
            owner_incarnation=give.incarnation,
            generation=number,
            state=VmState.STARTING,
            since=instant(now),
            reason=give.reason,
            operation=identity,
        )
    m.placements += 1 if assigns else 0
    added = []
    for fresh in map(_fresh, outcome.adds):
        order, generation = fresh.order, generations.get(fresh.key)
        if order is None or generation is None:
            added.append(fresh)
        else:
            added.append(replace(fresh, order=_numbered(order, generation)))
    changed = _with(m, found, after, *skipped)
    closing = outcome.closes if outcome.closes is not None and is_open else None
    changed = replace(
        changed,
        steps=(*changed.steps, *added),
        state=closing or changed.state,
        closed_at=instant(now) if closing else changed.closed_at,
        sentence=outcome.sentence if closing else changed.sentence,
    )
    m.operations[identity] = changed
    if closing:
        _close(m, changed, now)
    return changed


def _numbered(order: Order, generation: Generation) -> Order:
    """The order to the host that a VM leaves keeps its own number: the new one is that of the copy that arrives."""
    if order.to is None:
        return replace(order, generation=generation)
    return replace(order, to=replace(order.to, generation=generation))


def _may_settle(
    m: Memory,
    found: Operation,
    held: Claim,
    outcome: Outcome,
    assigns: Sequence[Assign],
    placements: int,
    *,
    is_open: bool,
) -> None:
    where = f"{found.id} {held.step.key}"
    if not is_open and (outcome.adds or assigns):
        raise StaleToken(f"{where}: {WHY['closed']}")
    beyond_its_line = outcome.closes is not None or outcome.skips or outcome.adds or assigns
    if is_open and beyond_its_line and not m.in_charge(found.epoch):
        raise StaleToken(f"{where}: {WHY['epoch']}")
    if assigns and m.placements != placements:
        raise Conflict(f"{where}: {WHY['placements']}")
    for give in assigns:
        vm = m.vms.get(give.vm)
        if vm is None or vm.generation != give.expected:
            raise Conflict(f"{where}: {WHY['generation']}")
    if any(found.step(step.key) is not None for step in outcome.adds):
        raise Conflict(f"{where}: {WHY['clash']}")


def _close(m: Memory, ended: Operation, now: int) -> None:
    m.open.pop((ended.kind.value, ended.subject), None)
    m.closed[ended.id] = now


def give_up(
    m: Memory, identity: OperationId, epoch: Epoch, key: str, skips: Sequence[str], sentence: str, facts: Facts,
    void: bool,
) -> bool:  # fmt: skip
    found = m.operations.get(identity)
    step = found.step(key) if found is not None else None
    if not m.in_charge(epoch) or found is None or step is None or step.settled:
        return False
    now = m.now_us()
    deadline = _us(step.order.deadline) if step.order is not None else 0
    if _us(step.lease_until) > now or (not void and deadline > now):
        return False
    end = instant(now)
    failed = replace(step, state=StepState.FAILED, ended_at=end, sentence=sentence, facts=facts)
    skipped = [
        replace(other, state=StepState.SKIPPED, ended_at=end, sentence=sentence)
        for other in found.steps
        if other.key in skips and other.state is StepState.READY
    ]
    _with(m, found, failed, *skipped)
    return True


def mark_dispatched(m: Memory, identity: OperationId, keys: Sequence[str]) -> None:
    at = instant(m.now_us())
    found = m.operations.get(identity)
    if found is not None:
        _with(m, found, *(replace(step, dispatched_at=at) for step in found.steps if step.key in keys))


def adopt_operation(m: Memory, identity: OperationId, epoch: Epoch) -> None:
    must_be_in_charge(m, epoch)
    found = m.operations.get(identity)
    if found is not None and found.state is OperationState.OPEN:
        m.operations[identity] = replace(found, epoch=epoch)


def end_operation(m: Memory, identity: OperationId, state: OperationState, sentence: str, epoch: Epoch) -> None:
    must_be_in_charge(m, epoch)
    found = m.operations.get(identity)
    if found is None or found.state is not OperationState.OPEN:
        return
    ended = replace(found, state=state, closed_at=instant(m.now_us()), sentence=sentence)
    m.operations[identity] = ended
    _close(m, ended, m.now_us())


def archive(m: Memory) -> None:
    """Drop the oldest closed operations beyond the bound."""
    if len(m.closed) <= CLOSED_MAX:
        return
    oldest = sorted(m.closed, key=lambda identity: (m.closed[identity], identity))[: len(m.closed) - CLOSED_MAX]
    for identity in oldest:
        del m.closed[identity]
        if m.operations[identity].state is not OperationState.OPEN:
            del m.operations[identity]
