"""What the cluster says, read from its own store several times a second in a thread of its own. Only reads.

It keeps on through every gap of the store, and notes how long each lasted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fangnetz.core.errors import FangnetzError, StoredContentError
from fangnetz.core.model import ClusterView
from fangnetz.core.operations import Operation
from fangnetz.lab.lab import Lab
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.storm.chronicle import Chronicle
from fangnetz.lab.storm.laws import Span

LOOK_EVERY_S = 0.25
OPERATIONS_EVERY_S = 1.0
OPERATIONS_MAX = 30
TOLD_KINDS = frozenset(
    {"operation_opened", "operation_closed", "fence_sent", "fence_proven", "vm_started", "rejoined", "start_refused",
     "start_unanswered", "start_abandoned", "host_state"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One event of the cluster's log, for the story."""

    at: float
    kind: str
    sentence: str
    highest: bool = False


class Ear:
    """Listens while the block lasts. `chronicle`, `said`, `gaps` and `view` are read under `lock`."""

    def __init__(self, lab: Lab) -> None:
        self.onlooker = Onlooker(lab)
        self.chronicle = Chronicle()
        self.said: list[Said] = []
        self.gaps: list[Span] = []
        self.view: ClusterView | None = None
        self.heard_at = 0.0
        self.unreadable: list[str] = []
        self.error = ""
        self.lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ear", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(15)

    def away(self, now: float) -> tuple[Span, ...]:
        """Return when the store did not answer us, until `now`. Take the lock first."""
        last = [Span(begin=self.heard_at, end=now)] if now - self.heard_at > 2 * LOOK_EVERY_S else []
        return (*self.gaps, *last)

    def _run(self) -> None:
        after = ""
        operations_at = 0.0
        self.heard_at = time.time()
        while not self._end.is_set():
            began = time.monotonic()
            asked_at = time.time()
            try:
                view = self.onlooker.view()
                operations: tuple[Operation, ...] = ()
                if began - operations_at >= OPERATIONS_EVERY_S:
                    operations_at = began
                    operations = self.onlooker.operations(OPERATIONS_MAX)
                events = self.onlooker.events_after(after) if after else self.onlooker.latest_events(1)
            except StoredContentError as error:
                with self.lock:
                    self.unreadable.append(f"{asked_at:.3f} {error}")
                self._end.wait(LOOK_EVERY_S)
                continue
            except FangnetzError:
                self._end.wait(LOOK_EVERY_S)
                continue
            with self.lock:
                if asked_at - self.heard_at > 4 * LOOK_EVERY_S:
                    self.gaps.append(Span(begin=self.heard_at, end=asked_at))
                self.heard_at, self.view = asked_at, view
                try:
                    self.chronicle.read(view, operations)
                except ValueError as error:
                    self.error = f"the journal could not be read: {error}"
                for event in events if after else ():
                    highest = bool(event.facts.get("highest"))
                    if event.kind in TOLD_KINDS or highest:
                        self.said.append(Said(at=event.at, kind=event.kind, sentence=event.sentence, highest=highest))
            if events:
                after = events[-1].id
            elif not after:
                after = "0-0"
            self._end.wait(max(0.02, LOOK_EVERY_S - (time.monotonic() - began)))
