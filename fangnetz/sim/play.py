"""Plays one story to its end: the world, its laws, its timeline, and what came of it."""

from __future__ import annotations

from fangnetz.engine import faults
from fangnetz.sim.result import Result, result_of
from fangnetz.sim.stories.story import Story
from fangnetz.sim.verbs import schedule
from fangnetz.sim.world import World


def play(story: Story, seed: int = 0) -> Result:
    """Return what happens in this story with this seed: always the same."""
    world = World(story, seed)
    schedule(world)
    world.strikes.listen()
    try:
        world.kernel.run(story.until)
    finally:
        faults.listen_to(None)
    result = result_of(world, seed)
    _end(world)
    return result


def _end(world: World) -> None:
    """Let no thread of this story outlive it."""
    for machine in world.machines.values():
        for process in list(machine.processes):
            process.kill()
