"""The dispatcher on a real broker: what cannot be sent is said, and holds nothing else back."""

from __future__ import annotations

from celery import Celery
from kombu import Queue

from fangnetz.core.operations import Operation, OperationKind, Order, start_steps, vm_start_steps
from fangnetz.core.units import (
    ControllerId,
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    StoreIncarnation,
    VmId,
)
from tasks.dispatcher import CeleryDispatcher
from tests.redis_server import RedisServer


def test_an_order_for_a_host_this_machine_does_not_know_holds_no_other_message_back(redis_server: RedisServer) -> None:
    client = redis_server.client()
    client.flushall()
    app = Celery("test", broker=redis_server.url, set_as_current=False)
    app.conf.update(task_create_missing_queues=False, task_queues=[Queue("work")], task_default_queue="work")
    order = Order(
        vm=VmId("web"),
        host=HostId("taken-out-of-the-file"),
        incarnation=Incarnation("i1"),
        generation=Generation(1),
        life=StoreIncarnation("l1"),
        deadline=Instant(1.0),
    )
    operation = Operation(
        id=OperationId("op-1"),
        kind=OperationKind.START,
        subject="web",
        epoch=Epoch(1),
        opened_at=Instant(1.0),
        reason="a test",
        steps=(*start_steps(), *vm_start_steps(order, attempt=1, after="plan/1")),
    )
    CeleryDispatcher(app, [ControllerId("c1")]).dispatch(operation, [("start/web/1",), ("close",)])
    assert client.llen("work") == 1
    app.close()
