"""Plays one story to its end: the world, its laws, its timeline, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fangnetz.engine import faults
from fangnetz.sim.mending import idle, mend
from fangnetz.sim.result import Result, result_of
from fangnetz.sim.stories.story import Story
from fangnetz.sim.verbs import schedule
from fangnetz.sim.world import World

CALM_S = 5.0
"""So long nothing may be under way before a story is called over."""
LONG_CALM_S = 15.0
"""The same where a VM that should run does not: longer than any silence, lease or pause goes unnoticed."""
LOOK_S = 1.0
MENDS_MAX = 4
"""A host is confirmed off, then a VM is stopped, then started: one thing a person does may show the next."""
MENDED_WITHIN_S = 180.0


def play(story: Story, seed: int = 0, *, until_calm: bool = False) -> Result:
    """Return what happens in this story with this seed: always the same.

    `until_calm`: not to its end, if nothing is under way any more for a while after its last line. Then a person does
    what the alarms ask for, and after that every VM that is wished to run must run.
    """
    with played(story, seed, until_calm=until_calm) as world:
        if until_calm:
            _mend(world)
        return result_of(world, seed)


@contextmanager
def played(
    story: Story,
    seed: int,
    *,
    until_calm: bool,
    prepare: Callable[[World], None] = lambda _world: None,
    until: float | None = None,
) -> Iterator[World]:
    """Give the world at the end of a story, or at `until`; it is gone afterwards.

    `prepare` may change it before anything happens.
    """
    world = World(story, seed)
    try:
        prepare(world)
        schedule(world)
        try:
            if until_calm:
                last = max((line.at for line in world.story.timeline), default=0.0)
                _run_until_calm(world, last, world.story.until)
            else:
                world.kernel.run(story.until if until is None else until)
        finally:
            faults.listen_to(None)
        yield world
    finally:
        end(world)


def _mend(world: World) -> None:
    """Every fault is over: whatever still runs nowhere, although a person did what was asked for, breaks a law."""
    for _ in range(MENDS_MAX):
        if not idle(world):
            break
        now = world.kernel.now
        if mend(world):
            _run_until_calm(world, now, now + MENDED_WITHIN_S)
            continue
        _run_until_calm(world, now, now + MENDED_WITHIN_S, LONG_CALM_S)
        if not mend(world):
            break
        _run_until_calm(world, world.kernel.now, world.kernel.now + MENDED_WITHIN_S)
    for vm, why in idle(world):
        sentence = f"{vm} is wished to run, every fault is over, and it runs nowhere; it is {why}"
        world.chronicle.broke("wished_vms_run", sentence, vm=vm)


def _run_until_calm(world: World, since: float, until: float, calm: float = CALM_S) -> None:
    now = busy_at = since
    while now < until and now - busy_at < calm:
        now = min(now + LOOK_S, until)
        world.kernel.run(now)
        if world.under_way():
            busy_at = now


def end(world: World) -> None:
    """Let no thread of this story outlive it."""
    for machine in world.machines.values():
        for process in list(machine.processes):
            process.kill()
