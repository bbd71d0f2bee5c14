"""What hosts and VMs really use, as JSON and in words. Null and nothing where that is not measured."""

from __future__ import annotations

from typing import Any

from fangnetz.cli._console import few
from fangnetz.cli._snapshot import Snapshot
from fangnetz.core.demand import Demand
from fangnetz.core.units import HostId, VmId


def host_uses(snapshot: Snapshot, host: HostId) -> dict[str, Any] | None:
    """What its VMs take of it; `not_measured` names those that count with their configured size."""
    used = snapshot.used(host)
    return None if used is None else {**_sizes(used), "not_measured": sorted(used.guessed)}


def vm_uses(snapshot: Snapshot, vm: VmId) -> dict[str, Any] | None:
    """What was measured of it within the last minute."""
    used = snapshot.demand.get(vm)
    return None if used is None or used.guessed else _sizes(used)


def host_uses_said(snapshot: Snapshot, host: HostId) -> str:
    used = snapshot.used(host)
    if used is None:
        return ""
    guessed = sorted(used.guessed)
    return _said(used) + (f", of which not measured, so as configured: {few(guessed)}" if guessed else "")


def vm_uses_said(snapshot: Snapshot, vm: VmId) -> str:
    used = snapshot.demand.get(vm)
    if used is None:
        return ""
    return "nothing fresh was measured: it counts as configured" if used.guessed else _said(used)


def _sizes(used: Demand) -> dict[str, Any]:
    return {"cpus": round(used.cpus, 2), "memory_mib": round(used.memory_mib)}


def _said(used: Demand) -> str:
    return f"{used.cpus:.2f} CPUs, {used.memory_mib:.0f} MiB"
