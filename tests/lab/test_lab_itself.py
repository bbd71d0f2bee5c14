"""The lab without Fangnetz in it: what it does to its hosts really happens, and when it goes it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fangnetz.lab import Lab, LabError
from fangnetz.lab.names import root_folder, tag_of
from fangnetz.lab.stage import own_name

NAME = own_name("itself")
OTHER = own_name("beside")

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    Lab.remove(NAME)
    with Lab.up(name=NAME, hosts=2, vms=2, bare=True) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _all_well_again(lab: Lab) -> Iterator[None]:
    """Each test finds both hosts on, nothing cut or frozen, honest BMCs and no VM running."""
    yield
    for host in lab.plan.hosts:
        lab.bmc(host, "ok")
        lab.heal(host)
        lab.power(host, "off")
        lab.power(host, "on")
    eventually(lambda: all(libvirt_answers(lab, host) for host in lab.plan.hosts))


def eventually(true: Callable[[], object], within_s: float = 30) -> float:
    """Wait until something holds; return the instant it was first seen to hold."""
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)
    return time.time()


def pings(lab: Lab, node: str) -> bool:
    command = ["fping", "-q", "-r0", "-t200", str(lab.plan.address(node))]
    return subprocess.run(command, capture_output=True).returncode == 0


def libvirt_answers(lab: Lab, host: str) -> bool:
    try:
        lab.in_host(host, "virsh", "-q", "-c", "qemu:///system", "list")
    except LabError:
        return False
    return True


def ipmi(lab: Lab, host: str, *words: str) -> tuple[int, str]:
    device = next(each["bmc"] for each in lab.status()["hosts"] if each["id"] == host)
    password = Path(device["password_file"]).read_text().strip()
    command = ["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "1", "-H", device["address"]]
    done = subprocess.run([*command, "-U", "admin", "-P", password, *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip()


def boots(lab: Lab, vm: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.witness()["vms"][vm]["boots"]
    return found


def start_and_see(lab: Lab, host: str, vm: str) -> dict[str, Any]:
    before = len(boots(lab, vm))
    lab.start_behind_back(host, vm)
    eventually(lambda: len(boots(lab, vm)) > before)
    return boots(lab, vm)[before]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fangnetz.cli.lab", *words], capture_output=True, text=True, timeout=120
    )


def test_status_names_every_process_with_machine_role_and_pid(lab: Lab) -> None:
    found = {(each["host"], each["role"]) for each in lab.status()["processes"]}
    for host in lab.plan.hosts:
        assert {(host, "libvirtd"), (host, "virtlogd"), (host, "virtlockd"), (host, "init")} <= found
        assert (f"bmc-{host}", "bmc") in found
    assert {("redis", "redis"), ("storage", "tgtd"), ("root", "witness")} <= found


def test_a_pulled_plug_silences_the_host_at_once_and_its_bmc_says_so(lab: Lab) -> None:
    start_and_see(lab, "host1", "vm1")
    before = time.time()
    at = lab.power("host1", "off")
    assert before <= at <= time.time()
    assert not pings(lab, "host1")
    assert pings(lab, "host2")
    assert [each for each in lab.status()["processes"] if each["host"] == "host1"] == []
    assert ipmi(lab, "host1", "chassis", "power", "status") == (0, "Chassis Power is off")
    wrote = boots(lab, "vm1")[-1]["writes"]
    time.sleep(1)
    assert boots(lab, "vm1")[-1]["writes"] == wrote
    lab.power("host1", "on")
    eventually(lambda: libvirt_answers(lab, "host1"))
    assert "vm1" not in lab.in_host("host1", "virsh", "-q", "-c", "qemu:///system", "list", "--all")


def test_the_bmc_switches_the_power_and_names_itself_alike_in_band_and_over_lan(lab: Lab) -> None:
    code, _ = ipmi(lab, "host1", "chassis", "power", "off")
    assert code == 0
    eventually(lambda: ipmi(lab, "host1", "chassis", "power", "status")[1] == "Chassis Power is off", 2)
    assert not pings(lab, "host1")
    assert ipmi(lab, "host1", "chassis", "power", "on")[0] == 0
    eventually(lambda: pings(lab, "host1"))
    over_lan = ipmi(lab, "host1", "raw", "6", "0x37")[1].replace(" ", "").replace("\n", "")
    assert over_lan in lab.in_host("host1", "cat", "/run/bmc-guid").replace("-", "")
    assert over_lan != ipmi(lab, "host2", "raw", "6", "0x37")[1].replace(" ", "").replace("\n", "")


def test_a_lying_bmc_says_off_and_kills_nothing(lab: Lab) -> None:
    lab.bmc("host1", "lying")
    assert ipmi(lab, "host1", "chassis", "power", "status") == (0, "Chassis Power is on")
    assert ipmi(lab, "host1", "chassis", "power", "off")[0] == 0
    assert ipmi(lab, "host1", "chassis", "power", "status") == (0, "Chassis Power is off")
    assert pings(lab, "host1")
    assert libvirt_answers(lab, "host1")


def test_a_dark_bmc_and_a_wrong_password_give_no_answer_and_ok_heals_them(lab: Lab) -> None:
    for mode in ("dark", "wrong-password"):
        lab.bmc("host1", mode)
        assert ipmi(lab, "host1", "chassis", "power", "status")[0] != 0
        lab.bmc("host1", "ok")
        assert ipmi(lab, "host1", "chassis", "power", "status") == (0, "Chassis Power is on")


@pytest.mark.parametrize("direction", ["both", "in", "out"])
def test_a_cut_silences_one_link_and_outlives_a_power_cycle(lab: Lab, direction: Any) -> None:
    start_and_see(lab, "host1", "vm1")
    lab.cut("host1", direction=direction)
    assert not pings(lab, "host1")
    wrote = boots(lab, "vm1")[-1]["writes"]
    eventually(lambda: boots(lab, "vm1")[-1]["writes"] > wrote + 4)  # its storage link is another one
    lab.power("host1", "off")
    lab.power("host1", "on")
    eventually(lambda: libvirt_answers(lab, "host1"))
    assert not pings(lab, "host1")
    lab.heal("host1")
    eventually(lambda: pings(lab, "host1"), 5)


def test_a_storage_cut_stops_the_writes_and_healing_it_lets_the_same_boot_go_on(lab: Lab) -> None:
    boot = start_and_see(lab, "host1", "vm1")["boot"]
    lab.cut("host1", "storage")
    assert pings(lab, "host1")
    time.sleep(0.5)
    wrote = boots(lab, "vm1")[-1]["writes"]
    time.sleep(1)
    assert boots(lab, "vm1")[-1]["writes"] == wrote
    lab.heal("host1", "storage")
    eventually(lambda: boots(lab, "vm1")[-1]["writes"] > wrote)
    assert boots(lab, "vm1")[-1]["boot"] == boot


def test_a_frozen_host_is_deaf_and_its_guests_stand_still_until_it_thaws(lab: Lab) -> None:
    start_and_see(lab, "host1", "vm1")
    lab.freeze("host1")
    assert not pings(lab, "host1")
    time.sleep(0.3)
    wrote = boots(lab, "vm1")[-1]["writes"]
    time.sleep(1)
    assert boots(lab, "vm1")[-1]["writes"] == wrote
    assert ipmi(lab, "host1", "chassis", "power", "status") == (0, "Chassis Power is on")
    lab.thaw("host1")
    eventually(lambda: pings(lab, "host1") and boots(lab, "vm1")[-1]["writes"] > wrote)
    assert lab.witness()["vms"]["vm1"]["gaps"][-1]["seconds"] > 1


def test_one_frozen_role_leaves_the_rest_of_the_machine_alone(lab: Lab) -> None:
    start_and_see(lab, "host1", "vm1")
    lab.freeze("host1/libvirtd")
    frozen = {each["role"] for each in lab.status()["processes"] if each["state"] == "frozen"}
    assert frozen == {"libvirtd"}
    assert pings(lab, "host1")
    wrote = boots(lab, "vm1")[-1]["writes"]
    eventually(lambda: boots(lab, "vm1")[-1]["writes"] > wrote)
    lab.thaw("host1/libvirtd")
    assert libvirt_answers(lab, "host1")


def test_a_copy_started_behind_every_back_is_reported_within_a_second(lab: Lab) -> None:
    first = start_and_see(lab, "host1", "vm1")
    assert lab.witness()["vms"]["vm1"]["overlaps"] == []
    second = start_and_see(lab, "host2", "vm1")
    reported_at = eventually(lambda: lab.witness()["overlaps"])
    assert reported_at - second["first_at"] < 1
    assert lab.witness()["overlaps"][0]["boots"] == [first["boot"], second["boot"]]
    assert lab.witness()["vms"]["vm2"]["overlaps"] == []


def test_a_live_migration_keeps_the_boot(lab: Lab) -> None:
    boot = start_and_see(lab, "host1", "vm2")["boot"]
    address = lab.plan.address("host2")
    uris = (f"qemu+tcp://{address}/system", f"tcp://{address}")
    lab.in_host("host1", "virsh", "-q", "-c", "qemu:///system", "migrate", "--live", "--p2p", "vm2", *uris)
    wrote = boots(lab, "vm2")[-1]["writes"]
    eventually(lambda: boots(lab, "vm2")[-1]["writes"] > wrote + 4)
    assert boots(lab, "vm2")[-1]["boot"] == boot
    assert lab.witness()["vms"]["vm2"]["overlaps"] == []


def test_a_guest_hears_its_power_button(lab: Lab) -> None:
    start_and_see(lab, "host1", "vm2")
    time.sleep(1)
    lab.in_host("host1", "virsh", "-q", "-c", "qemu:///system", "shutdown", "vm2")
    listed = ("virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name")
    eventually(lambda: "vm2" not in lab.in_host("host1", *listed))


def test_what_cannot_be_done_is_one_sentence_and_exit_1(lab: Lab) -> None:
    for words in (
        ("power", "host9", "off"),
        ("cut", "host9"),
        ("cut", "redis", "--link", "storage"),
        ("freeze", "host1/no-such-role"),
        ("freeze", "1"),
        ("bmc", "c1", "dark"),
    ):
        done = command(*words, "--name", lab.name)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert len(done.stderr.strip().splitlines()) == 1, words
    assert command("status", "--name", "no-such-lab").returncode == 1
    for words in (
        ("power", "host1", "sideways"),
        ("bmc", "host1", "tired"),
        ("up", "--hosts", "many"),
        ("up", "--name", "A/B"),
    ):
        assert command(*words).returncode == 2, words


def test_verbs_answer_with_the_instant(lab: Lab) -> None:
    before = time.time()
    done = command("cut", "host1", "--direction", "out", "--name", lab.name, "--json")
    assert before <= json.loads(done.stdout)["at"] <= time.time()


def test_two_labs_live_side_by_side_and_the_lease_refuses_a_second_start(lab: Lab) -> None:
    before = machine()
    with Lab.up(name=OTHER, hosts=2, vms=1, bare=True, storage_lock=True) as other:
        assert other.plan.subnet != lab.plan.subnet
        start_and_see(other, "host1", "vm1")
        with pytest.raises(LabError):
            other.start_behind_back("host2", "vm1")
        other.power("host1", "off")
        start_and_see(other, "host2", "vm1")  # the lease died with its holder
        assert other.witness()["overlaps"] == []
        assert pings(lab, "host1")
        with pytest.raises(LabError, match="is up already"):
            Lab.up(name=OTHER, bare=True)
    assert machine() == before
    assert libvirt_answers(lab, "host1")
    assert lab.witness()["at"] > time.time() - 2


def test_up_cleans_what_a_crash_left_and_down_is_idempotent(lab: Lab) -> None:
    before = machine()
    try:
        crashed = Lab.up(name=OTHER, hosts=1, vms=1, bare=True)
        start_and_see(crashed, "host1", "vm1")
        for each in crashed.status()["processes"]:
            if each["role"] in ("tgtd", "witness", "redis.supervisor"):
                os.kill(each["pid"], signal.SIGKILL)
        with Lab.up(name=OTHER, hosts=1, vms=1, bare=True) as again:
            start_and_see(again, "host1", "vm1")
            again.down()
    finally:
        Lab.remove(OTHER)
    Lab.remove(OTHER)
    assert machine() == before


def machine() -> dict[str, object]:
    """What a lab may leave behind: namespaces, links, mounts, folders, processes of the lab beside ours."""
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    tag = tag_of(OTHER)
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"FANGNETZ_LAB_PROCESS={OTHER}:".encode() in (path / "environ").read_bytes():
                processes.append((path / "cmdline").read_bytes())
        except OSError:
            continue
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if tag in line or OTHER in line]
    netns = Path("/run/netns")
    return {
        "links": sorted(link["ifname"] for link in links if link["ifname"].startswith(f"fn{tag}")),
        "namespaces": sorted(path.name for path in netns.iterdir() if tag in path.name) if netns.is_dir() else [],
        "mounts": mounts,
        "processes": processes,
        "folders": sorted(path.name for path in root_folder().iterdir() if OTHER in path.name),
    }
