"""`operation`, `incident` and `events`: the journal as scripts read it and as people see it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from fangnetz.core.actions import Happened
from fangnetz.core.operations import OperationState, StepState

from .board import Board
from .stories import FAILOVER, failover, fenced, finished_later, lost, planned, started

STEP_KEYS = {
    "key",
    "kind",
    "state",
    "attempt",
    "executor",
    "started_at",
    "ended_at",
    "sentence",
    "facts",
    "progress",
    "order",
}
OPERATION_KEYS = {"id", "kind", "subject", "state", "opened_at", "closed_at", "reason", "sentence", "steps"}
INCIDENT_KEYS = {
    "id", "host", "incarnation", "state", "suspected_at", "confirmed_at", "fence_sent_at", "fence_proven_at",
    "recovered_at", "reason", "evidence", "proof", "vms",
}  # fmt: skip


def test_an_open_operation_has_its_steps_and_no_end(board: Board) -> None:
    lost(board)
    failover(board)
    listed = board.run("operation", "list", "--json").json
    assert (listed["schema"], listed["next"]) == (1, None)
    (item,) = listed["items"]
    assert set(item) == OPERATION_KEYS
    assert (item["id"], item["kind"], item["state"], item["closed_at"]) == (FAILOVER, "failover", "open", None)
    assert [step["key"] for step in item["steps"]] == ["confirm", "fence", "prove", "plan/1", "close"]
    assert set(item["steps"][0]) == STEP_KEYS
    assert (item["steps"][0]["state"], item["steps"][0]["executor"], item["steps"][0]["started_at"]) == (
        "ready", None, None)  # fmt: skip


def test_a_finished_operation_shows_who_did_what_and_for_which_generation(board: Board) -> None:
    lost(board)
    failover(board)
    fenced(board)
    planned(board)
    started(board)
    item = board.run("operation", "show", FAILOVER, "--json").json
    assert (item["schema"], item["state"]) == (1, "done")
    start = next(step for step in item["steps"] if step["key"] == "start/web2/1")
    assert (start["kind"], start["state"], start["attempt"], start["executor"]) == ("start_vm", "done", 1, "c1:work")
    assert start["order"] == {"vm": "web2", "host": "host1", "generation": 7}
    assert start["started_at"] <= start["ended_at"]
    page = board.run("operation", "show", FAILOVER).out
    assert "1 of 2 VMs run" in page
    assert page.index("running/web2/1") < page.index("  close  ")


def test_an_unknown_operation_is_a_sentence(board: Board) -> None:
    board.live()
    said = board.run("operation", "show", "failover-x-1", "--json")
    assert (said.code, said.out) == (1, "")
    assert "no operation failover-x-1" in said.err


def test_an_incident_holds_its_timeline(board: Board) -> None:
    lost(board)
    failover(board, heard_s=6.0)
    fenced(board)
    planned(board)
    started(board)
    item = board.run("incident", "show", FAILOVER, "--json").json
    assert set(item) >= INCIDENT_KEYS
    assert item["schema"] == 1
    order = [item[key] for key in ("last_heard_at", "suspected_at", "fence_sent_at", "fence_proven_at")]
    assert order == sorted(order)
    assert item["suspected_at"] - item["last_heard_at"] == pytest.approx(1.5)
    assert item["recovered_at"] is None, "db2 still waits"
    assert item["proof"]["kind"] == "read_back_off"
    vms = {vm["name"]: vm for vm in item["vms"]}
    assert set(vms["web2"]) == {
        "name", "from", "to", "start_sent_at", "running_at", "guest_up_at", "outcome", "reason"}  # fmt: skip
    assert (vms["web2"]["from"], vms["web2"]["to"], vms["web2"]["outcome"]) == ("host2", "host1", "running")
    assert vms["web2"]["running_at"] - vms["web2"]["start_sent_at"] == pytest.approx(1.25, abs=0.2)
    assert vms["web2"]["guest_up_at"] is None
    assert (vms["db2"]["outcome"], vms["db2"]["to"]) == ("waiting", None)
    assert "db2 needs 4000" in vms["db2"]["reason"]


def test_a_later_start_finishes_what_the_failover_left_waiting(board: Board) -> None:
    lost(board)
    failover(board)
    fenced(board)
    planned(board)
    started(board)
    finished_later(board)
    (item,) = board.run("incident", "list", "--json").json["items"]
    vms = {vm["name"]: vm for vm in item["vms"]}
    assert (vms["db2"]["outcome"], vms["db2"]["to"]) == ("running", "host3")
    assert item["recovered_at"] == vms["db2"]["running_at"] > vms["web2"]["running_at"]


def test_the_timeline_is_drawn_with_every_phase_and_vm(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lost(board)
    failover(board, heard_s=6.0)
    fenced(board)
    planned(board)
    started(board)
    page = board.run("incident", "show").out
    rows = {line[:14].strip(): line for line in page.split("Timeline")[1].split("Evidence")[0].splitlines()}
    for phase in ("detection", "confirm", "fence", "proof", "web2 → host1"):
        assert "━" in rows[phase], page
    assert "waiting" in rows["db2"]
    # The bars follow each other: detection ends before the VM's bar begins.
    assert rows["detection"].rindex("━") < rows["web2 → host1"].index("━")
    assert "+1.5" in rows["detection"]
    assert "probe by c1: no" in page


def test_an_incident_under_way_says_how_far_it_is(board: Board) -> None:
    lost(board)
    failover(board)
    board.settle(FAILOVER, "confirm", "host2 is lost")
    item = board.run("incident", "show", FAILOVER, "--json").json
    assert (item["state"], item["vms"], item["proof"], item["fence_proven_at"]) == ("open", [], None, None)
    assert "╌" in board.run("incident", "show", FAILOVER).out
    assert "none: no VM was started elsewhere" in board.run("incident", "show", FAILOVER).out


def test_an_unproven_host_ends_as_needs_person_with_what_to_do(board: Board) -> None:
    lost(board)
    failover(board)
    board.settle(FAILOVER, "confirm", "host2 is lost")
    sentence = "host2 is lost and could not be proven off. Make sure by hand, then `fangnetz host confirm-off host2`"
    board.settle(FAILOVER, "fence", sentence, state=StepState.FAILED, closes=OperationState.NEEDS_PERSON)
    item = board.run("incident", "show", FAILOVER, "--json").json
    assert (item["state"], item["proof"]) == ("needs_person", None)
    assert sentence in item["evidence"]
    assert "confirm-off host2" in board.run("incident", "list").out.replace("\n", " ")


def test_a_start_is_no_incident(board: Board) -> None:
    lost(board)
    finished_later(board)
    assert board.run("incident", "list", "--json").json["items"] == []
    said = board.run("incident", "show", "start-db2-1")
    assert said.code == 1
    assert "no incident start-db2-1" in said.err


# --- events ------------------------------------------------------------------------------------------------------


def _log(board: Board, *sentences: str) -> None:
    board.store.log(
        [Happened(kind="vm_started", subject="web1", sentence=words, facts={"vm": "web1", "host": "host1"})
         for words in sentences]
    )  # fmt: skip


def test_events_are_one_object_a_line_with_their_facts(board: Board) -> None:
    _log(board, "web1 runs on host1")
    (event,) = board.run("events", "--json").lines
    assert event == {
        "event": event["event"], "at": event["at"], "kind": "vm_started", "subject": "web1",
        "sentence": "web1 runs on host1", "vm": "web1", "host": "host1",
    }  # fmt: skip
    assert abs(event["at"] - board.now) < 60


def test_the_id_of_an_event_is_its_operations_and_its_place_in_the_log_has_another_name(board: Board) -> None:
    board.store.log(
        [Happened(kind="operation_closed", subject="host2", sentence="over",
                  facts={"id": FAILOVER, "kind": "failover", "state": "done"})]
    )  # fmt: skip
    (event,) = board.run("events", "--json").lines
    assert (event["kind"], event["id"], event["operation_kind"]) == ("operation_closed", FAILOVER, "failover")
    assert event["event"] not in ("", FAILOVER)


def test_the_limit_keeps_the_latest(board: Board) -> None:
    _log(board, *(f"number {n}" for n in range(10)))
    shown = board.run("events", "--json", "--limit", "3").lines
    assert [event["sentence"] for event in shown] == ["number 7", "number 8", "number 9"]


def test_follow_prints_what_happens_and_ends_quietly(board: Board) -> None:
    _log(board, "before")
    words = [sys.executable, "-m", "fangnetz.cli.main", "--config", str(board.file), "events", "--follow", "--json"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert '"before"' in child.stdout.readline()
        _log(board, "after")
        began = time.monotonic()
        assert '"after"' in child.stdout.readline()
        assert time.monotonic() - began < 5
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=10)
        assert child.returncode == 0
        assert err == ""
    finally:
        child.kill()
        child.wait()
