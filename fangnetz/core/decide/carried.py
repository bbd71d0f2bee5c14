"""Which VMs operations are at work on: nothing else is decided about them meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

from fangnetz.core.model import VmRecord
from fangnetz.core.operations import Operation, OperationKind, StepKind
from fangnetz.core.units import Generation, Incarnation, OperationId, VmId


class Carried:
    """Which VMs some open operations carry: asked once for each VM in every tick."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._ids: set[OperationId] = set()
        self._subjects: set[str] = set()
        self._boots: set[tuple[str, Incarnation | None]] = set()
        self._orders: set[tuple[VmId, Generation]] = set()
        for op in operations:
            self._ids.add(op.id)
            self._subjects.add(op.subject)
            if op.kind is OperationKind.FAILOVER:
                self._boots.add((op.subject, op.incarnation))
                self._orders.update((s.order.vm, s.order.generation) for s in op.of_kind(StepKind.START) if s.order)

    def has(self, record: VmRecord) -> bool:
        """Whether one of them carries this VM."""
        if not self._ids:
            return False
        return (
            record.operation in self._ids
            or record.id in self._subjects
            or (record.id, record.generation) in self._orders
            or (record.owner is not None and (record.owner, record.owner_incarnation) in self._boots)
        )
