"""What must hold before a roll begins, and hosts whose turns go together."""

from __future__ import annotations

import pytest

from fangnetz.core.errors import WishRefused
from fangnetz.core.evacuation import plan_evacuations
from fangnetz.core.model import HostDoc, HostState
from fangnetz.core.roll.begin import begun, obstacles
from fangnetz.core.roll.going import STEADY_ANEW_S, STEADY_S, Activate, Evacuate, Run, Wait
from fangnetz.core.units import HostId
from tests.core.roll.rolling import (
    H1,
    H2,
    H3,
    Cluster,
    a_roll,
    at_home,
    because,
    driven,
)
from tests.core.world import spec

# --- beginning ------------------------------------------------------------------------------------------------------


def test_a_roll_does_not_begin_where_a_vm_of_a_later_host_has_nowhere_to_go() -> None:
    cluster = Cluster(hosts=("h1", "h2", spec("h3", memory=8192)), homes={"a1": "h1", "a3": "h3"}, memory=4096)
    cluster.homes["b3"] = "h3"
    against = obstacles(a_roll(), cluster.seen())
    assert len(against) == 1
    assert "b3 cannot leave h3" in against[0]


def test_a_vm_that_lost_its_place_meanwhile_ends_the_roll_before_its_host_is_asked_for() -> None:
    made = at_home()
    made.cluster.home("h1")
    made.cluster.memory = 4096
    made.cluster.homes = {"a1": "h1", "a2": "h2", "a3": "h3"}
    assert "a2 cannot leave h2" in because(made.on())
    assert made.roll.waiting == (H2, H3), "its turn has not begun"


@pytest.mark.parametrize(
    ("hosts", "sentence"),
    [(("h9",), "h9 is no host of this cluster; it has h1, h2, h3"), (("h1", "h1"), "h1 is named twice")],
)
def test_hosts_that_make_no_sense_are_refused(hosts: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(WishRefused, match=sentence):
        begun(a_roll(*hosts), Cluster().seen())


def test_a_host_in_maintenance_already_is_an_obstacle_and_an_idle_one_is_not() -> None:
    cluster = Cluster(states={"h2": HostState.MAINTENANCE}, docs={"h2": HostDoc(id=H2, maintenance=True)})
    del cluster.homes["a2"]
    roll = a_roll("h1", "h2")
    assert "h2 is in maintenance already" in obstacles(begun(roll, cluster.seen()), cluster.seen())[0]
    assert obstacles(begun(a_roll("h1"), cluster.seen()), cluster.seen()) == ()


def test_a_host_to_be_rolled_over_that_is_fenced_is_an_obstacle() -> None:
    cluster = Cluster(states={"h2": HostState.FENCED})
    del cluster.homes["a2"]
    assert obstacles(begun(a_roll(), cluster.seen()), cluster.seen()) == ("h2 is fenced: as the test says",)


# --- several at once ------------------------------------------------------------------------------------------------


def test_hosts_emptied_at_once_take_nothing_of_each_other() -> None:
    seen = Cluster(homes={"a1": "h1", "a2": "h2"}).seen()
    assert seen.watch is not None
    plans = plan_evacuations((H1, H2), seen.view, seen.watch, seen.verdicts, seen.policy)
    assert [(plan.host, [(m.vm, m.target) for m in plan.moves]) for plan in plans] == [
        (H1, [("a1", H3)]),
        (H2, [("a2", H3)]),
    ]


def test_what_fits_for_one_host_and_not_for_two_at_once_is_an_obstacle() -> None:
    cluster = Cluster(homes={"a1": "h1", "a2": "h2"}, memory=3000)
    assert obstacles(a_roll("h1", "h2"), cluster.seen()) == ()
    against = obstacles(a_roll("h1", "h2", at_once=2), cluster.seen())
    assert len(against) == 1
    assert "cannot leave h" in against[0]


def test_a_wave_enters_each_stage_together() -> None:
    made = driven("h1", "h2", at_once=2)
    assert made.on() == Evacuate(hosts=(H1, H2))
    for host in ("h1", "h2"):
        made.cluster.docs[host] = HostDoc(id=HostId(host), evacuate=True)
    made.cluster.emptied("h1", to="h3")
    assert isinstance(made.on(), Wait), "no command before both are empty"
    made.cluster.emptied("h2", to="h3")
    for host in ("h1", "h2"):
        act = made.on()
        assert isinstance(act, Run)
        assert act.host == host
        made.ran(host)
    made.cluster.boots = {"h1": "i2"}
    made.cluster.now += 0.5
    made.on()
    assert isinstance(made.after(STEADY_ANEW_S), Wait), "h2 may still go down"
    assert made.after(STEADY_S) == Activate(hosts=(H1, H2))
