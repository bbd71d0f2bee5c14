"""Wishes: asked for on the command line, answered by a real controller, followed to their end in the journal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fangnetz.cli import _wish
from fangnetz.cli._follow import follow_vm
from fangnetz.cli._session import open_session
from fangnetz.core.model import UNKNOWN_BOOT, HostDoc, VmState, VmWish, WishKind
from fangnetz.core.operations import OperationKind, OperationState, StepState
from fangnetz.core.rules import as_tree
from fangnetz.core.units import HostId, Incarnation, VmId

from .board import Board, Ticking, domain

BEATS = {"host1": {"web1": 7}, "host2": {"web2": 7}, "host3": {"web3": 7}}


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    file = tmp_path / "new1.xml"
    file.write_text(domain("new1"))
    return file


def test_no_controller_means_no_answer_and_the_wish_stays(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wish, "ANSWER_S", 0.5)
    board.well()
    said = board.run("vm", "stop", "web1")
    assert (said.code, said.out) == (1, "")
    assert "no controller has answered" in said.err
    assert "within 0.5 s" in said.err
    assert "stays written" in said.err
    (wish,) = board.store.view(board.hosts, None).wishes
    assert (wish.kind, wish.subject) == (WishKind.VM_STOP, "web1")
    assert wish.by


def test_a_granted_wish_is_a_sentence_and_exit_0(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("vm", "stop", "web1")
    assert said.code == 0, said.err
    assert said.out == "web1 is wished to stop.\n"
    assert board.store.view(board.hosts, None).vms[VmId("web1")].wish is VmWish.STOPPED


def test_a_vm_is_left_alone(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("vm", "ignore", "web1", "--wait")
    assert said.code == 0, said.err
    assert "web1 is left alone" in said.err
    assert said.out == "web1 is unmanaged.\n"
    assert board.run("vm", "show", "web1", "--json").json["state"] == "unmanaged"


def test_a_refused_wish_is_the_controllers_sentence_and_exit_1(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("host", "activate", "host1", "--json")
    assert (said.code, said.out) == (1, "")
    assert said.err == "host1 is online already\n"


def test_a_wish_as_json_names_itself(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("host", "maintenance", "host3", "--json")
    assert said.code == 0, said.err
    assert said.json.keys() == {"schema", "wish", "granted", "sentence", "operation", "ended"}
    assert (said.json["schema"], said.json["granted"], said.json["operation"]) == (1, True, None)
    assert board.run("host", "show", "host3", "--json").json["maintenance"] is True


def test_maintenance_and_activate_are_followed_to_the_state(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        out = board.run("host", "maintenance", "host3", "--wait", "--timeout", "20")
        assert (out.code, out.out) == (0, "host3 is maintenance.\n"), out.err
        back = board.run("host", "activate", "host3", "--wait", "--timeout", "20")
        assert (back.code, back.out) == (0, "host3 is online.\n"), back.err


# --- fencing -----------------------------------------------------------------------------------------------------


def test_fencing_a_living_host_needs_a_yes(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wish, "ANSWER_S", 0.2)
    board.well()
    said = board.run("host", "fence", "host1")
    assert (said.code, said.out) == (1, "")
    assert "host1 is alive and runs web1" in said.err
    assert "--yes" in said.err
    assert board.store.view(board.hosts, None).wishes == (), "nothing may have been asked for"


def test_fencing_a_silent_host_needs_no_yes(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wish, "ANSWER_S", 0.2)
    board.well()
    board.beat("host2", {"web2": 7}, ago_s=30)
    board.watch({"host2": 30.0})
    said = board.run("host", "fence", "host2")
    assert "no controller has answered" in said.err
    (wish,) = board.store.view(board.hosts, None).wishes
    assert (wish.kind, wish.subject, wish.boot) == (WishKind.HOST_FENCE, "host2", "boot-of-host2")


def test_a_person_confirms_off_the_boot_they_see(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wish, "ANSWER_S", 0.2)
    board.well()
    board.beat("host2", boot="later", ago_s=30)
    assert board.run("host", "show", "host2", "--json").json["last_boot"] == "later"
    assert "boot later" in board.run("host", "confirm-off", "host2").err, "and that is what they vouch for"
    board.run("host", "confirm-off", "host2", "--yes")
    board.run("host", "confirm-off", "host3", "--yes")
    board.documents(HostDoc(id=HostId("host1"), incarnation=UNKNOWN_BOOT))
    board.raw.delete("fn:{demo}:hb:host1")
    board.run("host", "confirm-off", "host1", "--yes")
    wishes = {wish.subject: wish.boot for wish in board.store.view(board.hosts, None).wishes}
    assert wishes == {"host1": "", "host2": "later", "host3": "boot-of-host3"}, "where nobody can tell, none is named"


def _at_terminal(board: Board, words: list[str], answer: str) -> tuple[int, str]:
    """Run a command with a terminal as its stdin, type an answer, and return what it did."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fangnetz.cli.main", "--config", str(board.file), *words]
    child = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "200"}
    )
    os.close(theirs)
    try:
        os.write(ours, answer.encode() + b"\n")
        out, _ = child.communicate(timeout=30)
        return child.returncode, out.decode()
    finally:
        os.close(ours)
        child.kill()
        child.wait()


def test_a_no_at_the_terminal_does_nothing(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):  # a host that still reports when a slow machine comes to ask
        code, said = _at_terminal(board, ["host", "fence", "host1"], "n")
    assert code == 1
    assert "cuts its power now" in said
    assert "nothing was done" in said
    assert board.store.view(board.hosts, None).wishes == ()


def test_a_yes_at_the_terminal_fences(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        code, said = _at_terminal(board, ["host", "fence", "host1"], "y")
    assert code == 0, said
    assert "host1 is being fenced" in said
    (operation,) = (op for op in board.store.operations(10) if op.kind is OperationKind.FAILOVER)
    assert (operation.subject, bool(operation.forced_by)) == ("host1", True)
    assert operation.id in said


def _opened(board: Board, kind: OperationKind) -> str:
    """Wait for an open operation of that kind."""
    for _ in range(200):
        for op in board.store.operations(10):
            if op.kind is kind and op.state is OperationState.OPEN:
                return op.id
        time.sleep(0.05)
    raise AssertionError(f"no {kind} was opened")


def test_a_fence_is_followed_until_its_operation_ends(board: Board) -> None:
    board.well()

    def end_it() -> None:
        failover = _opened(board, OperationKind.FAILOVER)
        board.settle(failover, "confirm", "asked for", skips=("fence", "prove"))
        board.settle(failover, "plan/1", "0 to start, 0 left")
        board.settle(failover, "close", "it had no VMs to recover", closes=OperationState.DONE)

    with Ticking(board, BEATS):
        hand = threading.Thread(target=end_it)
        hand.start()
        said = board.run("host", "fence", "host1", "--yes", "--wait", "--timeout", "20", "--json")
        hand.join()
    assert said.code == 0, said.err
    assert said.json["ended"] == {"well": True, "sentence": "it had no VMs to recover"}
    assert said.json["operation"].startswith("failover-host1-")


def test_a_failed_operation_is_exit_1_with_its_sentence(board: Board) -> None:
    board.well()

    def fail_it() -> None:
        failover = _opened(board, OperationKind.FAILOVER)
        board.settle(failover, "confirm", "host1 is needed", state=StepState.FAILED, closes=OperationState.CANCELLED)

    with Ticking(board, BEATS):
        hand = threading.Thread(target=fail_it)
        hand.start()
        said = board.run("host", "fence", "host1", "--yes", "--wait", "--timeout", "20")
        hand.join()
    assert said.code == 1
    assert said.err.splitlines()[-1] == "host1 is needed"


def test_an_operation_that_does_not_end_is_left_going_after_the_timeout(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("host", "fence", "host1", "--yes", "--wait", "--timeout", "1")
    assert said.code == 1
    assert "has not ended within 1 s; it goes on" in said.err
    assert board.store.operations(10)[0].state is OperationState.OPEN


def test_confirm_off_says_what_it_means_and_asks(board: Board) -> None:
    board.well()
    code, said = _at_terminal(board, ["host", "confirm-off", "host2", "--by", "eva"], "n")
    assert code == 1
    assert "eva vouches that host2" in said
    assert "two copies of a VM write one disk" in said
    assert board.store.view(board.hosts, None).wishes == ()


def test_confirm_off_without_a_terminal_needs_a_yes(board: Board) -> None:
    board.well()
    said = board.run("host", "confirm-off", "host2")
    assert said.code == 1
    assert "needs --yes" in said.err
    assert board.store.view(board.hosts, None).wishes == ()


def test_confirm_off_of_a_living_host_is_refused_by_the_controller(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("host", "confirm-off", "host2", "--by", "eva", "--yes")
    assert said.code == 1
    assert "host2 cannot be confirmed off" in said.err


def test_a_host_that_is_only_remembered_can_be_confirmed_off(board: Board) -> None:
    board.well()
    board.documents(HostDoc(id=HostId("gone9"), incarnation=Incarnation("boot9")))
    with Ticking(board, BEATS):
        said = board.run("host", "confirm-off", "gone9", "--by", "eva", "--yes")
        while "before nothing was heard" in said.err:  # the controller has only just begun to watch
            said = board.run("host", "confirm-off", "gone9", "--by", "eva", "--yes")
    assert said.code == 0, said.err
    assert said.out == "eva confirmed that gone9 (boot boot9, not in the cluster file) is off.\n"
    assert board.run("host", "confirm-off", "never9", "--yes").err.startswith("never9 is no host of this cluster")


# --- VMs ---------------------------------------------------------------------------------------------------------


def test_a_vm_is_added_from_any_domain_xml(board: Board, xml: Path) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("vm", "add", "new1", "--xml", str(xml), "--priority", "5", "--wish", "stopped",
                         "--allow", "host2", "--allow", "host1", "--prefer", "host2=3", "--apart", "web1")  # fmt: skip
    assert said.code == 0, said.err
    assert said.out == "new1 is added.\n"
    doc = board.store.view(board.hosts, None).vms[VmId("new1")]
    assert (doc.spec.priority, doc.spec.memory_mib, doc.wish, doc.source) == (5, 512, VmWish.STOPPED, "cli")
    assert as_tree(doc.spec.rules) == {"allowed": ["host1", "host2"], "preferred": {"host2": 3}, "apart": ["web1"]}
    assert doc.xml == xml.read_text()
    shown = board.run("vm", "show", "new1").out
    assert "only on host1, host2; prefers host2 (+3); apart from web1" in shown


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--allow", "host9"), "host9 is no host of this cluster"),
        (("--prefer", "host1=much"), "--prefer is host1=much: it must be a host, or a host with a weight"),
        (("--together", "new1"), "it must be another VM of this cluster"),
        (("--apart", "web9"), "it must be another VM of this cluster"),
        (("--apart", "web1", "--together", "web1"), "the rules of new1 can never be kept"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(board: Board, xml: Path, options: tuple[str, ...], why: str) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("vm", "add", "new1", "--xml", str(xml), *options)
    assert (said.code, said.out) == (1, "")
    assert why in said.err
    assert VmId("new1") not in board.store.view(board.hosts, None).vms


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("other", domain("new1"), "its <name> must be the name given"),
        ("new1", "<domain", "is no domain XML"),
        ("new1", "<network/>", "is no domain XML"),
        ("a/b", domain("a/b"), "the name of a VM must be"),
    ],
)
def test_a_file_that_does_not_define_the_vm_is_refused(board: Board, xml: Path, name: str, text: str, why: str) -> None:
    board.well()
    xml.write_text(text)
    said = board.run("vm", "add", name, "--xml", str(xml))
    assert (said.code, said.out) == (1, "")
    assert why in said.err
    assert len(said.err.splitlines()) == 1


def test_a_missing_xml_file_is_a_sentence(board: Board, tmp_path: Path) -> None:
    board.well()
    said = board.run("vm", "add", "new1", "--xml", str(tmp_path / "none.xml"))
    assert said.code == 1
    assert "none.xml must be a readable file (No such file or directory)" in said.err


PASSTHROUGH = "<hostdev mode='subsystem' type='pci'><source/></hostdev>"


def test_an_unfit_vm_is_refused_with_all_reasons(board: Board, xml: Path) -> None:
    board.well()
    xml.write_text(domain("new1", more=PASSTHROUGH))
    said = board.run("vm", "add", "new1", "--xml", str(xml))
    assert said.code == 1
    assert "new1 is unfit for high availability: a pci device of the host is passed through" in said.err
    assert "--force" in said.err
    assert board.store.view(board.hosts, None).wishes == ()


def test_force_adds_an_unfit_vm_and_says_what_is_wrong(board: Board, xml: Path) -> None:
    board.well()
    xml.write_text(domain("new1", more=PASSTHROUGH))
    with Ticking(board, BEATS):
        said = board.run("vm", "add", "new1", "--xml", str(xml), "--force", "--wish", "ignored")
    assert said.code == 0, said.err
    assert "forced: a pci device" in said.err


def test_a_warning_does_not_stop_it(board: Board, xml: Path) -> None:
    board.well()
    xml.write_text(domain("new1", more="<interface type='network'><source network='default'/></interface>"))
    with Ticking(board, BEATS):
        said = board.run("vm", "add", "new1", "--xml", str(xml), "--wish", "stopped", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["granted"] is True
    assert "warning: a network interface has a network of the host" in said.err


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["asked", "forced"])
def test_a_second_vm_on_one_disk_is_refused(board: Board, xml: Path, force: tuple[str, ...]) -> None:
    board.well()
    xml.write_text(domain("new1", disk="web1"))
    said = board.run("vm", "add", "new1", "--xml", str(xml), *force)
    assert said.code == 1
    assert "is the disk of VM web1 too: two writers destroy it" in said.err
    assert board.store.view(board.hosts, None).wishes == ()


def test_a_vm_that_is_not_there_in_time_is_exit_1_with_what_it_waits_for(board: Board) -> None:
    """Nobody carries a start out here."""
    board.well()
    board.vm("idle1", VmState.STOPPED, wish=VmWish.STOPPED)
    with Ticking(board, BEATS):
        said = board.run("vm", "start", "idle1", "--wait", "--timeout", "2")
    assert (said.code, said.out) == (1, "")
    assert "idle1 is wished to run" in said.err
    assert "idle1 is not running after 2 s: it is waiting" in said.err


def test_a_stop_is_followed_until_the_vm_is_stopped(board: Board) -> None:
    board.well()
    beats: dict[str, dict[str, int]] = {host: dict(vms) for host, vms in BEATS.items()}

    def carry_it_out() -> None:
        """host3 stops its VM, reports without it, and settles its steps."""
        stop = _opened(board, OperationKind.STOP)
        beats["host3"].clear()
        time.sleep(0.3)
        board.settle(stop, "stop/web3", "web3 is stopped", boot="boot-of-host3")
        board.settle(stop, "close", "web3 is stopped", closes=OperationState.DONE)

    with Ticking(board, beats):
        hand = threading.Thread(target=carry_it_out)
        hand.start()
        said = board.run("vm", "stop", "web3", "--wait", "--timeout", "20")
        hand.join()
    assert said.code == 0, said.err
    assert said.out == "web3 is stopped.\n"
    assert "0/2" in said.err, "progress goes to stderr"


def test_a_vm_that_needs_a_person_ends_the_wait_with_its_reason(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANGNETZ_CONFIG", str(board.file))
    board.well()
    board.vm("bad1", VmState.NEEDS_PERSON, reason="its storage lease is held")
    ended = follow_vm(open_session(), VmId("bad1"), VmState.RUNNING, 5.0)
    assert ended == (False, "bad1 is needs_person: its storage lease is held")


def test_remove_forgets_a_vm(board: Board) -> None:
    board.well()
    board.vm("old1", VmState.STOPPED, wish=VmWish.STOPPED)
    with Ticking(board, BEATS):
        said = board.run("vm", "remove", "old1", "--wait", "--timeout", "10")
    assert (said.code, said.out) == (0, "old1 is forgotten.\n"), said.err
    assert board.run("vm", "show", "old1").code == 1


def test_a_vm_that_runs_is_removed_without_being_stopped_and_its_disk_stays_its_own(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("vm", "remove", "web1", "--wait", "--timeout", "10")
    assert said.code == 0, said.err
    assert said.out.startswith("web1 is not managed any more")
    shown = board.run("vm", "show", "web1", "--json").json
    assert (shown["state"], shown["source"]) == ("unmanaged", "removed")


def test_an_unknown_vm_is_refused_before_anything_is_asked(board: Board) -> None:
    board.well()
    said = board.run("vm", "start", "none1")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("none1 is no VM of this cluster")
    assert board.store.view(board.hosts, None).wishes == ()


# --- what cannot be read -----------------------------------------------------------------------------------------


def test_a_definition_that_cannot_be_read_is_mended_by_adding_the_vm_again_once_it_is_down(
    board: Board, tmp_path: Path
) -> None:
    board.well()
    board.raw.hset("fn:{demo}:ledger", "vm/web1", "{")
    assert "`fangnetz vm add web1 --xml FILE`" in board.run("vm", "list").err
    file = tmp_path / "web1.xml"
    file.write_text(domain("web1"))
    with Ticking(board, BEATS):
        said = board.run("vm", "add", "web1", "--xml", str(file))
    assert said.code == 1
    assert "`virsh shutdown web1`" in said.err
    record = board.store.view(board.hosts, None).vm_records[VmId("web1")]
    assert (record.owner, record.generation) == ("host1", 7), "as if nothing had been broken"
    with Ticking(board, {**BEATS, "host1": {}}):
        said = board.run("vm", "add", "web1", "--xml", str(file))
    assert said.code == 0, said.err
    view = board.store.view(board.hosts, None)
    assert (view.unreadable, VmId("web1") in view.vms) == ((), True)


def test_a_record_that_cannot_be_read_is_mended_by_adding_the_vm_again_while_it_runs(
    board: Board, tmp_path: Path
) -> None:
    board.well()
    board.raw.hset("fn:{demo}:vm:web1", "generation", "seven")
    for host in board.hosts:
        board.raw.hset(f"fn:{{demo}}:hb:{host}", "boot_since", str(int((board.now - 60) * 1_000_000)))
    file = tmp_path / "web1.xml"
    file.write_text(domain("web1"))
    with Ticking(board, BEATS):
        said = board.run("vm", "add", "web1", "--xml", str(file), "--wait", "--timeout", "20")
    assert (said.code, said.out) == (0, "web1 is running on host1.\n"), said.err
    record = board.store.view(board.hosts, None).vm_records[VmId("web1")]
    assert (record.owner, record.generation) == ("host1", 7), "as its host says"


def test_a_record_that_cannot_be_read_is_forgotten_once_no_host_has_a_copy(board: Board) -> None:
    board.well()
    board.raw.hset("fn:{demo}:vm:web1", "state", "asleep")
    for host in board.hosts:
        board.raw.hset(f"fn:{{demo}}:hb:{host}", "boot_since", str(int((board.now - 60) * 1_000_000)))
    with Ticking(board, BEATS):
        said = board.run("vm", "remove", "web1")
    assert said.code == 1
    assert "it runs on host1" in said.err
    with Ticking(board, {**BEATS, "host1": {}}):
        said = board.run("vm", "remove", "web1")
    assert said.code == 0, said.err
    view = board.store.view(board.hosts, None)
    assert (view.unreadable, VmId("web1") in view.vms, VmId("web1") in view.vm_records) == ((), False, False)


def test_a_host_is_fenced_and_confirmed_off_though_something_else_cannot_be_read(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wish, "ANSWER_S", 0.2)
    board.well()
    board.raw.hset("fn:{demo}:vm:web1", "state", "asleep")
    for verb in ("fence", "confirm-off"):
        assert "no controller has answered" in board.run("host", verb, "host2", "--yes").err
