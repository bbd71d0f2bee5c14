"""What came of a story, as plain data: the result that `--json` prints, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fangnetz.core.model import HostState, VmState
from fangnetz.core.units import HostId, VmId
from fangnetz.sim.chronicle import Broken, at, went_on
from fangnetz.sim.judge import judge
from fangnetz.sim.libvirtd import Copy
from fangnetz.sim.stories.story import Story
from fangnetz.sim.world import World


@dataclass(frozen=True, slots=True)
class Result:
    """`data`: as printed. `events`, `simulated_s`: how much was played."""

    story: Story
    data: dict[str, Any]
    events: int
    simulated_s: float

    @property
    def ok(self) -> bool:
        return bool(self.data["ok"])


def result_of(world: World, seed: int) -> Result:
    final = _final(world)
    unmet = judge(world, final)
    broken = [item for item in world.chronicle.broken if item.what not in world.story.expected.broken]
    data: dict[str, Any] = {
        "name": world.story.name,
        "seed": seed,
        "ok": not broken and not unmet,
        "broken": [item.plain() for item in broken],
        "unmet": [item.plain() for item in unmet],
        "counts": _counts(world),
        "controller_steps": world.controller_steps,
        "running": _running(world),
        "power": _power(world),
        "events": world.chronicle.events,
        "final": final,
    }
    return Result(world.story, data, world.kernel.events, world.kernel.now)


def _counts(world: World) -> dict[str, int]:
    kinds = [event["kind"] for event in world.chronicle.events]
    copies = [copy for of_vm in world.chronicle.copies.values() for copy in of_vm]
    return {
        "fences": kinds.count("fence_sent"),
        "starts": sum(1 for copy in copies if copy.since > 0 and not copy.arrived),
        "migrations": sum(1 for copy in copies if copy.arrived),
        "alarms": kinds.count("alarm"),
    }


def _running(world: World) -> dict[str, list[dict[str, Any]]]:
    return {
        vm: _runs(world.chronicle.copies.get(vm, []))
        for vm in sorted({VmId(vm.name) for vm in world.story.vms} | set(world.chronicle.copies))
    }


def _runs(copies: list[Copy]) -> list[dict[str, Any]]:
    """Return one VM's copies in order; one that went on elsewhere ends as the other begins."""
    ends = {id(one): two.since for one, two in pairwise(copies) if went_on(one, two)}
    return [
        {
            "host": copy.host,
            "from": at(copy.since),
            "to": None if copy.ended_at is None else at(ends.get(id(copy), copy.ended_at)),
            "end": copy.end or None,
        }
        for copy in copies
    ]


def _power(world: World) -> dict[str, list[dict[str, Any]]]:
    return {
        host: [
            {
                "from": at(session.since),
                "to": None if session.until is None else at(session.until),
                "by": session.by or None,
            }
            for session in world.chronicle.power.get(host, ())
        ]
        for host in world.hosts
    }


def _final(world: World) -> dict[str, Any]:
    memory = world.server.memory
    hosts: dict[str, Any] = {}
    for host, machine in world.machines_of_hosts.items():
        record = memory.hosts.get(host)
        state = record.state if record is not None else HostState.UNKNOWN
        hosts[host] = {
            "state": state.value,
            "power": "on" if machine.powered else "off",
            "maintenance": state is HostState.MAINTENANCE,
        }
    vms: dict[str, Any] = {}
    for vm, record_of_vm in sorted(memory.vms.items()):
        well = record_of_vm.state in (VmState.RUNNING, VmState.STOPPED)
        vms[vm] = {
            "state": record_of_vm.state.value,
            "host": record_of_vm.owner,
            "reason": "" if well else record_of_vm.reason,
        }
    return {"hosts": hosts, "vms": vms}


__all__ = ["Broken", "HostId", "Result", "result_of"]
