"""Steps of a live migration: planned and handed over by a controller, prepared, sent and resumed by the two hosts.

The copy that arrives never runs by itself. It runs once the host it left has promised never to start that generation
again, and the record names the new owner: until then the VM is where it was, whatever breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from fangnetz.core.actions import Happened
from fangnetz.core.convergence import Advice, Course, Progress, go_on
from fangnetz.core.decide.openings import order_to_boot
from fangnetz.core.detector import heard
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable, StaleToken, StoredContentError
from fangnetz.core.model import ClusterView, Destination, HostSpec, Leaving, Sighting, VmRecord, VmState
from fangnetz.core.moving import Move, Stays, moves_of, plan_move, refusals
from fangnetz.core.operations import (
    Fact,
    Operation,
    OperationKind,
    OperationState,
    Order,
    Outcome,
    Step,
    StepKind,
    StepState,
    chain_from,
    vm_move_steps,
)
from fangnetz.core.policy import Policy
from fangnetz.core.units import Generation, HostId, Incarnation, OperationId, Seconds, VmId
from fangnetz.engine.execute import Context, Settlement
from fangnetz.engine.faults import point
from fangnetz.engine.observe import Observation, observe
from fangnetz.engine.steps.at_host import HeldVm, again, ordered
from fangnetz.engine.steps.failover import highest_reported
from fangnetz.engine.steps.relocate import Relocating
from fangnetz.engine.steps.vm import Definition
from fangnetz.ports import Assign, BootFiles, Departure, Hypervisor, Journal, Migration, Store

SEEN_GONE_S = 1.0
"""So long a hand-over waits for the host that was left to report the VM no more: its promise is in the journal."""
SEEN_GONE_POLL_S = Seconds(0.02)


class MoveSteps:
    """Effects on the `work` queue: where to, and whose it is from now on."""

    def __init__(self, store: Store, hosts: Mapping[HostId, HostSpec], policy: Policy) -> None:
        self._store, self._hosts, self._policy = store, hosts, policy
        self._relocating = Relocating(store, hosts, policy)

    # -- plan --

    def plan_move(self, context: Context) -> Settlement:
        """Choose the host, and give the arriving copy its number; the VM stays its owner's."""
        seen = observe(self._store, self._hosts, self._policy)
        operation = self._store.operation(context.operation.id) or context.operation
        if operation.kind is OperationKind.RELOCATE:
            return self._relocating.planned(context, operation, seen)
        vm = VmId(operation.subject)
        found = plan_move(
            vm, seen.view, seen.watch, seen.verdicts, self._policy,
            target=operation.target, refused=refusals(operation, vm),
        )  # fmt: skip
        if isinstance(found, Stays):
            facts = {f"left/{vm}": found.because}
            return Settlement(Outcome(state=StepState.DONE, sentence=f"{vm} stays: {found.because}", facts=facts))
        return self._planned(context, operation, seen, found)

    def _planned(self, context: Context, operation: Operation, seen: Observation, move: Move) -> Settlement:
        view, record = seen.view, seen.view.vm_records[move.vm]
        to = Destination(host=move.target, incarnation=move.incarnation, generation=Generation(0))  # settled with this
        there = self._order(view, move.vm, move.target, move.incarnation, Generation(0))
        leave = replace(
            self._order(view, move.vm, move.source, record.owner_incarnation, record.generation),
            to=to,
        )
        attempt = len(moves_of(operation, move.vm)) + 1
        steps = vm_move_steps(leave, there, attempt=attempt, after=context.step.key)
        because = f"it moves from {move.source} to {move.target}: {move.because}"
        give = Assign(
            vm=move.vm,
            expected=record.generation,
            floor=highest_reported(view, move.vm),
            owner=move.target,
            incarnation=move.incarnation,
            reason=because,
            steps=tuple(step.key for step in steps),
            moving=True,
        )
        outcome = Outcome(
            state=StepState.DONE,
            sentence=f"{move.vm}: {because}",
            facts={f"from/{move.vm}": move.source, f"to/{move.vm}": move.target, f"because/{move.vm}": move.because},
            adds=steps,
        )
        return Settlement(outcome, assigns=[give], placements=view.placements)

    def _order(
        self, view: ClusterView, vm: VmId, host: HostId, incarnation: Incarnation, generation: Generation
    ) -> Order:
        return order_to_boot(view, vm, host, incarnation, generation, self._policy.start_bound_s)

    # -- hand over --

    def hand_over(self, context: Context) -> Settlement:
        """Make the new host the owner, now that the old one has let the VM go for good."""
        order, to = _to(context.step)
        if not _left(context.operation, context.step):
            raise StaleToken(f"{context.operation.id} {context.step.key}: {order.host} has not let {order.vm} go")
        view = self._when_seen_gone(context, order)
        record = view.vm_records.get(order.vm)
        if record is None or not _is(record, order, to):
            if record is not None and (record.owner, record.generation) == (to.host, to.generation):
                return _done(f"{order.vm} belongs to {to.host} already")
            return _superseded(context, order)
        context.guard()
        new = replace(
            record,
            owner=to.host,
            owner_incarnation=to.incarnation,
            generation=to.generation,
            state=VmState.MOVING,
            since=view.now,
            reason=f"it has left {order.host} and goes on on {to.host}",
            operation=context.operation.id,
            moving=None,
            tries=0,
        )
        if not self._store.put_vm(new, record.generation, context.operation.epoch):
            return _superseded(context, order)
        return _done(f"{order.vm} belongs to {to.host} from now on")

    def _when_seen_gone(self, context: Context, order: Order) -> ClusterView:
        end = context.clock.monotonic() + SEEN_GONE_S
        while True:
            view = self._store.view(self._hosts, None)
            beat = heard(view, order.host)
            if beat is None or beat.sees(order.vm) is None or context.clock.monotonic() >= end:
                return view
            context.clock.sleep(SEEN_GONE_POLL_S)


class MoveAtHost:
    """Effects on the queue `host.<id>`, on this host's own libvirt."""

    def __init__(
        self,
        *,
        journal: Journal,
        hypervisor: Hypervisor,
        boot: BootFiles,
        definition: Definition,
        policy: Policy,
        report: Callable[[], None],
    ) -> None:
        self._journal, self._hypervisor, self._boot = journal, hypervisor, boot
        self._definition, self._policy, self._report = definition, policy, report
        self._held = HeldVm(hypervisor, boot)

    # -- prepare --

    def prepare(self, context: Context) -> Settlement:
        """Say whether the VM could run here, before anything is sent."""
        order = ordered(context.step)
        if self._boot.leaving() is not Leaving.NO:
            return self._unfit(context, order, "it is going down in order")
        try:
            xml = self._definition(order.vm)
            self._hypervisor.receivable(order.vm, xml)
        except HypervisorRefused as error:
            return self._unfit(context, order, str(error))
        except (HypervisorUnreachable, StoredContentError) as error:
            return again(f"{order.host} cannot say whether {order.vm} may come: {error}")
        return _done(f"{order.host} can run {order.vm}")

    def _unfit(self, context: Context, order: Order, said: str) -> Settlement:
        sentence = f"{order.host} cannot run {order.vm}: {said}"
        return Settlement(Outcome(state=StepState.REFUSED, sentence=sentence, skips=_followers(context)))

    # -- migrate --

    def migrate(self, context: Context) -> Settlement:
        """Send the VM away while it runs; once it has left, promise never to start that generation again."""
        order, to = _to(context.step)
        return self._held.carry_out(order, lambda: self._migrate_locked(context, order, to))

    def _migrate_locked(self, context: Context, order: Order, to: Destination) -> Settlement:
        present = self._held.find(order.vm)
        if present is not None and present.generation not in (None, order.generation):
            there = f"{order.host} runs {order.vm} of generation {present.generation}, not {order.generation}"
            return self._failed(context, f"{there}: left alone")
        if present is not None and present.state not in (Sighting.RUNNING, Sighting.PAUSED):
            return self._failed(context, f"{order.vm} is {present.state} on {order.host}: it does not move")
        course = _Course(context, self._journal, self._policy)
        migration = Migration(
            vm=order.vm,
            generation=order.generation,
            to=to,
            downtime_s=self._policy.migrate_downtime_s,
            bound_s=self._policy.migrate_bound_s,
            connections=self._policy.migrate_connections,
            compression=self._policy.migrate_compression,
        )
        still = partial(context.last_look, "migrate.before_send", order.vm)
        try:
            departed = self._hypervisor.migrate(migration, still, course.advise)
        except HypervisorRefused as error:
            return self._failed(context, f"{order.vm} stays on {order.host}: {error}")
        match departed.how:
            case Departure.LEFT:
                point("migrate.left", order.vm)
                return self._left(order, to, course)
            case Departure.STAYED:
                why = course.ended or departed.sentence
                return self._failed(context, f"{order.vm} stays on {order.host}: {why}")
            case Departure.ENDED:
                return self._failed(context, f"{order.vm} ended on {order.host} before it had moved")

    def _left(self, order: Order, to: Destination, course: _Course) -> Settlement:
        sentence = f"{order.vm} has left {order.host} for {to.host}"
        self._held.promise(order, sentence, to.generation)
        facts = {"released": order.generation, **course.facts}
        return Settlement(Outcome(state=StepState.DONE, sentence=sentence, facts=facts), after=self._report)

    def _failed(self, context: Context, sentence: str) -> Settlement:
        outcome = Outcome(state=StepState.FAILED, sentence=sentence, skips=_followers(context))
        return Settlement(outcome, events=[_told("migration_failed", context.step, sentence)], after=self._report)

    # -- resume --

    def resume(self, context: Context) -> Settlement:
        """Let the copy that has arrived run: it is ours now, and nobody else may run it."""
        order = ordered(context.step)
        return self._held.carry_out(order, lambda: self._resume_locked(context, order))

    def _resume_locked(self, context: Context, order: Order) -> Settlement:
        if self._boot.released(order.vm) >= order.generation:
            return self._lost(context, order, f"{order.host} has promised never to run {order.vm} of this generation")
        present = self._held.find(order.vm)
        if present is None or present.generation != order.generation:
            there = "no copy" if present is None else f"generation {present.generation}"
            sentence = f"{order.host} has {there} of {order.vm}, not the one that was to arrive"
            self._hypervisor.settled(order.vm)
            self._held.promise(order, sentence)
            return self._lost(context, order, sentence)
        try:
            self._hypervisor.resume(
                order.vm, order.generation, partial(context.last_look, "resume.before_resume", order.vm)
            )
        except HypervisorRefused as error:
            return again(f"{order.vm} does not run on {order.host} yet: {error}")
        point("resume.resumed", order.vm)
        sentence = f"{order.vm} goes on on {order.host}"
        return Settlement(
            Outcome(state=StepState.DONE, sentence=sentence),
            events=[_told("migration_done", context.step, sentence)],
            after=self._report,
        )

    def _lost(self, context: Context, order: Order, sentence: str) -> Settlement:
        outcome = Outcome(
            state=StepState.REFUSED,
            sentence=sentence,
            facts={"released": order.generation},
            skips=_followers(context),
        )
        return Settlement(outcome, events=[_told("migration_failed", context.step, sentence)], after=self._report)


class _Course:
    """What one executor sees of one migration, and what it advises."""

    def __init__(self, context: Context, journal: Journal, policy: Policy) -> None:
        self._context, self._journal, self._policy = context, journal, policy
        self._seen = Course()
        self._last: Progress | None = None
        self.ended = ""

    def advise(self, now: Progress) -> Advice:
        """Return what to do now. One whose operation is over is ended; one whose lease alone was lost goes on."""
        self._last = now
        self._context.comes_on(now)
        if not self.ended and self._context.lost and self._is_over(self._context.operation.id):
            self.ended = "its operation was ended"
            return Advice(end=self.ended)
        self._seen = go_on(self._seen, now, self._policy)
        self.ended = self.ended or self._seen.advice.end
        return self._seen.advice

    def _is_over(self, identity: OperationId) -> bool:
        """Also one that the store does not know any more: what would come of it, nobody waits for."""
        operation = self._journal.operation(identity)
        return operation is None or operation.state is not OperationState.OPEN

    @property
    def facts(self) -> dict[str, float]:
        last = self._last
        if last is None:
            return {}
        return {"sent_mib": round(last.sent_mib, 1), "took_s": round(last.elapsed_s, 3), "rounds": last.rounds}


def _to(step: Step) -> tuple[Order, Destination]:
    order = ordered(step)
    if order.to is None:
        raise StaleToken(f"{step.key} has no destination")
    return order, order.to


def _left(operation: Operation, step: Step) -> bool:
    """Whether the journal holds the word of the host that was left."""
    before = [operation.step(key) for key in step.after]
    return any(one is not None and one.kind is StepKind.MIGRATE and one.state is StepState.DONE for one in before)


def _is(record: VmRecord, order: Order, to: Destination) -> bool:
    mine = (record.owner, record.owner_incarnation, record.generation)
    return mine == (order.host, order.incarnation, order.generation) and record.moving == to


def _followers(context: Context) -> tuple[str, ...]:
    return chain_from(context.operation, context.step.key)[1:]


def _done(sentence: str) -> Settlement:
    return Settlement(Outcome(state=StepState.DONE, sentence=sentence))


def _superseded(context: Context, order: Order) -> Settlement:
    sentence = f"{order.vm} has moved on to another owner meanwhile"
    outcome = Outcome(state=StepState.FAILED, sentence=sentence, facts={"superseded": True}, skips=_followers(context))
    return Settlement(outcome)


def _told(kind: str, step: Step, sentence: str) -> Happened:
    order = ordered(step)
    facts: dict[str, Fact] = {"vm": order.vm, "host": order.host, "generation": order.generation}
    if order.to is not None:
        facts |= {"from": order.host, "to": order.to.host}
    return Happened(kind=kind, subject=order.vm, sentence=sentence, facts=facts)
