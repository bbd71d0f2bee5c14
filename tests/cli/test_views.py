"""What `status`, `host` and `vm` show of a cluster: the shapes scripts rely on, and the evidence people read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.actions import Alarm
from fangnetz.core.model import Answer, HostDoc, HostState, OffProof, Power, ProofKind, SlotSeen, VmState, VmUse, VmWish
from fangnetz.core.units import HostId, Incarnation, Instant, MiB, VmId

from .board import Board
from .stories import failover, lost

HOST_KEYS = {
    "id", "state", "since", "reason", "incarnation", "last_boot", "power", "maintenance", "evacuate", "leaving", "away",
    "stopped",
    "quarantine", "exits",
    "protected", "protection",
    "heartbeat", "vms", "memory_used_mib", "memory_mib", "cpus", "zone", "uses", "slot", "fence", "proof",
    "verdict", "brakes",
    "fencing",
}  # fmt: skip
VM_KEYS = {
    "name", "state", "host", "generation", "since", "reason", "wish", "memory_mib", "cpus", "uses", "priority", "live",
    "evacuate_fallback",
    "rules", "retries",
    "source",
    "operation",
}  # fmt: skip


def test_a_host_list_has_the_stable_shape(board: Board) -> None:
    board.well()
    said = board.run("host", "list", "--json")
    assert said.code == 0, said.err
    assert (said.json["schema"], said.json["next"]) == (1, None)
    hosts = {item["id"]: item for item in said.json["items"]}
    assert set(hosts) == {"host1", "host2", "host3"}
    host = hosts["host1"]
    assert set(host) == HOST_KEYS
    assert (host["state"], host["vms"], host["memory_used_mib"], host["memory_mib"]) == ("online", ["web1"], 512, 4096)
    assert host["incarnation"] == "boot-of-host1"
    assert host["heartbeat"].keys() == {"age_s", "sequence", "hypervisor", "load", "memory_free_mib"}
    assert 0 <= host["heartbeat"]["age_s"] < 60
    assert board.now - 300 < host["since"] < board.now
    assert host["verdict"]["finding"] == "alive"
    assert host["proof"] is None
    (device,) = host["fence"]["devices"]
    assert (device["name"], device["power"], device["binding"]) == ("ipmi", "on", "bound")
    assert abs(board.now - device["asked_at"]) < 60


def test_a_fence_path_is_protected_only_when_it_is_bound(board: Board) -> None:
    board.well()
    hosts = {item["id"]: item for item in board.run("host", "list", "--json").json["items"]}
    assert [hosts[f"host{n}"]["protected"] for n in (1, 2, 3)] == [True, False, False]
    assert hosts["host2"]["protection"] == ["ipmi: binding not tested"]
    shown = board.run("host", "list").out.splitlines()
    words = {line.split()[0]: line for line in shown if line.strip().startswith("host")}
    assert "not protected" not in words["host1"]
    assert "binding not tested" in words["host2"]
    assert "not protected" in words["host3"]


def test_a_host_nobody_has_heard_is_null_where_nothing_is_known(board: Board) -> None:
    board.live()
    board.watch()
    host = board.run("host", "show", "host2", "--json").json
    assert (host["schema"], host["state"]) == (1, "unknown")
    for key in ("since", "incarnation", "power", "heartbeat", "proof"):
        assert host[key] is None, key
    assert host["fence"]["devices"][0]["power"] is None
    assert host["verdict"]["finding"] == "unheard"


def test_without_a_watching_controller_no_host_is_called_alive(board: Board) -> None:
    """The command line has not watched; its own first look must not count as one."""
    board.live()
    board.beat("host1", ago_s=5000)
    board.host("host1")
    host = board.run("host", "show", "host1", "--json").json
    assert host["verdict"] is None
    assert host["heartbeat"]["age_s"] >= 5000
    assert "no controller watches" in host["fencing"]
    assert "no controller watches" in board.run("host", "show", "host1").out


def test_a_lost_host_shows_its_signals_and_the_brake_that_holds_the_cut(board: Board) -> None:
    lost(board, silent_s=6.0)
    board.beat("host3", ago_s=6.0)
    board.bound("host3")
    board.probe(host1=Answer.YES, host2=Answer.NO, host3=Answer.NO)
    board.probe(host1=Answer.YES, host2=Answer.NO, host3=Answer.NO)
    board.watch({"host2": 6.0, "host3": 6.0})
    host = board.run("host", "show", "host2", "--json").json
    assert host["verdict"]["finding"] == "lost"
    assert {"heartbeat", "probe by c1"} <= {signal["source"] for signal in host["verdict"]["signals"]}
    assert {signal["answer"] for signal in host["verdict"]["signals"]} == {"no"}
    kinds = {brake["kind"] for brake in host["brakes"]}
    assert "mass_failure" in kinds
    assert host["fencing"].startswith("It is not fenced: 2 of 3 hosts are silent")
    page = board.run("host", "show", "host2").out
    assert "probe by c1" in page
    assert "brake" in page


def test_maintenance_is_shown_as_a_wish_and_as_a_brake(board: Board) -> None:
    board.well()
    board.documents(HostDoc(id=HostId("host1"), maintenance=True, reason="eva asked for maintenance"))
    board.watch()
    host = board.run("host", "show", "host1", "--json").json
    assert host["maintenance"] is True
    assert [brake["kind"] for brake in host["brakes"]] == ["maintenance"]
    assert "eva asked" in board.run("host", "show", "host1").out


def power_of(board: Board, host: str) -> str | None:
    """Its power as `host list` has it; `host show` says the same."""
    listed = {item["id"]: item["power"] for item in board.run("host", "list", "--json").json["items"]}
    assert board.run("host", "show", host, "--json").json["power"] == listed[host]
    found: str | None = listed[host]
    return found


def test_a_host_that_reports_has_power_whatever_its_device_says(board: Board) -> None:
    board.well()
    board.reading("host1", Power.OFF)
    board.watch()
    assert power_of(board, "host1") == "on"
    assert power_of(board, "host3") == "on", "it has no device at all"


def test_the_power_of_a_silent_host_is_what_its_bound_device_says_and_null_without_an_answer(board: Board) -> None:
    lost(board)
    board.reading("host2", Power.ON)
    assert power_of(board, "host2") == "on"
    board.reading("host2", Power.OFF)
    assert power_of(board, "host2") == "off"
    board.reading("host2", Power.UNKNOWN)
    assert power_of(board, "host2") is None
    board.reading("host2", Power.ON, ago_s=300)
    assert power_of(board, "host2") is None, "an old answer says nothing of now"
    for said in (Power.OFF, Power.ON):
        board.bound("host2", matches=None, power=said, ago_s=0.0)
        assert power_of(board, "host2") is None, "another machine's device may have said so"


def test_a_host_proven_off_has_no_power_until_the_device_of_its_proof_reads_on_again(board: Board) -> None:
    lost(board)
    read = board.reading("host2", Power.OFF)
    proof = OffProof(
        host=HostId("host2"),
        incarnation=Incarnation("boot-of-host2"),
        kind=ProofKind.READ_BACK_OFF,
        proven_at=Instant(board.now),
        sentence="host2 is off",
        evidence=(read,),
    )
    board.host("host2", HostState.FENCED, proof=proof)
    board.reading("host2", Power.UNKNOWN)
    assert power_of(board, "host2") == "off", "nothing was said against the proof"
    board.reading("host2", Power.ON, ago_s=5.0)
    assert power_of(board, "host2") == "off", "that was before it was cut"
    board.reading("host2", Power.ON)
    assert power_of(board, "host2") == "on"
    board.reading("host2", Power.UNKNOWN)
    board.host("host2", HostState.FENCED, proof=replace(proof, void=True))
    assert power_of(board, "host2") is None, "a proof that is void is none"


def test_an_unanswered_fence_device_says_why(board: Board) -> None:
    board.well()
    board.reading("host1", Power.UNKNOWN, raw="no answer within 2 s")
    board.watch()
    (device,) = board.run("host", "show", "host1", "--json").json["fence"]["devices"]
    assert (device["power"], device["raw"]) == ("unknown", "no answer within 2 s")
    assert "no answer within 2 s" in board.run("host", "show", "host1").out


def test_an_unknown_host_is_refused_with_those_there_are(board: Board) -> None:
    board.well()
    said = board.run("host", "show", "host9")
    assert (said.code, said.out) == (1, "")
    assert said.err == "host9 is no host of this cluster; it has host1, host2, host3\n"


def test_a_vm_list_has_the_stable_shape(board: Board) -> None:
    board.well()
    said = board.run("vm", "list", "--json").json
    assert (said["schema"], said["next"]) == (1, None)
    vms = {item["name"]: item for item in said["items"]}
    assert list(vms) == ["db1", "web1", "web2", "web3"]
    assert set(vms["web1"]) == VM_KEYS
    assert (vms["web1"]["state"], vms["web1"]["host"], vms["web1"]["generation"]) == ("running", "host1", 7)
    assert (vms["db1"]["state"], vms["db1"]["host"]) == ("waiting", None)
    assert "db1 needs 4000" in vms["db1"]["reason"]
    assert "db1 needs 4000" in board.run("vm", "list").out


def test_zones_are_shown_where_there_are_any(board: Board) -> None:
    board.well()
    assert "zone" not in board.run("host", "list").out
    assert "zone" not in board.run("host", "show", "host1").out
    assert board.run("host", "show", "host1", "--json").json["zone"] is None
    board.file.write_text(board.file.read_text().replace("address: 127.0.1.1", "address: 127.0.1.1\n    zone: cellar"))
    assert "cellar" in board.run("host", "list").out
    assert "cellar" in board.run("host", "show", "host1").out
    zones = {item["id"]: item["zone"] for item in board.run("host", "list", "--json").json["items"]}
    assert zones == {"host1": "cellar", "host2": None, "host3": None}


def test_what_is_in_use_is_shown_where_it_is_measured(board: Board) -> None:
    board.well()
    board.vm("new1", host="host1", memory=100)
    assert board.run("vm", "show", "web1", "--json").json["uses"] is None
    assert "in use" not in board.run("host", "show", "host1").out
    board.file.write_text(board.file.read_text() + "policy: {rank_by: measured}\n")
    board.beat("host1", {"web1": 7, "new1": 7}, uses=(VmUse(VmId("web1"), 1.25, MiB(300)),))
    assert board.run("vm", "show", "web1", "--json").json["uses"] == {"cpus": 1.25, "memory_mib": 300}
    assert board.run("vm", "show", "new1", "--json").json["uses"] is None
    assert board.run("host", "show", "host1", "--json").json["uses"] == {
        "cpus": 2.25, "memory_mib": 400, "not_measured": ["new1"],
    }  # fmt: skip
    assert "1.25 CPUs, 300 MiB" in board.run("vm", "show", "web1").out
    assert "counts as configured" in board.run("vm", "show", "new1").out
    assert "as configured: new1" in board.run("host", "show", "host1").out


def test_a_hosts_slot_is_shown_where_slots_are_used(board: Board) -> None:
    board.well()
    assert board.run("host", "show", "host1", "--json").json["slot"] is None
    assert "slot" not in board.run("host", "show", "host1").out
    seen = SlotSeen(HostId("host1"), Incarnation("boot-of-host1"), Instant(1.0), Instant(2.0), Instant(3.0))
    board.beat("host2", slot_waits_s=0.0, slots=(seen,))
    for waits, told, said in (
        (-1.0, None, "not written yet, read by host2"),
        (0.0, 0.0, "written, read by host2"),
        (7.2, 7.2, "not written for 7 s, read by host2"),
    ):
        board.beat("host1", {"web1": 7}, slot_waits_s=waits)
        assert board.run("host", "show", "host1", "--json").json["slot"] == {"waits_s": told, "read_by": ["host2"]}
        assert said in board.run("host", "show", "host1").out
    assert "written, read by nobody" in board.run("host", "show", "host2").out


def test_a_vm_that_is_only_defined_waits_for_a_controller(board: Board) -> None:
    from fangnetz.settings import vm_doc_from_xml

    from .board import domain

    board.live()
    board.documents(vm_doc_from_xml(domain("new1"), priority=3))
    vm = board.run("vm", "show", "new1", "--json").json
    assert (vm["state"], vm["host"], vm["generation"], vm["since"]) == ("waiting", None, None, None)
    assert (vm["priority"], vm["wish"]) == (3, "running")


def test_a_stopped_vm_keeps_its_host_but_takes_no_room(board: Board) -> None:
    board.well()
    board.vm("off1", VmState.STOPPED, host="host1", wish=VmWish.STOPPED)
    assert board.run("vm", "show", "off1", "--json").json["host"] == "host1"
    hosts = {item["id"]: item for item in board.run("host", "list", "--json").json["items"]}
    assert hosts["host1"]["vms"] == ["web1"]
    assert hosts["host1"]["memory_used_mib"] == 512


def test_status_names_who_decides_and_everything_open(board: Board) -> None:
    lost(board)
    failover(board)
    board.store.put_alarms(
        (
            Alarm(kind="vm_waiting", subject="db1", sentence="db1 waits"),
            Alarm(kind="proof_void", subject="host3", sentence="host3 speaks again", highest=True),
        ),
        board.epoch,
    )
    status = board.run("status", "--json").json
    assert (status["schema"], status["cluster"]) == (1, "demo")
    assert (status["lease"]["holder"], status["lease"]["epoch"], status["lease"]["held"]) == ("c1", board.epoch, True)
    assert status["store"]["since"] == pytest.approx(board.now - 7200, abs=60)
    assert [host["id"] for host in status["hosts"]] == ["host1", "host2", "host3"]
    assert [op["subject"] for op in status["operations"]] == ["host2"]
    assert [alarm["kind"] for alarm in status["alarms"]] == ["proof_void", "vm_waiting"], "highest first"
    shown = board.run("status").out
    for words in ("c1 decides", "Open operations", "failover-host2-1", "host3 speaks again", "● lost"):
        assert words in shown
    assert shown.index("proof_void") < shown.index("vm_waiting")


def test_status_without_a_holder_says_that_nobody_decides(board: Board) -> None:
    board.live(lease_s=0.001)
    board.host("host1", HostState.ONLINE)
    status = board.run("status", "--json").json
    assert status["lease"]["held"] is False
    assert "nobody decides" in board.run("status").out


def test_status_of_a_fresh_store_shows_what_the_file_defines(board: Board) -> None:
    status = board.run("status", "--json").json
    assert status["lease"] is None
    assert status["store"] == {"incarnation": None, "since": None}
    assert [(host["id"], host["state"]) for host in status["hosts"]] == [
        ("host1", "unknown"), ("host2", "unknown"), ("host3", "unknown")]  # fmt: skip
    assert board.raw.keys("*") == [], "looking must leave nothing behind"


@pytest.mark.parametrize("columns", ["80", "140"])
def test_no_line_is_wider_than_the_terminal(board: Board, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lost(board)
    failover(board)
    for words in (["status"], ["host", "list"], ["host", "show", "host2"], ["vm", "list"], ["incident", "show"]):
        lines = board.run(*words).out.splitlines()
        assert lines
        assert max(map(len, lines)) <= int(columns), words
