"""A host dies or is cut off: it is proven off, and its VMs run elsewhere, once, with the times and the reasons kept."""

from __future__ import annotations

import pytest

from fangnetz.lab.arming import arm, armed, disarm
from tests.lab.cluster import Cluster

pytestmark = pytest.mark.lab


def moved(cluster: Cluster, vms: list[str], dead: str, at: float) -> None:
    """Assert that every VM writes again from a new boot and runs on another host."""
    for vm in vms:
        first = cluster.first_write_after(vm, at)
        assert first is not None, f"{vm} never wrote again"
        item = cluster.vm(vm)
        assert item["state"] == "running"
        assert item["host"] not in (None, dead)


def test_a_pulled_plug_is_read_off_and_every_vm_runs_elsewhere(cluster: Cluster) -> None:
    dead = cluster.busiest()
    vms = cluster.on(dead)
    assert vms
    at = cluster.lab.power(dead, "off")
    incident = cluster.incident_of(dead, at)
    cluster.until(lambda: all(cluster.first_write_after(vm, at) for vm in vms), 30, f"{vms} write again")
    moved(cluster, vms, dead, at)
    assert incident["state"] == "done"
    assert incident["fence_sent_at"] is None, "it was off already: nothing had to be cut"
    assert incident["suspected_at"] <= incident["confirmed_at"] <= incident["fence_proven_at"]
    assert incident["fence_proven_at"] <= incident["recovered_at"]
    assert {vm["name"] for vm in incident["vms"]} == set(vms)
    for vm in incident["vms"]:
        assert vm["from"] == dead
        assert vm["outcome"] == "running"
        assert incident["fence_proven_at"] <= vm["start_sent_at"] <= vm["running_at"]
    assert cluster.host(dead)["state"] == "fenced"
    assert cluster.host(dead)["proof"]["kind"] == "already_off"


def hold_the_cut_until_they_write(cluster: Cluster, host: str, boots: dict[str, str]) -> None:
    """Let whoever is about to cut `host` wait until each of these boots has written once more, then go on.

    Guests write four times a second and a cut may follow its confirmation sooner: without this, that they still write
    in between would be true most of the time.
    """
    plan = cluster.lab.plan
    executors = [f"{controller}/fence" for controller in plan.controllers]
    try:
        for executor in executors:
            arm(plan, executor, f"fence.before_cut@{host}:hang")
        cluster.until(lambda: not all(armed(plan, executor) for executor in executors), 60, "the cut is about to come")
        held_at = cluster.cursor()
        cluster.until(
            lambda: all(last_write(cluster, vm, boot) > held_at for vm, boot in boots.items()), 10, "they write on"
        )
    finally:
        for executor in executors:
            disarm(plan, executor)


def last_write(cluster: Cluster, vm: str, boot: str) -> float:
    return float(next(each["last_at"] for each in cluster.boots(vm) if each["boot"] == boot))


def test_a_living_host_that_is_cut_off_is_fenced_first_and_only_then_its_vms_start(cluster: Cluster) -> None:
    lost = cluster.busiest()
    vms = cluster.on(lost)
    old = {vm: cluster.boots(vm)[-1]["boot"] for vm in vms}
    at = cluster.lab.cut(lost)
    hold_the_cut_until_they_write(cluster, lost, old)
    incident = cluster.incident_of(lost, at)
    cluster.until(lambda: all(cluster.first_write_after(vm, at) for vm in vms), 30, f"{vms} write again")
    moved(cluster, vms, lost, at)
    assert incident["confirmed_at"] < incident["fence_sent_at"] <= incident["fence_proven_at"]
    for vm in vms:
        last_of_old, first_of_new = last_write(cluster, vm, old[vm]), cluster.first_write_after(vm, at)
        assert first_of_new is not None
        assert last_of_old > incident["confirmed_at"], "its storage stayed up, so it wrote on until it was cut"
        assert last_of_old < first_of_new
        assert incident["fence_proven_at"] < first_of_new
    assert len(cluster.since(at, "fence_sent")) == 1
    cluster.lab.heal(lost)
    cluster.until(lambda: cluster.host(lost)["state"] == "online", 60, f"{lost} rejoins by itself")


def test_off_and_on_within_two_seconds_starts_the_missing_vms_once(cluster: Cluster) -> None:
    host = cluster.busiest()
    vms = cluster.on(host)
    at = cluster.lab.power(host, "off")
    cluster.lab.power(host, "on")
    cluster.until(lambda: all(cluster.first_write_after(vm, at) for vm in vms), 60, f"{vms} write again")
    cluster.until(lambda: cluster.host(host)["state"] == "online", 60, f"{host} is back")
    assert all(cluster.vm(vm)["state"] == "running" for vm in vms)
    assert cluster.since(at, "fence_sent") == [], "a host that is back as a new boot is not cut"


def test_all_off_then_on_brings_every_vm_back(cluster: Cluster) -> None:
    hosts = cluster.lab.plan.hosts
    at = min(cluster.lab.power(host, "off") for host in hosts)
    cluster.until(
        lambda: all(host["state"] == "fenced" for host in cluster.hosts().values()), 60, "every host is proven off"
    )
    assert all(vm["state"] in ("waiting", "lost") and vm["reason"] for vm in cluster.vms().values())
    assert cluster.since(at, "fence_sent") == []
    for host in hosts:
        cluster.lab.power(host, "on")
    vms = cluster.lab.plan.vms
    cluster.until(lambda: all(cluster.first_write_after(vm, at) for vm in vms), 60, "every VM writes again")


def test_all_hosts_cut_at_once_and_nobody_is_fenced(cluster: Cluster) -> None:
    boots = {vm: cluster.boots(vm)[-1]["boot"] for vm in cluster.lab.plan.vms}
    at = min(cluster.lab.cut(host) for host in cluster.lab.plan.hosts)
    told = ("nobody is cut", "no prober that reaches others", "no majority")
    cluster.until(
        lambda: any(why in alarm["sentence"] for alarm in cluster.since(at, "alarm") for why in told),
        30,
        "why nobody is fenced is told",
    )
    cluster.until(lambda: not any(h["state"] == "online" for h in cluster.hosts().values()), 30, "all are missed")
    assert cluster.since(at, "fence_sent", "fence_proven") == []
    assert [e for e in cluster.since(at, "operation_opened") if "failover" in e["sentence"]] == []
    for host in cluster.lab.plan.hosts:
        cluster.lab.heal(host)
    cluster.until(lambda: all(h["state"] == "online" for h in cluster.hosts().values()), 60, "all are back")
    assert {vm: cluster.boots(vm)[-1]["boot"] for vm in cluster.lab.plan.vms} == boots, "no VM was started anew"
    assert cluster.since(at, "fence_sent") == []


def test_a_dark_bmc_asks_for_a_person_and_his_word_recovers_the_vms(cluster: Cluster) -> None:
    dead = cluster.busiest()
    vms = cluster.on(dead)
    cluster.lab.bmc(dead, "dark")
    at = cluster.lab.power(dead, "off")
    refused = cluster.refused("host", "confirm-off", dead, "--yes")
    assert dead in refused
    cluster.until(lambda: cluster.host(dead)["state"] == "needs_person", 90, "a person is asked")
    assert all(cluster.vm(vm)["state"] in ("lost", "needs_person") for vm in vms)
    assert all(cluster.first_write_after(vm, at) is None for vm in vms)
    cluster.lab.fangnetz("host", "confirm-off", dead, "--yes")
    cluster.until(lambda: all(cluster.first_write_after(vm, at) for vm in vms), 30, f"{vms} write again")
    moved(cluster, vms, dead, at)
    assert cluster.host(dead)["proof"]["kind"] == "operator"


def test_a_wrong_password_is_no_proof(cluster: Cluster) -> None:
    lost = cluster.busiest()
    vms = cluster.on(lost)
    boots = {vm: cluster.boots(vm)[-1]["boot"] for vm in vms}
    cluster.lab.bmc(lost, "wrong-password")
    at = cluster.lab.cut(lost)
    cluster.until(lambda: cluster.host(lost)["state"] in ("fencing", "needs_person"), 30, "it is missed")
    cluster.until(
        lambda: any("password" in o["sentence"] for o in fence_steps(cluster, lost)), 30, "the refusal is told"
    )
    cluster.lab.heal(lost)
    cluster.until(lambda: cluster.host(lost)["state"] == "online", 60, f"{lost} is heard again as it was")
    assert {vm: cluster.boots(vm)[-1]["boot"] for vm in vms} == boots
    assert cluster.since(at, "fence_proven") == []


def fence_steps(cluster: Cluster, host: str) -> list[dict]:  # type: ignore[type-arg]
    return [
        step
        for operation in cluster.listed("operation")["items"]
        if operation["subject"] == host
        for step in operation["steps"]
        if step["key"] == "fence"
    ]
