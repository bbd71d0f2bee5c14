"""Virtual time: a queue of what happens when, and the one place where simulated threads take turns.

Everything runs in one thread of the machine. What is due at the same instant runs in the order it was asked for.
Never looks at a real clock, and draws chance from one seeded source only.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from fangnetz.sim.process import Thread

Entry = list[Any]


class Kernel:
    """The clock, in seconds since the story began, and what is due."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.chance = Random(seed)
        self.events = 0
        self.current: Thread | None = None
        self.inline = True
        """Whether a call may be made without a turn when nobody else could have one (`skip_to`). Changes no history."""
        self.last_of_event = False
        """Whether nothing is left to do in this event once the thread that runs now gives way."""
        self.hub = getcurrent()
        self.stacks: list[greenlet] = []
        """On which no thread runs at the moment."""
        self._due: list[Entry] = []
        self._until = 0.0
        self._number = 0
        self._names = 0

    def at(self, when: float, what: Callable[..., object], *args: Any) -> Entry:
        """Have `what(*args)` happen at an instant, now at the earliest. Returns what `cancel` takes."""
        self._number += 1
        entry: Entry = [when if when > self.now else self.now, self._number, what, args]
        heappush(self._due, entry)
        return entry

    def after(self, span: float, what: Callable[..., object], *args: Any) -> Entry:
        self._number += 1
        now = self.now
        entry: Entry = [now + span if span > 0 else now, self._number, what, args]
        heappush(self._due, entry)
        return entry

    @staticmethod
    def cancel(entry: Entry) -> None:
        entry[2] = None

    def run(self, until: float) -> None:
        """Let everything happen that is due until then. Called by the thread that made this kernel."""
        due, self._until = self._due, until
        while due and due[0][0] <= until:
            when, _, what, args = heappop(due)
            if what is None:
                continue
            self.now = when
            self.events += 1
            self.last_of_event = False
            what(*args)
        self.now = until

    def skip_to(self, when: float) -> bool:
        """Move on to an instant at once, if nothing else is due until then; else False, and nothing has changed.

        What the calling thread would wait for then happens exactly as if it had given way: nobody else has a turn.
        """
        due = self._due
        if not self.last_of_event or not self.inline or when > self._until or (due and due[0][0] <= when):
            return False
        self.now = when
        self.events += 1
        return True

    def name(self, kind: str) -> str:
        """Return a name that nothing else in this story has: as long as a real one, and the same in every play."""
        self._names += 1
        return f"{kind}{self._names:x}".ljust(8, "0") + f"{self.chance.getrandbits(96):024x}"
