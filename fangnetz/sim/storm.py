"""Many stories by chance, one a seed, on as many cores as there are. What breaks is made short and handed back.

A seed's story does not depend on the others, nor on how many cores play.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from fangnetz.sim.play import play
from fangnetz.sim.stories.chance import story_by_chance
from fangnetz.sim.stories.shorten import lasting, shorten
from fangnetz.sim.stories.story import Story
from fangnetz.sim.stories.write import text_of

LIVENESS = ("wished_vms_run", "wished_vms_run_or_say_why")
"""Laws of what comes about once every fault is over."""
CHUNK = 4
"""Seeds handed to a core at a time."""


@dataclass(frozen=True, slots=True)
class Size:
    hosts: int = 5
    vms: int = 20
    faults: int = 8


@dataclass(frozen=True, slots=True)
class Played:
    """One seed: what broke (as in a result), the shortest story that breaks the same, and how much was played."""

    seed: int
    broken: tuple[dict[str, Any], ...]
    shortest: str
    events: int
    simulated_s: float


def play_seeds(first: int, count: int, size: Size, cores: int) -> Iterator[Played]:
    """Play the seeds, in order."""
    seeds = range(first, first + count)
    one = partial(play_seed, size=size)
    if cores < 2 or count < 2:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(max_workers=cores) as pool:
        yield from pool.map(one, seeds, chunksize=CHUNK)


def _rarely_collect() -> None:
    """A story leaves few cycles behind, and looking for them takes a tenth of the time."""
    gc.set_threshold(200_000, 20, 20)


def play_seed(seed: int, size: Size) -> Played:
    _rarely_collect()
    story = story_by_chance(seed, hosts=size.hosts, vms=size.vms, faults=size.faults)
    result = play(story, seed, until_calm=True)
    broken = tuple(result.data["broken"])
    shortest = text_of(shortest_story(story, seed, broken[0]["what"]).data) if broken else ""
    return Played(seed, broken, shortest, result.events, result.simulated_s)


def shortest_story(story: Story, seed: int, law: str) -> Story:
    """Return the shortest story found in which this law breaks."""

    left = lasting(story)

    def breaks(candidate: Story) -> bool:
        if law in LIVENESS and not lasting(candidate) <= left:
            return False  # it would be another law that a fault without an end breaks
        return any(item["what"] == law for item in play(candidate, seed, until_calm=True).data["broken"])

    return shorten(story, breaks)
