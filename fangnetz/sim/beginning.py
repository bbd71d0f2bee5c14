"""How the world stands when a story begins: a cluster that has run for hours, every host a member, every plug seen on.

Written into memory, files and hypervisors directly; from then on only the product writes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from fangnetz.core.model import (
    FROM_CLI,
    Binding,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostState,
    HypervisorHealth,
    OffProof,
    ProofKind,
    Sighting,
    VmDoc,
    VmRecord,
    VmSighting,
    VmSpec,
    VmState,
    VmWish,
)
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, MiB, Seconds, VmId
from fangnetz.engine.ledger import Document, key_of
from fangnetz.ports import LedgerEntry
from fangnetz.sim.store.server import EPOCH_US
from fangnetz.sim.stories.story import VmOfStory

if TYPE_CHECKING:
    from fangnetz.sim.world import World

T0 = Instant(EPOCH_US / 1_000_000)
HOURS_AGO = Instant(T0 - 7200)
BOOTED_AGO = Instant(T0 - 3600)


_BODY: dict[type, TypeAdapter[Document]] = {kind: TypeAdapter(kind) for kind in (VmDoc, HostDoc, Binding)}


def vm_doc(vm: VmOfStory) -> VmDoc:
    spec = VmSpec(
        id=VmId(vm.name), memory_mib=MiB(vm.memory_mib), cpus=vm.cpus, priority=vm.priority, digest=vm.name,
        disks=(f"disk of {vm.name}",), rules=vm.rules, live=vm.live, retries=vm.retries,
        fallback=vm.fallback,
    )  # fmt: skip
    return VmDoc(spec=spec, xml=f"<domain><name>{vm.name}</name></domain>", wish=VmWish(vm.wish), source=FROM_CLI)


def begin(world: World) -> None:
    """Fill the store's memory, every machine's files and the hypervisors."""
    documents: list[Document] = []
    memory = world.server.memory
    memory.life = (memory.identity, str(int(HOURS_AGO * 1_000_000)), int(HOURS_AGO * 1_000_000))
    memory.latest = EPOCH_US - 1
    boots: dict[HostId, Incarnation] = {}
    for host, machine in world.machines_of_hosts.items():
        boots[host] = machine.boot.incarnation if machine.boot is not None else Incarnation(world.kernel.name(""))
        documents.append(HostDoc(id=host, incarnation=boots[host]))
        documents.extend(_bindings(world, host, boots[host]))
        memory.hosts[host] = _record(host, boots[host], powered=machine.powered)
        world.laws.begin_with_proof(memory.hosts[host].proof)
    for number, vm in enumerate(world.story.vms, start=1):
        documents.append(vm_doc(vm))
        host, name = HostId(vm.host), VmId(vm.name)
        runs = vm.running if vm.running is not None else vm.wish == "running"
        runs = runs and world.machines_of_hosts[host].powered
        record = _vm_record(vm, boots[host], Generation(number), runs=runs)
        memory.vms[name] = record
        world.laws.begin_with(None, record)
        if runs:
            world.daemons[host].run(name, record.generation, BOOTED_AGO)
    for host, machine in world.machines_of_hosts.items():
        if machine.powered:
            memory.beats[host] = _beat(world, host, boots[host])
    write_documents(world, documents)


def _bindings(world: World, host: HostId, boot: Incarnation) -> list[Document]:
    return [
        Binding(
            host=host, device=bmc.name, incarnation=boot, seen_on_at=Instant(T0 - 60), guid=bmc.guid, guid_matches=True
        )
        for bmc in world.bmcs[host].values()
    ]


def _record(host: HostId, boot: Incarnation, *, powered: bool) -> HostRecord:
    if powered:
        return HostRecord(id=host, state=HostState.ONLINE, since=BOOTED_AGO, reason=f"{host} reports", incarnation=boot)
    sentence = f"{host} was left in order before the story"
    proof = OffProof(host=host, incarnation=boot, kind=ProofKind.OPERATOR, proven_at=BOOTED_AGO, sentence=sentence)
    return HostRecord(id=host, state=HostState.LEFT, since=BOOTED_AGO, reason=sentence, incarnation=boot, proof=proof)


def _vm_record(vm: VmOfStory, boot: Incarnation, generation: Generation, *, runs: bool) -> VmRecord:
    if runs:
        state, reason = VmState.RUNNING, f"runs on {vm.host}"
    elif vm.wish == "running":
        state, reason = VmState.WAITING, "it does not run yet"
    else:
        state, reason = VmState.STOPPED, "stopped, as wished"
    if vm.wish == "ignored":
        state, reason = VmState.UNMANAGED, "not managed, by wish"
    return VmRecord(
        id=VmId(vm.name),
        state=state,
        owner=HostId(vm.host),
        owner_incarnation=boot,
        generation=generation,
        since=BOOTED_AGO,
        reason=reason,
    )


def _beat(world: World, host: HostId, boot: Incarnation) -> Heartbeat:
    seen = tuple(
        VmSighting(vm=copy.vm, state=Sighting.RUNNING, generation=copy.generation, start_sent_at=copy.start_sent_at)
        for copy in world.daemons[host].copies.values()
    )
    beat = Heartbeat(
        host=host,
        incarnation=boot,
        sequence=-1,
        hypervisor=HypervisorHealth.OK,
        inventory=seen,
        inventory_age_s=Seconds(0.1),
        bmc_guids=tuple(bmc.in_band for bmc in world.bmcs[host].values() if bmc.in_band),
    )
    return replace(beat, received_at=Instant(T0 - 0.3), boot_since=BOOTED_AGO)


def write_documents(world: World, documents: list[Document]) -> None:
    """Write into the store's ledger and into every machine's files; a document written before is replaced."""
    memory = world.server.memory
    for document in documents:
        body = _BODY[type(document)].dump_json(document).decode()
        entry = LedgerEntry(key=key_of(document), version=int(BOOTED_AGO * 1_000_000), body=body)
        memory.ledger[entry.key] = entry
    memory.ledger_version = int(BOOTED_AGO * 1_000_000)
    for machine in world.machines_of_hosts.values():
        machine.disk["host"] = dict(memory.ledger)
    for name, controller in world.controllers.items():
        controller.machine.disk[f"controller {name}"] = dict(memory.ledger)
