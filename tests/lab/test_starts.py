"""Starts that are refused, not answered, or have no room: never a second copy, always a reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.cluster import Cluster

pytestmark = pytest.mark.lab


def test_a_start_refused_on_one_host_is_made_on_another_after_the_promise(cluster: Cluster) -> None:
    dead = cluster.busiest()
    vms = cluster.on(dead)
    others = [host for host in cluster.lab.plan.hosts if host != dead]
    refusing = others[0]
    for vm in vms:  # a persistent domain with autostart is what its owner must refuse to start beside
        cluster.lab.in_host(refusing, "sh", "-c", f"virsh -q -c qemu:///system define {xml(cluster, vm)}")
        cluster.lab.in_host(refusing, "sh", "-c", f"virsh -q -c qemu:///system autostart {vm}")
    try:
        at = cluster.lab.power(dead, "off")
        incident = cluster.incident_of(dead, at)
        cluster.until(lambda: all(cluster.first_write_after(vm, at) for vm in vms), 30, f"{vms} write again")
        assert {vm["to"] for vm in incident["vms"]} == {others[1]}
        assert cluster.since(at, "start_refused"), "it had been asked first, as it had the same room"
        promises = cluster.lab.in_host(refusing, "sh", "-c", "cat /run/fangnetz/promises/*")
        assert "generation" in promises
    finally:
        for vm in vms:
            cluster.lab.in_host(refusing, "virsh", "-q", "-c", "qemu:///system", "undefine", vm, tolerate=True)


def xml(cluster: Cluster, vm: str) -> str:
    from fangnetz.lab.definitions import xml_path

    return str(xml_path(cluster.lab.plan, vm))


def test_a_start_without_an_answer_may_be_running_and_happens_once(cluster: Cluster) -> None:
    """The worker freezes between its last check and libvirt's call, and thaws a minute later."""
    host = cluster.busiest()
    vm = cluster.on(host)[0]
    cluster.lab.fangnetz("vm", "stop", vm, "--wait")
    cluster.until(lambda: cluster.vm(vm)["state"] == "stopped", 120, f"{vm} is stopped")
    for node in cluster.lab.plan.hosts:
        cluster.lab.in_host(node, "sh", "-c", "echo start.before_create:freeze > /run/fangnetz/fault.host")
    at = cluster.cursor()
    cluster.lab.fangnetz("vm", "start", vm)
    frozen: list[str] = []

    def one_froze() -> bool:
        frozen[:] = [
            node
            for node in cluster.lab.plan.hosts
            if not cluster.lab.in_host(node, "sh", "-c", "cat /run/fangnetz/fault.host", tolerate=True).strip()
        ]
        return bool(frozen)

    cluster.until(one_froze, 30, "the worker froze before the call")
    for node in cluster.lab.plan.hosts:
        cluster.lab.in_host(node, "rm", "-f", "/run/fangnetz/fault.host")
    owner = frozen[0]
    cluster.until(lambda: cluster.host(owner)["state"] == "suspect", 30, "its worker is missed, its kernel answers")
    pause_until = cluster.cursor() + 60
    cluster.until(lambda: cluster.cursor() >= pause_until, 70, "a minute passes")
    assert cluster.first_write_after(vm, at) is None, "nobody else was given the start"
    assert cluster.vm(vm)["host"] == owner
    assert cluster.since(at, "fence_sent") == [], "a host whose VMs are fine is not fenced for its worker"
    cluster.lab.thaw(f"{owner}/worker")
    cluster.until(lambda: cluster.first_write_after(vm, at), 60, f"{vm} writes")
    cluster.until(lambda: cluster.vm(vm)["state"] == "running", 60, f"{vm} is called running")
    assert len([boot for boot in cluster.boots(vm) if boot["first_at"] > at]) == 1


def add_big(cluster: Cluster, name: str) -> None:
    path = cluster.lab.plan.folder / f"{name}.xml"
    path.write_text(
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>500</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    )
    cluster.lab.fangnetz("vm", "add", name, "--xml", str(path))
    cluster.until(lambda: placed(cluster.vm(name)), 60, "it is placed")


def placed(vm: dict[str, Any]) -> bool:
    return vm["state"] == "running" or (vm["state"] == "waiting" and "MiB" in vm["reason"])


def test_a_vm_that_fits_nowhere_waits_with_a_reason_and_starts_when_room_appears(cluster: Cluster) -> None:
    big: list[str] = []
    try:
        while not big or cluster.vm(big[-1])["state"] == "running":
            assert len(big) < 7, "three hosts of 1024 MiB have no room for seven times 500"
            big.append(f"big{len(big)}")
            add_big(cluster, big[-1])
        cluster.lab.fangnetz("vm", "remove", big[-1])
        dead = cluster.vm(big[0])["host"]
        at = cluster.lab.power(dead, "off")
        cluster.incident_of(dead, at)
        assert cluster.vm(big[0])["state"] == "waiting"
        assert "MiB" in cluster.vm(big[0])["reason"]
        incident = next(i for i in cluster.incidents() if i["host"] == dead and i["opened_at"] > at)
        assert incident["recovered_at"] is None
        cluster.lab.power(dead, "on")
        cluster.until(lambda: cluster.vm(big[0])["state"] == "running", 60, "it starts when its host is back")
        cluster.until(
            lambda: next(i for i in cluster.incidents() if i["id"] == incident["id"])["recovered_at"] is not None,
            60,
            "and that ends the incident",
        )
    finally:
        on = [host["id"] for host in cluster.lab.status()["hosts"] if host["power"] == "on"]
        for name in set(big) & set(cluster.vms()):
            cluster.lab.fangnetz("vm", "remove", name)
            for host in on:  # forgotten, not stopped: they run on until a person ends them
                cluster.lab.in_host(host, "virsh", "-q", "-c", "qemu:///system", "destroy", name, tolerate=True)
