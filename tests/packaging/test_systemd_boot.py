"""An orderly shutdown under a real systemd as PID 1: the units themselves, with Debian's own for libvirt and Redis.

Only `fangnetz-worker` is a recorder: it asks systemd with the product's own code, holds the goodbye for a few seconds,
and writes down what was up at its end. Network and shared storage are stand-ins that are ordered as real ones.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fangnetz.adapters.boot_files import LEAVING_FILE
from fangnetz.core.leaving import goodbye_bound_s
from fangnetz.core.policy import Policy
from tests.packaging.systemd_boot.machine import HERE, PROJECT, Machine, missing, until_true

# A store that nobody answers at: the real goodbye then gives up after startup_grace_s.
CLUSTER = """
cluster: demo
redis: {url: "redis://127.0.0.1:1/0"}
controllers: {c1: {address: 10.0.0.3}, c2: {address: 10.0.0.4}}
references: [10.0.0.1]
hosts:
  h1:
    address: 10.0.0.11
    cpus: 2
    memory_mib: 1000
    fencing: [[{name: ipmi, driver: ipmi, address: 10.0.2.11, username: f, password_env: NONE}]]
policy: {startup_grace_s: 10}
"""

pytestmark = [
    pytest.mark.soak,  # each boots a machine: half a minute
    pytest.mark.skipif(bool(missing()), reason=missing() or "never"),  # a container has no cgroups to boot one in
]

SOCKETS = {"libvirtd.socket", "virtlogd.socket", "virtlockd.socket"}
ALWAYS = SOCKETS | {
    "fangnetz-host.service",
    "libvirt-guests.service",
    "virt-guest-shutdown.target",
    "test-network.service",
    "srv-images.mount",
}
CONTROLLER = {f"fangnetz-{role}.service" for role in ("control", "work", "fence", "beat")}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as booted:
        yield booted


def start_guest(machine: Machine) -> None:
    """A real QEMU under a real libvirtd, and beside it the scope that libvirt asks machined for, where it can."""
    machine.run("virsh", "-c", "qemu:///system", "create", str(HERE / "guest.xml"))
    scope = ["--property=After=libvirtd.service", "--property=Before=virt-guest-shutdown.target"]
    machine.run("systemd-run", "--unit=test-machine", "--slice=machine.slice", *scope, "sleep", "infinity")


def goodbye(machine: Machine, verb: str, ends_with: signal.Signals) -> dict[str, Any]:
    before = len(machine.calls())
    machine.run("systemctl", verb)
    assert machine.wait_for_the_end() == ends_with
    told = machine.calls()[before:]
    assert [line["call"] for line in told] == ["leave"], "one goodbye, and nothing is started after it"
    return told[0]


@pytest.mark.parametrize(
    ("verb", "how", "ends_with"),
    [
        ("poweroff", "shutdown", signal.SIGINT),
        ("halt", "shutdown", signal.SIGINT),
        ("reboot", "reboot", signal.SIGHUP),
    ],
)
def test_a_shutdown_waits_for_the_goodbye_before_anything_is_stopped(
    machine: Machine, verb: str, how: str, ends_with: signal.Signals
) -> None:
    assert "stay" in [line["call"] for line in machine.calls()], "the boot takes back what an earlier one announced"
    start_guest(machine)
    told = goodbye(machine, verb, ends_with)
    assert told["how"] == how
    assert ALWAYS | {"libvirtd.service", "test-machine.service"} <= set(told["up"])
    assert (told["network"], told["storage"], told["qemu"]) == (True, True, True)


def test_a_libvirtd_that_has_gone_idle_holds_nothing_up_and_yet_all_of_it_waits(machine: Machine) -> None:
    machine.run("systemctl", "stop", "libvirtd.service", "virtlogd.service")  # as after its --timeout without VMs
    told = goodbye(machine, "poweroff", signal.SIGINT)
    assert set(told["up"]) >= ALWAYS
    assert (told["network"], told["storage"]) == (True, True)


def test_a_controller_and_a_store_on_the_same_machine_outlive_the_goodbye(machine: Machine) -> None:
    machine.run("systemctl", "start", "redis-server.service", "fangnetz-controller.target")
    told = goodbye(machine, "reboot", signal.SIGHUP)
    assert set(told["up"]) >= ALWAYS | CONTROLLER | {"redis-server.service"}


def test_a_machine_that_runs_on_says_no_goodbye(machine: Machine) -> None:
    before = len(machine.calls())
    machine.run("systemctl", "restart", "fangnetz-host.service")
    machine.run("systemctl", "stop", "fangnetz-host.service")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "fangnetz-host.service")
    machine.run("systemctl", "restart", "libvirtd.service", "test-network.service")
    assert [line["call"] for line in machine.calls()[before:]] == ["host", "host"]

    machine.run("systemctl", "restart", "fangnetz-leave.service")
    leave, stay = machine.calls()[before + 2 :]
    assert (leave["call"], leave["how"], stay["call"]) == ("leave", "no", "stay")


@pytest.mark.parametrize(
    ("verb", "how", "ends_with"), [("poweroff", "shutdown", signal.SIGINT), ("reboot", "reboot", signal.SIGHUP)]
)
def test_the_real_goodbye_announces_it_and_holds_up_no_machine_for_ever(
    machine: Machine, verb: str, how: str, ends_with: signal.Signals
) -> None:
    (machine.shared / "cluster.yaml").write_text(CLUSTER)
    machine.run("cp", "/shared/cluster.yaml", "/etc/fangnetz/cluster.yaml")
    machine.run("systemctl", "restart", "fangnetz-leave.service")
    assert machine.run("systemctl", "is-active", "fangnetz-leave.service").strip() == "active", "without any store"
    assert announced(machine) == "no"

    began_at = time.monotonic()
    machine.run("systemctl", verb)
    until_true(lambda: announced(machine) == how, 10.0, f"{how} is not announced")
    assert machine.run("systemctl", "is-active", "fangnetz-host.service").strip() == "active"
    assert machine.wait_for_the_end() == ends_with
    assert time.monotonic() - began_at >= 10.0, "startup_grace_s"


def announced(machine: Machine) -> str:
    """Return what the host worker would read of the goodbye in its next heartbeat."""
    note = machine.run("cat", f"/run/fangnetz/{LEAVING_FILE}", check=False)
    return str(json.loads(note)["how"]) if note else "no"


def test_systemd_is_patient_for_as_long_as_a_goodbye_may_take(machine: Machine) -> None:
    """With the defaults and sixty VMs of which none moves or obeys; and longer, raised as docs/leaving.md says."""
    leave_s, forced_s = patience(machine)
    assert forced_s > leave_s >= goodbye_bound_s(Policy(), 60), "the rest is still stopped in order"

    text = (PROJECT / "docs" / "leaving.md").read_text()
    [commands] = [block for block in text.split("```sh\n")[1:] if "JobTimeoutSec" in block.split("```")[0]]
    machine.run("sh", "-ec", commands.split("```")[0])
    assert patience(machine) == (3600.0, 3720.0)


def patience(machine: Machine) -> tuple[float, float]:
    """Return for how many seconds systemd waits for the goodbye, and when at the latest it forces the machine off."""
    leave = machine.run("systemctl", "show", "-P", "TimeoutStopUSec", "fangnetz-leave.service")
    targets = ("poweroff.target", "reboot.target")
    forced = [machine.run("systemctl", "show", "-P", "JobTimeoutUSec", name) for name in targets]
    return in_seconds(leave), min(in_seconds(each) for each in forced)


def in_seconds(span: str) -> float:
    """Return what systemd's own way of writing a span means, e.g. `29min 30s`."""
    units = {"h": 3600.0, "min": 60.0, "s": 1.0}
    return sum(float(word.rstrip("hmins")) * units[word.lstrip("0123456789.")] for word in span.split())
