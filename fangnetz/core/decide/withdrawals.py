"""A proof that is withdrawn: in files first, then in the record, and whatever rests on it ends. Decides on no VM."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fangnetz.core.actions import Action, EndOperation, RememberProof
from fangnetz.core.lifecycle import HostEvent, next_state
from fangnetz.core.model import ClusterView, HostRecord, HostState, OffProof
from fangnetz.core.operations import Operation, OperationKind, OperationState, StepKind
from fangnetz.core.units import HostId, VmId

_TAKEN_OFF = frozenset({HostState.FENCED, HostState.RETURNING, HostState.NEEDS_PERSON})


def withdrawal(view: ClusterView, proof: OffProof) -> list[Action]:
    """Return the file that says so, unless it does already. Files first: they outlive the record."""
    kept = view.proofs.get(proof.host)
    told = kept is not None and kept.void and kept.incarnation == proof.incarnation
    return [] if told else [RememberProof(proof=replace(proof, void=True))]


def without_proof(record: HostRecord, proof: OffProof, view: ClusterView, sentence: str) -> HostRecord:
    """Return the record of a host whose proof is void: a person is asked."""
    taken_off = record.state in _TAKEN_OFF
    return replace(
        record,
        state=next_state(record.state, HostEvent.OLD_BOOT_SPEAKS) if taken_off else HostState.NEEDS_PERSON,
        since=view.now,
        reason=sentence,
        proof=replace(proof, void=True),
    )


def endings(view: ClusterView, host: HostId, sentence: str) -> Iterable[EndOperation]:
    """Return the end of every open operation on the host, and of every start of a VM that was planned away from it."""
    for op in view.operations.values():
        if op.subject == host or _rests_on(op, view, host):
            yield EndOperation(id=op.id, state=OperationState.NEEDS_PERSON, sentence=sentence)


def _rests_on(op: Operation, view: ClusterView, host: HostId) -> bool:
    """Whether it starts a VM that was, or is just being, planned away from this host because of the proof."""
    if op.kind is not OperationKind.START:
        return False
    record = view.vm_records.get(VmId(op.subject))
    if record is not None and record.owner == host:
        return True
    return any(
        name.startswith("from/") and value == host
        for plan in op.of_kind(StepKind.PLAN)
        for name, value in plan.facts.items()
    )
