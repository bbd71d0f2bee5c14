"""Each sabotage still has its place in the code, is code itself, and names stories that there are."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.run import ROOT, STORIES, sabotaged, try_one
from tests.mutants.sabotages import SABOTAGES, Sabotage


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda one: one.name)
def test_it_has_its_place_and_is_code(sabotage: Sabotage) -> None:
    for text in sabotaged(sabotage, ROOT / "fangnetz").values():
        ast.parse(text)
    assert [story for story in sabotage.stories if not (STORIES / f"{story}.yaml").is_file()] == []


def test_there_are_enough_and_no_two_are_alike() -> None:
    assert len(SABOTAGES) >= 30
    assert len({one.name for one in SABOTAGES}) == len(SABOTAGES)
    assert len({(one.file, one.old, one.new) for one in SABOTAGES}) == len(SABOTAGES)


def test_one_is_noticed_by_a_law() -> None:
    first = next(one for one in SABOTAGES if one.name == "whatever a device reads is proof")
    found = try_one(first, seeds=0)
    assert (found.by, found.what) == ("law", "one_writer")
