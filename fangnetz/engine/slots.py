"""A host's own slot on the shared storage, and what it sees of those of a few others: a thread that nobody waits for.

A storage that hangs stops this thread and nothing else; the reports tell for how long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fangnetz.core.errors import FangnetzError
from fangnetz.core.model import SlotSeen
from fangnetz.core.policy import Policy
from fangnetz.core.slots import stuck_after_s
from fangnetz.core.units import HostId, Incarnation, Instant, Seconds
from fangnetz.ports import DiskSlots, Process, SlotMark


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSlots:
    """What a report says of slots: `Heartbeat.slot_waits_s` and `Heartbeat.slots`."""

    waits_s: Seconds | None
    seen: tuple[SlotSeen, ...] = ()


NO_SLOTS = ToldSlots(waits_s=None)
PAST_BOOTS = 16
"""So many earlier boots of a host are remembered: none of them writes any more."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was seen of another's slot: the highest mark of its latest boot, and when, as `SlotSeen` has it."""

    mark: SlotMark
    written_after: Instant
    seen_after: Instant
    read_after: Instant
    past: tuple[Incarnation, ...] = ()
    """Boots before that one."""

    def then(self, mark: SlotMark, now: Instant) -> _Reading:
        """Return it after another look. What goes back was not written: it is an older copy of the storage."""
        boot = mark.incarnation
        newer = mark.sequence > self.mark.sequence if boot == self.mark.incarnation else boot not in self.past
        if not newer:
            return replace(self, read_after=now)
        past = self.past if boot == self.mark.incarnation else (*self.past, self.mark.incarnation)[-PAST_BOOTS:]
        return _Reading(mark, self.read_after, now, now, past)


class SlotKeeper:
    """Writes this host's slot and reads those of `others`, every `policy.heartbeat_s` seconds."""

    def __init__(
        self, host: HostId, incarnation: Incarnation, disk: DiskSlots, others: Sequence[HostId], policy: Policy,
        process: Process, told: Callable[[str], None] = lambda _trouble: None,
    ) -> None:  # fmt: skip
        """`told` hears after each look why it failed, or an empty string."""
        self._host, self._incarnation, self._disk, self._others = host, incarnation, disk, others
        self._interval, self._stuck_after_s, self._process = policy.heartbeat_s, stuck_after_s(policy), process
        self._end = process.flag()
        self._written = False
        self._waits_since: float | None = None
        """When the first look began that was not answered yet; None once one is."""
        self._store_said = Instant(0.0)
        """The last instant that the store answered a report with."""
        self._readings: Mapping[HostId, _Reading] = {}
        self._told = told

    def start(self) -> None:
        self._process.spawn("slots", self._run)

    def stop(self) -> None:
        self._end.set()

    def reported(self, at: Instant) -> None:
        """Take the instant at which the store received a report: whatever is seen from now on is after it."""
        if at < self._store_said:
            self._readings = {}  # it goes by another clock: what was seen before cannot be compared
        self._store_said = at

    def told(self) -> ToldSlots:
        """Return what a report made now says; never waits."""
        since, readings = self._waits_since, self._readings
        waits = 0.0 if since is None else self._process.monotonic() - since
        if not self._written and waits <= 2 * self._stuck_after_s:  # a process is started first, and machines are busy
            waits = -1.0
        return ToldSlots(
            waits_s=Seconds(round(waits, 3)),
            seen=tuple(
                SlotSeen(host, each.mark.incarnation, each.written_after, each.seen_after, each.read_after)
                for host, each in readings.items()
            ),
        )

    def look(self) -> None:
        """Write and read once. FangnetzError or OSError: the storage did not answer."""
        asked_at, after = self._process.monotonic(), self._store_said
        if self._waits_since is None:
            self._waits_since = asked_at
        mine = SlotMark(host=self._host, incarnation=self._incarnation, sequence=int(asked_at * 1000))
        found = self._disk.exchange(mine, self._others, self._interval)
        self._written, self._waits_since = True, None
        if not after or after > self._store_said:
            return  # before the first answer of the store, or of another one, nothing is after anything
        before = self._readings
        self._readings = {**before} | {
            host: before[host].then(mark, after) if host in before else _Reading(mark, Instant(0.0), after, after)
            for host, mark in found.items()
        }

    def _run(self) -> None:
        while not self._end.is_set():
            started = self._process.monotonic()
            try:
                self.look()
                self._told("")
            except (FangnetzError, OSError) as error:
                self._told(str(error))
            self._end.wait(max(0.05, self._interval - (self._process.monotonic() - started)))
