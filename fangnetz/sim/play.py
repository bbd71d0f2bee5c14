"""Plays one story to its end: the world, its laws, its timeline, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fangnetz.engine import faults
from fangnetz.sim.result import Result, result_of
from fangnetz.sim.stories.story import Story
from fangnetz.sim.verbs import schedule
from fangnetz.sim.world import World

CALM_S = 12.0
"""So long nothing may be under way before a story is called over."""
LOOK_S = 3.0


def play(story: Story, seed: int = 0, *, until_calm: bool = False) -> Result:
    """Return what happens in this story with this seed: always the same.

    `until_calm`: not to its end, if nothing is under way any more for a while after its last line.
    """
    with played(story, seed, until_calm=until_calm) as world:
        return result_of(world, seed)


@contextmanager
def played(
    story: Story, seed: int, *, until_calm: bool, prepare: Callable[[World], None] = lambda _world: None
) -> Iterator[World]:
    """Give the world at the end of a story; it is gone afterwards. `prepare` may change it before anything happens."""
    world = World(story, seed)
    try:
        prepare(world)
        schedule(world)
        world.strikes.listen()
        try:
            if until_calm:
                _run_until_calm(world)
            else:
                world.kernel.run(story.until)
        finally:
            faults.listen_to(None)
        yield world
    finally:
        end(world)


def _run_until_calm(world: World) -> None:
    now = max((line.at for line in world.story.timeline), default=0.0)
    busy_at = now
    while now < world.story.until and now - busy_at < CALM_S:
        now = min(now + LOOK_S, world.story.until)
        world.kernel.run(now)
        if world.under_way():
            busy_at = now


def end(world: World) -> None:
    """Let no thread of this story outlive it."""
    for machine in world.machines.values():
        for process in list(machine.processes):
            process.kill()
