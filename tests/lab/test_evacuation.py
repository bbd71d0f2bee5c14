"""A host is emptied while its guests run, on real libvirt: the same boots write on elsewhere, and come home again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.cluster import Cluster

pytestmark = pytest.mark.lab


def boots(cluster: Cluster) -> dict[str, list[str]]:
    return {vm: cluster.boot_ids(vm) for vm in cluster.lab.plan.vms}


def gather_live(cluster: Cluster, host: str) -> None:
    """Have every guest run on one host. What another test has left may stand against a move for a while."""

    def is_there(vm: str) -> bool:
        return bool(cluster.vm(vm)["host"] == host or cluster.asked("vm", "migrate", vm, "--to", host, "--wait"))

    for vm in cluster.lab.plan.vms:
        cluster.until(lambda vm=vm: is_there(vm), 90, f"{vm} runs on {host}")
    write_on(cluster)


def previewed(cluster: Cluster, host: str) -> dict[str, str]:
    found: dict[str, Any] = json.loads(cluster.asked("host", "evacuate", host, "--preview", "--json"))["preview"]
    assert found["stays"] == []
    return {move["vm"]: move["to"] for move in found["moves"]}


def write_on(cluster: Cluster) -> None:
    at = cluster.cursor()
    cluster.until(
        lambda: all(cluster.boots(vm)[-1]["last_at"] > at for vm in cluster.lab.plan.vms), 15, "every guest writes on"
    )


def test_a_host_is_emptied_as_previewed_and_every_guest_writes_on_with_the_boot_it_had(cluster: Cluster) -> None:
    home = cluster.lab.plan.hosts[0]
    gather_live(cluster, home)
    before, told = boots(cluster), previewed(cluster, home)
    assert set(told) == set(cluster.lab.plan.vms)
    at = cluster.cursor()
    assert "is empty and in maintenance" in cluster.asked("host", "evacuate", home, "--wait")
    assert {vm: item["host"] for vm, item in cluster.vms().items()} == told, "as it was previewed"
    write_on(cluster)
    assert boots(cluster) == before, "no guest was started anew"
    assert cluster.host(home)["state"] == "maintenance"
    assert len(cluster.since(at, "migration_done")) == len(told)
    assert cluster.since(at, "vm_lost", "fence_sent") == []
    cluster.asked("host", "activate", home, "--failback", "--wait")
    cluster.until(lambda: set(cluster.on(home)) == set(told), 60, "every guest is home again")
    write_on(cluster)
    assert boots(cluster) == before


def test_a_host_that_dies_while_it_is_emptied_is_recovered_and_stays_out(cluster: Cluster) -> None:
    home = cluster.lab.plan.hosts[0]
    gather_live(cluster, home)
    cluster.asked("host", "evacuate", home)
    cluster.until(lambda: len(cluster.on(home)) < len(cluster.lab.plan.vms), 30, "the first guest has left")
    at = cluster.lab.power(home, "off")
    everybody = set(cluster.lab.plan.vms)
    cluster.until(
        lambda: {vm for vm, i in cluster.vms().items() if i["state"] == "running" and i["host"] != home} == everybody,
        90,
        "every VM runs elsewhere",
    )
    cluster.until(lambda: everybody <= cluster.writing(), 30, "every VM writes")
    cluster.lab.power(home, "on")
    cluster.until(lambda: cluster.host(home)["state"] == "maintenance", 90, "it goes on into maintenance")
    assert cluster.on(home) == []
    assert cluster.since(at, "vm_started")
    cluster.asked("host", "activate", home, "--wait")
