"""Makes a story that breaks a law shorter: fewer lines, VMs and hosts, rounder times, as long as the same law breaks.

Greedy and bounded; what it returns breaks the law, and is a scenario file a person can read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from fangnetz.settings.tree import Tree
from fangnetz.sim.stories.read import ScenarioRefused, story_of
from fangnetz.sim.stories.story import Story

PLAYS_MAX = 250
Data = dict[str, Any]


def shorten(story: Story, breaks: Callable[[Story], bool], plays_max: int = PLAYS_MAX) -> Story:
    """Return the shortest story found for which `breaks` still holds; the story itself if nothing can go."""
    best, plays = story, 0
    going_on = True
    while going_on and plays < plays_max:
        going_on = False
        for candidate in _shorter(dict(best.data)):
            if plays >= plays_max:
                break
            made = _story(candidate, story.name)
            if made is None:
                continue
            plays += 1
            if breaks(made):
                best, going_on = made, True
                break
    return best


def _story(data: Data, name: str) -> Story | None:
    try:
        return story_of(Tree(file=name, data=data))
    except ScenarioRefused:
        return None  # what is left names something that went


def _shorter(data: Data) -> Iterator[Data]:
    """Yield what is a step shorter, the big steps first."""
    lines = data.get("timeline", [])
    size = len(lines) // 2
    while size >= 1:
        for start in range(0, len(lines), size):
            yield {**data, "timeline": lines[:start] + lines[start + size :]}
        size //= 2
    vms: Mapping[str, Any] = data.get("vms", {})
    if len(vms) > 1:
        for half in (list(vms)[: len(vms) // 2], list(vms)[len(vms) // 2 :]):
            yield {**data, "vms": {vm: vms[vm] for vm in half}}
    for vm in vms:
        yield {**data, "vms": {name: words for name, words in vms.items() if name != vm}}
    hosts: Mapping[str, Any] = data.get("hosts", {})
    for host in hosts if len(hosts) > 2 else ():
        yield {**data, "hosts": {name: words for name, words in hosts.items() if name != host}}
    for key in ("controllers", "store"):
        if data.get(key):
            yield {name: words for name, words in data.items() if name != key}
    yield from _plainer(data)


def _plainer(data: Data) -> Iterator[Data]:
    for kind in ("hosts", "vms"):
        for name, words in data.get(kind, {}).items():
            for key in [key for key in words if key != "host"]:
                plainer = deepcopy(data)
                del plainer[kind][name][key]
                yield plainer
    lines = data.get("timeline", [])
    for index, line in enumerate(lines):
        for digits in (0, 1):
            rounder = round(line["at"], digits)
            if rounder != line["at"]:
                yield {**data, "timeline": [*lines[:index], {**line, "at": rounder}, *lines[index + 1 :]]}
                break
    if data.get("until", 0) - max((line["at"] for line in lines), default=0) > 40:
        yield {**data, "until": data["until"] - 20}
