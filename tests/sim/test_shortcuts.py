"""Shortcuts change no decision: what is steady is what the long way would have left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fangnetz.core.actions import Decision
from fangnetz.core.decide import decide, hosts, vms
from fangnetz.engine import tick
from fangnetz.sim.play import play
from fangnetz.sim.stories.chance import story_by_chance

SEEDS = range(1, 5)


@contextmanager
def the_long_way(taken: list[str]) -> Iterator[None]:
    """Judge all hosts and VMs from every side; `taken`: who would have been passed over."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((hosts, "host_is_steady"), (vms, "vm_is_steady")):
            shortcut = getattr(module, name)

            def look_anyway(*args: Any, shortcut: Any = shortcut, name: str = name) -> bool:
                taken.extend([name] if shortcut(*args) else [])
                return False

            patch.setattr(module, name, look_anyway)
        yield


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_is_steady_is_left_alone_the_long_way_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    differ: list[tuple[Decision, Decision]] = []  # what is raised in a simulated thread ends that thread alone

    def both_ways(*asked: Any) -> Decision:
        decision = decide(*asked)
        with the_long_way(taken):
            long = decide(*asked)
        differ.extend([(decision, long)] if long != decision else [])
        return decision

    monkeypatch.setattr(tick, "decide", both_ways)
    play(story_by_chance(seed, hosts=5, vms=20, faults=8), seed, until_calm=True)
    assert not differ
    assert {"host_is_steady", "vm_is_steady"} <= set(taken)
