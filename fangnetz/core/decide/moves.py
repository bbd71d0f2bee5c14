"""Wishes about moving VMs, running or stopped: granted by opening an operation, or refused with what is against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fangnetz.core.actions import EndOperation, Granting, OpenOperation
from fangnetz.core.decide.openings import vm_operation, wished_operation_id
from fangnetz.core.detector import Verdict, Watch
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import ClusterView, Wish, WishKind
from fangnetz.core.moving import Move, Stays
from fangnetz.core.operations import OperationKind, OperationState, StepKind, StepState, migrate_steps
from fangnetz.core.policy import Policy
from fangnetz.core.relocation import is_stopped, plan_relocations
from fangnetz.core.rooms import TAKES_ROOM
from fangnetz.core.rules import RuleBook
from fangnetz.core.units import Epoch, HostId, OperationId, VmId

CANCELLABLE = frozenset({OperationKind.MIGRATE, OperationKind.RELOCATE})
"""Kinds that a person may end: the VM goes on where it is. No recovery is ended so: it would leave VMs down."""

OPENED_BY_WISH = {WishKind.VM_MIGRATE: OperationKind.MIGRATE, WishKind.VM_RELOCATE: OperationKind.RELOCATE}
"""What the operation is called that a wish about moving opens: after what was asked for, also if the VM is stopped."""


def move(
    wish: Wish,
    vm: VmId,
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    epoch: Epoch,
) -> Granting:
    """Open the move of one VM, and of those that run together with it. WishRefused with the reason if it cannot be now.

    `vm_migrate`: while it runs; `vm_relocate`: it is stopped for that. Of one that is stopped both move the record.
    """
    if wish.to is not None and wish.to not in view.hosts:
        raise WishRefused(f"{wish.to} is no host of this cluster; it has {', '.join(sorted(view.hosts))}")
    record = view.vm_records.get(vm)
    if record is not None and record.owner is not None and record.owner == wish.to:
        raise WishRefused(f"{vm} {'is' if is_stopped(vm, view) else 'runs'} on {wish.to} already")
    stopped = is_stopped(vm, view)
    kind = OperationKind.RELOCATE if stopped or wish.kind is WishKind.VM_RELOCATE else OperationKind.MIGRATE
    group = _group(vm, view, wish.to, stopped=stopped)
    busy = next((op for op in view.operations.values() if op.subject in group), None)
    if busy:
        raise WishRefused(f"{busy.id} is at work on {busy.subject}")
    fixed = [name for name in group if not view.vms[name].spec.live]
    if fixed and kind is OperationKind.MIGRATE:
        told = f"`fangnetz vm relocate {vm}` stops {'it' if len(group) == 1 else 'them'}, moves and starts"
        raise WishRefused(f"{' and '.join(fixed)} cannot be moved while it runs (live: false): {told}")
    found = plan_relocations(group, view, watch, verdicts, policy, target=wish.to)
    stays = [one for one in found if isinstance(one, Stays)]
    if stays:
        told = stays[0].because if group == [vm] else "; ".join(f"{one.vm}: {one.because}" for one in stays)
        raise WishRefused(f"{' and '.join(group)} cannot be moved: {told}")
    moves = [one for one in found if isinstance(one, Move)]
    targets = {move.target for move in moves}
    if len(targets) > 1:
        raise WishRefused(f"no host has room for {' and '.join(group)}, which run together: nothing is moved")
    (target,) = targets
    verb = "move" if kind is OperationKind.MIGRATE or stopped else "stop, move and start"
    reason = f"{wish.by} asked to {verb} {vm}{f' to {wish.to}' if wish.to else ''}"
    opened = {
        move.vm: replace(
            vm_operation(kind, move.vm, reason, migrate_steps(), view, epoch),
            target=wish.to if len(moves) == 1 and kind is OperationKind.MIGRATE else target,
        )
        for move in moves
    }
    opened[vm] = replace(opened[vm], id=wished_operation_id(wish, OPENED_BY_WISH[wish.kind]))
    alone = len(group) == 1
    goes = "moves" if alone else "move"
    if kind is OperationKind.RELOCATE and not stopped:
        goes = "is stopped, moves" if alone else "are stopped, move"
    told = f"{' and '.join(group)} {goes} to {target}: {moves[0].because}"
    return [OpenOperation(operation=one) for one in opened.values()], told, opened[vm].id


def _group(vm: VmId, view: ClusterView, to: HostId | None, *, stopped: bool) -> list[VmId]:
    """Return the VM and those that run together with it: they move at once, or none does. What is there is left.

    With one that is stopped those that are stopped, too; one that runs keeps them where it is.
    """
    others = [
        record.id
        for name in RuleBook.of(view.vms.values()).group(vm) - {vm}
        if (record := view.vm_records.get(name)) is not None
        and record.owner not in (None, to)
        and (is_stopped(name, view) if stopped else record.state in TAKES_ROOM)
    ]
    return [vm, *sorted(others)]


def cancel(wish: Wish, view: ClusterView) -> Granting:
    """End an operation that a person may end; whoever carries it out notices and stops."""
    operation = view.operations.get(OperationId(wish.subject))
    if operation is None:
        raise WishRefused(f"{wish.subject} is no open operation")
    if operation.kind not in CANCELLABLE:
        raise WishRefused(f"{operation.id} cannot be cancelled: a {operation.kind} is carried through to its end")
    if any(step.kind is StepKind.STOP and (step.attempt or step.settled) for step in operation.steps):
        raise WishRefused(f"{operation.subject} is being stopped already: it starts again in a moment")
    if any(step.kind is StepKind.MIGRATE and step.state is StepState.DONE for step in operation.steps):
        raise WishRefused(f"{operation.subject} has left already: what has arrived goes on in a moment")
    sentence = f"{wish.by} cancelled it; {operation.subject} stays where it runs"
    return [EndOperation(id=operation.id, state=OperationState.CANCELLED, sentence=sentence)], sentence, operation.id
