"""One file and one seed make one history, byte for byte, whatever order a hash happens to have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fangnetz.sim.kernel import Kernel
from fangnetz.sim.play import play
from fangnetz.sim.stories.chance import story_by_chance
from fangnetz.sim.stories.read import read_story

STORY = Path(__file__).parents[1] / "scenarios" / "power" / "power_loss.yaml"
PLAY = f"""
import json
from pathlib import Path
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.play import play
from fangnetz.sim.stories.chance import story_by_chance
from fangnetz.sim.stories.read import read_story
print(json.dumps(play(read_story(Path({str(STORY)!r})), 7).data))
for seed in (3, 4):
    print(json.dumps(play(story_by_chance(seed, faults=12), seed, until_calm=True).data))
"""


@pytest.fixture(scope="module")
def history() -> str:
    """A quiet story and two stormy ones."""
    stormy = [play(story_by_chance(seed, faults=12), seed, until_calm=True) for seed in (3, 4)]
    return "\n".join(json.dumps(result.data) for result in [play(read_story(STORY), 7), *stormy])


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_the_same_under_every_hash_seed(history: str, hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    said = subprocess.run([sys.executable, "-c", PLAY], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == history


def test_another_seed_is_another_history_of_the_same_story(history: str) -> None:
    other = json.dumps(play(read_story(STORY), 8).data)
    assert other != history.splitlines()[0]
    assert json.loads(other)["ok"]


def test_a_turn_that_nobody_else_could_have_had_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most calls are made without giving way: the history is that of giving way each time."""
    story = story_by_chance(5, hosts=4, vms=6)
    at_once = play(story, 5, until_calm=True)
    monkeypatch.setattr(Kernel, "skip_to", lambda _self, _when: False)
    in_turn = play(story, 5, until_calm=True)
    assert json.dumps(at_once.data) == json.dumps(in_turn.data)
    assert at_once.events == in_turn.events
