"""`fangnetz simulate --from-cluster`: the real cluster of today, played on: read only, in its own times and words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fangnetz.core.model import HostDoc, HostState, HypervisorHealth, OffProof, Power, ProofKind, VmState, VmUse
from fangnetz.core.units import HostId, Incarnation, Instant, MiB, VmId
from fangnetz.sim.play import play
from fangnetz.sim.stories.read import read_story

from .board import Board
from .stories import failover, fenced, planned, started

LOST_AT = 100.0
EQUIVALENT = """\
hosts:
  host1: {cpus: 4, memory_mib: 4096}
  host2: {cpus: 4, memory_mib: 4096}
  host3: {cpus: 4, memory_mib: 2048, fencing: []}
controllers: {c1: {}}
vms:
  db2: {host: host2, memory_mib: 1024, priority: 0}
  web1: {host: host1, memory_mib: 512}
  web2: {host: host2, memory_mib: 512}
  web3: {host: host3, memory_mib: 512}
timeline: [{at: 100, power_off: host2}]
"""


@pytest.fixture
def well(board: Board) -> Board:
    """Four VMs on three hosts that report; host1 and host2 can be fenced."""
    board.live()
    board.beat("host1", {"web1": 7})
    board.beat("host2", {"web2": 7, "db2": 7})
    board.beat("host3", {"web3": 7})
    for host in ("host1", "host2", "host3"):
        board.host(host)
    board.bound("host1")
    board.bound("host2")
    board.vm("web1", host="host1")
    board.vm("web2", host="host2")
    board.vm("db2", host="host2", memory=1024)
    board.vm("web3", host="host3")
    board.watch()
    return board


def ask(board: Board, *words: str) -> Any:
    said = board.run("simulate", "--from-cluster", *words, "--json")
    assert (said.code, said.err) == (0, ""), said.err
    assert said.json["schema"] == 1
    return said.json["what_if"]


def vms(answer: Any) -> dict[str, Any]:
    return {vm["name"]: vm for vm in answer["vms"]}


def everything(board: Board) -> dict[bytes, bytes | None]:
    """Every key with its content, as Redis would hand it to a replica."""
    return {key: board.raw.dump(key) for key in board.raw.scan_iter()}  # type: ignore[misc]


# --- what it says ------------------------------------------------------------------------------------------------


def test_it_says_what_a_scenario_of_the_same_cluster_does(well: Board, tmp_path: Path) -> None:
    answer = ask(well, "--lose", "host2")
    file = tmp_path / "same.yaml"
    file.write_text(EQUIVALENT)
    played = play(read_story(file)).data["running"]
    assert {name: vm["to"] for name, vm in vms(answer).items()} == {
        name: copies[-1]["host"] for name, copies in played.items() if len(copies) > 1
    }
    for name, vm in vms(answer).items():
        assert vm["outcome"] == "running"
        assert vm["from"] == "host2"
        assert vm["running_after_s"] == pytest.approx(played[name][-1]["from"] - LOST_AT + 2.0, abs=1.0)
    (host,) = answer["hosts"]
    assert (host["name"], host["state"]) == ("host2", "fenced")
    assert "reads OFF" in host["proof"]
    assert (answer["lose"], answer["loss"], answer["in_charge"], answer["not_saved"]) == (["host2"], "power", "c1", [])


def test_what_was_measured_of_its_vms_is_taken_over(well: Board) -> None:
    def to() -> str:
        return str(vms(ask(well, "--lose", "host2"))["web2"]["to"])

    well.vm("db2", host="host1", memory=100)
    well.vm("web3", host="host3", memory=100)
    busy = VmUse(VmId("web3"), 4.0, MiB(100))
    well.beat(
        "host1", {"web1": 7, "db2": 7}, uses=(VmUse(VmId("web1"), 0.1, MiB(50)), VmUse(VmId("db2"), 0.1, MiB(50)))
    )
    well.beat("host2", {"web2": 7}, uses=(VmUse(VmId("web2"), 0.1, MiB(50)),))
    well.beat("host3", {"web3": 7}, uses=(busy,))
    well.watch()
    well.file.write_text(well.file.read_text() + "policy: {rank_by: measured}\n")
    assert to() == "host1"
    well.beat("host1", {"web1": 7, "db2": 7}, uses=(VmUse(VmId("web1"), 4.0, MiB(50)),))
    well.beat("host3", {"web3": 7}, uses=(busy._replace(cpus=0.1),))
    well.watch()
    assert to() == "host3"


def test_nothing_is_written(well: Board) -> None:
    before = everything(well)
    files = {path: path.read_bytes() for path in well.folder.rglob("*") if path.is_file()}
    ask(well, "--lose", "host2")
    assert everything(well) == before
    assert {path: path.read_bytes() for path in well.folder.rglob("*") if path.is_file()} == files


def test_what_has_no_room_anywhere_is_named_with_the_reason(well: Board) -> None:
    well.vm("big", host="host2", memory=3900)
    well.beat("host2", {"web2": 7, "big": 7})
    well.watch()
    answer = ask(well, "--lose", "host2")
    (missing,) = answer["not_saved"]
    assert (missing["name"], missing["outcome"]) == ("big", "waiting")
    assert "big needs 3900" in missing["reason"]
    assert vms(answer)["web2"]["outcome"] == "running"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda board: board.reading("host2", Power.UNKNOWN, raw="timed out"), "gives no answer"),
        (lambda board: board.bound("host2", matches=None), "not tested"),
        (lambda board: board.bound("host2", matches=False), "is not known to feed host2"),
    ],
    ids=["dark", "not tested", "another host's"],
)
def test_a_device_that_proves_nothing_needs_a_person(well: Board, spoil: Any, said: str) -> None:
    spoil(well)
    answer = ask(well, "--lose", "host2", "--at", "network")
    (host,) = answer["hosts"]
    assert host["state"] == "needs_person"
    assert said in host["reason"]
    assert {vm["outcome"] for vm in answer["vms"]} == {"needs_person"}
    assert {vm["reason"] for vm in answer["not_saved"]} == {host["reason"]}


def test_a_host_cut_off_is_cut_from_power_and_proven_off(well: Board) -> None:
    (host,) = ask(well, "--lose", "host2", "--at", "network")["hosts"]
    assert 0 < host["suspected_after_s"] < host["fence_sent_after_s"] < host["fence_proven_after_s"] < 30


def test_a_host_without_storage_alone_is_left_and_that_is_said(well: Board) -> None:
    answer = ask(well, "--lose", "host2", "--at", "storage")
    assert [(vm["name"], vm["outcome"]) for vm in answer["not_saved"]] == [("db2", "hangs"), ("web2", "hangs")]
    assert answer["hosts"][0]["state"] == "online"


def test_two_of_three_at_once_are_our_own_failure(well: Board) -> None:
    answer = ask(well, "--lose", "host2", "--lose", "host1", "--at", "network")
    assert {vm["outcome"] for vm in answer["vms"]} == {"lost"}
    assert not any(host["fence_sent_after_s"] for host in answer["hosts"])
    assert all("looks like a fault of ours" in lost["reason"] for lost in (*answer["hosts"], *answer["not_saved"]))


def test_the_store_goes_with_its_host(well: Board) -> None:
    well.file.write_text(well.file.read_text().replace("127.0.1.2", "127.0.0.1").replace("0.0.1}", "9.9.9}"))
    answer = ask(well, "--lose", "host2")
    assert {vm["outcome"] for vm in answer["vms"]} == {"lost"}
    assert all("the store was on host2" in vm["reason"] for vm in answer["not_saved"])
    assert "the store was on host2" in answer["hosts"][0]["reason"]


def test_the_only_controller_goes_with_its_host(well: Board) -> None:
    well.file.write_text(
        well.file.read_text().replace("c1: {address: 127.0.0.1}", "c1: {address: 127.0.1.2, host: host2}")
    )
    answer = ask(well, "--lose", "host2")
    assert {vm["outcome"] for vm in answer["vms"]} == {"lost"}
    assert all("no controller that reaches the store is left" in vm["reason"] for vm in answer["not_saved"])
    assert {vm["outcome"] for vm in ask(well, "--lose", "host1")["vms"]} == {"running"}


# --- what it begins with -----------------------------------------------------------------------------------------


def test_times_are_those_of_the_journal_and_defaults_are_said(well: Board) -> None:
    before = ask(well, "--lose", "host1")
    assert before["times"]["start_s"] == {"seconds": 2.0, "samples": 0, "default": True}
    failover(well)
    fenced(well)
    planned(well)
    started(well)
    after = ask(well, "--lose", "host1")
    assert after["times"]["start_s"]["samples"] == 1
    assert after["times"]["start_s"]["seconds"] == pytest.approx(1.25, abs=0.2)
    assert after["times"]["fence_s"]["seconds"] == pytest.approx(0.2, abs=0.01)
    soonest = after["hosts"][0]["fence_proven_after_s"] + after["times"]["start_s"]["seconds"]
    assert all(vm["running_after_s"] >= soonest for vm in after["vms"])


def test_a_host_in_maintenance_takes_nothing(well: Board) -> None:
    well.documents(HostDoc(id=HostId("host1"), maintenance=True, reason="a disk is changed"))
    well.host("host1", HostState.MAINTENANCE, "a disk is changed")
    assert {vm["to"] for vm in vms(ask(well, "--lose", "host2")).values()} == {"host3"}


def test_a_failed_vm_stays_failed_and_a_silent_host_is_taken_as_cut_off(well: Board) -> None:
    well.vm("bad", VmState.FAILED, host="host2", reason="it ended five times in a row")
    well.beat("host3", {"web3": 7}, ago_s=60.0)
    well.watch({"host3": 60.0})
    answer = ask(well, "--lose", "host2")
    assert any("host3 does not report" in sentence for sentence in answer["assumptions"])
    assert {vm["to"] for vm in answer["vms"] if vm["name"] in ("web2", "db2")} <= {"host1", None}
    assert "bad" not in vms(answer)


def test_a_host_whose_libvirt_hangs_takes_nothing(well: Board) -> None:
    well.beat("host1", {"web1": 7}, health=HypervisorHealth.HUNG)
    well.host("host1", HostState.DEGRADED, "its libvirt hangs")
    assert {vm["to"] for vm in vms(ask(well, "--lose", "host2")).values()} <= {"host3", None}


def test_a_host_proven_off_is_off_and_losing_it_changes_nothing(well: Board) -> None:
    well.raw.delete("fn:{demo}:hb:host3")
    boot = Incarnation("boot-of-host3")
    proof = OffProof(
        host=HostId("host3"),
        incarnation=boot,
        kind=ProofKind.OPERATOR,
        proven_at=Instant(well.now - 60),
        sentence="off",
    )
    well.host("host3", HostState.FENCED, "somebody confirmed it off", proof=proof)
    well.vm("web3", VmState.WAITING, host="host3", reason="no host has room")
    well.watch()
    answer = ask(well, "--lose", "host2", "--lose", "host3")
    assert {vm["to"] for vm in answer["vms"]} == {"host1"}
    states = {host["name"]: host["state"] for host in answer["hosts"]}
    assert states == {"host2": "fenced", "host3": "fenced"}
    assert not any("host3" in sentence for sentence in answer["assumptions"])


def test_a_vm_of_a_host_that_the_cluster_file_lacks_is_left_out_and_named(well: Board) -> None:
    well.vm("old", host="host9")
    answer = ask(well, "--lose", "host2")
    assert [sentence for sentence in answer["assumptions"] if "old" in sentence and "host9" in sentence]
    assert "old" not in vms(answer)


def test_a_device_that_was_never_asked_is_taken_to_be_dark(well: Board) -> None:
    well.raw.delete("fn:{demo}:power:host2")
    answer = ask(well, "--lose", "host2")
    assert "ipmi of host2 was never asked: it is taken to be dark" in answer["assumptions"]
    assert answer["hosts"][0]["state"] == "needs_person"


def test_what_a_device_said_of_an_earlier_boot_says_nothing_of_this_one(well: Board) -> None:
    well.reading("host2", Power.OFF, ago_s=30.0)
    well.watch()
    assert not ask(well, "--lose", "host2", "--at", "network")["broken"]


def test_a_law_that_would_break_is_told_and_fails(well: Board) -> None:
    """A device that reads OFF while its host reports lies; with the host cut off, nobody without a lock survives it."""
    well.reading("host2", Power.OFF)
    well.watch()
    said = well.run("simulate", "--from-cluster", "--lose", "host2", "--at", "network", "--json")
    answer = said.json["what_if"]
    assert any("reads OFF while host2 reports" in sentence for sentence in answer["assumptions"])
    assert said.code == 1
    assert {broken["what"] for broken in answer["broken"]} == {"one_writer"}


def test_without_a_controller_it_says_that_nothing_would_be_done(well: Board) -> None:
    well.raw.delete("fn:{demo}:controllers", "fn:{demo}:lease")
    answer = ask(well, "--lose", "host2")
    assert answer["in_charge"] is None
    assert any("no controller looks" in sentence for sentence in answer["assumptions"])


# --- how it is asked ---------------------------------------------------------------------------------------------


def test_a_person_reads_who_goes_where_and_when(well: Board) -> None:
    said = well.run("simulate", "--from-cluster", "--lose", "host2")
    assert said.code == 0
    assert "host2 without power" in said.out
    assert "web2" in said.out
    assert "host2 → host1" in said.out
    assert "2 of 2 VMs would run" in said.out
    assert "a default" in said.out


def test_an_unknown_host_is_one_sentence_with_value_and_rule(well: Board) -> None:
    said = well.run("simulate", "--from-cluster", "--lose", "host9", "--json")
    assert (said.code, said.out) == (1, "")
    assert said.err == "--lose is 'host9': it must be a host of the cluster file, which has host1, host2, host3\n"


@pytest.mark.parametrize(
    "words",
    [["--from-cluster"], ["--lose", "host1"], ["--from-cluster", "--random", "--lose", "host1"],
     ["--from-cluster", "--lose", "host1", "--at", "sea"]],
    ids=" ".join,
)  # fmt: skip
def test_half_a_question_is_wrong_usage(board: Board, words: list[str]) -> None:
    said = board.run("simulate", *words)
    assert (said.code, said.out) == (2, "")


def test_the_same_seed_gives_the_same_answer(well: Board) -> None:
    one, two = (ask(well, "--lose", "host2", "--seed", "4") for _ in range(2))
    assert json.dumps({**one, "at": 0}) == json.dumps({**two, "at": 0})
