"""The store is killed, emptied, put back or hung while a host is lost: the incident ends, and nothing runs twice."""

from __future__ import annotations

import pytest

from tests.lab.cluster import Cluster
from tests.lab.lost_host import (
    BACK_WITHIN_S,
    CONTROLLER_ROLES,
    boots_of,
    boots_since,
    controllers,
    cuts_since,
    lives,
    lose_a_host,
    much_was_seen,
    until_opened,
    until_recovered,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]
PERSON_WITHIN_S = 180.0


@pytest.fixture(scope="module", autouse=True)
def lives_before(session_cluster: Cluster) -> int:
    return lives(session_cluster)


def test_killed_in_mid_failover_it_comes_back_and_the_incident_ends(cluster: Cluster) -> None:
    before = controllers(cluster)
    assert len(before) == len(cluster.lab.plan.controllers) * len(CONTROLLER_ROLES)
    dead, vms, at = lose_a_host(cluster)
    until_opened(cluster, dead, at)
    cluster.lab.store("kill")
    until_recovered(cluster, vms, at)
    assert cluster.incident_of(dead, at)["state"] == "done"
    assert all(boots_since(cluster, vm, at) == 1 for vm in vms)
    assert cuts_since(cluster, at) == [], "it was off already, and nobody else was lost"
    assert controllers(cluster) == before, "workers and beats came back by themselves, none died"


def test_emptied_in_mid_failover_the_vms_are_recovered_once(cluster: Cluster) -> None:
    dead, vms, at = lose_a_host(cluster)
    others = [vm for vm in cluster.lab.plan.vms if vm not in vms]
    running = boots_of(cluster, others)
    until_opened(cluster, dead, at)
    cluster.lab.store("wipe")
    until_recovered(cluster, vms, at)
    assert all(boots_since(cluster, vm, at) == 1 for vm in vms)
    assert boots_of(cluster, others) == running, "the living hosts' VMs were adopted as they ran"
    assert cuts_since(cluster, at) == []


def put_back(cluster: Cluster) -> float:
    """Give the store its saved copy; return when, once somebody decides by it: until then it says what was so then."""
    before = cluster.epoch()
    at = cluster.lab.store("rollback")
    cluster.until(lambda: cluster.epoch() > before, BACK_WITHIN_S, "somebody decides by the old copy")
    return at


def test_put_back_to_before_a_failover_the_vms_stay_where_they_run(cluster: Cluster) -> None:
    cluster.lab.store("save")
    dead, vms, at = lose_a_host(cluster)
    until_recovered(cluster, vms, at)
    running = boots_of(cluster, list(cluster.lab.plan.vms))
    back_at = put_back(cluster)

    def knows_again() -> bool:
        known = cluster.vms()
        return all(vm["state"] == "running" and vm["host"] not in (None, dead) for vm in known.values())

    cluster.until(knows_again, BACK_WITHIN_S, "every VM is known to run where it runs")
    assert boots_of(cluster, list(cluster.lab.plan.vms)) == running, "nothing was started again"
    assert cuts_since(cluster, back_at) == []


def test_put_back_in_mid_failover_the_vms_are_recovered_once(cluster: Cluster) -> None:
    cluster.lab.store("save")
    dead, vms, at = lose_a_host(cluster)
    until_opened(cluster, dead, at)
    put_back(cluster)
    until_recovered(cluster, vms, at)
    assert all(boots_since(cluster, vm, at) == 1 for vm in vms)
    assert cuts_since(cluster, at) == []


@pytest.mark.parametrize("seconds", [15.0, pytest.param(40.0, marks=pytest.mark.soak)])
def test_hung_in_mid_failover_it_is_waited_for_and_no_living_host_is_called_lost(
    cluster: Cluster, seconds: float
) -> None:
    dead, vms, at = lose_a_host(cluster)
    others = [vm for vm in cluster.lab.plan.vms if vm not in vms]
    running = boots_of(cluster, others)
    until_opened(cluster, dead, at)
    hung_at = cluster.lab.store("hang")
    cluster.until(lambda: cluster.cursor() > hung_at + seconds, seconds + 10, "it has hung long enough")
    assert set(others) <= cluster.writing(), "VMs need no store"
    back_at = cluster.lab.store("resume")
    until_recovered(cluster, vms, at)
    assert cluster.incident_of(dead, at)["state"] == "done"
    assert all(boots_since(cluster, vm, at) == 1 for vm in vms)
    assert boots_of(cluster, others) == running
    assert cuts_since(cluster, at) == []
    called = [e for e in cluster.since(back_at, "operation_opened") if e["sentence"].startswith("failover")]
    assert [e for e in called if dead not in e["sentence"]] == [], "a gap of the store is no host's silence"


@pytest.mark.soak  # the startup grace of a new life and three rounds over a dark device: a minute and a half
def test_emptied_with_a_dark_bmc_a_person_is_asked_for_that_host_alone(cluster: Cluster) -> None:
    dead = cluster.busiest()
    vms = cluster.on(dead)
    others = [vm for vm in cluster.lab.plan.vms if vm not in vms]
    living = [host for host in cluster.lab.plan.hosts if host != dead]
    running = boots_of(cluster, others)
    cluster.lab.bmc(dead, "dark")
    at = cluster.lab.power(dead, "off")
    cluster.lab.store("wipe")
    cluster.until(
        lambda: cluster.host(dead)["state"] == "needs_person", PERSON_WITHIN_S, f"a person is asked for {dead}"
    )
    assert all(cluster.host(host)["state"] == "online" for host in living)
    assert set(others) <= cluster.writing()
    assert boots_of(cluster, others) == running
    assert all(cluster.first_write_after(vm, at) is None for vm in vms), "nothing is proven: nothing starts"
    assert dead in cluster.host(dead)["reason"]
    cluster.lab.fangnetz("host", "confirm-off", dead, "--yes")
    until_recovered(cluster, vms, at)
    assert all(boots_since(cluster, vm, at) == 1 for vm in vms)
    assert cuts_since(cluster, at) == []


def test_over_all_that_the_lookout_saw_the_store_forget(cluster: Cluster, lives_before: int) -> None:
    """Looks back at every test above: it has to be the last."""
    much_was_seen(cluster, lives_before, lives_min=4)
