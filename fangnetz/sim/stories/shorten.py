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


def lasting(story: Story) -> frozenset[tuple[str, str]]:
    """Return the faults that no line ends: where all is to end well, no shorter story may leave more of them."""
    left: set[tuple[str, str]] = set()
    for line in story.timeline:
        if line.verb in _ENDS:
            left -= {fault for fault in left if fault[0] in _ENDS[line.verb] and line.on in (fault[1], "")}
        elif line.verb in _LASTS or (line.verb in ("libvirt", "bmc") and line.more["state"] != "ok"):
            left.add((line.verb, line.on))
        elif line.verb in ("libvirt", "bmc"):
            left.discard((line.verb, line.on))
    return frozenset(left)


_LASTS = ("power_off", "unplug", "shutdown", "cut", "partition", "freeze", "kill_controller")
_ENDS = {
    "power_on": ("power_off", "unplug", "shutdown"), "heal": ("cut", "partition"), "thaw": ("freeze",),
    "start_controller": ("kill_controller",),
}  # fmt: skip


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
