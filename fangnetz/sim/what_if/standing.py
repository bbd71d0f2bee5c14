"""Puts into a world what its story cannot say of a real cluster: bindings, records, wishes for hosts, who decides."""

from __future__ import annotations

from dataclasses import replace

from fangnetz.core.fencing import BindingState
from fangnetz.core.model import Binding, HostDoc, HostState, HypervisorHealth, VmState, VmWish
from fangnetz.core.units import HostId, Incarnation, Instant
from fangnetz.engine.ledger import Document
from fangnetz.sim.beginning import HOURS_AGO, T0, vm_doc, write_documents
from fangnetz.sim.network import CLUSTER
from fangnetz.sim.store.memory import micros
from fangnetz.sim.what_if.today import Today
from fangnetz.sim.world import World

KEPT_HOST_STATES = frozenset(
    {HostState.MAINTENANCE, HostState.QUARANTINED, HostState.NEEDS_PERSON, HostState.FENCED, HostState.LEFT}
)
"""Others follow from what a host does."""
KEPT_VM_STATES = frozenset({VmState.FAILED, VmState.NEEDS_PERSON})


def stand(world: World, today: Today) -> None:
    """Make a world that has just begun stand as the cluster does today."""
    documents: list[Document] = []
    for host in world.hosts:
        documents += _host(world, today, host)
        documents += _devices(world, today, host)
    documents += _vms(world, today)
    documents += _pause(today)
    write_documents(world, documents)
    _holder(world, today)


def _host(world: World, today: Today, host: HostId) -> list[Document]:
    memory, record = world.server.memory, today.view.host_records.get(host)
    if record is not None and record.state in KEPT_HOST_STATES:
        memory.hosts[host] = replace(memory.hosts[host], state=record.state, reason=record.reason)
    if host not in today.reporting and host not in today.off:
        world.network.cut(host, (CLUSTER,), "both")
    beat = today.view.heartbeats.get(host)
    if beat is not None and beat.hypervisor is not HypervisorHealth.OK:
        world.daemons[host].become("hung" if beat.hypervisor is HypervisorHealth.HUNG else "dead")
    known = today.view.host_docs.get(host)
    if known is None or not known.maintenance:
        return []
    boot = memory.hosts[host].incarnation
    return [HostDoc(id=host, maintenance=True, reason=known.reason, incarnation=boot)]


def _devices(world: World, today: Today, host: HostId) -> list[Document]:
    memory, bindings = world.server.memory, list[Document]()
    for bmc in world.bmcs[host].values():
        device = today.device(host, bmc.name)
        bmc.state = device.state
        bmc.in_band = _in_band(device.binding, bmc.guid)
        if device.binding is not BindingState.BOUND:
            seen_on = device.binding is not BindingState.NOT_SEEN_ON
            bindings.append(
                Binding(
                    host=host,
                    device=bmc.name,
                    incarnation=memory.hosts[host].incarnation if seen_on else Incarnation(""),
                    seen_on_at=T0,
                    guid=bmc.guid,
                    guid_matches=False if device.binding is BindingState.MISMATCH else None,
                    read_off=device.binding is BindingState.READ_OFF,
                )
            )
    if host in memory.beats:
        guids = tuple(bmc.in_band for bmc in world.bmcs[host].values() if bmc.in_band)
        memory.beats[host] = replace(memory.beats[host], bmc_guids=guids)
    return bindings


def _in_band(binding: BindingState, guid: str) -> str:
    """Return what the host has to read of its own BMC for a device to be bound to it as it is."""
    match binding:
        case BindingState.MISMATCH:
            return f"not {guid}"
        case BindingState.NOT_TESTED:
            return ""
        case BindingState.BOUND | BindingState.NOT_SEEN_ON | BindingState.READ_OFF:
            return guid


def _vms(world: World, today: Today) -> list[Document]:
    memory, documents = world.server.memory, list[Document]()
    playing = {vm.name: vm for vm in world.story.vms}
    for doc, record in today.vms:
        vm = doc.spec.id
        documents.append(replace(vm_doc(playing[vm]), source=doc.source, declared=doc.declared))
        if record is None:
            continue
        if record.owner is None:
            memory.vms[vm] = replace(memory.vms[vm], owner=None, owner_incarnation=Incarnation(""))
        if record.state in KEPT_VM_STATES and doc.wish is not VmWish.IGNORED:
            memory.vms[vm] = replace(memory.vms[vm], state=record.state, reason=record.reason, failures=record.failures)
    return documents


def _pause(today: Today) -> list[Document]:
    """A pause that lasts goes on as long as it has left; what is lost in it is recovered only afterwards."""
    doc, now = today.view.paused, today.view.now
    if doc is None:
        return []
    until = None if doc.until is None else Instant(T0 + doc.until - now)
    return [replace(doc, since=Instant(T0 + doc.since - now), until=until)]


def _holder(world: World, today: Today) -> None:
    memory = world.server.memory
    if today.holder is not None:
        memory.holder, memory.epoch, memory.lease_memory = today.holder, micros(HOURS_AGO), memory.identity
        memory.lease_until = micros(T0 + today.policy.control_lease_s)
