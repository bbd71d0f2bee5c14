"""Slots on the shared storage: who reads whose, and what a slot says of a host that nobody hears. Pure.

Each host writes a slot of its own once every `heartbeat_s` and reads those of the hosts after it by name; what it saw
goes into its reports. Only a change counts that a reader saw itself, never what a clock wrote. A slot never proves that
a host is off; it may say that a host which nobody can talk to still has its disks, and its VMs with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

from fangnetz.core.model import Answer, Heartbeat, Reports, SlotSeen
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Incarnation, Instant, Seconds

READERS = 3
"""So many others read a slot: enough that one of them lives, few enough that a thousand hosts read three each."""
STUCK_AFTER_S = 5.0
"""A host that could not write its slot for this long has lost its storage (or three intervals, if that is longer)."""
NEVER = Instant(float("-inf"))


def watched_by(host: HostId, hosts: Collection[HostId]) -> tuple[HostId, ...]:
    """Return whose slots `host` reads: those of the hosts after it by name, in a ring."""
    return _ring(tuple(sorted(hosts)), 1).get(host, ())


def _readers_of(host: HostId, hosts: Collection[HostId]) -> tuple[HostId, ...]:
    """Return who reads the slot of `host`: those before it by name."""
    return _ring(tuple(sorted(hosts)), -1).get(host, ())


@lru_cache(maxsize=8)
def _ring(names: tuple[HostId, ...], way: int) -> dict[HostId, tuple[HostId, ...]]:
    reach = min(READERS, len(names) - 1)
    return {
        name: tuple(names[(at + way * step) % len(names)] for step in range(1, reach + 1))
        for at, name in enumerate(names)
    }


def stuck_after_s(policy: Policy) -> Seconds:
    """Return after how long without a written slot a host counts as cut off from its storage."""
    return Seconds(max(STUCK_AFTER_S, 3.0 * policy.heartbeat_s))


def stuck(beat: Heartbeat, policy: Policy) -> bool:
    """Whether this host says that it cannot write its slot."""
    return beat.slot_waits_s is not None and beat.slot_waits_s > stuck_after_s(policy)


def not_written(beat: Heartbeat, policy: Policy) -> bool:
    """Whether this worker has not written the host's slot yet, or could not for too long."""
    return beat.slot_waits_s is not None and (beat.slot_waits_s < 0 or stuck(beat, policy))


def _seen(host: HostId, view: Reports) -> Iterator[tuple[Heartbeat, SlotSeen]]:
    """Yield what was told of the slot of `host` in this life of the store: by its readers, or else by anybody.

    Hosts whose cluster file is another one read others.
    """
    found = [pair for reader in _readers_of(host, view.hosts) for pair in _told_by(reader, host, view)]
    yield from found or (pair for reader in view.heartbeats for pair in _told_by(reader, host, view))


def _told_by(reader: HostId, host: HostId, view: Reports) -> Iterator[tuple[Heartbeat, SlotSeen]]:
    beat = view.heartbeats.get(reader)
    if beat is not None and beat.received_at >= view.life.since:
        yield from ((beat, seen) for seen in beat.slots if seen.host == host)


def readers(host: HostId, view: Reports) -> tuple[HostId, ...]:
    """Return who tells of the slot of `host`, by name."""
    return tuple(sorted({beat.host for beat, _ in _seen(host, view)}))


def wrote_after(host: HostId, incarnation: Incarnation, at: Instant, view: Reports) -> bool:
    """Whether somebody saw that this boot of `host` wrote its slot after `at`."""
    return any(seen.incarnation == incarnation and seen.written_after > at for _, seen in _seen(host, view))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotEvidence:
    """What others saw of a silent host's slot.

    `answer`: YES, it was written when the host's next report was overdue; NO, one number was read for a window and
    longer; UNKNOWN, neither. `awaited`: a living reader's next reports will say more.
    """

    answer: Answer
    detail: str
    awaited: bool = False


def evidence_of(host: HostId, last_heard: Instant, view: Reports, policy: Policy) -> SlotEvidence | None:
    """Return what the slot of `host`, not heard since `last_heard`, says; None where nobody tells of it."""
    written_at = read_at = NEVER
    told = unchanged = awaited = False
    interval, long_enough = policy.heartbeat_s, policy.window_s + policy.heartbeat_s
    for beat, seen in _seen(host, view):
        told = True
        written_at, read_at = max(written_at, seen.written_after), max(read_at, seen.read_after)
        unchanged = unchanged or seen.read_after - max(seen.seen_after, last_heard) >= long_enough
        reads_on = beat.received_at - seen.read_after < 3 * interval
        awaited = awaited or (reads_on and view.now - beat.received_at < policy.overdue_s)
    if not told:
        return None
    lives = written_at > last_heard + policy.overdue_s and read_at - written_at < policy.window_s
    if lives and view.now - read_at < policy.window_s + 2 * interval:
        ago = max(0.0, view.now - written_at)
        return SlotEvidence(answer=Answer.YES, detail=f"written within the last {ago:.1f} s")
    if unchanged:
        return SlotEvidence(answer=Answer.NO, detail=f"read, and not written for {policy.window_s:g} s and more")
    return SlotEvidence(answer=Answer.UNKNOWN, detail="not read for long enough since", awaited=awaited)
