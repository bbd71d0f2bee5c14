"""Stories by chance: each seed is one story, no law breaks in any, and one that does break is made short."""

from __future__ import annotations

import pytest

from fangnetz.engine.steps.fence import FenceSteps
from fangnetz.settings.tree import read_tree
from fangnetz.sim.play import play
from fangnetz.sim.stories.chance import story_by_chance
from fangnetz.sim.stories.read import story_of
from fangnetz.sim.stories.write import text_of
from fangnetz.sim.storm import Size, play_seed, play_seeds

FIRST, SEEDS, PARTS = 100, 210, 6


def test_a_seed_is_one_story_and_a_scenario_file_like_any() -> None:
    story = story_by_chance(11)
    assert story == story_by_chance(11) != story_by_chance(12)
    assert (len(story.hosts), len(story.vms)) == (5, 20)
    assert len(story.timeline) >= 8
    assert story_of(read_tree("file", text_of(story.data))).timeline == story.timeline


@pytest.mark.parametrize("part", range(PARTS))
def test_no_law_breaks(part: int) -> None:
    count = SEEDS // PARTS
    for played in play_seeds(FIRST + part * count, count, Size(), cores=1):
        assert played.broken == (), f"seed {played.seed}; the shortest story that breaks it:\n{played.shortest}"


LEFT_AND_FORGOTTEN = """
name: the store is wiped right as a guest has left a host that is being rebooted
hosts: {host1: {fencing: [[ipmi-a, ipmi-b]]}, host2: {}, host3: {}, host5: {}}
vms: {vm11: {host: host1}}
timeline:
  - {at: 14.0, migrate: {vm: vm11}}
  - {at: 24.123, redis: {state: wiped, seconds: 0.8}}
  - {at: 24.267, reboot: host1}
until: 44
policy: {on_shutdown: evacuate}
"""
LEFT_UNSEEN = """
name: a guest has left a host whose libvirt hangs, and is lost with the other
hosts: {host3: {}, host5: {}}
vms: {vm4: {host: host5, apart: [vm9]}, vm9: {host: host5}}
timeline:
  - {at: 10.0, libvirt: {host: host5, state: hung}}
  - {at: 27.0, reset: host3}
  - {at: 41.0, libvirt: {host: host5, state: ok}}
until: 81
"""


@pytest.mark.parametrize(("text", "seed"), [(LEFT_AND_FORGOTTEN, 1006668), (LEFT_UNSEEN, 1007275)])
def test_what_a_law_once_took_for_broken_breaks_none(text: str, seed: int) -> None:
    """A move in hand whose guest is gone brings nothing back; what a hung libvirt hides nobody can say yet."""
    assert play(story_of(read_tree("file", text)), seed).data["broken"] == []


def test_what_breaks_is_made_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence step takes its own order for a proof: some seed soon has two writers, and the story gets short."""

    def believes_itself(_self: FenceSteps, *_rest: object) -> str:
        return ""

    monkeypatch.setattr(FenceSteps, "_level_obstacle", believes_itself)
    monkeypatch.setattr("fangnetz.core.fencing.counts_as_off", lambda *_: True)
    size = Size(hosts=3, vms=3, faults=4)
    played = next(p for p in (play_seed(seed, size) for seed in range(40)) if p.broken)
    short = story_of(read_tree("short", played.shortest))
    assert len(short.timeline) < len(story_by_chance(played.seed, hosts=3, vms=3, faults=4).timeline)
