"""Whether a live migration comes to an end, and what helps it: pure, from what libvirt counts. Stops nobody's VM.

A guest that writes faster than its memory can be sent never ends by itself. First it is allowed to stand still for
longer, step by step; when that does not help either, the migration is ended and the VM stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fangnetz.core.policy import Policy
from fangnetz.core.units import Seconds

NEARER = 0.95
"""Only a remainder this much smaller than the smallest one before counts as progress: it goes up and down."""
SENT_TIMES_MAX = 20.0
"""A migration that has sent the memory so often over is ended: its bound is the guest's size at the speed measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a migration comes on. Sizes in MiB, speeds in MiB/s, `elapsed_s` since it was sent.

    `downtime_s`: how long the guest would stand still at its end, by the hypervisor's estimate.
    """

    elapsed_s: Seconds
    total_mib: float
    sent_mib: float
    remaining_mib: float
    speed_mib_s: float = 0.0
    dirty_mib_s: float = 0.0
    rounds: int = 0
    downtime_s: Seconds = Seconds(0.0)

    @property
    def share(self) -> float:
        """How much of the memory the target has, from 0 to 1."""
        return min(1.0, max(0.0, 1.0 - self.remaining_mib / self.total_mib)) if self.total_mib else 0.0

    @property
    def sentence(self) -> str:
        """The same for people, in one line."""
        if not self.total_mib:
            return "nothing is sent yet"
        return (
            f"{self.share:.0%}: {self.remaining_mib:.0f} of {self.total_mib:.0f} MiB remain, "
            f"{self.speed_mib_s:.0f} MiB/s are sent, the guest writes {self.dirty_mib_s:.0f} MiB/s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do about a migration now: nothing, allow more downtime (seconds), or end it with a reason."""

    downtime_s: Seconds | None = None
    end: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What was seen of one migration so far: the smallest remainder, since when, and how many steps helped it on."""

    smallest_mib: float = float("inf")
    nearer_at: Seconds = Seconds(0.0)
    steps: int = 0
    advice: Advice = field(default_factory=Advice)


def ladder(policy: Policy) -> tuple[Seconds, ...]:
    """Return the downtimes allowed one after the other, each twice the one before, up to the policy's most."""
    rungs = [policy.migrate_downtime_s]
    while rungs[-1] * 2 < policy.migrate_downtime_max_s:
        rungs.append(Seconds(rungs[-1] * 2))
    if rungs[-1] < policy.migrate_downtime_max_s:
        rungs.append(policy.migrate_downtime_max_s)
    return tuple(rungs)


def go_on(course: Course, now: Progress, policy: Policy) -> Course:
    """Return the course after one more look; its `advice` is what that look asks for."""
    if now.elapsed_s > policy.migrate_bound_s:
        return _ended(course, f"it has taken longer than migrate_bound_s {policy.migrate_bound_s:g} s")
    if now.total_mib and now.sent_mib > SENT_TIMES_MAX * now.total_mib:
        return _ended(course, f"it has sent the memory {SENT_TIMES_MAX:g} times over; {_why(now)}")
    if now.remaining_mib < NEARER * course.smallest_mib:
        return replace(course, smallest_mib=now.remaining_mib, nearer_at=now.elapsed_s, advice=Advice())
    rungs = ladder(policy)
    if now.elapsed_s - course.nearer_at < policy.migrate_stall_s / len(rungs):
        return replace(course, advice=Advice())
    step = course.steps + 1
    if step >= len(rungs):
        return _ended(course, f"it came no nearer to its end for {policy.migrate_stall_s:g} s; {_why(now)}")
    return replace(course, steps=step, nearer_at=now.elapsed_s, advice=Advice(downtime_s=rungs[step]))


def _ended(course: Course, why: str) -> Course:
    return replace(course, advice=Advice(end=why))


def _why(now: Progress) -> str:
    return (
        f"the guest writes {now.dirty_mib_s:.0f} MiB/s and {now.speed_mib_s:.0f} MiB/s are sent, "
        f"{now.remaining_mib:.0f} of {now.total_mib:.0f} MiB remain"
    )
