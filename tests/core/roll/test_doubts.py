"""What ends a roll at once, what ends it if it does not pass, and what does neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fangnetz.core.actions import Alarm
from fangnetz.core.model import HostDoc, HostState, VmState, VmWish
from fangnetz.core.roll.going import STANDS_S, UNREST_S, Evacuate, Wait
from fangnetz.core.units import VmId
from tests.core.roll.rolling import (
    H1,
    H3,
    LIMITS,
    Cluster,
    at_home,
    at_the_command,
    at_the_return,
    because,
    driven,
)

DOUBTS: Mapping[str, tuple[dict[str, Any], str]] = {
    "an alarm of the highest level": (
        {"alarms": (Alarm(kind="runs_twice", subject="a3", sentence="a3 runs twice", highest=True),)}, "a3 runs twice"
    ),
    "what nobody can read": ({"unreadable": ("vm:a9 is no record",)}, "vm:a9 is no record"),
    "another host lost": ({"states": {"h3": HostState.LOST}}, "h3 is lost"),
    "another host fenced": ({"states": {"h3": HostState.FENCED}}, "h3 is fenced"),
    "a VM lost": ({"vms": {"a3": VmState.LOST}}, "a3 is wished to run and is lost"),
    "a VM failed": ({"vms": {"a3": VmState.FAILED}}, "a3 is wished to run and is failed"),
    "a VM needs a person": ({"vms": {"a1": VmState.NEEDS_PERSON}}, "a1 is wished to run and is needs_person"),
}  # fmt: skip
UNREST: Mapping[str, tuple[dict[str, Any], str]] = {
    "a VM that starts again": ({"vms": {"a3": VmState.STARTING}}, "a3 is wished to run and is starting"),
    "a VM that waits": ({"vms": {"a3": VmState.WAITING}}, "a3 is wished to run and is waiting"),
    "a late host": ({"states": {"h3": HostState.SUSPECT}}, "h3 is suspect"),
    "a host that somebody else empties": ({"states": {"h3": HostState.EVACUATING}}, "h3 is evacuating"),
    "nobody decides": ({"unwatched": "no controller watches"}, "no controller watches"),
}


def changed(cluster: Cluster, change: Mapping[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, dict):
            getattr(cluster, name).update(value)
        else:
            setattr(cluster, name, value)


@pytest.mark.parametrize("what", DOUBTS)
@pytest.mark.parametrize("moment", [driven, at_the_command, at_the_return, at_home])
def test_a_doubt_ends_the_roll_at_every_step(what: str, moment: Any) -> None:
    made = moment()
    change, sentence = DOUBTS[what]
    changed(made.cluster, change)
    assert sentence in because(made.on())


@pytest.mark.parametrize("what", UNREST)
@pytest.mark.parametrize("moment", [driven, at_the_command, at_home])
def test_nothing_is_begun_while_something_is_unsettled_and_if_that_stays_it_is_a_doubt(what: str, moment: Any) -> None:
    made = moment()
    change, sentence = UNREST[what]
    changed(made.cluster, change)
    act = made.on()
    assert isinstance(act, Wait)
    assert sentence in act.sentence
    assert sentence in because(made.after(UNREST_S + 1))


def test_unrest_that_passed_is_forgotten() -> None:
    made = driven()
    made.cluster.vms["a3"] = VmState.STARTING
    made.on()
    made.cluster.vms.clear()
    made.cluster.now += UNREST_S
    assert isinstance(made.on(), Evacuate)
    made.cluster.docs["h1"] = HostDoc(id=H1, evacuate=True)
    made.cluster.vms["a3"] = VmState.STARTING
    assert isinstance(made.after(UNREST_S), Wait), "another one"


def test_a_host_that_was_out_before_is_no_doubt_and_nor_is_a_vm_that_is_wished_to_rest() -> None:
    cluster = Cluster(states={"h3": HostState.FENCED}, wishes={"a3": VmWish.STOPPED}, vms={"a3": VmState.STOPPED})
    made = driven("h1", cluster=cluster)
    assert made.roll.out == (H3,)
    assert made.on() == Evacuate(hosts=(H1,))


def test_nor_is_a_vm_that_an_evacuation_stopped_until_its_host_is_activated() -> None:
    for doc, begins in ((HostDoc(id=H3, evacuate=True, maintenance=True), False), (None, True)):
        stopped = doc or HostDoc(id=H3, evacuate=True, maintenance=True, stopped=(VmId("a3"),))
        made = driven("h1", cluster=Cluster(states={"h3": HostState.MAINTENANCE}, vms={"a3": VmState.WAITING}))
        made.cluster.docs["h3"] = stopped
        assert isinstance(made.on(), Evacuate) is begins


def test_what_stays_on_a_host_for_now_ends_the_roll_with_the_controllers_words() -> None:
    made = driven()
    made.on()
    made.cluster.docs["h1"] = HostDoc(id=H1, evacuate=True)
    said = Alarm(kind="evacuation_waits", subject="h1", sentence="h1 has 1 left, because a1: no room")
    made.cluster.alarms = (said,)
    assert isinstance(made.on(), Wait)
    made.cluster.moving = ("a1",)
    assert isinstance(made.after(STANDS_S + 1), Wait), "it is on its way"
    made.cluster.moving = ()
    assert isinstance(made.on(), Wait)
    assert because(made.after(STANDS_S + 1)) == said.sentence


def test_a_host_that_is_not_empty_in_time_is_a_doubt() -> None:
    made = driven()
    made.on()
    made.cluster.docs["h1"] = HostDoc(id=H1, evacuate=True)
    assert "h1 is not empty after 900 s: a1 is left" in because(made.after(LIMITS.moves_s + 1))
