"""A host's slot on the shared storage, as JSON and in words. Null and nothing where slots are not used."""

from __future__ import annotations

from typing import Any

from fangnetz.cli._console import few
from fangnetz.cli._snapshot import Snapshot
from fangnetz.core.detector import heard
from fangnetz.core.slots import readers
from fangnetz.core.units import HostId


def host_slot(snapshot: Snapshot, host: HostId) -> dict[str, Any] | None:
    """`waits_s`: for how long it could not be written, null before the first time; `read_by`: who tells of it."""
    beat = heard(snapshot.view, host)
    if beat is None or beat.slot_waits_s is None:
        return None
    waits = float(beat.slot_waits_s)
    return {"waits_s": None if waits < 0 else waits, "read_by": list(readers(host, snapshot.view))}


def host_slot_said(snapshot: Snapshot, host: HostId) -> str:
    slot = host_slot(snapshot, host)
    if slot is None:
        return ""
    waits, by = slot["waits_s"], slot["read_by"]
    written = "not written yet" if waits is None else f"not written for {waits:.0f} s" if waits else "written"
    return f"{written}, read by {few(by) if by else 'nobody'}"
