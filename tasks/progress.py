"""How a step comes on, shown as the state PROGRESS of its task wherever its events are seen: Flower has it so.

There is no result backend, and `update_state` would write nowhere. An event of the task's own does the same in every
monitor, costs one message a second at most, and may be lost: nobody decides by it. The journal holds the same numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import structlog
from celery import Task

from fangnetz.core.convergence import Progress
from fangnetz.core.units import Seconds
from tasks.later import later

log = structlog.get_logger(__name__)
EVENT = "task-progress"
"""A monitor takes what follows `task-` and is no state of Celery's for a state of that name, in capitals."""


def shown(task: Task[Any, Any]) -> Callable[[Progress], None]:
    """Return what shows how the task in hand comes on; it returns at once, another thread sends."""
    request, app = task.request, cast("Any", task.app)  # the published types know no `events`
    identity, worker = request.id, request.hostname
    sending = threading.Lock()  # one event at a time: what comes meanwhile is not shown

    def send(now: Progress) -> None:
        try:
            with app.events.default_dispatcher(hostname=worker) as events:
                # Of an event's fields Flower shows `result`; once the task has ended, its own stands there.
                events.send(EVENT, uuid=identity, result=now.sentence, share=now.share, **asdict(now))
        except Exception as error:  # noqa: BLE001 - an event that is lost is only not seen
            log.info("progress not shown", error=type(error).__name__)
        finally:
            sending.release()

    def show(now: Progress) -> None:
        if sending.acquire(blocking=False) and not later(Seconds(0.0), partial(send, now)):
            sending.release()

    return show
