"""Chains are built here: steps of the journal become Celery chains. A lost message is the sweep's matter, not ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog
from celery import Celery, chain, signature

from fangnetz.core.operations import Operation, queue_of
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, DeviceName, HostId
from tasks.names import QUEUE_PROBE, READ_POWER, TICK, control_queue, step_task

log = structlog.get_logger(__name__)
STEP_EXPIRES_S = 30.0
"""Housekeeping only: a step message older than this is dropped unread; the sweep has sent another long before."""


class CeleryDispatcher:
    """`ports.Dispatcher` over the broker. Never raises: what could not be sent is sent again by the sweep."""

    def __init__(self, app: Celery, controllers: Iterable[ControllerId], policy: Policy) -> None:
        self._app, self._controllers, self._policy = app, tuple(controllers), policy

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
                        options={"queue": queue_of(step), "expires": STEP_EXPIRES_S},
                    )
                )
            if links:
                self._send((chain(*links) if len(links) > 1 else links[0]).apply_async)

    def ask_power(self, host: HostId, devices: Sequence[DeviceName]) -> None:
        self._send(
            lambda: self._app.send_task(
                READ_POWER, args=(host, list(devices)), queue=QUEUE_PROBE, expires=self._policy.power_ask_s
            )
        )

    def nudge(self) -> None:
        for controller in self._controllers:
            queue = control_queue(controller)
            self._send(partial(self._app.send_task, TICK, queue=queue, expires=2 * self._policy.tick_s))

    @staticmethod
    def _send(send: Callable[[], object]) -> None:
        try:
            send()
        except Exception as error:  # noqa: BLE001 - one message that cannot be sent must not keep back all others
            log.warning("message not sent", error=type(error).__name__)
