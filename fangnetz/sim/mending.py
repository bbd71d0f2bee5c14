"""The person who comes after a storm and does what the alarms ask for: nothing that no sentence of the product says.

Looks at hosts with their own eyes (whether they have power) and at the cluster through its own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fangnetz.core.model import HostState, VmState, VmWish
from fangnetz.core.units import HostId, VmId
from fangnetz.sim.store.records import documents

if TYPE_CHECKING:
    from fangnetz.sim.world import World


def mend(world: World) -> bool:
    """Ask for what stands in the alarms and records now; return whether there was anything.

    Where no controller is left nobody would hear it: first one is needed.
    """
    if not any(controller.machine.up for controller in world.controllers.values()):
        return _switch_on_a_controller(world)
    asked = [*_hosts(world), *_vms(world)]
    for verb, subject in asked:
        world.operator.wish(verb, subject)
    return bool(asked)


def _switch_on_a_controller(world: World) -> bool:
    off = [c.machine for c in world.controllers.values() if not c.machine.powered]
    for machine in off:
        world.chronicle.tell("mending", f"{machine.name} is switched on by hand: nobody decides without its controller")
        machine.plugged = True
        for bmc in world.bmcs.get(HostId(machine.name), {}).values():
            bmc.off = False
        machine.switch_on("operator")
    return bool(off)


def _hosts(world: World) -> list[tuple[str, str]]:
    """A host that is really off is confirmed so; one that runs and waits for a person is taken back."""
    memory, asked = world.server.memory, dict[str, str]()
    waited_for = {alarm.subject for alarm in memory.alarms if alarm.kind == "hold"}
    for host in world.hosts:
        record = memory.hosts.get(host)
        quarantined = record is not None and record.state is HostState.QUARANTINED
        needs = record is not None and record.state is HostState.NEEDS_PERSON
        if (needs or host in waited_for) and not world.machines[host].powered:
            asked[host] = "confirm_off"
        elif (needs or quarantined) and world.machines[host].up:
            asked[host] = "activate"
    return [(verb, host) for host, verb in asked.items()]


def _vms(world: World) -> list[tuple[str, str]]:
    """One that failed, ended too often where alone it may run, or was stopped as its host was emptied, is started; the
    only copy of one that is paused or out of date is ended first.
    """
    memory, docs = world.server.memory, documents(world.server.memory).vms
    waiting = {vm for host in documents(world.server.memory).hosts.values() for vm in host.stopped}
    asked: list[tuple[str, str]] = []
    for vm, record in memory.vms.items():
        doc = docs.get(vm)
        if doc is None:
            continue
        waits = record.state is VmState.WAITING and (vm in waiting or record.ended_on is not None)
        if (record.state is VmState.FAILED or waits) and doc.to_run:
            asked.append(("start", vm))
        elif record.state is VmState.NEEDS_PERSON and doc.to_run:
            asked.append(("stop", vm))
            world.chronicle.tell("mending", f"{vm} is stopped by hand, to be started again")
        elif doc.wish is VmWish.STOPPED and vm in world.to_start_again and record.state is VmState.STOPPED:
            asked.append(("start", vm))
    world.to_start_again |= {VmId(vm) for verb, vm in asked if verb == "stop"}
    return asked


def idle(world: World) -> list[tuple[str, str]]:
    """Return every VM that is wished to run and runs nowhere, with what its record says of it."""
    memory = world.server.memory
    running = {vm for daemon in world.daemons.values() for vm, copy in daemon.copies.items() if copy.runs}
    found: list[tuple[str, str]] = []
    for vm, doc in documents(memory).vms.items():
        if doc.to_run and vm not in running:
            record = memory.vms.get(vm)
            found.append((vm, f"{record.state}: {record.reason}" if record is not None else "not recorded"))
    return found
