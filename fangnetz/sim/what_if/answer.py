"""What came of a loss: who would run where and when, what could not be saved, and why, in the product's own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fangnetz.core.actions import Alarm
from fangnetz.core.incidents import Incident, IncidentVm, incidents
from fangnetz.core.model import HostRecord, HostState, VmRecord, VmState
from fangnetz.core.units import HostId, Instant, Seconds, VmId
from fangnetz.sim.beginning import T0
from fangnetz.sim.chronicle import Broken
from fangnetz.sim.libvirtd import Copy
from fangnetz.sim.network import STORAGE
from fangnetz.sim.play import played
from fangnetz.sim.what_if.standing import stand
from fangnetz.sim.what_if.today import Loss, Today, story_of_today
from fangnetz.sim.world import World


class Fate(StrEnum):
    """What would become of a VM."""

    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"
    NEEDS_PERSON = "needs_person"
    LOST = "lost"
    HANGS = "hangs"
    """It runs where it was, and its guest waits for a disk that is not there."""


_NAMED = {
    VmState.WAITING: Fate.WAITING,
    VmState.STARTING: Fate.WAITING,
    VmState.STOPPING: Fate.WAITING,
    VmState.MOVING: Fate.WAITING,
    VmState.FAILED: Fate.FAILED,
    VmState.NEEDS_PERSON: Fate.NEEDS_PERSON,
}
"""States of a VM's record that say by themselves what became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAnswer:
    """What would become of a host; spans are seconds after the loss, None where it would not happen."""

    host: HostId
    state: HostState
    reason: str
    suspected_after: Seconds | None = None
    fence_sent_after: Seconds | None = None
    proven_after: Seconds | None = None
    proof: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmAnswer:
    """What would become of a VM that the loss would touch. `running_after`: seconds after the loss."""

    vm: VmId
    source: HostId
    target: HostId | None
    fate: Fate
    running_after: Seconds | None
    reason: str

    @property
    def saved(self) -> bool:
        return self.fate is Fate.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """`broken`: laws of ours that did not hold, which must never be."""

    lost: tuple[HostId, ...]
    loss: Loss
    hosts: tuple[HostAnswer, ...]
    vms: tuple[VmAnswer, ...]
    alarms: tuple[Alarm, ...]
    broken: tuple[Broken, ...]

    @property
    def not_saved(self) -> tuple[VmAnswer, ...]:
        return tuple(vm for vm in self.vms if not vm.saved)


def what_if(today: Today, lost: tuple[HostId, ...], loss: Loss, seed: int = 0) -> WhatIf:
    """Play the loss of hosts from today's view until nothing is under way any more; return what came of it."""
    story = story_of_today(today, lost, loss)
    with played(story, seed, until_calm=True, prepare=lambda world: stand(world, today)) as world:
        reader = _Reader(world, today, lost)
        return WhatIf(
            lost=lost,
            loss=loss,
            hosts=tuple(reader.hosts()),
            vms=tuple(reader.vms()),
            alarms=world.server.memory.alarms,
            broken=tuple(world.chronicle.broken),
        )


class _Reader:
    """Reads a world after the loss: the journal for what was done, records for why, hypervisors for what is so."""

    def __init__(self, world: World, today: Today, lost: tuple[HostId, ...]) -> None:
        self._world, self._today, self._lost_at, self._lost = world, today, today.lost_at, lost
        self._memory = world.server.memory
        self._incidents = {
            incident.host: incident
            for incident in reversed(incidents(self._memory.operations.values()))
            if incident.opened_at >= T0 + self._lost_at
        }
        self._moves: Mapping[VmId, IncidentVm] = {
            vm.vm: vm for incident in self._incidents.values() for vm in incident.vms
        }

    def _after(self, at: Instant | None) -> Seconds | None:
        """Return an instant of the store as a span since the loss."""
        return None if at is None else Seconds(round(max(0.0, at - T0 - self._lost_at), 3))

    # -- hosts --

    def hosts(self) -> Iterator[HostAnswer]:
        changed = {
            event["host"]
            for event in self._world.chronicle.events
            if event["kind"] == "host_state" and event["t"] >= self._lost_at
        }
        for host in self._world.hosts:
            if host in self._lost or host in changed:
                yield self._host(host, self._incidents.get(host))

    def _host(self, host: HostId, incident: Incident | None) -> HostAnswer:
        record = self._memory.hosts[host]
        proof = incident.proof if incident is not None else None
        return HostAnswer(
            host=host,
            state=record.state,
            reason=self._why(record),
            suspected_after=self._after(incident.suspected_at if incident is not None else record.suspected_at),
            fence_sent_after=self._after(incident.fence_sent_at) if incident is not None else None,
            proven_after=self._after(incident.fence_proven_at) if incident is not None else None,
            proof=proof.sentence if proof is not None else "",
        )

    def _why(self, host: HostRecord) -> str:
        """Return what stands in the way of a host, else its record's reason."""
        braked = (a.sentence for a in self._memory.alarms if a.subject == host.id and a.kind.startswith("braked_"))
        return self._undecided() or next(braked, host.reason)

    # -- VMs --

    def vms(self) -> Iterator[VmAnswer]:
        """Yield what became of each VM that was to run and that the loss touched."""
        for doc, _ in self._today.vms:
            copies = self._world.chronicle.copies.get(doc.spec.id, [])
            before = next((copy for copy in copies if self._ran_at_the_loss(copy)), None)
            record = self._memory.vms.get(doc.spec.id)
            if not doc.to_run or before is None or record is None:
                continue
            if before.host in self._lost or before.ended_at is not None:
                yield self._vm(before, copies[-1], record)

    def _ran_at_the_loss(self, copy: Copy) -> bool:
        return copy.since < self._lost_at and (copy.ended_at is None or copy.ended_at >= self._lost_at)

    def _vm(self, before: Copy, last: Copy, record: VmRecord) -> VmAnswer:
        runs = record.state is VmState.RUNNING and last.ended_at is None and self._has_storage(last.host)
        fate, reason = (Fate.RUNNING, self._because(record)) if runs else self._not_saved(last, record)
        return VmAnswer(
            vm=record.id,
            source=before.host,
            target=last.host if runs else None,
            fate=fate,
            running_after=None if not runs else Seconds(0.0) if last is before else self._running_after(last),
            reason=reason,
        )

    def _because(self, record: VmRecord) -> str:
        move = self._moves.get(record.id)
        return move.reason if move is not None else record.reason

    def _running_after(self, copy: Copy) -> Seconds | None:
        """Return when it would be seen running: as long after its start was sent as measured, or when it was played."""
        move = self._moves.get(copy.vm)
        sent_at = move.start_sent_at if move is not None and move.start_sent_at is not None else T0 + copy.since
        seen_at = move.running_at if move is not None and move.running_at is not None else sent_at
        return self._after(Instant(max(seen_at, sent_at + self._today.measured.start(copy.vm).seconds)))

    def _not_saved(self, last: Copy, record: VmRecord) -> tuple[Fate, str]:
        undecided = self._undecided()
        if undecided:
            return Fate.LOST, undecided
        if record.state is VmState.RUNNING and last.ended_at is None:
            sentence = f"{last.host} and its libvirt report on, so it is left there; its guest hangs for its disk"
            return Fate.HANGS, sentence
        if record.state in _NAMED:
            return _NAMED[record.state], record.reason
        owner = self._memory.hosts.get(record.owner) if record.owner is not None else None
        if owner is None:
            return Fate.LOST, record.reason
        return Fate.NEEDS_PERSON if owner.state is HostState.NEEDS_PERSON else Fate.LOST, self._why(owner)

    def _has_storage(self, host: HostId) -> bool:
        return self._world.network.both_ways(host, "", STORAGE)

    def _undecided(self) -> str:
        """Return why nobody could decide anything after the loss, or an empty string."""
        server, network = self._world.server, self._world.network
        if not server.machine.powered:
            return f"the store was on {server.machine.name}: without it nothing is decided, and what runs runs on"
        machines = [controller.machine for controller in self._world.controllers.values()]
        if not any(here.powered and network.both_ways(here.name, server.machine.name) for here in machines):
            return "no controller that reaches the store is left: nothing is decided, and what runs runs on"
        return ""
