"""Every golden scenario, played on the production engine and core: no law breaks, and it ends as its file expects.

Beside each file stands what it tells (`.told`): who did what in which order, without times. A change of the product
that changes a story shows there, in the product's own words.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fangnetz.sim.play import play
from fangnetz.sim.stories.read import read_story
from tests.history import history_of

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.rglob("*.yaml"))
ROOMS = {
    "controllers", "evacuation", "fencing", "hosts", "maintenance", "messages", "migration",
    "network", "operators", "pause", "placement", "power", "quarantine", "relocation",
    "shutdown", "store", "storms", "vms",
}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER).with_suffix("")))
def test_the_story_ends_as_expected_and_is_told_as_before(file: Path, rewrite: bool) -> None:
    story = read_story(file)
    data = play(story).data
    assert data["broken"] == []
    assert data["unmet"] == []
    told = f"{history_of(data['events'], data['running'])}\n"
    golden = file.with_suffix(".told")
    if rewrite:
        golden.write_text(told)
    assert golden.is_file(), f"{golden.name} is missing: write it with --rewrite, and read it"
    assert told == golden.read_text(), "it is told otherwise now: read the difference, then --rewrite"


def test_there_are_stories_of_every_kind_and_nothing_is_told_of_none() -> None:
    assert len(FILES) >= 100
    assert {file.parent.name for file in FILES} == ROOMS
    assert {told.with_suffix(".yaml") for told in FOLDER.rglob("*.told")} <= set(FILES)
