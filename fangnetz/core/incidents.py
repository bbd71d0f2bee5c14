"""An incident: one host's failure and all that followed, read from the journal's operations. Never decides anything.

A failover is its backbone; starts that later finished what it left waiting belong to it as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fangnetz.core.model import OffProof, ProofKind, VmState
from fangnetz.core.operations import Facts, Operation, OperationKind, OperationState, Step, StepKind, StepState
from fangnetz.core.units import HostId, Incarnation, Instant, OperationId, VmId


class VmOutcome(StrEnum):
    """What became of one VM of the lost host."""

    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"
    NEEDS_PERSON = "needs_person"
    SUPERSEDED = "superseded"
    """Another operation, or an operator, took the VM over before this one had it running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentProof:
    """Why the host is known not to write any more. `answers`: what each device literally said."""

    kind: ProofKind
    at: Instant
    sentence: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentVm:
    """One VM of the incident. `guest_up_at` stays None: nobody asks inside the guest."""

    vm: VmId
    source: HostId
    target: HostId | None
    start_sent_at: Instant | None
    running_at: Instant | None
    outcome: VmOutcome
    reason: str
    guest_up_at: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """The timeline of one failure; instants are the store's clock, None where it did not happen or is not known."""

    id: OperationId
    host: HostId
    incarnation: Incarnation
    state: OperationState
    last_heard_at: Instant | None
    suspected_at: Instant | None
    opened_at: Instant
    confirmed_at: Instant | None
    fence_sent_at: Instant | None
    fence_proven_at: Instant | None
    recovered_at: Instant | None
    """When the last of its VMs ran; None until all of them do."""
    closed_at: Instant | None
    reason: str
    sentence: str
    """What it came to; empty while it is open."""
    evidence: tuple[str, ...]
    proof: IncidentProof | None
    vms: tuple[IncidentVm, ...]

    @property
    def began_at(self) -> Instant:
        """The last sign of life before it, else the first moment known."""
        first = self.suspected_at if self.suspected_at is not None else self.opened_at
        # A host that is back already has been heard after the failure: that is no beginning.
        if self.last_heard_at is not None and self.last_heard_at <= first:
            return self.last_heard_at
        return first


def incidents(operations: Iterable[Operation]) -> tuple[Incident, ...]:
    """Return every incident in the operations, the latest first."""
    known = tuple(operations)
    found = [incident_of(op, known) for op in known if op.kind is OperationKind.FAILOVER]
    return tuple(sorted(found, key=lambda incident: (incident.opened_at, incident.id), reverse=True))


def incident_of(failover: Operation, operations: Iterable[Operation] = ()) -> Incident:
    """Return the incident of one failover. `operations`: where later starts of its VMs are looked for."""
    later = sorted(
        (op for op in operations if op.opened_at >= failover.opened_at and op.id != failover.id),
        key=lambda op: op.opened_at,
    )
    vms = tuple(_finished(_vm(failover, vm), vm, later) for vm in _vms(failover))
    ran = [vm.running_at for vm in vms if vm.outcome is VmOutcome.RUNNING and vm.running_at is not None]
    recovered = max(ran) if vms and len(ran) == len(vms) else None
    proof = _proof(failover)
    state = failover.state
    if state is OperationState.NEEDS_PERSON and recovered is not None:
        state = OperationState.DONE
    return Incident(
        id=failover.id,
        host=HostId(failover.subject),
        incarnation=failover.incarnation,
        state=state,
        last_heard_at=failover.last_heard_at,
        suspected_at=failover.suspected_at,
        opened_at=failover.opened_at,
        confirmed_at=_done_at(failover.step("confirm")),
        fence_sent_at=_instant(_facts(failover, "fence"), "fence_sent_at"),
        fence_proven_at=_proven_at(failover, proof),
        recovered_at=recovered,
        closed_at=failover.closed_at,
        reason=failover.reason,
        sentence=failover.sentence,
        evidence=_evidence(failover),
        proof=proof,
        vms=vms,
    )


# --- steps -------------------------------------------------------------------------------------------------------


def _facts(operation: Operation, key: str) -> Facts:
    step = operation.step(key)
    return step.facts if step else {}


def _instant(facts: Facts, name: str) -> Instant | None:
    value = facts.get(name)
    return Instant(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _done_at(step: Step | None) -> Instant | None:
    return step.ended_at if step is not None and step.state is StepState.DONE else None


# --- proof and evidence ------------------------------------------------------------------------------------------


def _proof(failover: Operation) -> IncidentProof | None:
    fence, confirm, prove = failover.step("fence"), failover.step("confirm"), failover.step("prove")
    if failover.proof is not None:
        return _known_proof(failover.proof)
    if fence is None:
        return None
    if fence.state is StepState.SKIPPED and confirm is not None and confirm.state is StepState.DONE:
        return IncidentProof(kind=ProofKind.REBOOTED, at=confirm.ended_at, sentence=confirm.sentence)
    if fence.state is StepState.DONE and prove is not None and prove.state is StepState.SKIPPED:  # seen only then
        return IncidentProof(kind=ProofKind.REBOOTED, at=fence.ended_at, sentence=fence.sentence)
    proven_at = _instant(fence.facts, "fence_proven_at")
    if fence.state is not StepState.DONE or proven_at is None:
        return None
    sent = fence.facts.get("fence_sent_at") is not None
    return IncidentProof(
        kind=_written_kind(fence.facts) or (ProofKind.READ_BACK_OFF if sent else ProofKind.ALREADY_OFF),
        at=proven_at,
        sentence=fence.sentence,
        answers=_said(fence.facts, "read/"),
    )


def _known_proof(proof: OffProof) -> IncidentProof:
    answers = tuple(f"{reading.device}: {reading.power}: {reading.raw}" for reading in proof.evidence)
    return IncidentProof(kind=proof.kind, at=proof.proven_at, sentence=proof.sentence, answers=answers)


def _written_kind(facts: Facts) -> ProofKind | None:
    """Return the kind in the proof that the fence step wrote down as JSON, or None if it is not readable."""
    text = facts.get("proof")
    try:
        return ProofKind(json.loads(text)["kind"]) if isinstance(text, str) else None
    except (ValueError, KeyError, TypeError):
        return None


def _proven_at(failover: Operation, proof: IncidentProof | None) -> Instant | None:
    if proof is None or proof.kind is ProofKind.REBOOTED:
        return None
    return _instant(_facts(failover, "prove"), "fence_proven_at") or proof.at


def _said(facts: Facts, prefix: str) -> tuple[str, ...]:
    return tuple(f"{name.removeprefix(prefix)}: {value}" for name, value in facts.items() if name.startswith(prefix))


def _evidence(failover: Operation) -> tuple[str, ...]:
    """Return what spoke for the loss and for the proof, and what stood against it, in the order it was found."""
    said: list[str] = [failover.reason]
    for key in ("confirm", "fence", "prove"):
        step = failover.step(key)
        if step is None:
            continue
        said += [str(value) for name, value in step.facts.items() if name.startswith("signal_")]
        said += [f"switched off: {answer}" for answer in _said(step.facts, "answer/")]
        said += [f"read: {answer}" for answer in _said(step.facts, "read/")]
        if step.sentence:
            said.append(step.sentence)
    return tuple(dict.fromkeys(sentence for sentence in said if sentence))


# --- VMs ---------------------------------------------------------------------------------------------------------


def _vms(failover: Operation) -> tuple[VmId, ...]:
    """Return the VMs its plans speak of, in the order of the plans."""
    names: list[str] = []
    for plan in failover.of_kind(StepKind.PLAN):
        for name in plan.facts:
            kind, _, vm = name.partition("/")
            if kind in ("to", "left") and vm:
                names.append(vm)
    names += [step.order.vm for step in failover.of_kind(StepKind.START) if step.order is not None]
    return tuple(VmId(name) for name in dict.fromkeys(names))


def _of_vm(operation: Operation, kind: StepKind, vm: VmId) -> tuple[Step, ...]:
    return tuple(step for step in operation.of_kind(kind) if step.order is not None and step.order.vm == vm)


def _vm(failover: Operation, vm: VmId) -> IncidentVm:
    """Return what the failover itself did with the VM."""
    source = HostId(failover.subject)
    ran = _running(failover, vm, source)
    if ran is not None:
        return ran
    tries = _of_vm(failover, StepKind.START, vm)
    seen = _of_vm(failover, StepKind.SEE_RUNNING, vm)
    target = tries[-1].order.host if tries and tries[-1].order is not None else None
    sent = _instant(tries[-1].facts, "start_sent_at") if tries else None
    outcome, reason = VmOutcome.WAITING, ""
    left = _left(failover, vm)
    if left is not None:
        (outcome, reason), target, sent = left, None, None
    elif any(step.facts.get("superseded") for step in (*tries[-1:], *seen[-1:])):
        outcome, reason = VmOutcome.SUPERSEDED, (seen or tries)[-1].sentence
    elif tries and tries[-1].state is StepState.FAILED:
        # An order that nobody answered may have been carried out: no other host may try.
        outcome, reason = VmOutcome.NEEDS_PERSON, tries[-1].sentence
    elif seen and seen[-1].state is StepState.FAILED:
        outcome, reason = VmOutcome.FAILED, seen[-1].sentence
    elif tries:
        reason = (seen[-1].sentence if seen else "") or tries[-1].sentence or f"is being started on {target}"
    return IncidentVm(
        vm=vm, source=source, target=target, start_sent_at=sent, running_at=None, outcome=outcome, reason=reason
    )


def _left(failover: Operation, vm: VmId) -> tuple[VmOutcome, str] | None:
    """Return what the last plan says of a VM it gave to nobody, or None if it gave it to somebody."""
    said: tuple[VmOutcome, str] | None = None
    for plan in failover.of_kind(StepKind.PLAN):
        if f"to/{vm}" in plan.facts:
            said = None
        if f"left/{vm}" in plan.facts:
            said = _outcome_of(plan.facts.get(f"left_state/{vm}")), str(plan.facts[f"left/{vm}"])
    return said


def _outcome_of(state: object) -> VmOutcome:
    match state:
        case VmState.FAILED.value:
            return VmOutcome.FAILED
        case VmState.NEEDS_PERSON.value:
            return VmOutcome.NEEDS_PERSON
        case _:
            return VmOutcome.WAITING


def _running(operation: Operation, vm: VmId, source: HostId) -> IncidentVm | None:
    """Return the VM as this operation saw it running, or None if it did not."""
    for seen in reversed(_of_vm(operation, StepKind.SEE_RUNNING, vm)):
        if seen.state is not StepState.DONE or seen.order is None:
            continue
        start = operation.step(seen.after[0]) if seen.after else None
        return IncidentVm(
            vm=vm,
            source=source,
            target=seen.order.host,
            start_sent_at=_instant(start.facts, "start_sent_at") if start else None,
            running_at=_instant(seen.facts, "running_at") or seen.ended_at,
            outcome=VmOutcome.RUNNING,
            reason=_because(operation, vm) or seen.sentence,
        )
    return None


def _because(operation: Operation, vm: VmId) -> str:
    """Return the last plan's reason for the host it chose."""
    reasons = [plan.facts.get(f"because/{vm}") for plan in operation.of_kind(StepKind.PLAN)]
    return next((str(reason) for reason in reversed(reasons) if reason), "")


def _finished(vm: IncidentVm, name: VmId, later: Sequence[Operation]) -> IncidentVm:
    """Return the VM as later operations left it: the first that had it running ends the story, so does a stop."""
    if vm.outcome is VmOutcome.RUNNING:
        return vm
    for operation in later:
        if operation.kind in (OperationKind.START, OperationKind.FAILOVER):
            ran = _running(operation, name, vm.source)
            if ran is not None:
                return ran
        elif _stopped(operation, name):
            reason = operation.sentence or operation.reason
            return replace(vm, outcome=VmOutcome.SUPERSEDED, reason=reason)
    return vm


def _stopped(operation: Operation, vm: VmId) -> bool:
    return operation.kind is OperationKind.STOP and operation.subject == vm and operation.state is OperationState.DONE
