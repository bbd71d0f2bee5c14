"""What the simulator and a controller's tick cost: stories by chance a minute, a big cluster's bad day, one decision.

Needs no lab and no root. Figures are of this machine as busy as it is; what is asserted of them are only truths.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fangnetz.core.decide import decide
from fangnetz.lab.bench.machine_load import MachineLoad, machine_load
from fangnetz.settings.tree import Tree
from fangnetz.sim.play import play, played
from fangnetz.sim.stories.read import story_of
from fangnetz.sim.stories.story import Story
from fangnetz.sim.storm import Size, play_seeds

SEEDS = 200
BIG_HOSTS, BIG_VMS, BIG_LOST = 100, 3000, 10
TICK_SIZES = ((3, 20), (100, 3000), (1000, 30000))
"""Hosts and VMs of the clusters in which one decision is timed."""
DECISIONS = 5
SETTLED_S = 8.0
"""Simulated seconds by which a cluster has its controller and all its records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickCost:
    """One decision about a cluster at rest, all it would write left out. Seconds of CPU, the median."""

    hosts: int
    vms: int
    decide_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationCost:
    """`seeds_a_minute` on `cores`; `big_s`: wall clock of the story in which a big cluster loses host after host."""

    cores: int
    seeds: int
    seeds_a_minute: float
    laws_broken: int
    big_s: float
    big_simulated_s: float
    big_starts: int
    big_ok: bool
    ticks: tuple[TickCost, ...]
    load: MachineLoad

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def simulation_cost(name: str, say: Callable[[str], None]) -> SimulationCost:
    """Measure all of it; about two minutes on two cores."""
    load, cores = machine_load(name), os.cpu_count() or 1
    began = time.monotonic()
    broken = sum(1 for seed in play_seeds(0, SEEDS, Size(), cores) if seed.broken)
    rate = SEEDS / (time.monotonic() - began) * 60
    say(f"  {rate:.0f} stories by chance a minute on {cores} cores, {broken} broke a law")
    began = time.monotonic()
    big = play(big_story(BIG_HOSTS, BIG_VMS, BIG_LOST))
    took = time.monotonic() - began
    say(f"  {BIG_HOSTS} hosts with {BIG_VMS} VMs lose {BIG_LOST} hosts one after the other: {took:.0f} s")
    ticks = []
    for hosts, vms in TICK_SIZES:
        ticks.append(tick_cost(hosts, vms))
        say(f"  one decision about {hosts} hosts with {vms} VMs: {ticks[-1].decide_s * 1000:.1f} ms")
    return SimulationCost(
        cores=cores,
        seeds=SEEDS,
        seeds_a_minute=round(rate, 1),
        laws_broken=broken,
        big_s=round(took, 2),
        big_simulated_s=big.simulated_s,
        big_starts=int(big.data["counts"]["starts"]),
        big_ok=big.ok,
        ticks=tuple(ticks),
        load=load,
    )


def big_story(hosts: int, vms: int, lost: int) -> Story:
    """Return a story in which `lost` hosts lose power, ten seconds apart, and every VM of theirs must run again."""
    dead = [f"host{number}" for number in range(3, 3 + lost)]
    survivors = [f"host{number}" for number in range(1, hosts + 1) if f"host{number}" not in dead]
    homes = {f"vm{number}": f"host{1 + number % hosts}" for number in range(1, vms + 1)}
    data = {
        "name": f"{hosts} hosts with {vms} VMs lose {lost} one after the other",
        "hosts": {f"host{number}": {"cpus": 64, "memory_mib": 131072} for number in range(1, hosts + 1)},
        "vms": {vm: {"host": host, "memory_mib": 1024} for vm, host in homes.items()},
        "timeline": [{"at": 20 + 10 * number, "power_off": host} for number, host in enumerate(dead)],
        "until": 20 + 10 * lost + 30,
        "expect": {
            "fenced": dead,
            "placement": {vm: survivors for vm, host in homes.items() if host in dead},
            "vms": dict.fromkeys(homes, "running"),
        },
    }
    return story_of(Tree(file="a big cluster", data=data))


def tick_cost(hosts: int, vms: int) -> TickCost:
    """Time one decision about a cluster at rest, as the controller in charge makes it every second."""
    story = big_story(hosts, vms, 0)
    with played(story, 0, until_calm=False, until=SETTLED_S) as world:
        view, memory = world.laws.last_view, world.server.memory
        if view is None or memory.holder is None:
            raise RuntimeError(f"no controller was in charge of {hosts} hosts after {SETTLED_S:g} s")
        watch, _ = memory.watches[memory.holder]
        took = []
        for _ in range(DECISIONS):
            began = time.process_time()
            decide(view, watch, world.policy)
            took.append(time.process_time() - began)
    return TickCost(hosts=hosts, vms=vms, decide_s=sorted(took)[DECISIONS // 2])
