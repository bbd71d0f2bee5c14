"""The tick and the sweep, on each controller's own queue; silent in the event stream."""

from __future__ import annotations

import structlog
from celery import shared_task

from fangnetz.core.errors import StaleToken, StoredContentError, StoreUnreachable
from tasks.names import SWEEP, TICK
from tasks.runtime import WrongQueue, runtime

log = structlog.get_logger(__name__)


@shared_task(name=TICK, ignore_result=True, send_events=False)
def tick(*, rung: bool = False) -> None:
    """Look, decide, write down, dispatch. `rung`: by the alarm clock, see `Controller.tick`."""
    parts = runtime()
    if parts.controller is None:
        raise WrongQueue(f"a {parts.role} process does not tick")
    try:
        parts.due(parts.controller.tick(rung=rung).due_in)
    except (StaleToken, StoreUnreachable, StoredContentError) as error:
        log.warning("tick", error=str(error))


@shared_task(name=SWEEP, ignore_result=True, send_events=False)
def sweep() -> None:
    """Send on its way again whatever an open operation waits for and nobody holds."""
    parts = runtime()
    if parts.controller is None:
        raise WrongQueue(f"a {parts.role} process does not sweep")
    try:
        sent = parts.controller.sweep()
        if sent:
            log.info("sweep", chains=sent)
    except (StaleToken, StoreUnreachable, StoredContentError) as error:
        log.warning("sweep", error=str(error))
