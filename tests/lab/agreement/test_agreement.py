"""Simulator and lab agree: each story, played in both, has the same history and ends with the same placement.

Where the simulator itself tells a story in more than one way, by the moment a report or a tick falls on, the lab's
must be one of those. That a VM is lost is left out: a tick says it while others settle what becomes of its host, so
whether it is said at all, and before what, is chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fangnetz.sim.play import play
from fangnetz.sim.stories.read import read_story
from fangnetz.sim.stories.story import Story
from tests.history import History, history_of
from tests.lab.agreement.player import Player
from tests.lab.cluster import Cluster

FILES = sorted(Path(__file__).with_name("stories").glob("*.yaml"))
LONG = frozenset({"dark_bmc"})
"""A cut that cannot be proven is tried for a minute before a person is asked."""
SEEDS = 40
WITHIN_S = 90.0


def told_of(events: Iterable[Mapping[str, Any]], vms: list[str]) -> History:
    return history_of((event for event in events if event["kind"] != "vm_lost"), vms)


def told_by_the_simulator(story: Story) -> list[tuple[History, dict[str, Any]]]:
    """Return every history that some seed has, with where each VM is at its end."""
    begins, vms = story.timeline[0].at, [vm.name for vm in story.vms]
    found: list[tuple[History, dict[str, Any]]] = []
    for seed in range(SEEDS):
        data = play(story, seed).data
        assert data["broken"] == []
        history = told_of((event for event in data["events"] if event["t"] >= begins), vms)
        end = (history, {vm: told["host"] for vm, told in data["final"]["vms"].items()})
        if end not in found:
            found.append(end)
    return found


def check_it_is_this_cluster(cluster: Cluster, story: Story) -> None:
    """A story about another cluster than the lab's would say nothing about it."""
    hosts = cluster.hosts()
    assert {host.name for host in story.hosts} == set(hosts)
    assert {vm.name for vm in story.vms} == set(cluster.vms())
    tree = yaml.safe_load(cluster.lab.config_path.read_text())
    for host in story.hosts:
        told = tree["hosts"][host.name]
        assert (host.cpus, host.memory_mib) == (told["cpus"], told["memory_mib"])
        assert host.fencing == tuple(tuple(device["name"] for device in level) for level in told["fencing"])
    for vm in story.vms:
        assert vm.priority == tree["vms"][vm.name]["priority"]


@pytest.mark.lab
@pytest.mark.parametrize(
    "file", [pytest.param(f, id=f.stem, marks=[pytest.mark.soak] if f.stem in LONG else []) for f in FILES]
)
def test_what_the_simulator_tells_is_what_happens(cluster: Cluster, file: Path) -> None:
    story = read_story(file)
    check_it_is_this_cluster(cluster, story)
    told = told_by_the_simulator(story)
    player = Player(cluster, story)
    player.set_up()
    at = cluster.cursor()
    player.play()
    vms = [vm.name for vm in story.vms]

    def happened() -> tuple[History, dict[str, Any]]:
        history = told_of(cluster.since(at), vms)
        return history, {vm: item["host"] for vm, item in cluster.vms().items()}

    try:
        cluster.until(lambda: happened() in told, WITHIN_S, "it has happened as told")
    except AssertionError:
        history, placement = happened()
        ways = "\n\nor:\n".join(f"{way}\n{where}" for way, where in told)
        raise AssertionError(f"told:\n{ways}\n\nhappened:\n{history}\n{placement}") from None


def test_there_are_at_least_ten() -> None:
    assert len([file for file in FILES if file.stem not in LONG]) >= 10
