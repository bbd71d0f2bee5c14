"""Stories by chance with a pause in the middle of their faults: nothing is opened in it, and no law breaks after it."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from fangnetz.sim.play import play
from fangnetz.sim.stories.chance import story_by_chance
from fangnetz.sim.stories.story import Line, Story

SEEDS = range(12)


def paused(seed: int) -> Story:
    """The story of a seed, paused from somewhere in its faults for up to five minutes."""
    story, by_chance = story_by_chance(seed, hosts=4, vms=8, faults=6), random.Random(seed)
    begins = by_chance.choice([line.at for line in story.timeline]) + by_chance.uniform(0, 8)
    ends = begins + by_chance.uniform(5, 300)
    more: dict[str, Any] = {"until": ends} if by_chance.random() < 0.5 else {}
    over = Line(at=ends + 1, verb="heal") if more else Line(at=ends, verb="resume")  # faults last as long as lines do
    lines = [*story.timeline, Line(at=begins, verb="pause", more=more), over]
    return replace(
        story, timeline=tuple(sorted(lines, key=lambda line: line.at)), until=max(story.until, ends + 300), data={}
    )


def opened_in_a_pause(events: list[dict[str, Any]]) -> list[str]:
    lasts, found = False, []
    for event in events:
        if event["kind"] in ("cluster_paused", "cluster_resumed"):
            lasts = event["kind"] == "cluster_paused"
        elif lasts and event["kind"] == "operation_opened" and not event["sentence"].startswith("resume of "):
            found.append(event["sentence"])
    return found


@cache
def events_of(seed: int) -> list[dict[str, Any]]:
    data = play(paused(seed), seed, until_calm=True).data
    assert data["broken"] == []
    events: list[dict[str, Any]] = data["events"]
    return events


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_in_a_pause_nothing_is_opened_and_no_law_breaks(seed: int) -> None:
    assert opened_in_a_pause(events_of(seed)) == []


def test_nearly_every_story_has_a_pause() -> None:
    """Where the store is away when the pause is wished for, nobody hears of it."""
    granted = [seed for seed in SEEDS if any(event["kind"] == "cluster_paused" for event in events_of(seed))]
    assert len(granted) >= len(SEEDS) - 3
