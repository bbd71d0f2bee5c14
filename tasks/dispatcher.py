"""Chains are built here: steps of the journal become Celery chains. A lost message is the sweep's matter, not ours.

No message carries an expiry or a due time: both are instants of the sender's wall clock, judged by the reader's. What
came too late is refused by the journal, by the store's clock; queues are short instead (workers.celery_settings).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import redis
import structlog
from celery import Celery, chain, signature

from fangnetz.core.operations import Operation, queue_of
from fangnetz.core.units import ControllerId, DeviceName, HostId
from tasks.names import QUEUE_PROBE, READ_POWER, TICK, control_queue, step_task

log = structlog.get_logger(__name__)
PAUSE_S = 2.0
"""A broker that let one message wait for nothing is sent none for so long: a tick must not wait once a message."""


class CeleryDispatcher:
    """`ports.Dispatcher` over the broker. Never raises: what could not be sent is sent again by the sweep."""

    def __init__(self, app: Celery, controllers: Iterable[ControllerId]) -> None:
        self._app, self._controllers = app, tuple(controllers)
        self._pause_until = 0.0

    def dispatch(self, operation: Operation, chains: Sequence[Sequence[str]]) -> None:
        for keys in chains:
            links = []
            for key in keys:
                step = operation.step(key)
                if step is None:
                    continue
                links.append(
                    signature(
                        step_task(step.kind),
                        args=(operation.id, key),
                        immutable=True,
                        app=self._app,
                        options={"queue": queue_of(step)},
                    )
                )
            if links:
                self._send((chain(*links) if len(links) > 1 else links[0]).apply_async)

    def ask_power(self, host: HostId, devices: Sequence[DeviceName]) -> None:
        self._send(lambda: self._app.send_task(READ_POWER, args=(host, list(devices)), queue=QUEUE_PROBE))

    def nudge(self) -> None:
        for controller in self._controllers:
            queue = control_queue(controller)
            self._send(partial(self._app.send_task, TICK, queue=queue))

    def _send(self, send: Callable[[], object]) -> None:
        if time.monotonic() < self._pause_until:
            return
        try:
            send()
        except Exception as error:  # noqa: BLE001 - one message that cannot be sent must not keep back all others
            cause = error.__cause__ or error  # kombu wraps redis-py's errors
            log.warning("message not sent", error=type(cause).__name__)
            if isinstance(cause, redis.TimeoutError):
                self._pause_until = time.monotonic() + PAUSE_S
