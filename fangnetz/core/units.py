"""Names for the numbers and identifiers everything else is made of. No logic beyond conversion."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NewType

Seconds = NewType("Seconds", float)
"""A span of time."""
Instant = NewType("Instant", float)
"""Seconds since 1970 UTC by the store's clock (Redis TIME); host clocks never enter it."""
MiB = NewType("MiB", int)
HostId = NewType("HostId", str)
VmId = NewType("VmId", str)
ControllerId = NewType("ControllerId", str)
DeviceName = NewType("DeviceName", str)
OperationId = NewType("OperationId", str)
Incarnation = NewType("Incarnation", str)
"""One boot of one host; survives a worker's restart, not a reboot."""
StoreIncarnation = NewType("StoreIncarnation", str)
"""One life of the store's memory; changes when its run id or replication id does."""
Epoch = NewType("Epoch", int)
"""Fencing token of the controller that may decide; only ever grows."""
Generation = NewType("Generation", int)
"""Number of a VM's ownership; grows with every change of owner and every start."""


def next_number(*seen: int, now: Instant) -> int:
    """Return a number greater than all `seen` that never comes back after a rollback (SAFETY rule 4).

    The store does the same inside its scripts; this twin serves the simulator and property tests.
    """
    return max(*(number + 1 for number in seen), int(now * 1_000_000), 1)


def at_utc(instant: Instant) -> str:
    """Return an instant of the store's clock as people read it."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
