"""Three Redis with a Sentinel each: the master is lost while a host is lost, and with it what no replica had yet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from fangnetz.adapters.redis.keys import Keys
from fangnetz.core.units import VmId
from fangnetz.lab import Lab, LabError
from fangnetz.lab.arming import arm, armed, disarm
from fangnetz.lab.broker import admin_client, master_of
from fangnetz.lab.stage import own_name
from fangnetz.lab.storm.lookout import Lookout
from tests.lab.cluster import Cluster
from tests.lab.lost_host import (
    BACK_WITHIN_S,
    boots_of,
    boots_since,
    cuts_since,
    lives,
    lose_a_host,
    much_was_seen,
    until_opened,
    until_recovered,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(500),
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
]
ORDERS_ARRIVE_S = 0.7
"""Time for the lost starts to reach their hosts, and less than the Sentinels need to call the master down."""


@pytest.fixture(scope="module")
def sentinel_cluster() -> Iterator[Cluster]:
    name = own_name("sentinel")
    Lab.remove(name)
    with Lab.up(name=name, hosts=3, vms=2, sentinel=True) as lab, Lookout(lab) as lookout:
        yield Cluster(lab, lookout)


@pytest.fixture(scope="module", autouse=True)
def lives_before(sentinel_cluster: Cluster) -> int:
    return lives(sentinel_cluster)


@pytest.fixture
def cluster(sentinel_cluster: Cluster) -> Iterator[Cluster]:
    with sentinel_cluster.judged():
        yield sentinel_cluster


def until_another_is_master(cluster: Cluster, before: str) -> str:
    def another() -> bool:
        try:
            return master_of(cluster.lab.plan) != before
        except LabError:
            return False

    cluster.until(another, 60, f"another store than {before} is master")
    return master_of(cluster.lab.plan)


def until_all_replicate(cluster: Cluster) -> None:
    """Wait until the master has as many replicas as there are others: the lab is whole for the next test."""

    def whole() -> bool:
        try:
            with admin_client(cluster.lab.plan) as client:
                return int(client.info("replication")["connected_slaves"]) == len(cluster.lab.plan.stores) - 1
        except (redis.RedisError, LabError):
            return False

    cluster.until(whole, 60, "every other store replicates the master")


def generations(cluster: Cluster, store: str, vms: list[str]) -> dict[str, int]:
    """Return what one Redis has as the VMs' generations, whoever is master."""
    keys = Keys(cluster.lab.name)
    with admin_client(cluster.lab.plan, store) as client:
        return {vm: int(str(client.hget(keys.vm(VmId(vm)), "generation"))) for vm in vms}


@contextmanager
def frozen_before_the_plan_is_written(cluster: Cluster, dead: str) -> Iterator[Callable[[], str]]:
    """Arm whoever plans the failover of `dead`; what is yielded waits until one froze and returns who. All thaw."""
    plan = cluster.lab.plan
    planners = [f"{controller}/work" for controller in plan.controllers]
    for planner in planners:
        arm(plan, planner, f"plan.before_settle@{dead}:freeze")
    frozen: list[str] = []

    def one_froze() -> bool:
        frozen[:] = [planner for planner in planners if not armed(plan, planner)]
        return bool(frozen)

    def wait() -> str:
        until = time.monotonic() + 60
        while not one_froze():
            assert time.monotonic() < until, "nobody plans the failover"
            time.sleep(0.01)
        for planner in planners:
            disarm(plan, planner)
        return frozen[0]

    try:
        yield wait
    finally:
        for planner in planners:
            disarm(plan, planner)
            cluster.lab.thaw(planner)


def test_an_assignment_is_lost_with_the_master_in_mid_failover_and_its_order_is_never_carried_out(
    cluster: Cluster,
) -> None:
    """The plan is claimed where all have it, and settled where only the old master does: it gives every VM of the dead
    host a new owner and a new number, and sends the starts. Then that master is gone, and its heir never heard of it.
    """
    until_all_replicate(cluster)
    master = master_of(cluster.lab.plan)
    dead = cluster.busiest()
    vms = cluster.on(dead)
    others = [vm for vm in cluster.lab.plan.vms if vm not in vms]
    running = boots_of(cluster, others)
    before = generations(cluster, master, vms)
    lost = before
    with frozen_before_the_plan_is_written(cluster, dead) as until_frozen:
        at = cluster.lab.power(dead, "off")
        planner = until_frozen()
        cluster.lab.store("part", master)
        try:
            cluster.lab.thaw(planner)
            until = time.monotonic() + 3.0  # a master without replicas takes writes for so long
            while lost == before and time.monotonic() < until:
                lost = generations(cluster, master, vms)
                time.sleep(0.01)
            assert all(lost[vm] > before[vm] for vm in vms), "the old master has the assignment"
            time.sleep(ORDERS_ARRIVE_S)
            cluster.lab.store("stop", master)
            heir = until_another_is_master(cluster, master)
        finally:
            cluster.lab.store("join", master)
    assert generations(cluster, heir, vms) == before, "the assignment was lost, which is what this is about"
    cluster.lab.store("start", master)
    until_recovered(cluster, vms, at)
    assert cluster.incident_of(dead, at)["state"] == "done"
    carried = {(copy.vm, copy.generation) for copy in cluster.lookout.truth.copies()}
    for vm in vms:
        assert (vm, lost[vm]) not in carried, "nobody ever ran under the lost number"
        assert cluster.vm(vm)["generation"] > lost[vm], "nor was it, or a lower one, given again"
        assert boots_since(cluster, vm, at) == 1
    assert boots_of(cluster, others) == running
    assert cuts_since(cluster, at) == [], "it was off already, and nobody living was called lost"
    until_all_replicate(cluster)


@pytest.mark.soak
def test_a_master_that_hangs_in_mid_failover_is_replaced_and_the_incident_ends(cluster: Cluster) -> None:
    until_all_replicate(cluster)
    master = master_of(cluster.lab.plan)
    dead, vms, at = lose_a_host(cluster)
    until_opened(cluster, dead, at)
    cluster.lab.store("hang", master)
    try:
        until_another_is_master(cluster, master)
        until_recovered(cluster, vms, at)
    finally:
        cluster.lab.store("resume", master)
    assert all(boots_since(cluster, vm, at) == 1 for vm in vms)
    assert cuts_since(cluster, at) == []
    cluster.until(lambda: cluster.status()["lease"]["holder"], BACK_WITHIN_S, "somebody is in charge")
    until_all_replicate(cluster)


def test_over_all_that_the_lookout_saw_the_store_forget(cluster: Cluster, lives_before: int) -> None:
    """Looks back at every test above: it has to be the last."""
    much_was_seen(cluster, lives_before, lives_min=1)
