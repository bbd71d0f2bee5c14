"""Which host takes a VM: filters first, then a rank; every reason is kept. No healthy VM is ever stopped for room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fangnetz.core.model import HostSpec, VmSpec
from fangnetz.core.policy import Capacity, Policy
from fangnetz.core.units import HostId, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoom:
    """A host that may take VMs, with what is already promised to others on it."""

    spec: HostSpec
    memory_used_mib: int
    cpus_used: int
    vms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    vm: VmId
    host: HostId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPlaced:
    vm: VmId
    reason: str


def _misfit(vm: VmSpec, room: HostRoom, policy: Policy) -> str:
    """Return why the VM does not fit there, or an empty string."""
    if policy.capacity is Capacity.RANK:
        return ""
    free = room.spec.memory_mib - room.memory_used_mib
    if vm.memory_mib > free:
        return f"{room.spec.id} has {free} MiB free of {room.spec.memory_mib}, {vm.id} needs {vm.memory_mib}"
    cpus = room.spec.cpus * policy.cpu_overcommit - room.cpus_used
    if vm.cpus > cpus:
        whole = room.spec.cpus * policy.cpu_overcommit
        return f"{room.spec.id} has {cpus:g} of {whole:g} cpus left, {vm.id} needs {vm.cpus}"
    return ""


def _rank(vm: VmSpec, room: HostRoom, preferred: HostId | None) -> tuple[int, float, int, str]:
    """Lower is better: the preferred host, then the emptiest by share of memory, then the fewest VMs, then the name."""
    share = (room.memory_used_mib + vm.memory_mib) / max(1, room.spec.memory_mib)
    return (0 if room.spec.id == preferred else 1, round(share, 6), room.vms, room.spec.id)


def place(
    vms: Iterable[VmSpec],
    rooms: Iterable[HostRoom],
    policy: Policy,
    *,
    preferred: Mapping[VmId, HostId] | None = None,
    forbidden: Mapping[VmId, Mapping[HostId, str]] | None = None,
    no_host: str = "no host is online and open for VMs",
) -> tuple[Placed | NotPlaced, ...]:
    """Place VMs, highest priority first, then biggest, then by name; each takes its room before the next is asked.

    `preferred`: the host that wins if the VM fits there; `forbidden`: hosts that may not take it, and why.
    """
    open_rooms = {room.spec.id: room for room in rooms}
    results: list[Placed | NotPlaced] = []
    for vm in sorted(vms, key=lambda v: (-v.priority, -v.memory_mib, v.id)):
        banned = (forbidden or {}).get(vm.id, {})
        reasons: list[str] = []
        fits: list[HostRoom] = []
        for room in open_rooms.values():
            if room.spec.id in banned:
                reasons.append(banned[room.spec.id])
                continue
            misfit = _misfit(vm, room, policy)
            if misfit:
                reasons.append(misfit)
            else:
                fits.append(room)
        if not fits:
            results.append(NotPlaced(vm=vm.id, reason="; ".join(reasons) or no_host))
            continue
        best = min(fits, key=lambda room: _rank(vm, room, (preferred or {}).get(vm.id)))
        open_rooms[best.spec.id] = HostRoom(
            spec=best.spec,
            memory_used_mib=best.memory_used_mib + vm.memory_mib,
            cpus_used=best.cpus_used + vm.cpus,
            vms=best.vms + 1,
        )
        why = (
            "it is where it belongs"
            if (preferred or {}).get(vm.id) == best.spec.id
            else f"it has the most room of {len(fits)} that fit"
        )
        results.append(
            Placed(
                vm=vm.id,
                host=best.spec.id,
                reason=f"{best.spec.id}: {why} ({best.spec.memory_mib - best.memory_used_mib} MiB free before)",
            )
        )
    return tuple(results)
