"""Operators' wishes about moving VMs: granted by opening an operation, or refused with what stands against it."""

from __future__ import annotations

from collections.abc import Mapping

from fangnetz.core.actions import EndOperation, Granting, OpenOperation
from fangnetz.core.decide.openings import wished_operation_id
from fangnetz.core.detector import Verdict, Watch
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import ClusterView, Wish
from fangnetz.core.moving import Stays, plan_move
from fangnetz.core.operations import (
    Operation,
    OperationKind,
    OperationState,
    StepKind,
    StepState,
    migrate_steps,
)
from fangnetz.core.policy import Policy
from fangnetz.core.units import Epoch, HostId, OperationId, VmId

CANCELLABLE = frozenset({OperationKind.MIGRATE})
"""Kinds that a person may end: the VM goes on where it is. No recovery is ended so: it would leave VMs down."""


def migrate(
    wish: Wish,
    vm: VmId,
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    epoch: Epoch,
) -> Granting:
    """Open the move of one VM while it runs. WishRefused with the reason if it cannot be moved now."""
    if wish.to is not None and wish.to not in view.hosts:
        raise WishRefused(f"{wish.to} is no host of this cluster; it has {', '.join(sorted(view.hosts))}")
    record = view.vm_records.get(vm)
    if record is not None and record.owner is not None and record.owner == wish.to:
        raise WishRefused(f"{vm} runs on {wish.to} already")
    busy = next((op.id for op in view.operations.values() if op.subject == vm), None)
    if busy:
        raise WishRefused(f"{busy} is at work on {vm}")
    found = plan_move(vm, view, watch, verdicts, policy, target=wish.to)
    if isinstance(found, Stays):
        raise WishRefused(f"{vm} cannot be moved: {found.because}")
    operation = Operation(
        id=wished_operation_id(wish, OperationKind.MIGRATE),
        kind=OperationKind.MIGRATE,
        subject=vm,
        epoch=epoch,
        opened_at=view.now,
        reason=f"{wish.by} asked to move {vm}{f' to {wish.to}' if wish.to else ''}",
        steps=migrate_steps(),
        target=wish.to,
    )
    return [OpenOperation(operation=operation)], f"{vm} moves to {found.target}: {found.because}", operation.id


def cancel(wish: Wish, view: ClusterView) -> Granting:
    """End an operation that a person may end; whoever carries it out notices and stops."""
    operation = view.operations.get(OperationId(wish.subject))
    if operation is None:
        raise WishRefused(f"{wish.subject} is no open operation")
    if operation.kind not in CANCELLABLE:
        raise WishRefused(f"{operation.id} cannot be cancelled: a {operation.kind} is carried through to its end")
    if any(step.kind is StepKind.MIGRATE and step.state is StepState.DONE for step in operation.steps):
        raise WishRefused(f"{operation.subject} has left already: what has arrived goes on in a moment")
    sentence = f"{wish.by} cancelled it; {operation.subject} stays where it runs"
    return [EndOperation(id=operation.id, state=OperationState.CANCELLED, sentence=sentence)], sentence, operation.id
