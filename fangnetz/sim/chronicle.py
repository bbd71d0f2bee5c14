"""What happened, as it is told: events in a sentence each, who ran where by the hypervisors' own record, who had power.

Only listens. Times are seconds since the story began.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fangnetz.core.actions import Happened
from fangnetz.core.units import HostId, VmId
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.libvirtd import Copy

TOLD = frozenset(
    {"host_state", "fence_sent", "fence_proven", "rejoined", "vm_started", "vm_stopped", "operation_opened",
     "operation_closed", "wish_refused", "vm_lost", "decided_not_to",
     "migration_failed", "migration_done", "cluster_paused", "cluster_resumed"}
)  # fmt: skip
"""Kinds of the event log that a result tells as they are."""


_RENAMED = {"kind": "operation"}
"""A fact that is called as the event's own kind is: the kind of operation it is about."""


def at(t: float) -> float:
    """Return an instant as results show it: milliseconds are enough, and read well."""
    return round(t, 3)


@dataclass(frozen=True, slots=True)
class Broken:
    """A law that did not hold, or an expectation that was not met."""

    t: float
    what: str
    sentence: str
    host: str = ""
    vm: str = ""

    def plain(self) -> dict[str, Any]:
        named = {key: value for key, value in (("host", self.host), ("vm", self.vm)) if value}
        return {"t": at(self.t), "what": self.what, **named, "sentence": self.sentence}


@dataclass(slots=True)
class Session:
    """A host with power, from when to when and why it ended."""

    since: float
    until: float | None = None
    by: str = ""


STANDS_STILL_S = 1.0
"""A guest that goes on elsewhere within this was not down: as long as one may stand still in a live migration."""


def went_on(one: Copy, two: Copy) -> bool:
    """Whether the guest of one copy went on as the next, without a start."""
    return one.end == "migrated" and two.arrived and two.since - (one.ended_at or 0.0) <= STANDS_STILL_S


@dataclass(slots=True)
class Chronicle:
    kernel: Kernel
    events: list[dict[str, Any]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    copies: dict[VmId, list[Copy]] = field(default_factory=dict)
    power: dict[HostId, list[Session]] = field(default_factory=dict)

    def tell(self, kind: str, sentence: str, **facts: object) -> None:
        self.events.append({"t": at(self.kernel.now), "kind": kind, "sentence": sentence, **facts})

    def logged(self, event: Happened) -> None:
        """An event that the product wrote down."""
        facts = {key: value for key, value in event.facts.items() if value is not None}
        if event.kind == "alarm":
            self.tell(event.kind, event.sentence, what=facts.get("what"), subject=event.subject)
        elif event.kind in TOLD:
            self.tell(event.kind, event.sentence, **{_RENAMED.get(key, key): value for key, value in facts.items()})

    def broke(self, what: str, sentence: str, *, host: str = "", vm: str = "") -> None:
        self.broken.append(Broken(self.kernel.now, what, sentence, host, vm))

    # -- truth --

    def copy_began(self, copy: Copy) -> None:
        self.copies.setdefault(copy.vm, []).append(copy)

    def powered(self, host: HostId, *, on: bool, by: str) -> None:
        sessions = self.power.setdefault(host, [])
        if on:
            sessions.append(Session(self.kernel.now))
        elif sessions:
            sessions[-1].until, sessions[-1].by = self.kernel.now, by
