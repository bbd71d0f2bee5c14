"""The lookout on stories made by hand: each thing that may never be is told, once, and so is being blind."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fangnetz.lab.storm import lookout
from fangnetz.lab.storm.chronicle import Chronicle
from fangnetz.lab.storm.copies import Copy
from fangnetz.lab.storm.lookout import DEAF_AFTER_S, Lookout, OnPurpose, Sight, offences
from tests.lab.test_storm_laws import BOOT_A, BOOT_B, G1, A, B, beat, copy, owned, view


def wrote(boot: str, first: float, last: float) -> dict[str, Any]:
    return {"boot": boot, "first_at": first, "last_at": last, "writes": 9}


def sight(*copies: Copy, boots: tuple[dict[str, Any], ...] = (), **more: Any) -> Sight:
    report = {"overlaps": more.pop("overlaps", []), "vms": {"vm1": {"boots": list(boots)}}}
    return Sight(at=100.0, began_at=0.0, report=report, copies=copies, **more)


FIRST, SECOND = copy("host1", 10.0, 60.0, 7), copy("host2", 50.0, 90.0, 8, pid=2)
OVERLAP = {"vm": "vm1", "boots": ["b1", "b2"], "from": 53.0, "to": 60.0}


def test_a_quiet_lab_offends_nobody() -> None:
    after = replace(SECOND, started_at=61.0)
    boots = (wrote("b1", 12.0, 60.0), wrote("b2", 63.0, 90.0))
    assert offences(sight(FIRST, after, boots=boots, chronicle=Chronicle(), heard_at=100.0)) == {}


def test_a_second_copy_is_told_under_one_key_however_long_it_lives() -> None:
    found = offences(sight(FIRST, SECOND))
    (sentence,) = found.values()
    assert "vm1 was started on host2" in sentence
    later = offences(sight(replace(FIRST, ended_at=80.0), SECOND))
    assert later.keys() == found.keys()
    assert later != found


def test_a_number_that_comes_back_or_goes_down_is_told() -> None:
    for number in (7, 6):
        (sentence,) = offences(sight(FIRST, replace(SECOND, started_at=61.0, generation=number))).values()
        assert f"with generation {number} after 7" in sentence


def test_a_number_that_two_boots_reported_in_two_lives_of_the_store_is_told() -> None:
    chronicle = Chronicle()
    chronicle.read(view(owned(A, BOOT_A, G1, 1.0), beat(A, BOOT_A, 2.0, G1), now=2.0), ())
    chronicle.read(view(owned(B, BOOT_B, G1, 3.0), beat(B, BOOT_B, 4.0, G1), now=4.0, life="two"), ())
    (sentence,) = offences(sight(chronicle=chronicle, heard_at=100.0)).values()
    assert f"generation {G1} of vm1 belongs to" in sentence


def test_two_writers_are_told_even_if_no_process_was_seen() -> None:
    assert any("wrote on its disk" in sentence for sentence in offences(sight(overlaps=[OVERLAP])).values())


def test_what_was_begun_on_purpose_is_excused_and_nothing_else() -> None:
    mine = OnPurpose(vm="vm1", begin=49.0, end=51.0)
    boots = (wrote("b1", 12.0, 60.0), wrote("b2", 53.0, 90.0))
    both = sight(FIRST, SECOND, boots=boots, overlaps=[OVERLAP])
    assert offences(replace(both, on_purpose=[mine])) == {}
    assert offences(replace(both, on_purpose=[replace(mine, vm="vm2")])) == offences(both)
    assert offences(replace(both, on_purpose=[replace(mine, begin=50.5)])) == offences(both)
    third = replace(SECOND, host="host3", pid=3, started_at=53.5, generation=9)
    again = {"vm": "vm1", "boots": ["b1", "b3"], "from": 55.0, "to": 60.0}
    more = sight(
        FIRST,
        replace(SECOND, ended_at=53.4),
        third,
        boots=(*boots[:1], wrote("b2", 53.0, 53.4), wrote("b3", 55.0, 90.0)),
        overlaps=[OVERLAP, again],
    )
    said = offences(replace(more, on_purpose=[mine]))
    assert len(said) == 2, "nobody said so of the third: it lived beside the first, and wrote beside it"
    assert all("host3" in sentence or "from 55.000" in sentence for sentence in said.values())


def test_a_boot_that_writes_unseen_makes_the_lookout_blind() -> None:
    for seen in ((), (replace(FIRST, vm="vm2"),), (replace(FIRST, ended_at=20.0),)):
        (sentence,) = offences(sight(*seen, boots=(wrote("b1", 12.0, 59.0),))).values()
        assert "nobody watched: boot b1 of vm1" in sentence
    assert offences(sight(boots=(wrote("b0", -20.0, 1.0),))) == {}, "that was before anybody watched"


def test_deafness_an_error_and_unread_numbers_make_it_blind() -> None:
    listening: dict[str, Any] = {"chronicle": Chronicle(), "heard_at": 100.0}
    assert offences(sight(chronicle=Chronicle(), heard_at=100.0 - 2 * DEAF_AFTER_S))
    assert offences(sight(errors=["OSError: too many open files"], **listening))
    assert offences(sight(replace(FIRST, generation=None), **listening))
    assert offences(sight(replace(FIRST, generation=None, ended_at=12.0), **listening)) == {}, "it hardly lived"


class Watchers:
    """Stands for the lab and both watchers; what they know is set by hand."""

    def __init__(self) -> None:
        self.plan = SimpleNamespace()
        self.name = "by-hand"
        self.seen: tuple[Copy, ...] = ()
        self.error = ""

    def witness(self) -> dict[str, Any]:
        return {"at": time.time(), "overlaps": [], "vms": {}}

    def copies(self) -> tuple[Copy, ...]:
        return self.seen


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> tuple[Lookout, Watchers]:
    monkeypatch.setattr(lookout, "AGAIN_AFTER_S", 0.01)
    watchers = Watchers()
    made = Lookout(watchers, listens=False)  # type: ignore[arg-type]
    made.truth = watchers  # type: ignore[assignment]
    return made, watchers


def test_an_offence_is_news_once_and_the_next_one_again(by_hand: tuple[Lookout, Watchers]) -> None:
    out, watchers = by_hand
    assert out.news() == ()
    watchers.seen = (FIRST, SECOND)
    assert len(out.news()) == 1
    assert out.news() == ()
    watchers.seen = (FIRST, SECOND, replace(SECOND, pid=3, host="host3", started_at=91.0, generation=8))
    (sentence,) = out.news()
    assert "generation 8 after 8" in sentence


def test_what_is_gone_at_the_second_look_is_no_news(
    by_hand: tuple[Lookout, Watchers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order is read a moment before its evidence."""
    out, watchers = by_hand
    watchers.seen = (FIRST, SECOND)
    monkeypatch.setattr(lookout.time, "sleep", lambda _s: setattr(watchers, "seen", (FIRST,)))
    assert out.news() == ()


def test_a_block_on_purpose_ends_with_the_block(by_hand: tuple[Lookout, Watchers]) -> None:
    out, watchers = by_hand
    now = time.time()
    with out.on_purpose("vm1"):
        watchers.seen = (replace(FIRST, started_at=now - 10, ended_at=now + 50), replace(SECOND, started_at=now))
        assert out.news() == ()
    later = replace(SECOND, pid=3, host="host3", started_at=time.time() + 5, ended_at=now + 50, generation=9)
    watchers.seen = (*watchers.seen, later)
    (sentence,) = out.news()
    assert "started on host3" in sentence
