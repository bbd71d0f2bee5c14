"""A VM is moved while it runs, on real libvirt: the same boot goes on writing elsewhere, or goes on where it was."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fangnetz.lab.arming import arm, armed, disarm
from fangnetz.settings import load_settings
from tests.lab.cluster import Cluster
from workers.app import create_app

pytestmark = pytest.mark.lab


def writes_on(cluster: Cluster, vm: str) -> None:
    """Wait until the last boot of a VM has written after now."""
    at = cluster.cursor()
    cluster.until(lambda: cluster.boots(vm)[-1]["last_at"] > at, 10, f"{vm} writes on")


def test_a_guest_goes_on_writing_elsewhere_with_the_boot_it_had(cluster: Cluster) -> None:
    vm, source, target = cluster.a_move()
    before, at = cluster.boot_ids(vm), cluster.cursor()
    assert f"{vm} runs on {target}" in cluster.asked("vm", "migrate", vm, "--to", target, "--wait")
    writes_on(cluster, vm)
    assert (cluster.boot_ids(vm), cluster.vm(vm)["host"], cluster.vm(vm)["state"]) == (before, target, "running")
    (done,) = cluster.since(at, "migration_done")
    assert (done["vm"], done["host"]) == (vm, target)
    cluster.asked("vm", "migrate", vm, "--to", source, "--wait")
    writes_on(cluster, vm)
    assert (cluster.boot_ids(vm), cluster.vm(vm)["host"]) == (before, source)


@contextlib.contextmanager
def monitor(cluster: Cluster) -> Iterator[list[dict[str, Any]]]:
    """Give what any monitor of Celery hears, as it comes, of how tasks come on."""
    app = create_app(load_settings(cluster.lab.config_path, role="host"), "client", "a-test")
    heard: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-progress": heard.append})

        def listen() -> None:
            while not receiver.should_stop:
                with contextlib.suppress(TimeoutError):
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)

        thread = threading.Thread(target=listen, name="monitor", daemon=True)
        thread.start()
        yield heard
        receiver.should_stop = True
        thread.join(10)


def test_how_a_guest_comes_on_is_seen_by_who_waits_in_the_journal_and_by_every_monitor(cluster: Cluster) -> None:
    vm, source, target = cluster.a_move()
    cluster.lab.in_host(source, "virsh", "-q", "-c", "qemu:///system", "migrate-setspeed", vm, "8")  # MiB/s
    command = [Path(sys.executable).parent / "fangnetz", "--config", cluster.lab.config_path]
    with monitor(cluster) as heard:
        waited = subprocess.run(
            [*command, "vm", "migrate", vm, "--to", target, "--wait"], capture_output=True, text=True, timeout=120
        )
        assert waited.returncode == 0, waited.stderr
        cluster.until(lambda: heard, 10, "a monitor hears of it")
    moved = next(op for op in cluster.listed("operation")["items"] if op["kind"] == "migrate" and op["subject"] == vm)
    step = next(step for step in moved["steps"] if step["kind"] == "migrate_vm")
    progress = step["progress"]
    assert (step["state"], progress["elapsed_s"] > 1, 0 < progress["share"] <= 1) == ("done", True, True)
    assert f"{vm}  to {target}, " in waited.stderr
    assert heard[-1]["total_mib"] == pytest.approx(progress["total_mib"], rel=0.1)
    assert (len({event["uuid"] for event in heard}), cluster.vm(vm)["host"]) == (1, target)


@pytest.mark.parametrize("point", ["migrate.left", "migrate.claimed", "resume.before_resume"])
def test_a_worker_that_is_killed_in_a_move_leaves_one_guest_with_the_boot_it_had(cluster: Cluster, point: str) -> None:
    vm, source, target = cluster.a_move()
    before = cluster.boot_ids(vm)
    struck = f"{target if point.startswith('resume') else source}/worker"
    arm(cluster.lab.plan, struck, f"{point}@{vm}:kill")
    try:
        cluster.asked("vm", "migrate", vm, "--to", target)
        cluster.until(lambda: not armed(cluster.lab.plan, struck), 30, f"{struck} passes {point}")
    finally:
        disarm(cluster.lab.plan, struck)
    moved = next(op for op in cluster.listed("operation")["items"] if op["kind"] == "migrate" and op["subject"] == vm)
    cluster.until(lambda: operation(cluster, moved["id"])["state"] != "open", 60, "the move ends")
    writes_on(cluster, vm)
    assert operation(cluster, moved["id"])["state"] == "done"
    assert (cluster.boot_ids(vm), cluster.vm(vm)["host"]) == (before, target)


def operation(cluster: Cluster, identity: str) -> dict[str, str]:
    return next(op for op in cluster.listed("operation")["items"] if op["id"] == identity)


def test_the_host_that_is_left_dies_as_the_guest_has_left(cluster: Cluster) -> None:
    vm, source, target = cluster.a_move()
    before = cluster.boot_ids(vm)
    arm(cluster.lab.plan, f"{source}/worker", f"migrate.settled@{vm}:hang")
    cluster.asked("vm", "migrate", vm, "--to", target)
    cluster.until(lambda: not armed(cluster.lab.plan, f"{source}/worker"), 30, "the guest has left")
    at = cluster.lab.power(source, "off")  # and what was armed there with it
    cluster.incident_of(source, at)
    cluster.until(lambda: cluster.vm(vm)["state"] == "running", 60, f"{vm} runs")
    writes_on(cluster, vm)
    assert (cluster.boot_ids(vm), cluster.vm(vm)["host"]) == (before, target)


def test_the_host_it_goes_to_dies_and_the_guest_goes_on_where_it_was(cluster: Cluster) -> None:
    vm, source, target = cluster.a_move()
    before = cluster.boot_ids(vm)
    arm(cluster.lab.plan, f"{source}/worker", f"migrate.before_send@{vm}:hang")
    try:
        cluster.asked("vm", "migrate", vm, "--to", target)
        cluster.until(lambda: not armed(cluster.lab.plan, f"{source}/worker"), 30, "it is about to be sent")
        at = cluster.lab.power(target, "off")
    finally:
        disarm(cluster.lab.plan, f"{source}/worker")
    cluster.incident_of(target, at)
    cluster.until(lambda: cluster.vm(vm)["state"] == "running", 90, f"{vm} runs")
    writes_on(cluster, vm)
    assert (cluster.boot_ids(vm), cluster.vm(vm)["host"]) == (before, source)
