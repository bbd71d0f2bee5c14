"""Something to be done again in a moment, kept in this process. Never lasts: the sweep takes up what died with us.

Celery's own countdown travels as an instant of the sender's wall clock, to be judged by the reader's.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

import structlog

from fangnetz.core.units import Seconds

log = structlog.get_logger(__name__)
WAITING_MAX = 1000
"""More are not kept: the sweep rings for each of them anyway."""


class Later:
    """One thread for all; it starts with the first thing to do."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self._thread: threading.Thread | None = None

    def __call__(self, span: Seconds, what: Callable[[], object]) -> bool:
        """Call `what` in `span` seconds, from another thread; False if too much is waiting already."""
        with self._changed:
            if len(self._heap) >= WAITING_MAX:
                return False
            heapq.heappush(self._heap, (time.monotonic() + span, next(self._number), what))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="later", daemon=True)
                self._thread.start()
            self._changed.notify()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                _, _, what = heapq.heappop(self._heap)
            try:
                what()
            except Exception as error:  # noqa: BLE001 - the sweep rings again; the others must not wait for it
                log.warning("not sent again", error=type(error).__name__)


later = Later()
