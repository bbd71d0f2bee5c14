"""What the traces on one disk mean over time: boots, overlaps, gaps. Pure: the time of each look is an argument.

An overlap is a boot that still wrote after a later boot had begun: two copies with the disk open for writing. A frozen
copy that wakes and writes again counts. A live migration keeps its boot and is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fangnetz.lab.traces import Trace

GAP_MIN_S = 1.0  # guests write every 0.25 s; shorter silences are a busy machine


@dataclass(slots=True, kw_only=True)
class Boot:
    """One boot of a VM: when its first and its latest write were seen, and how many writes it made."""

    boot: str
    first_at: float
    last_at: float
    writes: int


@dataclass(slots=True, kw_only=True)
class DiskHistory:
    """All that was seen on one VM's disk. Times are seconds since the epoch on the witness's clock."""

    vm: str
    boots: dict[str, Boot] = field(default_factory=dict)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    last_at: float | None = None

    def look(self, now: float, traces: Iterable[Trace]) -> bool:
        """Take in what stands on the disk now; return whether anybody wrote since the last look."""
        wrote = False
        for trace in traces:
            known = self.boots.get(trace.boot)
            if known is None:
                self.boots[trace.boot] = Boot(boot=trace.boot, first_at=now, last_at=now, writes=trace.counter)
            elif trace.counter != known.writes:
                known.last_at, known.writes = now, trace.counter
            else:
                continue
            wrote = True
        if wrote:
            if self.last_at is not None and now - self.last_at >= GAP_MIN_S:
                self.gaps.append((self.last_at, now))
            self.last_at = now
        return wrote

    def overlaps(self) -> list[dict[str, Any]]:
        """Return each pair of boots of which the earlier still wrote after the later had begun."""
        ordered = sorted(self.boots.values(), key=lambda each: each.first_at)
        return [
            {
                "vm": self.vm,
                "boots": [earlier.boot, later.boot],
                "from": later.first_at,
                "to": min(earlier.last_at, later.last_at),
            }
            for index, later in enumerate(ordered)
            for earlier in ordered[:index]
            if earlier.last_at > later.first_at
        ]

    def report(self, now: float) -> dict[str, Any]:
        """Return boots, overlaps and gaps as plain values; a gap that still lasts has `to` null."""
        gaps: list[dict[str, Any]] = [
            {"from": begin, "to": end, "seconds": round(end - begin, 3)} for begin, end in self.gaps
        ]
        if self.last_at is not None and now - self.last_at >= GAP_MIN_S:
            gaps.append({"from": self.last_at, "to": None, "seconds": round(now - self.last_at, 3)})
        return {
            "boots": [
                {"boot": each.boot, "first_at": each.first_at, "last_at": each.last_at, "writes": each.writes}
                for each in sorted(self.boots.values(), key=lambda each: each.first_at)
            ],
            "overlaps": self.overlaps(),
            "gaps": gaps,
        }
