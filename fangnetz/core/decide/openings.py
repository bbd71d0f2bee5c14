"""Operations as a decision opens them: their names, and a fresh failover. Opens nothing itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from fangnetz.core.detector import heard
from fangnetz.core.model import ClusterView, OffProof, Wish
from fangnetz.core.operations import Operation, OperationKind, Order, Step, StepKind, failover_steps
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, OperationId, VmId


def operation_id(kind: OperationKind, subject: str, now: Instant) -> OperationId:
    """Return a readable id that no other operation has: kind, subject, milliseconds."""
    return OperationId(f"{kind}-{subject}-{int(now * 1000):x}")


def wished_operation_id(wish: Wish, kind: OperationKind = OperationKind.FAILOVER) -> OperationId:
    """Return the id of the operation that carries out a wish: the same however often the wish is granted."""
    return OperationId(f"{kind}-{wish.subject}-w{hashlib.sha256(wish.id.encode()).hexdigest()[:12]}")


def new_failover(
    host: HostId,
    incarnation: Incarnation,
    view: ClusterView,
    epoch: Epoch,
    reason: str,
    *,
    proof: OffProof | None = None,
    forced_by: str = "",
    suspected_at: Instant | None = None,
    identity: OperationId | None = None,
) -> Operation:
    """Return a failover of one incarnation of `host`, ready to be journaled."""
    identity = identity or operation_id(OperationKind.FAILOVER, host, view.now)
    beat = heard(view, host)
    return Operation(
        id=identity,
        kind=OperationKind.FAILOVER,
        subject=host,
        epoch=epoch,
        opened_at=view.now,
        reason=reason,
        steps=failover_steps(),
        incarnation=incarnation,
        incident=identity,
        forced_by=forced_by,
        proof=proof,
        suspected_at=suspected_at,
        last_heard_at=beat.received_at if beat else None,
    )


def order_to(view: ClusterView, vm: VmId, host: HostId, generation: Generation, for_s: float) -> Order | None:
    """Return an order to the boot of the host that reports; None if none does. It holds for `for_s` seconds."""
    beat = heard(view, host)
    if beat is None:
        return None
    return order_to_boot(view, vm, host, beat.incarnation, generation, for_s)


def order_to_boot(
    view: ClusterView, vm: VmId, host: HostId, incarnation: Incarnation, generation: Generation, for_s: float
) -> Order:
    """Return an order to one boot of the host. It holds for `for_s` seconds."""
    return Order(
        vm=vm,
        host=host,
        incarnation=incarnation,
        generation=generation,
        life=view.life.incarnation,
        deadline=Instant(view.now + for_s),
    )


def vm_operation(
    kind: OperationKind, vm: VmId, reason: str, steps: tuple[Step, ...], view: ClusterView, epoch: Epoch
) -> Operation:
    """Return an operation about one VM, ready to be journaled."""
    return Operation(
        id=operation_id(kind, vm, view.now),
        kind=kind,
        subject=vm,
        epoch=epoch,
        opened_at=view.now,
        reason=reason,
        steps=steps,
    )


def stops_under_way(operations: Iterable[Operation]) -> Counter[HostId]:
    """Return how many guests are being shut down in order on each host."""
    return Counter(
        step.order.host
        for op in operations
        for step in op.of_kind(StepKind.STOP)
        if step.order is not None and not step.order.force and not step.settled
    )


def failover_of(host: HostId, view: ClusterView) -> OperationId | None:
    """Return the open failover of a host, if there is one."""
    return next(
        (o.id for o in view.operations.values() if o.subject == host and o.kind is OperationKind.FAILOVER),
        None,
    )
