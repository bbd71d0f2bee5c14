"""How a simulated move comes on: the journal's twin holds it as the journal does, the same in every run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangnetz.core.convergence import Progress
from fangnetz.core.operations import Step, StepKind, StepState
from fangnetz.sim.play import played
from fangnetz.sim.stories.read import read_story

STORIES = Path(__file__).parents[1] / "scenarios" / "migration"


def move_at(instant: float, story: str, seed: int = 0) -> Step:
    """The step that sends the VM away, as the journal has it at that instant."""
    with played(read_story(STORIES / f"{story}.yaml"), seed, until_calm=False, until=instant) as world:
        operations = world.server.memory.operations.values()
        return next(step for operation in operations for step in operation.of_kind(StepKind.MIGRATE))


def progress_at(instant: float, story: str = "one_vm", seed: int = 0) -> Progress:
    found = move_at(instant, story, seed).progress
    assert found is not None
    return found


def test_a_move_comes_on_in_the_journal_and_is_no_older_there_than_a_renewal() -> None:
    early, late = progress_at(104), progress_at(108)
    assert 0 < early.share < late.share < 1
    assert early.total_mib == late.total_mib == early.remaining_mib / (1 - early.share)
    assert early.sent_mib < late.sent_mib
    assert late.elapsed_s - early.elapsed_s == pytest.approx(4.0, abs=1.5)
    assert 8.0 - late.elapsed_s < 2.0
    assert (late.rounds, late.downtime_s > 0, late.dirty_mib_s > 0, late.speed_mib_s > 0) == (1, True, True, True)


def test_a_story_told_twice_has_the_same_numbers() -> None:
    assert progress_at(107, seed=3) == progress_at(107, seed=3)


def test_how_far_it_came_stays_in_the_journal_when_it_failed() -> None:
    step = move_at(290, "target_dies")
    assert step.state is StepState.FAILED
    assert step.progress is not None
    assert 0 < step.progress.share < 1
