"""The controller in charge is lost together with a host: the other takes over and finishes."""

from __future__ import annotations

import os
import signal

import pytest

from tests.lab.cluster import Cluster

pytestmark = pytest.mark.lab


def in_charge(cluster: Cluster) -> str:
    lease = cluster.status()["lease"]
    return str(lease["holder"])


def test_a_frozen_controller_is_replaced_and_its_thawed_words_count_for_nothing(cluster: Cluster) -> None:
    before = in_charge(cluster)
    dead = cluster.busiest()
    vms = cluster.on(dead)
    at = cluster.lab.freeze(before)
    cluster.lab.power(dead, "off")
    cluster.until(lambda: in_charge(cluster) != before, 30, "the other controller takes the lease")
    incident = cluster.incident_of(dead, at)
    cluster.until(lambda: all(cluster.first_write_after(vm, at) for vm in vms), 60, f"{vms} write again")
    assert incident["state"] == "done"
    after = in_charge(cluster)
    cluster.lab.thaw(before)
    thawed = cluster.cursor() + 10
    cluster.until(lambda: cluster.cursor() > thawed, 15, "it has had time to do harm")
    assert in_charge(cluster) == after
    assert len([i for i in cluster.incidents() if i["opened_at"] > at]) == 1
    for vm in vms:
        assert len([boot for boot in cluster.boots(vm) if boot["first_at"] > at]) == 1


def test_stopping_a_host_worker_leaves_its_vms_running(cluster: Cluster) -> None:
    host = cluster.busiest()
    vms = cluster.on(host)
    boots = {vm: cluster.boots(vm)[-1]["boot"] for vm in vms}
    at = cluster.cursor()
    pid = next(p["pid"] for p in cluster.lab.status()["processes"] if (p["host"], p["role"]) == (host, "worker"))

    os.kill(pid, signal.SIGTERM)
    cluster.until(
        lambda: any(
            (p["host"], p["role"]) == (host, "worker") and p["pid"] != pid for p in cluster.lab.status()["processes"]
        ),
        60,
        "its service manager starts it again",
    )
    cluster.until(lambda: cluster.host(host)["state"] == "online" and set(vms) <= cluster.writing(), 60, "all is well")
    assert {vm: cluster.boots(vm)[-1]["boot"] for vm in vms} == boots
    assert cluster.since(at, "fence_sent") == []
