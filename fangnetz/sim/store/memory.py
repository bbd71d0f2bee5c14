"""What a store remembers, and its clock that never runs backwards. Plain values; copied as a whole, never in part.

Instants are kept as whole microseconds where the real store keeps them so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from fangnetz.core.actions import Alarm
from fangnetz.core.detector import Watch
from fangnetz.core.model import (
    Binding,
    Heartbeat,
    HostDoc,
    HostRecord,
    OffProof,
    PauseDoc,
    PowerReading,
    ProbeRound,
    VmDoc,
    VmRecord,
    Wish,
)
from fangnetz.core.operations import Operation
from fangnetz.core.roll.values import Roll
from fangnetz.core.units import ControllerId, DeviceName, HostId, Incarnation, Instant, OperationId, VmId
from fangnetz.engine.ledger import Document
from fangnetz.ports import LedgerEntry, LoggedEvent, WishResult

EVENTS_MAX = 10_000
CLOSED_MAX = 1_000
PROBE_ROUNDS_MAX = 8
PAST_BOOTS_MAX = 32
WATCH_TTL_S = 15
WISH_RESULT_TTL_S = 3600
SANE_US = 315_360_000_000_000
"""As in prelude.lua: a clock that says it is ten years away says nothing."""


def micros(at: float) -> int:
    return round(at * 1_000_000)


def instant(us: int) -> Instant:
    return Instant(us / 1_000_000)


@dataclass(slots=True)
class Documents:
    """The ledger's documents, read."""

    vms: dict[VmId, VmDoc] = field(default_factory=dict)
    hosts: dict[HostId, HostDoc] = field(default_factory=dict)
    bindings: dict[tuple[HostId, DeviceName], Binding] = field(default_factory=dict)
    proofs: dict[HostId, OffProof] = field(default_factory=dict)
    pause: PauseDoc | None = None
    read: dict[str, tuple[str, Document]] = field(default_factory=dict)
    """Each by its key, with what was written: that alone is read again which was written anew."""


@dataclass(slots=True)
class Memory:
    """Everything one store holds. `raw_us` is its machine's clock, `identity` its run id: both are not remembered."""

    raw_us: Callable[[], int]
    identity: str
    ahead: int | str = 0
    latest: int | str = 0
    life: tuple[str, str, int] | None = None
    """Run id, incarnation, since."""
    holder: str | None = None
    epoch: int = 0
    lease_until: int = 0
    lease_memory: str | None = None
    beats: dict[HostId, Heartbeat] = field(default_factory=dict)
    past: dict[HostId, tuple[Incarnation, ...]] = field(default_factory=dict)
    hosts: dict[HostId, HostRecord] = field(default_factory=dict)
    placements: int = 0
    vms: dict[VmId, VmRecord] = field(default_factory=dict)
    ledger: dict[str, LedgerEntry] = field(default_factory=dict)
    ledger_version: int = 0
    operations: dict[OperationId, Operation] = field(default_factory=dict)
    open: dict[tuple[str, str], OperationId] = field(default_factory=dict)
    closed: dict[OperationId, int] = field(default_factory=dict)
    probes: dict[ControllerId, tuple[ProbeRound, ...]] = field(default_factory=dict)
    power: dict[HostId, Mapping[DeviceName, PowerReading]] = field(default_factory=dict)
    watches: dict[str, tuple[Watch, int]] = field(default_factory=dict)
    controllers: dict[ControllerId, int] = field(default_factory=dict)
    files: dict[ControllerId, str] = field(default_factory=dict)
    wishes: dict[str, Wish] = field(default_factory=dict)
    answers: dict[str, tuple[WishResult, int]] = field(default_factory=dict)
    roll: Roll | None = None
    alarms: tuple[Alarm, ...] = ()
    events: tuple[LoggedEvent, ...] = ()
    documents: Documents = field(default_factory=Documents)
    documents_version: int = -1

    def now_us(self) -> int:
        """Return the store's clock in whole microseconds: later than ever before."""
        ahead, latest = _count(self.ahead), _count(self.latest)
        if ahead > SANE_US:
            ahead = 0
        now = self.raw_us() + ahead
        if latest > now + SANE_US:
            latest = 0
        if now <= latest:
            if latest - now > 1_000_000:
                self.ahead = ahead + latest - now
            now = latest + 1
        self.latest = now
        return now

    def go_on_after(self, instant_us: int) -> None:
        """The clock has shown this instant before, also in an earlier life: it goes on from there."""
        self.latest = max(_count(self.latest), instant_us)

    def seen_us(self) -> int:
        """Return the clock as a look reads it: without moving it."""
        ahead, latest = _count(self.ahead), _count(self.latest)
        now = self.raw_us() + (ahead if ahead <= SANE_US else 0)
        return max(now, latest) if latest <= now + SANE_US else now

    def next_number(self, *seen: int) -> int:
        """Return a number greater than all seen, and never one that a rolled-back store hands out again."""
        return max(*(number + 1 for number in seen), self.now_us())

    def in_charge(self, epoch: int) -> bool:
        return self.epoch == epoch and self.lease_memory == self.identity

    def copy(self, identity: str) -> Memory:
        """Return the same memory in another server."""
        copied = Memory(raw_us=self.raw_us, identity=identity)
        for name in _VALUES:
            setattr(copied, name, getattr(self, name))
        for name in _MAPPINGS:
            setattr(copied, name, getattr(self, name).copy())
        return copied


_MAPPINGS = tuple(part.name for part in fields(Memory) if part.default_factory is dict)
_VALUES = tuple(part.name for part in fields(Memory) if part.name not in (*_MAPPINGS, "raw_us", "identity"))


def _count(value: int | str) -> int:
    if isinstance(value, int):
        return value
    return int(value) if value.isascii() and value.isdigit() else 0
