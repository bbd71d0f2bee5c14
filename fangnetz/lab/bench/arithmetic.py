"""What the bench computes: phases of a recovery, what it should have taken, medians. Pure; instants are epoch seconds.

The cause is the lab's instant, the end is the witness's, everything between is the journal's; one machine, one clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The instants of one VM's recovery. None where the journal does not say."""

    cause_at: float
    opened_at: float | None
    proven_at: float | None
    start_sent_at: float | None
    first_write_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """One VM's recovery, cut into spans that follow each other; their sum is the total."""

    detection_s: float
    """From the cause until the failover was opened."""
    fence_s: float
    """Until the host was proven off."""
    plan_start_s: float
    """Until the order to start reached the target's libvirt."""
    boot_s: float
    """Until the guest's first write was seen."""

    @property
    def total_s(self) -> float:
        return self.detection_s + self.fence_s + self.plan_start_s + self.boot_s


def phases(marks: Marks) -> Phases:
    """Return the phases; a mark that is missing, or earlier than the one before it, gives a phase of no length.

    What it would have measured is then part of the next phase, so no second is lost or counted twice.
    """
    at = [marks.cause_at]
    for mark in (marks.opened_at, marks.proven_at, marks.start_sent_at):
        known = at[-1] if mark is None else max(at[-1], mark)
        at.append(min(known, max(at[-1], marks.first_write_at)))
    at.append(max(at[-1], marks.first_write_at))
    spans = [later - earlier for earlier, later in pairwise(at)]
    return Phases(detection_s=spans[0], fence_s=spans[1], plan_start_s=spans[2], boot_s=spans[3])


def window_left(*, cause_at: float, last_heard_at: float | None, window_s: float) -> float:
    """Return the seconds from the cause until the policy's window over the last heartbeat ended.

    It is what detection must take at least; a host whose last heartbeat is not known gets the whole window.
    """
    if last_heard_at is None:
        return window_s
    return max(0.0, min(last_heard_at, cause_at) + window_s - cause_at)


def device_time(*, sent_at: float | None, proven_at: float | None, asked: Iterable[tuple[float, float]]) -> float:
    """Return the seconds the fence device itself took: from the command to the proof, else its slowest answer.

    `asked`: when each reading of the proof was asked for and answered.
    """
    if sent_at is not None and proven_at is not None:
        return max(0.0, proven_at - sent_at)
    return max((answered_at - asked_at for asked_at, answered_at in asked), default=0.0)


def own_overhead(*, total_s: float, window_s: float, fence_s: float, boot_s: float) -> float:
    """Return what is left of a recovery beyond what it had to wait for; negative if it booted faster than at rest."""
    return total_s - window_s - fence_s - boot_s


def own_before_start(parts: Phases, *, window_s: float, fence_s: float) -> float:
    """Return the part of the overhead that lies before the guest's boot: it does not shake with the boot's length."""
    return parts.detection_s + parts.fence_s + parts.plan_start_s - window_s - fence_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Minimum, median and maximum of some seconds."""

    min: float
    median: float
    max: float
    count: int


def spread(values: Iterable[float]) -> Spread | None:
    """Return the spread, rounded to milliseconds; None of nothing."""
    known = sorted(values)
    if not known:
        return None
    return Spread(
        min=round(known[0], 3),
        median=round(statistics.median(known), 3),
        max=round(known[-1], 3),
        count=len(known),
    )


def phase_of_interval(number: int, rounds: int, interval_s: float) -> float:
    """Return how long after a heartbeat round `number` (from 0) has its cause: the rounds cover the interval evenly."""
    return (number + 0.5) / rounds * interval_s


def cpu_share(ticks_before: int, ticks_after: int, ticks_per_s: int, elapsed_s: float) -> float:
    """Return the share of one core, 0.02 being two per cent."""
    return max(0, ticks_after - ticks_before) / ticks_per_s / elapsed_s
