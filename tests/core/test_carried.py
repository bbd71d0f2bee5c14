"""Which VMs an open operation carries: nothing else is begun about them meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from fangnetz.core.decide.carried import Carried
from fangnetz.core.operations import Operation, OperationKind, Order, Step, StepKind
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, OperationId, VmId
from tests.core.world import LIFE, T0, vm_record


def operation(kind: OperationKind, subject: str, *, starts: int = 0) -> Operation:
    order = Order(
        vm=VmId("web"), host=HostId("h2"), incarnation=Incarnation("i1"), generation=Generation(starts), life=LIFE,
        deadline=Instant(T0),
    )  # fmt: skip
    return Operation(
        id=OperationId("op"), kind=kind, subject=subject, epoch=Epoch(1), opened_at=Instant(T0), reason="",
        steps=(Step(key="start/web/1", kind=StepKind.START, order=order),) if starts else (),
        incarnation=Incarnation("i1") if kind is OperationKind.FAILOVER else None,
    )  # fmt: skip


LOST = operation(OperationKind.FAILOVER, "h1")
STARTING = operation(OperationKind.FAILOVER, "h1", starts=8)


@pytest.mark.parametrize(
    ("op", "record", "carried"),
    [
        (LOST, {"owner": "h1", "generation": 7}, True),
        (LOST, {"owner": "h2", "generation": 7}, False),
        (STARTING, {"owner": "h2", "generation": 8}, True),
        (STARTING, {"owner": "h2", "generation": 9}, False),
        (operation(OperationKind.STOP, "web"), {"owner": "h2", "generation": 7}, True),
        (operation(OperationKind.STOP, "db"), {"owner": "h2", "generation": 7}, False),
    ],
    ids=["its host's failover", "another host's", "given a new host by it", "given on since", "its own", "another's"],
)
def test_what_an_operation_is_at_work_on(op: Operation, record: dict[str, Any], carried: bool) -> None:
    one = vm_record("web", record["owner"], record["generation"])
    assert Carried([op]).has(one) is carried
    assert Carried([]).has(one) is False
