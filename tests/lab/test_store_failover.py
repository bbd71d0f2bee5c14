"""Three Redis with a Sentinel each: the master is lost while a host is lost, and with it what no replica had yet."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis

from fangnetz.lab import Lab, LabError
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
MARK = "test:last-write"


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


def test_the_last_write_is_lost_with_the_master_in_mid_failover_and_nothing_runs_twice(cluster: Cluster) -> None:
    until_all_replicate(cluster)
    master = master_of(cluster.lab.plan)
    dead, vms, at = lose_a_host(cluster)
    others = [vm for vm in cluster.lab.plan.vms if vm not in vms]
    running = boots_of(cluster, others)
    until_opened(cluster, dead, at)
    cluster.lab.store("part", master)
    try:
        with admin_client(cluster.lab.plan, master) as client:
            assert client.set(MARK, "written")
            assert client.wait(1, 200) == 0, "no replica has it: the master alone knows"
        cluster.lab.store("stop", master)
        heir = until_another_is_master(cluster, master)
    finally:
        cluster.lab.store("join", master)
    with admin_client(cluster.lab.plan, heir) as client:
        assert client.get(MARK) is None, "the write was lost, which is what this is about"
    cluster.lab.store("start", master)
    until_recovered(cluster, vms, at)
    assert all(boots_since(cluster, vm, at) == 1 for vm in vms)
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
    cluster.until(lambda: cluster.lab.fangnetz("status")["lease"]["holder"], BACK_WITHIN_S, "somebody is in charge")
    until_all_replicate(cluster)


def test_over_all_that_the_lookout_saw_the_store_forget(cluster: Cluster, lives_before: int) -> None:
    """Looks back at every test above: it has to be the last."""
    much_was_seen(cluster, lives_before, lives_min=1)
