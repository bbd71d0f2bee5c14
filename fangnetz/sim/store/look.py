"""One look at everything, read in the same order as the real store is: others may write in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fangnetz.core.model import (
    ClusterView,
    ControlLease,
    Heartbeat,
    HostRecord,
    HostSpec,
    PowerReading,
    ProbeRound,
    Reports,
    StoreLife,
    VmRecord,
    Wish,
)
from fangnetz.core.operations import Operation
from fangnetz.core.units import ControllerId, Epoch, HostId, Instant, OperationId, StoreIncarnation, VmId
from fangnetz.sim.store.memory import Documents, Memory, instant
from fangnetz.sim.store.records import documents

Hosts = tuple[dict[HostId, Heartbeat], dict[HostId, HostRecord], dict[HostId, tuple[PowerReading, ...]]]


@dataclass(frozen=True, slots=True)
class First:
    """What judges hosts, and the names of all else."""

    now: Instant
    life: StoreLife
    lease: ControlLease | None
    """Whoever has it now."""
    controllers: dict[ControllerId, int]
    files: dict[ControllerId, str]
    vms: tuple[VmId, ...]
    wishes: tuple[Wish, ...]
    placements: int
    docs: Documents
    hosts: Hosts


UnderWay = tuple[StoreLife, dict[OperationId, Operation]]


def operations_reading(m: Memory) -> UnderWay:
    """Read the open operations first, and the life of the store that they are of."""
    return _life(m), {identity: m.operations[identity] for identity in m.open.values() if identity in m.operations}


def first_reading(m: Memory, hosts: Mapping[HostId, HostSpec]) -> First:
    held = None
    if m.holder is not None:
        held = ControlLease(holder=ControllerId(m.holder), epoch=Epoch(m.epoch), until=instant(m.lease_until))
    now = instant(m.seen_us())
    return First(
        now=now,
        life=_life(m),
        lease=held if held is not None and held.until > now else None,
        controllers=dict(m.controllers),
        files=dict(m.files),
        vms=tuple(sorted(m.vms)),
        wishes=tuple(sorted(m.wishes.values(), key=lambda wish: (wish.at, wish.id))),
        placements=m.placements,
        docs=documents(m),
        hosts=_hosts(m, tuple(hosts)),
    )


def reports_reading(m: Memory, hosts: Mapping[HostId, HostSpec], controller: ControllerId) -> Reports:
    now, beats = m.seen_us(), m.beats
    m.controllers[controller] = now
    return Reports(
        now=instant(now),
        life=_life(m),
        hosts=hosts,
        heartbeats={host: beats[host] for host in hosts if host in beats},
        files=dict(m.files),
    )


Second = tuple[list[ProbeRound], dict[VmId, VmRecord], Hosts]


def second_reading(m: Memory, first: First, outside: Sequence[HostId], controller: ControllerId | None) -> Second:
    """Read what the first one named, and write down that this controller looked."""
    rounds = [probe for prober in first.controllers for probe in m.probes.get(prober, ())]
    records = {vm: m.vms[vm] for vm in first.vms if vm in m.vms}
    if controller is not None:
        m.controllers[controller] = int(first.now * 1_000_000)
    return rounds, records, _hosts(m, outside)


def hosts_reading(m: Memory, hosts: Sequence[HostId]) -> Hosts:
    return _hosts(m, hosts)


def _life(m: Memory) -> StoreLife:
    _, incarnation, since = m.life or ("", "", 0)
    return StoreLife(incarnation=StoreIncarnation(incarnation), since=instant(since))


def _hosts(m: Memory, hosts: Sequence[HostId]) -> Hosts:
    beats, records = m.beats, m.hosts
    return (
        {host: beats[host] for host in hosts if host in beats},
        {host: records[host] for host in hosts if host in records},
        {host: tuple(m.power[host].values()) if host in m.power else () for host in hosts},
    )


def _once_each(rounds: list[ProbeRound]) -> list[ProbeRound]:
    """Return the rounds without doubles: a write asked for again after a lost answer is there twice, side by side."""
    return [
        probe
        for probe, before in zip(rounds, [None, *rounds], strict=False)
        if before is None or probe.started_at != before.started_at or probe != before
    ]


def together(
    hosts: Mapping[HostId, HostSpec], controller: ControllerId | None, first: First, second: Second, owners: Hosts,
    found: dict[OperationId, Operation],
) -> ClusterView:  # fmt: skip
    rounds, records, remembered = second
    parts = [first.hosts, *(part for part in (remembered, owners) if part[2])]
    beats, host_records, readings = parts[0]
    for part in parts[1:]:
        beats, host_records, readings = {**beats, **part[0]}, {**host_records, **part[1]}, {**readings, **part[2]}
    return ClusterView(
        now=first.now,
        life=first.life,
        lease=first.lease if first.lease is not None and first.lease.holder == controller else None,
        hosts=hosts,
        host_records=host_records,
        host_docs=first.docs.hosts,
        heartbeats=beats,
        probes=tuple(sorted(_once_each(rounds), key=lambda probe: probe.started_at)),
        readings=readings,
        bindings=first.docs.bindings,
        vms=first.docs.vms,
        vm_records=records,
        operations=found,
        wishes=first.wishes,
        placements=first.placements,
        holder=first.lease.holder if first.lease is not None else None,
        controllers={name: instant(at) for name, at in first.controllers.items()},
        files=first.files,
        proofs=first.docs.proofs,
        pause=first.docs.pause,
    )
