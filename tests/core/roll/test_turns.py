"""One host's turn, look by look: which step comes when, and what its waits wait for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.actions import Alarm
from fangnetz.core.model import HostDoc, HostState, HypervisorHealth, VmState, VmWish
from fangnetz.core.roll.going import STANDS_S, STEADY_ANEW_S, STEADY_S, UNREST_S, Activate, Evacuate, Finish, Run, Wait
from fangnetz.core.roll.values import Commanded
from fangnetz.core.roll.words import told
from fangnetz.core.units import HostId, Instant
from tests.core.roll.rolling import (
    H1,
    H2,
    H3,
    LIMITS,
    at_home,
    at_the_command,
    at_the_return,
    because,
    driven,
)

# --- the order of steps ---------------------------------------------------------------------------------------------


def test_each_host_is_emptied_worked_on_awaited_and_filled_before_the_next_one() -> None:
    made, told_in_order = driven(), []
    others = {"h1": "h2", "h2": "h3", "h3": "h1"}
    for host, other in others.items():
        asked = made.on()
        assert asked == Evacuate(hosts=(HostId(host),))
        told_in_order.append(asked)
        made.cluster.docs[host] = HostDoc(id=HostId(host), evacuate=True)
        made.cluster.states[host] = HostState.EVACUATING
        assert isinstance(made.on(), Wait), "what runs there has not left"
        made.cluster.emptied(host, to=other)
        run = made.on()
        assert isinstance(run, Run)
        assert run.host == host
        assert run.roll.turn(HostId(host)).command is Commanded.BEGUN, "written before it is run"
        made.ran(host)
        made.cluster.boots[host] = "i2"
        made.cluster.now += 0.5
        assert isinstance(made.on(), Wait)
        assert made.after(STEADY_ANEW_S) == Activate(hosts=(HostId(host),))
        made.cluster.activated(host)
        assert isinstance(made.on(), Wait), "its VM is not home"
        made.cluster.home(host)
    assert made.on() == Finish()
    assert made.roll.done == (H1, H2, H3)
    assert made.roll.finished
    assert told(made.roll) == "h1, h2, h3 had their turn"


def test_the_command_is_not_run_before_the_host_is_empty_and_in_maintenance() -> None:
    made = driven()
    made.on()
    made.cluster.emptied("h1", to="h2")
    made.cluster.homes["a1"] = "h1"
    assert isinstance(made.on(), Wait), "in maintenance, and something runs there"
    made.cluster.homes["a1"] = "h2"
    made.cluster.states["h1"] = HostState.EVACUATING
    assert isinstance(made.on(), Wait), "empty, and not yet in maintenance"
    made.cluster.states["h1"] = HostState.MAINTENANCE
    assert isinstance(made.on(), Run)


def test_no_command_runs_for_a_host_that_does_not_report() -> None:
    made = at_the_command()
    made.cluster.silent["h1"] = 30.0
    assert isinstance(made.on(), Wait)
    assert "h1 does not report" in because(made.after(UNREST_S + 1))


def test_a_host_that_somebody_activated_meanwhile_is_not_worked_on() -> None:
    made = at_the_command()
    made.on()
    made.roll = made.roll.put(replace(made.roll.turn(H1), command=Commanded.NOT_YET))
    made.cluster.activated("h1")
    made.cluster.states["h1"] = HostState.MAINTENANCE  # the record follows the wish a tick later
    assert "somebody changed that" in because(made.on())


def test_an_evacuation_that_somebody_called_off_is_a_doubt() -> None:
    made = driven()
    made.on()
    assert "somebody activated it" in because(made.on()), "it was granted, and is not wished any more"


# --- the return -----------------------------------------------------------------------------------------------------


def test_a_host_in_the_same_boot_is_back_once_it_was_well_for_long_enough() -> None:
    made = at_the_return()
    assert isinstance(made.on(), Wait)
    assert isinstance(made.after(STEADY_S - 1), Wait), "what the command began may still take it down"
    assert made.after(1) == Activate(hosts=(H1,))


def test_a_silence_makes_the_wait_for_a_steady_host_begin_anew() -> None:
    made = at_the_return()
    made.on()
    made.cluster.silent["h1"] = 30.0
    made.after(STEADY_S - 1)
    made.cluster.silent.clear()
    assert isinstance(made.after(2), Wait)
    assert isinstance(made.after(STEADY_S - 1), Wait)
    assert made.after(1) == Activate(hosts=(H1,))


def test_a_command_that_restarts_the_host_is_not_believed_before_another_boot_reports() -> None:
    made = at_the_return(reboots=True)
    made.on()
    assert isinstance(made.after(STEADY_S * 10), Wait), "the reboot is still to come"
    made.cluster.boots["h1"] = "i2"
    assert isinstance(made.on(), Wait)
    assert made.after(STEADY_ANEW_S) == Activate(hosts=(H1,))


@pytest.mark.parametrize("reboots", [False, True])
def test_a_host_that_is_not_back_in_time_ends_the_roll(reboots: bool) -> None:
    made = at_the_return(reboots=reboots)
    made.cluster.silent["h1"] = 601.0
    assert isinstance(made.after(LIMITS.return_s - 1), Wait)
    assert "not cleanly back after 600 s: h1 does not report" in because(made.after(2))


def test_a_host_whose_libvirt_is_not_well_is_not_back() -> None:
    made = at_the_return()
    made.cluster.health["h1"] = HypervisorHealth.HUNG
    made.cluster.boots["h1"] = "i2"
    made.on()
    assert isinstance(made.after(STEADY_S + 1), Wait)
    assert "its libvirt is hung" in because(made.after(LIMITS.return_s))


def test_a_report_from_before_the_commands_end_is_no_return() -> None:
    made = at_the_return()
    made.roll = made.roll.put(replace(made.roll.turn(H1), since=Instant(made.cluster.now)))
    act = made.on()
    assert isinstance(act, Wait)
    assert "does not report" in act.sentence


def test_a_boot_that_was_just_heard_first_is_not_yet_a_return() -> None:
    made = at_the_return()
    made.cluster.boots["h1"] = "i2"
    made.cluster.boot_since["h1"] = made.cluster.now + STEADY_ANEW_S - 1
    made.on()
    made.after(1)
    assert isinstance(made.after(STEADY_ANEW_S - 1), Wait), "two machines may carry one name"
    made.after(1)
    assert made.after(STEADY_ANEW_S) == Activate(hosts=(H1,))


def test_what_was_not_watched_for_a_while_counts_for_nothing() -> None:
    made = at_the_return()
    made.on()
    made.cluster.vms["a3"] = VmState.STARTING
    made.after(1)
    made.cluster.vms.clear()
    assert isinstance(made.after(STEADY_S), Wait)
    assert made.after(STEADY_S) == Activate(hosts=(H1,))


def test_a_controller_that_is_away_with_its_host_is_part_of_the_return() -> None:
    made = at_the_return()
    made.cluster.unwatched = "no controller watches"
    assert isinstance(made.on(), Wait)
    assert isinstance(made.after(UNREST_S * 2), Wait)
    assert "no controller watches" in because(made.after(LIMITS.return_s))


# --- going home -----------------------------------------------------------------------------------------------------


def test_a_vm_that_cannot_go_home_is_named_and_the_roll_goes_on() -> None:
    made = at_home()
    made.cluster.alarms = (Alarm(kind="failback_waits", subject="a1", sentence="a1 cannot go home to h1 yet: no room"),)
    assert isinstance(made.on(), Wait)
    assert isinstance(made.after(STANDS_S), Wait)
    made.cluster.now += 1
    assert made.on() == Evacuate(hosts=(H2,))
    assert made.roll.turn(H1).not_home == ("a1 cannot go home to h1 yet: no room",)
    assert "h1 is done, but a1 cannot go home" in made.kept[-2]


def test_a_vm_on_its_way_is_waited_for_whatever_is_said_of_it() -> None:
    made = at_home()
    made.cluster.alarms = (Alarm(kind="failback_waits", subject="a1", sentence="a1 cannot go home to h1 yet"),)
    made.cluster.moving = ("a1",)
    made.on()
    assert isinstance(made.after(STANDS_S * 5), Wait)


def test_a_vm_that_is_not_home_in_time_without_a_reason_is_a_doubt() -> None:
    made = at_home()
    made.on()
    assert "h1 still waits for a1" in because(made.after(LIMITS.moves_s + 1))


def test_a_vm_that_stayed_elsewhere_is_named_and_one_that_was_stopped_is_not() -> None:
    made = at_home()
    made.cluster.docs["h1"] = HostDoc(id=H1)
    made.on()
    assert made.roll.turn(H1).not_home == ("a1 is running on h2",)
    other = at_home()
    other.cluster.docs["h1"] = HostDoc(id=H1)
    other.cluster.wishes["a1"] = VmWish.STOPPED
    other.cluster.vms["a1"] = VmState.STOPPED
    other.on()
    assert other.roll.turn(H1).not_home == ()


def test_a_host_that_somebody_takes_out_again_while_it_is_filled_is_a_doubt() -> None:
    made = at_home()
    made.on()
    made.cluster.docs["h1"] = HostDoc(id=H1, maintenance=True)
    assert "somebody took it out again" in because(made.on())
