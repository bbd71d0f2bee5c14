"""What the VMs of this host really use, measured now and then by a thread of its own and told in every report.

Never keeps a report waiting. What was not measured of late is told as what it is: old. Nothing is made up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fangnetz.core.errors import FangnetzError
from fangnetz.core.model import VmUse
from fangnetz.core.units import MiB, Seconds, VmId
from fangnetz.ports import Consumed, Hypervisor, Process

EVERY_S = Seconds(10.0)
"""One call for all VMs of a host, two questions to each QEMU: so seldom that 60 VMs cost a thousandth of a core."""
AT_FIRST_S = Seconds(1.0)
"""A rate takes two looks; after a start of the worker the second one is early."""
SMOOTHED_OVER_S = 60.0
"""A burst that is over counts for a third after this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`taken_at`: monotonic; infinitely long ago if nothing was measured yet."""

    uses: tuple[VmUse, ...] = ()
    taken_at: float = float("-inf")

    def age_s(self, now: float) -> Seconds:
        """Return how old it is; 0 if there is nothing whose age would count."""
        return Seconds(round(now - self.taken_at, 3) if self.uses else 0.0)


NOTHING = Measured()


@dataclass(frozen=True, slots=True)
class _Course:
    """How one copy came on: its CPU time at the last look, cpus in use smoothed, and over how many seconds."""

    cpu_s: float
    memory_mib: float | None
    cpus: float = 0.0
    over_s: float = 0.0

    def on(self, seen: Consumed, span: float) -> _Course:
        """Return it after another look, `span` seconds later; one whose CPU time shrank is another copy."""
        if seen.cpu_s < self.cpu_s or span <= 0:
            return _Course(seen.cpu_s, seen.memory_mib)
        share = span / min(self.over_s + span, max(SMOOTHED_OVER_S, span))  # at first the plain mean
        cpus = self.cpus + share * ((seen.cpu_s - self.cpu_s) / span - self.cpus)
        memory = self.memory_mib if seen.memory_mib is None else seen.memory_mib  # no rate: needs no smoothing
        return _Course(seen.cpu_s, memory, cpus, self.over_s + span)


class Meter:
    """Measures every EVERY_S seconds. `latest` holds only what was measured of copies that were there last."""

    def __init__(self, hypervisor: Hypervisor, process: Process) -> None:
        self._hypervisor, self._process = hypervisor, process
        self._end = process.flag()
        self._courses: dict[VmId, _Course] = {}
        self._looked_at = -math.inf
        self.latest = NOTHING

    def start(self) -> None:
        self._process.spawn("measuring", self._run)

    def stop(self) -> None:
        self._end.set()

    def measure(self) -> None:
        """Look once. FangnetzError: nothing was learnt, and what was known grows old."""
        before = self._process.monotonic()
        self._take(self._hypervisor.consumed(), before)

    def _take(self, consumed: tuple[Consumed, ...], now: float) -> None:
        span, self._looked_at = now - self._looked_at, now
        before, self._courses = self._courses, {}
        uses = []
        for each in consumed:
            known = before.get(each.vm)
            course = known.on(each, span) if known else _Course(each.cpu_s, each.memory_mib)
            self._courses[each.vm] = course
            if course.over_s and course.memory_mib is not None:  # rounded: a report carries it for every VM
                uses.append(VmUse(each.vm, round(course.cpus, 2), MiB(round(course.memory_mib))))
        self.latest = Measured(uses=tuple(uses), taken_at=now)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self.measure()
                wait = EVERY_S if self.latest.uses else AT_FIRST_S
            except (FangnetzError, OSError):
                wait = EVERY_S
            self._end.wait(wait)
