"""Beat's own clockwork: monotonic time, and a broker that may be away. Never makes up for what it missed.

Celery's scheduler orders its entries by the wall clock: set back by an hour, it sends nothing for that hour, or only
the first entry. It also waits up to half a minute between tries to reach a broker that was away when it started.
"""

from __future__ import annotations

import math
import time
from typing import Any, cast

import structlog
from celery.beat import ScheduleEntry, Scheduler

log = structlog.get_logger(__name__)
RECONNECT: dict[str, Any] = {"interval_start": 0.2, "interval_step": 0.3, "interval_max": 2.0}
"""Seconds between tries to reach the broker at the start: 0.2, 0.5, 0.8 … 2."""


class SteadyScheduler(Scheduler):
    """Sends each entry every so many seconds of monotonic time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._due: dict[str, float] = {}
        self._trouble = ""
        super().__init__(*args, **kwargs)

    def tick(self, *_args: Any, **_kwargs: Any) -> float:
        """Send what is due; return the seconds until the next entry is, never more than the longest pause."""
        for name, entry in self.schedule.items():
            if time.monotonic() < self._due.get(name, 0.0):
                continue
            self.apply_entry(entry, producer=self.producer)
            # From now, not from when it was due: a hung broker or a frozen process leaves no backlog to send.
            every: float = cast("Any", entry.schedule).run_every.total_seconds()
            now, steady = time.monotonic(), self._due.get(name, 0.0) + every
            self._due[name] = steady if steady > now else now + every
        pause: float = self.app.conf.beat_max_loop_interval
        wait = min(self._due.values(), default=math.inf) - time.monotonic()
        return max(0.001, min(wait, pause))

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Send one entry; a broker that is away costs this one message and one line in the log."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one is due soon
            cause = type(_root(error)).__name__
            if cause != self._trouble:
                log.warning("not sent", entry=entry.name, error=cause)
            self._trouble = cause
            return
        if self._trouble:
            log.warning("sent again", entry=entry.name)
        self._trouble = ""

    def _ensure_connected(self) -> Any:
        def away(error: Exception, pause: float) -> None:
            if not self._trouble:
                log.warning("broker away", error=type(error).__name__)
            self._trouble = type(error).__name__

        return cast("Any", self.connection).ensure_connection(away, None, **RECONNECT)


def _root(error: BaseException) -> BaseException:
    """Return what it began with: Celery and kombu wrap what redis-py says."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
