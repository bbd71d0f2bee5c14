"""Steps of a failover that decide: confirm the loss, write the proof down, plan, close. None of them touches power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import TypeAdapter

from fangnetz.core.actions import Happened
from fangnetz.core.decide.wishes import WISH_AGE_MAX_S
from fangnetz.core.detector import Finding, heard
from fangnetz.core.errors import StaleToken
from fangnetz.core.fencing import holds, spoke
from fangnetz.core.model import ClusterView, HostRecord, HostSpec, HostState, OffProof, Sighting, VmState
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
    vm_start_steps,
)
from fangnetz.core.policy import Policy
from fangnetz.core.quarantine import with_exit
from fangnetz.core.quorum import BrakeKind, brakes
from fangnetz.core.recovery import plan_recovery, starts_of
from fangnetz.core.relocation import is_stopped, not_listed_yet, plan_restart, verdict_of_relocation
from fangnetz.core.units import Generation, HostId, Instant, Seconds, VmId
from fangnetz.engine.execute import Context, Settlement
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.observe import Observation, observe
from fangnetz.engine.steps.relocate import Relocating
from fangnetz.ports import Assign, Store

PROOF: TypeAdapter[OffProof] = TypeAdapter(OffProof)
PUT_TRIES_MAX = 10
"""A host's record is written against what was read; so often it is read anew."""


class FailoverSteps:
    """Effects on the `work` queue."""

    def __init__(self, store: Store, hosts: Mapping[HostId, HostSpec], policy: Policy, ledger: Ledger) -> None:
        self._store, self._hosts, self._policy, self._ledger = store, hosts, policy, ledger
        self._relocating = Relocating(store, hosts, policy)

    # -- confirm --

    def confirm(self, context: Context) -> Settlement:
        """Judge once more, on everything that is known now; go on, skip the fence, or cancel."""
        seen = observe(self._store, self._hosts, self._policy)
        why, skips, refusal = grounds(context.operation, seen, self._policy)
        if refusal:
            outcome = Outcome(state=StepState.FAILED, sentence=refusal, closes=OperationState.CANCELLED)
            return Settlement(outcome)
        verdict = seen.verdicts[HostId(context.operation.subject)]
        facts: dict[str, Fact] = {"finding": verdict.finding.value}
        for number, signal in enumerate(verdict.signals, start=1):
            facts[f"signal_{number}"] = f"{signal.source}: {signal.answer} ({signal.detail})"
        return Settlement(Outcome(state=StepState.DONE, sentence=why, facts=facts, skips=skips))

    # -- prove --

    def prove(self, context: Context) -> Settlement:
        """Write the proof into files and record before anybody may use it."""
        operation = context.operation
        fence = operation.step("fence")
        text = fence.facts.get("proof") if fence else None
        if not isinstance(text, str):
            raise StaleToken(f"{operation.id}: the fence step left no proof")
        proof = PROOF.validate_json(text)
        host = HostId(operation.subject)
        self._ledger.sync()  # another controller may have withdrawn a proof of this boot
        view = self._store.view(self._hosts, None)
        if not holds(view, proof, operation.incarnation):
            return self._not_believed(proof, view)
        self._ledger.write([proof], view.now)
        for _ in range(PUT_TRIES_MAX):
            view = self._store.view(self._hosts, None)
            if not holds(view, proof, operation.incarnation):
                return self._not_believed(proof, view)
            old = view.host_records.get(host)
            context.guard()
            fenced = self._fenced(host, old, proof, operation, view)
            if self._store.put_host(fenced, old, operation.epoch):
                break
        else:
            raise StaleToken(f"{operation.id}: the record of {host} changes too fast")
        event = Happened(
            kind="fence_proven",
            subject=host,
            sentence=proof.sentence,
            facts={"host": host, "proof": proof.kind.value, "incarnation": proof.incarnation},
        )
        state = Happened(
            kind="host_state",
            subject=host,
            sentence=f"{host} is fenced: {fenced.reason}",
            facts={"host": host, "state": HostState.FENCED.value},
        )
        return Settlement(
            Outcome(state=StepState.DONE, sentence=proof.sentence, facts={"fence_proven_at": self._store.now()}),
            events=[event, state],
        )

    def _not_believed(self, proof: OffProof, view: ClusterView) -> Settlement:
        """End the failover: that boot spoke after the proof, or after an earlier one. Files are told first."""
        host = proof.host
        sentence = (
            f"an earlier proof that this boot of {host} is off was withdrawn, so no device is believed about it. Make "
            f"sure by hand that it is off, then `fangnetz host confirm-off {host}`"
        )
        said = spoke(proof, view)
        if said:
            self._ledger.write([replace(proof, void=True)])
            sentence = f"{said} after it was proven off ({proof.sentence}): the fence device may lie"
        return Settlement(Outcome(state=StepState.FAILED, sentence=sentence, closes=OperationState.NEEDS_PERSON))

    def _fenced(
        self, host: HostId, old: HostRecord | None, proof: OffProof, operation: Operation, view: ClusterView
    ) -> HostRecord:
        fence = operation.step("fence")
        cut = fence is not None and bool(fence.facts.get("fence_sent_at"))
        lost_claim = fence is not None and fence.attempt > 1
        # An executor that died between its cut and its outcome left only the intent; then it reads off for us.
        intended = lost_claim and old is not None and old.cut_by == operation.id
        ours = cut or intended
        exits = old.exits if old is not None else ()
        doc = view.host_docs.get(host)
        if not operation.forced_by and not (doc is not None and doc.maintenance):  # what people do says nothing of it
            exits = with_exit(exits, operation.suspected_at or operation.opened_at)
        return replace(
            old or HostRecord(id=host),
            exits=exits,
            state=HostState.FENCED,
            since=view.now,
            reason=proof.sentence if ours else proof.sentence + _earlier_cut(old, operation),
            incarnation=operation.incarnation,
            proof=proof,
            cut_by=operation.id if ours else None,
            cut_possible_until=Instant(fence.claimed_at + self._policy.fence_bound_s)
            if fence is not None and lost_claim
            else Instant(0.0),
        )

    # -- plan --

    def plan(self, context: Context) -> Settlement:
        """Give every VM a host and a new generation, or a reason. Ownership is written with this step's outcome."""
        seen = observe(self._store, self._hosts, self._policy)
        operation = self._store.operation(context.operation.id) or context.operation
        relocates = operation.kind is OperationKind.RELOCATE
        if relocates and not_listed_yet(operation, seen.view, self._policy):
            said = f"{operation.subject} has stopped; its host lists its VMs anew in a moment"
            return Settlement(Outcome(state=StepState.READY, sentence=said, retry_after_s=Seconds(0.2)))
        planned = plan_restart if relocates else plan_recovery
        plan = planned(operation, seen.view, seen.watch, seen.verdicts, self._policy)
        deadline = Instant(seen.view.now + self._policy.start_bound_s)
        assigns: list[Assign] = []
        adds: list[Step] = []
        facts: dict[str, Fact] = {}
        for chosen in plan.assignments:
            record = seen.view.vm_records[chosen.vm]
            order = Order(
                vm=chosen.vm,
                host=chosen.host,
                incarnation=chosen.incarnation,
                generation=record.generation,
                life=seen.view.life.incarnation,
                deadline=deadline,
            )
            attempt = len(starts_of(operation, chosen.vm)) + 1
            pair: tuple[Step, ...] = vm_start_steps(order, attempt=attempt, after=context.step.key)
            if relocates and is_stopped(chosen.vm, seen.view):
                pair = ()
            adds.extend(pair)
            assigns.append(
                Assign(
                    vm=chosen.vm,
                    expected=record.generation,
                    floor=highest_reported(seen.view, chosen.vm),
                    owner=chosen.host,
                    incarnation=chosen.incarnation,
                    reason=chosen.because,
                    steps=tuple(step.key for step in pair),
                )
            )
            facts[f"to/{chosen.vm}"] = chosen.host
            facts[f"from/{chosen.vm}"] = record.owner
            facts[f"because/{chosen.vm}"] = chosen.because
        for left in plan.unassigned:
            facts[f"left/{left.vm}"] = left.reason
            facts[f"left_state/{left.vm}"] = left.state.value
        sentence = f"{len(plan.assignments)} to start, {len(plan.unassigned)} left"

        def tell() -> None:
            for left in plan.unassigned:
                generation = seen.view.vm_records[left.vm].generation
                self._store.mark_vm(left.vm, generation, left.state, left.reason, operation.epoch)
            for give in assigns if relocates else ():
                self._relocating.given(operation, give)

        return Settlement(
            Outcome(state=StepState.DONE, sentence=sentence, facts=facts, adds=tuple(adds)),
            assigns=assigns,
            placements=seen.view.placements,
            after=tell,
        )

    # -- see running --

    def see_running(self, context: Context) -> Settlement:
        """Look for the started VM in its host's own report, for a moment; else come back."""
        order = context.step.order
        if order is None:
            raise StaleToken(f"{context.step.key} has no order")
        end = context.clock.monotonic() + 2.0
        while True:
            view = self._store.view(self._hosts, None)
            record, beat = view.vm_records.get(order.vm), heard(view, order.host)
            if record is None or record.generation != order.generation:
                return Settlement(
                    Outcome(
                        state=StepState.FAILED,
                        sentence=f"{order.vm} has moved on to another owner meanwhile",
                        facts={"superseded": True},
                    )
                )
            seen = beat.sees(order.vm) if beat is not None and beat.incarnation == order.incarnation else None
            if seen is not None and seen.generation == order.generation and seen.state is not Sighting.INCOMING:
                reason, epoch = f"runs on {order.host}", context.operation.epoch
                self._store.mark_vm(order.vm, order.generation, VmState.RUNNING, reason, epoch)
                event = Happened(
                    kind="vm_started",
                    subject=order.vm,
                    sentence=f"{order.vm} runs on {order.host}",
                    facts={"vm": order.vm, "host": order.host, "generation": order.generation},
                )
                return Settlement(
                    Outcome(
                        state=StepState.DONE,
                        sentence=f"{order.vm} runs on {order.host}",
                        facts={"running_at": beat.received_at if beat else view.now},
                    ),
                    events=[event],
                )
            start = context.operation.step(context.step.after[0]) if context.step.after else None
            if (
                start is not None
                and beat is not None
                and beat.incarnation == order.incarnation
                and beat.received_at - beat.inventory_age_s > start.ended_at + 1.0
            ):
                return Settlement(
                    Outcome(
                        state=StepState.FAILED,
                        sentence=f"{order.vm} was started on {order.host} and ended at once",
                    )
                )
            if view.now > order.deadline:
                return Settlement(
                    Outcome(
                        state=StepState.FAILED,
                        sentence=f"{order.host} started {order.vm} and has not reported since",
                    )
                )
            if context.clock.monotonic() >= end:
                return Settlement(
                    Outcome(
                        state=StepState.READY,
                        sentence=f"{order.host} has not reported {order.vm} yet",
                        retry_after_s=Seconds(0.5),
                    )
                )
            context.clock.sleep(Seconds(0.03))

    # -- close --

    def close(self, context: Context) -> Settlement:
        """End the operation in a named state, with a sentence a person understands."""
        operation = self._store.operation(context.operation.id) or context.operation
        state, sentence = verdict_of(operation)

        outcome = Outcome(state=StepState.DONE, sentence=sentence, closes=state)
        stuck = (operation.kind, state) == (OperationKind.MIGRATE, OperationState.FAILED)
        if stuck:
            return Settlement(outcome, after=lambda: self._relocating.stuck(operation))
        return Settlement(outcome)


def _earlier_cut(old: HostRecord | None, operation: Operation) -> str:
    """Return what to add about a cut by an operation that is over: whether it took effect nobody can tell any more.

    When it ended, a person was asked to see to the host, or it spoke. So it may have been switched off by hand since,
    with somebody at it: then it is not switched on by us (decision 4).
    """
    if old is None or old.cut_by in (None, operation.id) or old.incarnation != operation.incarnation:
        return ""
    return (
        f"; {old.cut_by} had set out to cut it and ended without proof, so it may as well have been switched off by "
        "hand since: it stays off until a person switches it on"
    )


def grounds(
    operation: Operation, seen: Observation, policy: Policy, *, cut_sent: bool = False
) -> tuple[str, tuple[str, ...], str]:
    """Return (why it may go on, steps that are not needed, why it must not go on): one of the first or the last.

    Asked when a loss is confirmed, when a fence begins and again right before each cut. A person's word to fence holds
    for a minute, or to its end once a cut was sent (`cut_sent`: by a claim that has not said so in the journal yet).
    """
    host = HostId(operation.subject)
    if host not in seen.verdicts:
        return "", (), f"{host} is not in this controller's cluster file (any more): put it back to recover its VMs"
    verdict, beat = seen.verdicts[host], heard(seen.view, host)
    # However long ago it was heard: it cannot have begun before the boot in question ended.
    if beat is not None and beat.incarnation != operation.incarnation:
        return f"{host} has booted anew: nothing is left to fence", ("fence", "prove"), ""
    if operation.forced_by:
        fence, age = operation.step("fence"), seen.view.now - (operation.suspected_at or operation.opened_at)
        if age > WISH_AGE_MAX_S and not cut_sent and not (fence and fence.facts.get("fence_sent_at")):
            said = f"{operation.forced_by} asked {age:.0f} s ago to fence {host} and nothing was cut; what was so then"
            return "", (), f"{said} need not be so now: say it again"
        return f"{operation.forced_by} asked for it", (), ""
    if operation.proof is not None:
        if holds(seen.view, operation.proof, operation.incarnation):
            return operation.proof.sentence, (), ""
        return "", (), f"{host} reported after it was proven off: {verdict.sentence}"
    if verdict.finding not in (Finding.LOST, Finding.ISOLATED):
        return "", (), f"no longer lost: {verdict.sentence}"
    held = [
        brake
        for brake in brakes(host, seen.view, seen.watch, seen.verdicts, policy)
        if brake.kind is not BrakeKind.PAUSED  # the store refuses what must not begin; what has begun goes on
    ]
    if held:
        return "", (), f"{host} is not fenced: " + "; ".join(brake.sentence for brake in held)
    return verdict.sentence, (), ""


def _verdict_of_move(operation: Operation) -> tuple[OperationState, str]:
    """A move has come to its end when the VM was seen running at its new host; else what was said last stands."""
    for step in reversed(operation.steps):
        if step.kind is StepKind.CLOSE or step.state is StepState.SKIPPED:
            continue
        ran = step.kind is StepKind.SEE_RUNNING and step.state is StepState.DONE
        return (OperationState.DONE if ran else OperationState.FAILED), step.sentence
    return OperationState.FAILED, f"{operation.subject} was not moved"


def highest_reported(view: ClusterView, vm: VmId) -> Generation:
    """Return the highest generation of this VM that any host ever reported, running or released."""
    numbers = [0]
    for beat in view.heartbeats.values():
        numbers += [seen.generation for seen in beat.inventory if seen.vm == vm and seen.generation is not None]
        numbers += [release.generation for release in beat.releases if release.vm == vm]
    return Generation(max(numbers))


def verdict_of(operation: Operation) -> tuple[OperationState, str]:
    """Return the state and the sentence an operation ends with, from its steps."""
    if operation.kind is OperationKind.RETURN:
        return OperationState.DONE, f"{operation.subject} is switched on again"
    if operation.kind in (OperationKind.MIGRATE, OperationKind.RESUME):
        return _verdict_of_move(operation)
    if operation.kind is OperationKind.RELOCATE:
        return verdict_of_relocation(operation)
    if operation.kind in (OperationKind.STOP, OperationKind.PAUSE):
        only = next((step for step in operation.steps if step.kind in (StepKind.STOP, StepKind.PAUSE)), None)
        well = only is not None and only.state is StepState.DONE
        return (OperationState.DONE if well else OperationState.FAILED), only.sentence if only else "nothing to stop"
    wanted: dict[str, str] = {}
    for plan in operation.of_kind(StepKind.PLAN):
        for name, value in plan.facts.items():
            kind, _, vm = name.partition("/")
            if kind == "to":
                wanted[vm] = ""
            elif kind == "left":
                wanted[vm] = f"{vm}: {value}"
    needs_person = any(
        value == VmState.NEEDS_PERSON.value
        for plan in operation.of_kind(StepKind.PLAN)
        for name, value in plan.facts.items()
        if name.startswith("left_state/")
    )
    running = {s.order.vm for s in operation.of_kind(StepKind.SEE_RUNNING) if s.order and s.state is StepState.DONE}
    unanswered = [
        s.order.vm
        for s in (*operation.of_kind(StepKind.START), *operation.of_kind(StepKind.SEE_RUNNING))
        if s.order is not None
        and s.state is StepState.FAILED
        and not s.facts.get("superseded")
        and s.order.vm not in running
    ]
    for vm in dict.fromkeys(unanswered):
        wanted[vm] = wanted.get(vm) or f"{vm}: its start was not answered or it ended at once"
    left = [reason for vm, reason in wanted.items() if vm not in running and reason]
    sentence = f"{len(running)} of {len(wanted)} VMs run" if wanted else "it had no VMs to recover"
    if left:
        sentence += "; left: " + "; ".join(left)
    if needs_person:
        return OperationState.NEEDS_PERSON, sentence
    if operation.kind is OperationKind.START and not running:
        return OperationState.FAILED, sentence
    return OperationState.DONE, sentence
