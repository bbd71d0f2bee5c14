"""Operators' wishes about moving VMs: granted by opening an operation, or refused with what stands against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fangnetz.core.actions import EndOperation, Granting, OpenOperation
from fangnetz.core.decide.openings import vm_operation, wished_operation_id
from fangnetz.core.detector import Verdict, Watch
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import ClusterView, Wish
from fangnetz.core.moving import Move, Stays, plan_moves
from fangnetz.core.operations import OperationKind, OperationState, StepKind, StepState, migrate_steps
from fangnetz.core.policy import Policy
from fangnetz.core.rooms import TAKES_ROOM
from fangnetz.core.rules import RuleBook
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
    group = _group(vm, view, wish.to)
    busy = next((op for op in view.operations.values() if op.subject in group), None)
    if busy:
        raise WishRefused(f"{busy.id} is at work on {busy.subject}")
    found = plan_moves(group, view, watch, verdicts, policy, target=wish.to)
    stays = [one for one in found if isinstance(one, Stays)]
    if stays:
        alone = [one.vm for one in stays] == group == [vm]
        told = stays[0].because if alone else "; ".join(f"{one.vm}: {one.because}" for one in stays)
        raise WishRefused(f"{' and '.join(group)} cannot be moved: {told}")
    moves = [one for one in found if isinstance(one, Move)]
    targets = {move.target for move in moves}
    if len(targets) > 1:
        raise WishRefused(f"no host has room for {' and '.join(group)}, which run together: nothing is moved")
    (target,) = targets
    reason = f"{wish.by} asked to move {vm}{f' to {wish.to}' if wish.to else ''}"
    opened = {
        move.vm: replace(
            vm_operation(OperationKind.MIGRATE, move.vm, reason, migrate_steps(), view, epoch),
            target=wish.to if len(moves) == 1 else target,
        )
        for move in moves
    }
    opened[vm] = replace(opened[vm], id=wished_operation_id(wish, OperationKind.MIGRATE))
    told = f"{' and '.join(group)} {'moves' if len(group) == 1 else 'move'} to {target}: {moves[0].because}"
    return [OpenOperation(operation=one) for one in opened.values()], told, opened[vm].id


def _group(vm: VmId, view: ClusterView, to: HostId | None) -> list[VmId]:
    """Return the VM and those that run together with it: they move at once, or none does. What is there is left."""
    running = [
        record.id
        for name in RuleBook.of(view.vms.values()).group(vm) - {vm}
        if (record := view.vm_records.get(name)) is not None
        and record.owner not in (None, to)
        and record.state in TAKES_ROOM
    ]
    return [vm, *sorted(running)]


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
