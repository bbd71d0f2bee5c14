"""A host goes down in order, on real libvirt: its guests run elsewhere, or wait for it, and nobody is fenced."""

from __future__ import annotations

from typing import Any

import pytest

from fangnetz.lab.host import worker_program
from tests.lab.cluster import Cluster

pytestmark = pytest.mark.lab


def says(cluster: Cluster, host: str, *words: str) -> str:
    """Run `fangnetz-worker WORDS` on the host, as its unit does."""
    named = {"CONFIG": str(cluster.lab.config_path), "HOST": host, "RUN_DIR": "/run/fangnetz"}
    environment = [f"FANGNETZ_{key}={value}" for key, value in named.items()]
    return cluster.lab.in_host(host, "env", *environment, str(worker_program()), *words)


def unfenced(cluster: Cluster, at: float) -> list[dict[str, Any]]:
    return cluster.since(at, "fence_sent", "fence_proven", "vm_lost")


def test_a_host_that_is_shut_down_is_not_missed_and_its_vms_run_elsewhere(cluster: Cluster) -> None:
    home = cluster.busiest()
    gone, at = cluster.on(home), cluster.cursor()
    assert gone
    says(cluster, home, "leave", "shutdown")  # it fails unless every VM is released
    assert cluster.on(home) == []
    cluster.lab.power(home, "off")
    cluster.until(lambda: cluster.host(home)["state"] == "left", 10, "the host has left")
    cluster.until(lambda: set(cluster.lab.plan.vms) <= cluster.writing(), 60, "every guest writes, elsewhere")
    off_for = cluster.cursor()
    cluster.until(lambda: cluster.cursor() - off_for > 10, 15, "far more than the window passes")
    assert cluster.host(home)["state"] == "left"
    assert [item for item in cluster.incidents() if item["opened_at"] > at] == []
    assert unfenced(cluster, at) == []
    cluster.lab.power(home, "on")
    cluster.until(lambda: cluster.host(home)["state"] == "online", 60, "it rejoins by itself")
    assert unfenced(cluster, at) == []


def test_a_host_that_is_rebooted_keeps_its_vms(cluster: Cluster) -> None:
    home = cluster.busiest()
    kept, at = set(cluster.on(home)), cluster.cursor()
    assert kept
    says(cluster, home, "leave", "reboot")
    cluster.lab.power(home, "off")
    cluster.until(lambda: cluster.host(home)["state"] == "left", 10, "the host has left")
    assert {vm for vm, item in cluster.vms().items() if item["state"] == "waiting"} == kept
    cluster.lab.power(home, "on")
    cluster.until(lambda: kept <= set(cluster.on(home)), 90, "its VMs run there again")
    cluster.until(lambda: kept <= cluster.writing(), 30, "and write")
    assert unfenced(cluster, at) == []
    assert {event["host"] for event in cluster.since(at, "vm_started")} == {home}
