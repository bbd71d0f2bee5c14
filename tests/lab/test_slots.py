"""Slots on real hosts: one that nobody can talk to is told from a dead one, and one whose storage hangs says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from fangnetz.lab import Lab
from fangnetz.lab.processes import processes_of
from fangnetz.lab.stage import own_name
from fangnetz.lab.storm.lookout import Lookout
from tests.lab.cluster import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")]
NAME = own_name("slots")


@pytest.fixture(scope="module")
def lab() -> Iterator[Cluster]:
    """Its policy leaves isolated hosts alone."""
    Lab.remove(NAME)
    with Lab.up(name=NAME, hosts=3, vms=2, isolated="leave") as made, Lookout(made) as lookout:
        yield Cluster(made, lookout)


def boots(cluster: Cluster) -> dict[str, list[str]]:
    return {vm: cluster.boot_ids(vm) for vm in cluster.vms()}


def test_a_host_that_nobody_can_talk_to_is_left_alone_and_a_dead_one_is_not(lab: Cluster) -> None:
    with lab.judged():
        cut = lab.busiest()
        vms, before = lab.on(cut), boots(lab)
        assert vms
        at = lab.lab.cut(cut)
        lab.until(lambda: lab.host(cut)["state"] == "isolated", 30, f"{cut} is isolated")
        assert "its slot on the shared storage is written" in lab.host(cut)["reason"]
        lab.until(lambda: lab.cursor() > at + 20, 40, "it has had time to be cut")
        assert lab.since(at, "fence_sent", "fence_proven") == []
        assert set(vms) <= lab.writing(), "its guests never noticed"
        lab.lab.heal(cut)
        lab.until(lambda: lab.host(cut)["state"] == "online", 30, f"{cut} is back")
        assert boots(lab) == before

        at = lab.lab.power(cut, "off")
        incident = lab.incident_of(cut, at)
        assert incident["state"] == "done"
        lab.until(lambda: all(lab.first_write_after(vm, at) for vm in vms), 60, f"{vms} write again")


def test_a_host_whose_storage_hangs_says_so_and_loses_nothing(lab: Cluster) -> None:
    with lab.judged():
        host = lab.busiest()
        before = boots(lab)
        (child,) = [
            process.pid
            for process in processes_of(lab.lab.plan.name, lab.lab.plan.tag)
            if (process.node, process.role) == (host, "slots")
        ]
        at = lab.cursor()
        os.kill(child, signal.SIGSTOP)
        try:
            lab.until(lambda: lab.host(host)["state"] == "degraded", 30, f"{host} has lost its storage")
            assert "has not written its slot" in lab.host(host)["reason"]
        finally:
            os.kill(child, signal.SIGCONT)
        lab.until(lambda: lab.host(host)["state"] == "online", 30, f"{host} has its storage again")
        assert lab.since(at, "fence_sent", "fence_proven") == []
        assert boots(lab) == before
