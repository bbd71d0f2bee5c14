"""A VM is stopped, moved and started, on real libvirt: one boot more, elsewhere, and never two that write at once."""

from __future__ import annotations

import pytest

from fangnetz.lab.arming import arm, armed, disarm
from tests.lab.cluster import Cluster

pytestmark = pytest.mark.lab


def writes_on(cluster: Cluster, vm: str, count: int) -> None:
    """Wait until the VM has booted so often and its last boot has written after now."""
    at = cluster.cursor()
    cluster.until(
        lambda: len(cluster.boot_ids(vm)) == count and cluster.boots(vm)[-1]["last_at"] > at, 60, f"{vm} writes on"
    )


def test_a_guest_is_booted_once_more_on_the_host_asked_for(cluster: Cluster) -> None:
    vm, _source, target = cluster.a_move()
    before = cluster.boot_ids(vm)
    assert f"{vm} runs on {target}" in cluster.asked("vm", "relocate", vm, "--to", target, "--wait")
    writes_on(cluster, vm, len(before) + 1)
    assert cluster.boot_ids(vm)[:-1] == before
    assert (cluster.vm(vm)["host"], cluster.vm(vm)["state"]) == (target, "running")


@pytest.mark.parametrize("point", ["stop.shut_down", "stop.before_settle", "start.before_create"])
def test_a_worker_that_is_killed_meanwhile_costs_no_second_boot(cluster: Cluster, point: str) -> None:
    vm, source, target = cluster.a_move()
    before = cluster.boot_ids(vm)
    struck = f"{target if point.startswith('start') else source}/worker"
    arm(cluster.lab.plan, struck, f"{point}@{vm}:kill")
    try:
        cluster.asked("vm", "relocate", vm, "--to", target)
        cluster.until(lambda: not armed(cluster.lab.plan, struck), 60, f"{struck} passes {point}")
        cluster.until(lambda: cluster.vm(vm)["host"] == target, 60, f"{vm} is on {target}")
        writes_on(cluster, vm, len(before) + 1)
    finally:
        disarm(cluster.lab.plan, struck)
    assert cluster.boot_ids(vm)[:-1] == before
