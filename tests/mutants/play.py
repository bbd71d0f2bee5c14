"""Plays stories in this process until one of them shows that something is wrong, and prints which, as JSON.

Run by `run.py` with a sabotaged copy of the package in front. What a law sees is preferred to what a story expects.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fangnetz.sim.play import play
from fangnetz.sim.stories.chance import story_by_chance
from fangnetz.sim.stories.read import read_story
from fangnetz.sim.stories.story import Story
from fangnetz.sim.storm import Size
from tests.history import history_of


def stories(folder: Path, first: list[str], seeds: int) -> Iterator[tuple[str, Story, int, str]]:
    """Yield (name, story, seed, what it tells; empty for one by chance), the likeliest ones first."""
    files = {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}
    for name in [*first, *(name for name in files if name not in first)]:
        yield name, read_story(files[name]), 0, files[name].with_suffix(".told").read_text()
    size = Size()
    for seed in range(seeds):
        made = story_by_chance(seed, hosts=size.hosts, vms=size.vms, faults=size.faults)
        yield f"seed {seed}", made, seed, ""


def look(folder: Path, first: list[str], seeds: int) -> dict[str, Any]:
    """Return the first thing a law saw, else the first thing a story expected and did not get, else nothing."""
    missed: dict[str, Any] = {}
    for name, story, seed, told in stories(folder, first, seeds):
        data = play(story, seed, until_calm=not told).data
        if data["broken"]:
            return {"by": "law", "what": data["broken"][0]["what"], "story": name}
        if data["unmet"] and not missed:
            missed = {"by": "story", "what": data["unmet"][0]["what"], "story": name}
        if told and not missed and f"{history_of(data['events'], data['running'])}\n" != told:
            missed = {"by": "story", "what": "told otherwise", "story": name}
    return missed


if __name__ == "__main__":
    place, count, *named = sys.argv[1:]
    print(json.dumps(look(Path(place), named, int(count))))
