"""A host's own slot on the shared storage, and what it sees of those of a few others: a thread that nobody waits for.

A storage that hangs stops this thread and nothing else; the reports tell for how long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fangnetz.core.errors import FangnetzError
from fangnetz.core.model import SlotSeen
from fangnetz.core.policy import Policy
from fangnetz.core.slots import stuck_after_s
from fangnetz.core.units import HostId, Incarnation, Seconds
from fangnetz.ports import DiskSlots, Process, SlotMark


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSlots:
    """What a report says of slots: `Heartbeat.slot_waits_s` and `Heartbeat.slots`."""

    waits_s: Seconds | None
    seen: tuple[SlotSeen, ...] = ()


NO_SLOTS = ToldSlots(waits_s=None)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The last mark read of another's slot. `written_after`: it was written after this; None: not seen to change.

    All by the monotonic clock. What was read counts from before it was asked for.
    """

    mark: SlotMark
    read_at: float
    written_after: float | None = None

    def then(self, mark: SlotMark, asked_at: float) -> _Reading:
        """Return it after another look."""
        changed = (mark.incarnation, mark.sequence) != (self.mark.incarnation, self.mark.sequence)
        return _Reading(mark, asked_at, self.read_at if changed else self.written_after)


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
        self._readings: dict[HostId, _Reading] = {}
        self._told = told

    def start(self) -> None:
        self._process.spawn("slots", self._run)

    def stop(self) -> None:
        self._end.set()

    def told(self) -> ToldSlots:
        """Return what a report made now says; never waits."""
        now = self._process.monotonic()
        waits = 0.0 if self._waits_since is None else now - self._waits_since
        if not self._written and waits <= self._stuck_after_s:
            waits = -1.0
        return ToldSlots(
            waits_s=Seconds(round(waits, 3)),
            seen=tuple(
                SlotSeen(
                    host,
                    reading.mark.incarnation,
                    -1.0 if reading.written_after is None else round(now - reading.written_after, 3),
                    round(now - reading.read_at, 3),
                )
                for host, reading in self._readings.items()
            ),
        )

    def look(self) -> None:
        """Write and read once. FangnetzError or OSError: the storage did not answer."""
        asked_at = self._process.monotonic()
        if self._waits_since is None:
            self._waits_since = asked_at
        mine = SlotMark(host=self._host, incarnation=self._incarnation, sequence=int(asked_at * 1000))
        found = self._disk.exchange(mine, self._others, self._interval)
        self._written, self._waits_since = True, None
        for host in self._others:
            mark, before = found.get(host), self._readings.get(host)
            if mark is not None:
                self._readings[host] = before.then(mark, asked_at) if before else _Reading(mark, asked_at)

    def _run(self) -> None:
        while not self._end.is_set():
            started = self._process.monotonic()
            try:
                self.look()
                self._told("")
            except (FangnetzError, OSError) as error:
                self._told(str(error))
            self._end.wait(max(0.05, self._interval - (self._process.monotonic() - started)))
