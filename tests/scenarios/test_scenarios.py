"""Every golden scenario, played on the production engine and core: no law breaks, and it ends as its file expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangnetz.sim.play import play
from fangnetz.sim.stories.read import read_story

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER).with_suffix("")))
def test_the_story_ends_as_expected(file: Path) -> None:
    result = play(read_story(file))
    assert result.data["broken"] == []
    assert result.data["unmet"] == []


def test_there_are_stories() -> None:
    assert len(FILES) >= 80
