"""A roll that stopped or was killed: how it is taken up again, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fangnetz.core.errors import WishRefused
from fangnetz.core.roll.begin import obstacles, resumed
from fangnetz.core.roll.going import STEADY_S, Activate, Evacuate, Keep, Pace, Run, Wait
from fangnetz.core.roll.values import INTERRUPTED, OUTPUT_KEPT, Resumption, Stage, answered, stopped
from fangnetz.core.roll.words import how_to_go_on, told
from fangnetz.core.units import Instant
from tests.core.roll.rolling import (
    H1,
    H2,
    H3,
    LIMITS,
    Cluster,
    Driven,
    a_roll,
    at_home,
    at_the_command,
    at_the_return,
    because,
    driven,
)
from tests.core.world import T0


def test_a_failed_command_ends_the_roll_and_is_run_again_when_it_is_resumed() -> None:
    made = at_the_command()
    made.on()
    made.ran("h1", 3, "no space left\n")
    assert because(made.on()) == "the command failed on h1 with exit code 3"
    roll = stopped(made.roll, "the command failed on h1 with exit code 3")
    assert told(roll) == (
        "stopped at h1: the command failed on h1 with exit code 3; no host is done; in hand: h1, empty and in "
        "maintenance, the command failed with exit code 3; not begun: h2, h3"
    )
    assert "--resume" in how_to_go_on(roll)
    made.roll = resumed(roll, made.cluster.seen(), Resumption.UNSAID, "t2", Instant(T0 + 99))
    assert isinstance(made.on(), Run)
    vouched = resumed(roll, made.cluster.seen(), Resumption.RAN, "t2", Instant(T0 + 99))
    assert vouched.turn(H1).stage is Stage.RETURN


def test_a_command_whose_end_nobody_knows_is_not_run_again_unsaid() -> None:
    made = at_the_command()
    made.on()
    assert "nobody knows how the command ended on h1" in because(made.on())
    roll = stopped(made.roll, INTERRUPTED)
    assert "--again" in how_to_go_on(roll)
    with pytest.raises(WishRefused, match="nobody knows how the command ended on h1"):
        resumed(roll, made.cluster.seen(), Resumption.UNSAID, "t2", Instant(0))
    again = resumed(roll, made.cluster.seen(), Resumption.AGAIN, "t2", Instant(T0 + 99))
    assert isinstance(Driven(again, made.cluster).on(), Run)
    ran = resumed(roll, made.cluster.seen(), Resumption.RAN, "t2", Instant(T0 + 99))
    assert ran.turn(H1).stage is Stage.RETURN


@pytest.mark.parametrize("moment", [driven, at_the_return, at_home])
def test_a_killed_roll_goes_on_where_reality_is(moment: Any) -> None:
    made = moment()
    made.on()
    made.roll = resumed(made.roll, Cluster(now=T0 + 99).seen(), Resumption.UNSAID, "t2", Instant(T0 + 199))
    made.cluster.now = T0 + 99
    made.pace = Pace()
    if moment is driven:  # the wish was granted, and the host emptied, while nobody had the roll in hand
        made.cluster.emptied("h1", to="h2")
        assert isinstance(made.on(), Run)
    elif moment is at_the_return:
        made.after(0.5)
        assert made.after(STEADY_S) == Activate(hosts=(H1,))
    else:
        made.cluster.home("h1")
        assert made.on() == Evacuate(hosts=(H2,))


def test_an_evacuation_that_was_never_asked_for_is_asked_for_when_the_roll_is_resumed() -> None:
    made = driven()
    act = made.ask()
    assert isinstance(act, Keep)
    made.roll = resumed(act.roll, Cluster(now=T0 + 99).seen(), Resumption.UNSAID, "t2", Instant(T0 + 199))
    assert made.on() == Evacuate(hosts=(H1,))


def test_waits_begin_anew_when_a_roll_is_resumed() -> None:
    made = at_the_return()
    made.cluster.silent["h1"] = 9999.0
    made.after(LIMITS.return_s - 100)
    late = resumed(stopped(made.roll, INTERRUPTED), made.cluster.seen(), Resumption.UNSAID, "t2", Instant(9e9))
    assert isinstance(Driven(late, made.cluster).after(LIMITS.return_s - 1), Wait)


def test_a_roll_that_another_command_has_in_hand_or_that_is_finished_is_not_resumed() -> None:
    made = at_the_return()
    with pytest.raises(WishRefused, match="another command has this roll in hand"):
        resumed(made.roll, made.cluster.seen(), Resumption.UNSAID, "t2", Instant(0))
    every = [replace(made.roll.turn(H1), host=host, stage=Stage.DONE) for host in (H1, H2, H3)]
    with pytest.raises(WishRefused, match="nothing is left of the roll"):
        resumed(stopped(made.roll.put(*every), ""), made.cluster.seen(), Resumption.UNSAID, "t2", Instant(0))


def test_a_roll_over_a_host_that_left_the_cluster_file_is_not_resumed() -> None:
    made = at_the_return()
    fewer = Cluster(hosts=("h1", "h2"), homes={"a2": "h2"}).seen()
    with pytest.raises(WishRefused, match="h3 is no host of this cluster; it has h1, h2"):
        resumed(stopped(made.roll, INTERRUPTED), fewer, Resumption.UNSAID, "t2", Instant(0))


def test_of_what_a_command_says_its_last_words_are_kept() -> None:
    made = at_the_command()
    made.on()
    made.ran("h1", 1, "x" * OUTPUT_KEPT + "the end")
    kept = made.roll.turn(H1).output
    assert len(kept) == OUTPUT_KEPT
    assert kept.endswith("the end")


def test_what_is_told_of_a_stopped_roll_names_done_in_hand_and_not_begun() -> None:
    made = at_home()
    made.cluster.home("h1")
    act = made.ask()
    while isinstance(act, Keep):
        made.roll = act.roll
        act = made.ask()
    roll = stopped(made.roll, INTERRUPTED)
    head = "stopped at h2: interrupted; done: h1; in hand: h2, "
    assert told(roll) == f"{head}not yet asked to be emptied; not begun: h3"
    assert told(answered(roll, [H2])) == f"{head}being emptied, which goes on by itself; not begun: h3"
    assert how_to_go_on(roll) == "go on with `fangnetz maintenance roll --resume`"


def test_a_guest_of_the_host_in_hand_is_not_in_the_way_of_later_turns_before_it_is_home_again() -> None:
    made = at_the_command()  # a1 is on h2 or h3 meanwhile
    made.cluster.memory = 3000  # no two VMs of this size fit on one host
    roll = stopped(made.roll, INTERRUPTED)
    assert obstacles(roll, made.cluster.seen()) == ()
    assert obstacles(a_roll("h2"), made.cluster.seen()), "a new roll over it could not begin now"
