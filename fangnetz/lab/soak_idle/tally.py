"""Counts what must not happen to hosts that only are busy. Pure: events and heartbeat instants go in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fangnetz.core.operations import OperationKind

FORBIDDEN_STATES = ("lost", "isolated", "fencing", "fenced", "needs_person")
"""A living host in one of these was called dead."""
WATCHED_STATES = ("suspect", "unknown", "degraded", *FORBIDDEN_STATES)
KEPT_MAX = 200


@dataclass(slots=True)
class Tally:
    """Counts since it was made. `silence_s`: each host's longest span between two heartbeats that were looked at."""

    states: Counter[str] = field(default_factory=Counter)
    failovers: int = 0
    fences: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)
    silence_s: dict[str, float] = field(default_factory=dict)
    _heard_at: dict[str, float] = field(default_factory=dict)

    def event(self, at: float, kind: str, facts: Mapping[str, object], sentence: str) -> None:
        """Take in one event of the cluster's log; instants are seconds since the epoch."""
        state = str(facts.get("state", ""))
        if kind == "host_state" and state in WATCHED_STATES:
            self.states[state] += 1
        elif kind == "operation_opened" and sentence.startswith(OperationKind.FAILOVER.value):
            self.failovers += 1
        elif kind == "fence_sent":
            self.fences += 1
        elif kind != "alarm":
            return
        if len(self.told) < KEPT_MAX:
            self.told.append({"at": round(at, 3), "kind": kind, "sentence": sentence})

    def heartbeats(self, heard_at: Mapping[str, float]) -> None:
        """Take in when each host was last heard."""
        for host, at in heard_at.items():
            before = self._heard_at.get(host)
            if before is not None:
                self.silence_s[host] = max(self.silence_s.get(host, 0.0), at - before)
            self._heard_at[host] = at

    def faults(self, overlaps: int) -> list[str]:
        """Return why the run failed; empty if nobody was called lost or fenced and no disk had two writers."""
        found = [
            f"a host was called {state} {self.states[state]} times" for state in FORBIDDEN_STATES if self.states[state]
        ]
        if self.failovers:
            found.append(f"{self.failovers} failovers were opened")
        if self.fences:
            found.append(f"{self.fences} fences were sent")
        if overlaps:
            found.append(f"{overlaps} times two copies of a VM wrote")
        return found
