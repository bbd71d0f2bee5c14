"""The compose file and the systemd units start the same processes, and their own tools accept both."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "config" / "systemd"
ROLES = {"host", "control", "work", "fence", "beat", "flower"}
CONTROLLER_ROLES = {"control", "work", "fence", "beat"}

Unit = dict[str, dict[str, list[str]]]


def read_unit(path: Path) -> Unit:
    """Section -> key -> values in order; an empty value resets the list, as systemd has it."""
    unit: Unit = {}
    section = ""
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            unit.setdefault(section, {})
            continue
        key, _, value = line.partition("=")
        values = unit[section].setdefault(key, [])
        values.append(value) if value or key == "CapabilityBoundingSet" else values.clear()
    return unit


def units() -> dict[str, Unit]:
    return {path.stem.removeprefix("fangnetz-"): read_unit(path) for path in UNITS.glob("*.service")}


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def processes() -> dict[str, dict[str, Any]]:
    """The services that run a Fangnetz process."""
    services = compose()["services"]
    return {name: service for name, service in services.items() if name != "redis"}


def role_of(service_name: str) -> str:
    return service_name.rsplit("-", 1)[-1]


def test_there_is_one_unit_for_every_role() -> None:
    assert set(units()) == ROLES | {"leave"}


def test_a_host_says_goodbye_before_anything_it_needs_is_stopped() -> None:
    unit = units()["leave"]
    before = " ".join(unit["Unit"]["After"]).split()  # stopped in the reverse order
    needed = {"fangnetz-host.service", "virt-guest-shutdown.target", "libvirt-guests.service", "remote-fs.target"}
    needed |= {"libvirtd.service", "libvirtd.socket", "network.target", "network-online.target"}
    assert needed | {f"fangnetz-{role}.service" for role in CONTROLLER_ROLES} <= set(before)
    assert not unit["Unit"].get("Requires")
    assert not unit["Unit"].get("BindsTo")
    service = unit["Service"]
    assert (service["Type"], service["RemainAfterExit"]) == (["oneshot"], ["yes"])
    assert shlex.split(service["ExecStop"][0])[1:] == ["leave"]
    assert shlex.split(service["ExecStart"][0])[1:] == ["stay"]


def test_compose_and_systemd_start_the_same_commands() -> None:
    for name, service in processes().items():
        exec_start = units()[role_of(name)]["Service"]["ExecStart"]
        assert [shlex.split(command) for command in exec_start] == [service["command"]], name


def test_each_of_two_controllers_runs_all_its_processes_once() -> None:
    seen = {
        (service["environment"]["FANGNETZ_CONTROLLER"], role_of(name))
        for name, service in processes().items()
        if name != "flower"
    }
    assert seen == {(controller, role) for controller in ("c1", "c2") for role in CONTROLLER_ROLES}
    assert len(processes()) == len(seen) + 1


def test_the_controller_target_wants_exactly_the_controllers_units() -> None:
    target = read_unit(UNITS / "fangnetz-controller.target")
    wanted = set(target["Unit"]["Wants"][0].split())
    assert wanted == {f"fangnetz-{role}.service" for role in CONTROLLER_ROLES}
    for role in CONTROLLER_ROLES:
        assert units()[role]["Unit"]["PartOf"] == ["fangnetz-controller.target"]


def test_stopping_the_host_worker_leaves_its_vms_and_its_promises() -> None:
    service = units()["host"]["Service"]
    assert service["KillMode"] == ["process"]
    assert service["RuntimeDirectory"] == ["fangnetz"]
    assert service["RuntimeDirectoryPreserve"] == ["yes"]
    assert "libvirtd.service" in units()["host"]["Unit"]["After"][0].split()
    assert "libvirtd.service" not in " ".join(units()["host"]["Unit"].get("Requires", []))


def test_every_process_is_restarted_for_ever() -> None:
    for role in ROLES:
        unit = units()[role]
        assert unit["Service"]["Restart"] == ["always"], role
        assert unit["Unit"]["StartLimitIntervalSec"] == ["0"], role
        assert unit["Service"]["EnvironmentFile"] == ["/etc/fangnetz/environment"], role


def test_no_secret_stands_in_units_or_compose() -> None:
    for path in [*UNITS.iterdir(), ROOT / "compose.yaml", ROOT / "config" / "redis" / "redis.conf"]:
        for line in path.read_text().splitlines():
            if not line.lstrip().startswith("#"):
                assert not re.search(r"(password|requirepass|secret)\s*[=:]?\s*\S", line, re.IGNORECASE) or (
                    path.suffix == ".md"
                ), f"{path.name}: {line}"


def test_compose_names_only_volumes_and_services_it_defines() -> None:
    document = compose()
    for name, service in document["services"].items():
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{[^}]*\}", "/variable", volume).split(":")[0]
            if not source.startswith(("/", "./")):
                assert source in document["volumes"], f"{name}: {volume}"
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {volume}"
        for needed in service.get("depends_on", {}):
            assert needed in document["services"], f"{name}: {needed}"
        if "build" in service:
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def has_docker_compose() -> bool:
    """The docker client alone is not enough: `compose` is a plugin of its own."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_docker_compose(), reason="needs docker with its compose plugin (no Debian package)")
def test_docker_compose_accepts_the_file() -> None:
    done = subprocess.run(
        ["docker", "compose", "-f", str(ROOT / "compose.yaml"), "config", "-q"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    # In a root of its own, with the program the units name, so that every complaint is about a unit.
    folder = tmp_path / "etc/systemd/system"
    shutil.copytree(UNITS, folder)
    for target in ("sysinit", "basic", "shutdown", "multi-user", "network-online", "virt-guest-shutdown"):
        (folder / f"{target}.target").write_text("[Unit]\nDescription=of the distribution\n")
    program = tmp_path / "opt/fangnetz/venv/bin/fangnetz-worker"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    names = sorted(path.name for path in folder.glob("fangnetz-*"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *names],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    ours = [line for line in done.stderr.splitlines() if "fangnetz" in line]
    assert not ours, "\n".join(ours)
