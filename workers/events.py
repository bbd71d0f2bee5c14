"""Events for Flower that cost a worker little: what cannot be sent at once is dropped, and a pause follows.

Celery's own heartbeat event is sent from a worker's main loop and retried until the broker is back: all that time the
worker reads no message, notices nothing and obeys no stop. Nobody decides by events here.
"""

from __future__ import annotations

import time
from typing import Any, cast

import structlog
from celery.events.dispatcher import EventDispatcher

log = structlog.get_logger(__name__)
PAUSE_S = 5.0


class BriefDispatcher(EventDispatcher):
    """Sends an event once, within one socket timeout, or drops it."""

    _pause_until = 0.0

    def _publish(self, event: Any, producer: Any, routing_key: str, *_args: Any, **_kwargs: Any) -> None:
        if time.monotonic() < self._pause_until:
            return
        mine = cast("Any", self)  # the published types know none of it
        try:
            producer.publish(
                event,
                routing_key=routing_key,
                exchange=mine.exchange.name,
                retry=False,
                declare=[mine.exchange],
                serializer=mine.serializer,
                headers=mine.headers,
                delivery_mode=mine.delivery_mode,
            )
        except Exception as error:  # noqa: BLE001 - an event that is lost is only not seen
            self._pause_until = time.monotonic() + PAUSE_S
            log.info("events dropped", error=type(error).__name__, pause_s=PAUSE_S)
