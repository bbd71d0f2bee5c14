"""What each verb of a timeline does to the world. What already is so does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from fangnetz.core.model import Leaving, Sighting
from fangnetz.core.pause import CLUSTER
from fangnetz.core.roll.values import Resumption
from fangnetz.core.units import ControllerId, DeviceName, HostId, Instant, Seconds, VmId
from fangnetz.sim.beginning import vm_doc
from fangnetz.sim.rolling import Course
from fangnetz.sim.stories.story import Line, VmOfStory
from fangnetz.sim.stories.words import WISHES
from fangnetz.sim.strikes import Strike
from fangnetz.sim.world import World


def schedule(world: World) -> None:
    """Have every line of the story happen at its time, and what it needs before."""
    for line in world.story.timeline:
        world.kernel.at(line.at, carry_out, world, line)
        if line.verb == "redis" and line.more["state"] == "rolled-back":
            back = max(0.0, line.at - cast("float", line.more["seconds"]))
            world.kernel.at(back, world.server.keep, line.at)


def carry_out(world: World, line: Line) -> None:
    world.chronicle.tell("timeline", sentence_of(line), verb=line.verb)
    if line.verb in WISHES:
        _wish(world, line)
    else:
        _DO[line.verb](world, line)


def sentence_of(line: Line) -> str:
    """Return a line as a person would say it."""
    more = {key: value for key, value in line.more.items() if value != "" and value is not False}
    words = [f"{key}: {_said(value)}" for key, value in more.items() if not isinstance(value, VmOfStory)]
    return " ".join(part for part in (line.verb, line.on, ", ".join(words)) if part)


def _said(value: object) -> str:
    return " ".join(map(_said, value)) if isinstance(value, tuple) else str(value)


# --- power and machines ------------------------------------------------------------------------------------------


def _power_off(world: World, line: Line) -> None:
    world.machines[line.on].switch_off("timeline")


def _unplug(world: World, line: Line) -> None:
    machine = world.machines[line.on]
    machine.switch_off("timeline")
    machine.plugged = False


def _power_on(world: World, line: Line) -> None:
    machine = world.machines[line.on]
    machine.plugged = True
    world.shutdowns[HostId(line.on)].cancel()
    for bmc in world.bmcs[HostId(line.on)].values():
        bmc.off = False
    machine.switch_on("timeline")


def _reset(world: World, line: Line) -> None:
    world.machines[line.on].reset("timeline")


def _reboot(world: World, line: Line) -> None:
    world.shutdowns[HostId(line.on)].begin(Leaving.REBOOT)


def _shutdown(world: World, line: Line) -> None:
    world.shutdowns[HostId(line.on)].begin(Leaving.SHUTDOWN)


def _freeze(world: World, line: Line) -> None:
    controller = world.controllers.get(ControllerId(line.on))
    if controller is None:
        world.machines[line.on].freeze()
        return
    for process in controller.processes:
        process.freeze()


def _thaw(world: World, line: Line) -> None:
    controller = world.controllers.get(ControllerId(line.on))
    if controller is None:
        world.machines[line.on].thaw()
        return
    for process in controller.processes:
        if not controller.machine.frozen:
            process.thaw()


# --- links -------------------------------------------------------------------------------------------------------


def _cut(world: World, line: Line) -> None:
    links = cast("tuple[str, ...]", line.more["links"])
    world.network.cut(world.machine_of(line.on).name, links, str(line.more["direction"]))


def _heal(world: World, line: Line) -> None:
    if not line.on:
        world.network.heal_all()
        return
    links = cast("tuple[str, ...]", line.more["links"])
    world.network.heal(world.machine_of(line.on).name, links, str(line.more["direction"]))


def _partition(world: World, line: Line) -> None:
    groups = cast("tuple[tuple[str, ...], ...]", line.more["groups"])
    world.network.partition([[world.machine_of(name).name for name in group] for group in groups])


# --- what serves us ----------------------------------------------------------------------------------------------


def _libvirt(world: World, line: Line) -> None:
    if world.machines[line.on].up:
        world.daemons[HostId(line.on)].become(str(line.more["state"]))


def _bmc(world: World, line: Line) -> None:
    device, state = DeviceName(str(line.more["device"])), str(line.more["state"])
    bmc = world.bmcs[HostId(line.on)][device]
    if state == "swapped":
        bmc.swap(world.bmcs[HostId(line.names[1])][device])
    else:
        bmc.state = state


def _redis(world: World, line: Line) -> None:
    server, seconds = world.server, cast("float", line.more["seconds"])
    match str(line.more["state"]):
        case "ok":
            server.mend()
        case "down":
            server.go_down(seconds)
        case "hung":
            server.hang(seconds)
        case "wiped":
            server.wipe()
        case "rolled-back":
            server.roll_back(line.at)
        case "failover":
            server.fail_over(seconds)
        case unknown:
            raise ValueError(f"a store cannot be {unknown}")


def _messages(world: World, line: Line) -> None:
    more = cast("Mapping[str, float]", line.more)
    world.server.queues.trouble(drop=more["drop"], duplicate=more["duplicate"], delay=more["delay"], span=more["for"])


def _clock(world: World, line: Line) -> None:
    world.machine_of(line.on).clock_us += int(cast("float", line.more["jump_s"]) * 1_000_000)


# --- our processes -----------------------------------------------------------------------------------------------


def _kill_worker(world: World, line: Line) -> None:
    world.workers[HostId(line.on)].kill()


def _kill_controller(world: World, line: Line) -> None:
    world.controllers[ControllerId(line.on)].kill()


def _start_controller(world: World, line: Line) -> None:
    world.controllers[ControllerId(line.on)].start_again()


def _strike(world: World, line: Line) -> None:
    more = cast("Mapping[str, Any]", line.more)
    world.strikes.add(Strike(line.on, more["point"], more["subject"], more["action"], more["seconds"]))


# --- VMs ---------------------------------------------------------------------------------------------------------


def _vm_crash(world: World, line: Line) -> None:
    for daemon in world.daemons.values():
        daemon.crash(VmId(line.on))


def _guest_hang(world: World, line: Line) -> None:
    for daemon in world.daemons.values():
        copy = daemon.copies.get(VmId(line.on))
        if copy is not None:
            copy.guest_hangs = True


def _io_error(world: World, line: Line) -> None:
    for daemon in world.daemons.values():
        copy = daemon.copies.get(VmId(line.on))
        if copy is not None:
            copy.guest_hangs, copy.state = True, Sighting.PAUSED


def _load(world: World, line: Line) -> None:
    more, vm = cast("Mapping[str, float]", line.more), VmId(line.on)
    before = world.loads.of(vm)
    world.loads.become(vm, more.get("cpus_used", before.cpus), more.get("memory_used_mib", before.memory_mib))


def _start_fails(world: World, line: Line) -> None:
    for host in cast("tuple[str, ...]", line.more["hosts"]):
        world.daemons[HostId(host)].start_fails[VmId(line.on)] = cast("int", line.more["times"])


def _stop_fails(world: World, line: Line) -> None:
    for daemon in world.daemons.values():
        daemon.stop_fails[VmId(line.on)] = cast("int", line.more["times"])


def _migrate_fails(world: World, line: Line) -> None:
    for daemon in world.daemons.values():
        daemon.migrations.fails[VmId(line.on)] = cast("int", line.more["times"])


def _start_by_hand(world: World, line: Line) -> None:
    """Somebody starts a VM on a host by libvirt alone, from the definition that was written there."""
    vm, host = VmId(line.on), HostId(str(line.more["host"]))
    record, daemon = world.server.memory.vms.get(vm), world.daemons[host]
    if daemon.machine.up and vm not in daemon.copies:
        generation = record.generation if record is not None else None
        daemon.run(vm, generation, Instant(world.server.memory.seen_us() / 1e6))


def _wish(world: World, line: Line) -> None:
    vm = line.more.get("vm")
    if line.verb in ("migrate", "relocate"):
        to = str(line.more["to"])
        world.operator.wish(line.verb, line.on, to=HostId(to) if to else None)
        return
    if line.verb in ("pause", "resume"):
        until = cast("float | None", line.more.get("until"))
        world.operator.wish(line.verb, CLUSTER, **({} if until is None else {"for_s": until - line.at}))
        return
    if not isinstance(vm, VmOfStory):
        world.operator.wish(line.verb, line.on, failback=bool(line.more.get("failback")))
        return
    world.added(vm)
    machine = world.machines[vm.host]
    if vm.running and machine.up and not machine.frozen:
        world.daemons[HostId(vm.host)].run(VmId(vm.name), None)
    world.operator.wish(line.verb, line.on, doc=vm_doc(vm))


def _roll(world: World, line: Line) -> None:
    more = cast("Mapping[str, Any]", line.more)
    world.rolls.begin(
        Course(
            hosts=tuple(HostId(host) for host in more["hosts"]),
            run_s=Seconds(more["run_s"]),
            reboots=more["reboots"],
            fails_on=more["fails_on"],
            resume=_RESUMED.get(more["resume"]),
        )
    )


def _kill_roll(world: World, _line: Line) -> None:
    world.rolls.kill()


_RESUMED = {"go_on": Resumption.UNSAID, "again": Resumption.AGAIN, "ran": Resumption.RAN}
_DO: Mapping[str, Callable[[World, Line], None]] = {
    "power_off": _power_off,
    "unplug": _unplug,
    "power_on": _power_on,
    "reset": _reset,
    "reboot": _reboot,
    "shutdown": _shutdown,
    "freeze": _freeze,
    "thaw": _thaw,
    "cut": _cut,
    "heal": _heal,
    "partition": _partition,
    "libvirt": _libvirt,
    "bmc": _bmc,
    "redis": _redis,
    "messages": _messages,
    "clock": _clock,
    "kill_worker": _kill_worker,
    "kill_controller": _kill_controller,
    "start_controller": _start_controller,
    "strike": _strike,
    "roll": _roll,
    "kill_roll": _kill_roll,
    "vm_crash": _vm_crash,
    "guest_hang": _guest_hang,
    "io_error": _io_error,
    "load": _load,
    "start_fails": _start_fails,
    "stop_fails": _stop_fails,
    "migrate_fails": _migrate_fails,
    "start_by_hand": _start_by_hand,
}
