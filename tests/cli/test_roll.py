"""`fangnetz maintenance roll` from its command line: a real controller decides, a real program is run for each host.

Moves are carried out by a hand that writes what hosts and work would; real ones are the lab's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fangnetz.adapters.redis.keys import Keys
from fangnetz.core.model import HostState, VmState, VmWish
from fangnetz.core.operations import OperationKind, OperationState
from fangnetz.core.roll import going
from fangnetz.core.roll.values import Commanded, Stage
from fangnetz.core.units import Generation, HostId, Incarnation, VmId

from .board import Board, Ticking

KEY = Keys("demo").roll


@dataclass
class Hosts:
    """What hosts and work do here: a move that was opened is carried out at once; who finds its file boots anew."""

    board: Board
    folder: Path
    beats: dict[str, dict[str, int]] = field(
        default_factory=lambda: {"host1": {"web1": 7}, "host2": {"web2": 7}, "host3": {"web3": 7}}
    )
    boots: dict[str, str] = field(default_factory=dict)
    moved: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self) -> None:
        for host in self.beats:
            if (self.folder / host).exists():
                self.boots[host] = f"later-boot-of-{host}"
        view = self.board.store.view(self.board.hosts, None)
        for operation in view.operations.values():
            if operation.kind is OperationKind.MIGRATE and operation.target is not None:
                self._move(VmId(operation.subject), operation.target, operation.id)

    def _move(self, vm: VmId, to: HostId, operation: str) -> None:
        record = self.board.store.view(self.board.hosts, None).vm_records[vm]
        assert record.owner is not None
        generation = Generation(record.generation + 1)
        del self.beats[record.owner][vm]
        self.beats[to][vm] = generation
        boot = Incarnation(self.boots.get(to, f"boot-of-{to}"))
        moved = replace(record, owner=to, owner_incarnation=boot, generation=generation)
        assert self.board.store.put_vm(moved, record.generation, self.board.epoch)
        self.board.settle(operation, "plan/1", f"{vm} goes to {to}")
        self.board.settle(operation, "close", f"{vm} runs on {to}", closes=OperationState.DONE)
        self.moved.append((vm, to))


@pytest.fixture
def hosts(board: Board, tmp_path: Path) -> Hosts:
    board.well()
    board.vm("db1", VmState.STOPPED, wish=VmWish.STOPPED)
    folder = tmp_path / "rebooted"
    folder.mkdir()
    return Hosts(board, folder)


@contextmanager
def ticking(hosts: Hosts) -> Iterator[None]:
    with Ticking(hosts.board, hosts.beats, boots=hosts.boots, hand=hosts):
        yield


def reboot(hosts: Hosts) -> list[str]:
    return ["--reboots", "--run", f"touch {hosts.folder}/{{host}}"]


def roll(hosts: Hosts, *words: str) -> tuple[int, str, str]:
    said = hosts.board.run("maintenance", "roll", "--wait-moves", "30", "--wait-return", "30", *words)
    return said.code, said.out, said.err


def test_hosts_are_rolled_over_in_turn_and_every_vm_is_home_again(board: Board, hosts: Hosts) -> None:
    with ticking(hosts):
        code, out, err = roll(hosts, "--hosts", "host2,host1", *reboot(hosts))
    assert (code, out) == (0, "host2, host1 had their turn.\n"), err
    assert hosts.moved == [("web2", "host1"), ("web2", "host2"), ("web1", "host2"), ("web1", "host1")]
    assert hosts.boots.keys() == {"host1", "host2"}
    told = [err.index(words) for words in (
        "the turn of host2 begins", "host2 is empty and in maintenance", "host2: the command exited with 0",
        "host2 is cleanly back", "host2 is done", "the turn of host1 begins", "host1 is done",
    )]  # fmt: skip
    assert told == sorted(told)
    states = {item["id"]: item["state"] for item in board.run("host", "list", "--json").json["items"]}
    assert states == {"host1": "online", "host2": "online", "host3": "online"}


def test_what_a_roll_did_is_shown_and_printed_as_json(board: Board, hosts: Hosts) -> None:
    script = "import os; print(os.environ['FANGNETZ_HOST'], os.environ['FANGNETZ_ADDRESS'])"
    command = f"{sys.executable} -c \"{script}; open('{hosts.folder}/{{host}}', 'w')\" {{host}} {{address}} {{kept}}"
    with ticking(hosts):
        said = board.run("maintenance", "roll", "--hosts", "host3", "--reboots", "--run", command, "--json")
    assert said.code == 0, said.err
    assert "host3 | host3 127.0.1.3" in said.err, "its output is shown while it runs"
    assert said.json["ended"] == {"well": True, "sentence": "host3 had its turn"}
    shown = board.run("maintenance", "show", "--json").json["roll"]
    assert shown == said.json["roll"]
    assert (shown["state"], shown["done"], shown["waiting"]) == ("done", ["host3"], [])
    assert shown["command"][-3:] == ["{host}", "{address}", "{kept}"]
    (turn,) = shown["turns"]
    assert (turn["command"], turn["exit_code"], turn["output"]) == ("well", 0, "host3 127.0.1.3\n")
    assert turn["vms"] == ["web3"]
    page = board.run("maintenance", "show")
    assert page.code == 0
    assert "host3 had its turn" in page.out


def test_a_failed_command_stops_it_with_one_sentence_and_it_is_resumed(board: Board, hosts: Hosts) -> None:
    command = f"{sys.executable} -c \"print('no space left'); raise SystemExit(3)\""
    with ticking(hosts):
        code, out, err = roll(hosts, "--hosts", "host1,host2", "--run", command)
        assert (code, out) == (1, "")
        assert err.splitlines()[-1] == (
            "stopped at host1: the command failed on host1 with exit code 3; no host is done; in hand: host1, empty "
            "and in maintenance, the command failed with exit code 3; not begun: host2; once that is mended, `fangnetz "
            "maintenance roll --resume` runs the command there again (`--ran`: its work is done), and goes on."
        )
        assert board.run("maintenance", "show", "--json").json["roll"]["turns"][0]["output"] == "no space left\n"
        assert hosts.moved == [("web1", "host2")], "the host stays as it was left"
        unfinished = board.run("maintenance", "roll", "--run", "true")
        assert unfinished.code == 1
        assert "is not finished" in unfinished.err
        assert "--resume" in unfinished.err
        code, out, err = roll(hosts, "--resume", "--run", f"touch {hosts.folder}/{{host}}")
    assert (code, out) == (0, "host1, host2 had their turn.\n"), err
    assert "the turn of host1 begins" not in err, "it is not begun anew"
    assert hosts.moved[:2] == [("web1", "host2"), ("web1", "host1")]


def test_a_roll_whose_command_line_was_killed_is_resumed(board: Board, hosts: Hosts) -> None:
    with ticking(hosts):
        code, began = _killed(board, "--hosts", "host3", "--run", "sleep 60")
        assert code == -signal.SIGKILL
        assert began
        held = roll(hosts, "--resume")
        assert held[0] == 1
        assert "another command has this roll in hand" in held[2]
        _out_of_hand(board)
        refused = roll(hosts, "--resume")
        assert refused[0] == 1
        assert refused[2].startswith(
            "nobody knows how the command ended on host3: look there, then say --resume --again"
        )
        (hosts.folder / "host3").touch()
        code, out, err = roll(hosts, "--resume", "--ran")
    assert (code, out) == (0, "host3 had its turn.\n"), err
    assert hosts.moved == [("web3", "host1"), ("web3", "host3")]


def _started(board: Board, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fangnetz.cli.main", "--config", str(board.file), "maintenance", "roll", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "2000"}
    )


def _children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def _until_commanded(board: Board) -> bool:
    for _ in range(200):
        found = board.store.roll()
        if found is not None and found.in_hand and found.in_hand[0].command is Commanded.BEGUN:
            return True
        time.sleep(0.1)
    return False


def _killed(board: Board, *words: str) -> tuple[int, bool]:
    """Start a roll as a process of its own, and kill it while its command runs."""
    child = _started(board, *words)
    try:
        began = _until_commanded(board)
        return_code = child.poll()
        assert return_code is None
    finally:
        children = _children(child)
        child.kill()
        code = child.wait()
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    return code, began


def _out_of_hand(board: Board) -> None:
    """What time does by itself."""
    found = board.store.roll()
    assert found is not None
    assert board.store.put_roll(replace(found, until=board.store.now()), found)


def test_an_interrupted_roll_ends_its_command_and_says_how_to_go_on(board: Board, hosts: Hosts) -> None:
    with ticking(hosts):
        child = _started(board, "--hosts", "host3", "--run", "sleep 60")
        try:
            assert _until_commanded(board)
            time.sleep(0.5)
            (command,) = _children(child)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=20)
        finally:
            child.kill()
            child.wait()
    assert (child.returncode, out) == (1, "")
    assert not Path(f"/proc/{command}").exists(), "its command was ended"
    last = err.splitlines()[-1]
    assert last.startswith("stopped at host3: interrupted; no host is done; in hand: host3, empty and in maintenance")
    assert "`fangnetz maintenance roll --resume --again`" in last
    assert "Traceback" not in err
    assert board.run("maintenance", "show", "--json").json["roll"]["state"] == "stopped", "it is in nobody's hand"


def test_a_command_that_does_not_end_is_ended_and_is_a_doubt(board: Board, hosts: Hosts) -> None:
    with ticking(hosts):
        code, out, err = roll(hosts, "--hosts", "host3", "--run", "sleep 60", "--wait-run", "1")
    assert (code, out) == (1, "")
    assert "the command on host3 had not ended after 1 s and was ended" in err
    assert "--resume --again" in err
    found = board.store.roll()
    assert found is not None
    assert found.turn(HostId("host3")).stage is Stage.COMMAND


def test_a_host_that_is_not_back_in_time_stops_it(hosts: Hosts) -> None:
    with ticking(hosts):
        code, out, err = roll(hosts, "--hosts", "host3,host2", "--reboots", "--run", "true", "--wait-return", "1")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert "host3 is not cleanly back after 1 s: host3 still reports in the boot that the command met" in last
    assert "in maintenance, the command run, the host not yet back; not begun: host2" in last


def test_a_vm_that_fails_meanwhile_stops_it_before_the_next_host(board: Board, hosts: Hosts) -> None:
    command = f"{sys.executable} -c \"open('{hosts.folder}/{{host}}', 'w'); open('{hosts.folder}/fail', 'w')\""

    def hand() -> None:
        hosts()
        record = board.store.view(board.hosts, None).vm_records[VmId("web2")]
        if (hosts.folder / "fail").exists() and record.state is VmState.RUNNING:
            hosts.beats["host2"].clear()
            board.vm("web2", VmState.FAILED, "host2", reason="it ended five times", generation=record.generation)

    with Ticking(board, hosts.beats, boots=hosts.boots, hand=hand):
        code, out, err = roll(hosts, "--hosts", "host3,host1", "--reboots", "--run", command)
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert "web2 is wished to run and is failed" in last
    assert "not begun: host1" in last


# --- refused before anything is done -----------------------------------------------------------------------------

REFUSED = [
    (("--hosts", "host1"), "a roll needs a command for each host: --run CMD"),
    (("--hosts", "host9", "--run", "true"), "host9 is no host of this cluster; it has host1, host2, host3"),
    (("--hosts", "host1,host1", "--run", "true"), "host1 is named twice: each host has one turn"),
    (("--hosts", ",", "--run", "true"), "--hosts names no host"),
    (("--run", "echo 'x"), "the command of --run cannot be read: no closing quotation"),
    (("--run", "  "), "the command of --run is empty"),
    (("--run", "no-such-program-here {host}"), "this machine has no program 'no-such-program-here' to run"),
    (("--resume",), "the store knows of no roll to go on with"),
    (("--resume", "--hosts", "host1"), "--hosts, --at-once and --reboots cannot be changed"),
    (("--resume", "--again", "--ran"), "--again and --ran say the opposite of each other"),
    (("--again", "--run", "true"), "they need --resume"),
]


@pytest.mark.parametrize(("words", "why"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_bad_input_is_one_sentence_and_nothing_is_done(
    board: Board, hosts: Hosts, words: tuple[str, ...], why: str
) -> None:
    code, out, err = roll(hosts, *words)
    assert (code, out) == (1, "")
    assert why in err
    assert len(err.splitlines()) == 1
    assert board.store.roll() is None
    assert board.store.view(board.hosts, None).wishes == ()


def test_a_roll_does_not_begin_while_a_vm_has_nowhere_to_go(board: Board, hosts: Hosts) -> None:
    board.vm("big1", host="host1", memory=3500)
    board.beat("host1", {"web1": 7, "big1": 7})
    board.vm("big2", host="host2", memory=3500)
    board.beat("host2", {"web2": 7, "big2": 7})
    board.watch()
    code, out, err = roll(hosts, "--run", "true")
    assert (code, out) == (1, "")
    assert err.startswith("nothing was done, because big1 cannot leave host1:")
    assert "big2 cannot leave host2" in err
    assert board.store.roll() is None


def test_hosts_that_fit_in_turn_may_not_fit_at_once(board: Board, hosts: Hosts) -> None:
    board.vm("mid1", host="host1", memory=1500)
    board.beat("host1", {"web1": 7, "mid1": 7})
    board.watch()
    assert "it could begin now" in board.run("maintenance", "roll", "--hosts", "host1,host2", "--preview").out
    code, out, err = roll(hosts, "--hosts", "host1,host2", "--run", "true", "--at-once", "2")
    assert (code, out) == (1, "")
    assert err.startswith("nothing was done, because ")
    assert "cannot leave host" in err


def test_a_roll_does_not_begin_while_a_vm_does_not_run_as_wished(board: Board, hosts: Hosts) -> None:
    board.vm("db1", VmState.FAILED, wish=VmWish.RUNNING, reason="it ended five times")
    code, _, err = roll(hosts, "--run", "true")
    assert code == 1
    assert "db1 is wished to run and is failed: it ended five times" in err


def test_a_roll_does_not_begin_over_a_host_in_maintenance(board: Board, hosts: Hosts) -> None:
    board.host("host3", HostState.MAINTENANCE)
    code, _, err = roll(hosts, "--run", "true")
    assert code == 1
    assert "host3 is in maintenance already: activate it, or leave it out with --hosts" in err


def test_a_roll_does_not_begin_while_nobody_watches(board: Board, hosts: Hosts) -> None:
    board.raw.delete("fn:{demo}:watch:c1")
    code, out, err = roll(hosts, "--run", "true")
    assert (code, out) == (1, "")
    assert "no controller watches" in err
    assert board.store.roll() is None


# --- preview, show, forget ---------------------------------------------------------------------------------------


def test_a_preview_shows_every_hosts_turn_and_asks_for_nothing(board: Board, hosts: Hosts) -> None:
    said = board.run("maintenance", "roll", "--preview")
    assert (said.code, said.err) == (0, "")
    heads = [said.out.index(f"Emptying {host}") for host in ("host1", "host2", "host3")]
    assert heads == sorted(heads)
    assert "it could begin now" in said.out
    assert board.store.roll() is None
    assert board.store.view(board.hosts, None).wishes == ()


def test_a_preview_as_json_holds_waves_and_what_speaks_against_it(board: Board, hosts: Hosts) -> None:
    words = ("--hosts", "host1,host2,host3", "--at-once", "2", "--run", "true {host}", "--preview", "--json")
    said = board.run("maintenance", "roll", *words)
    assert said.code == 0, said.err
    preview = said.json["preview"]
    assert [[plan["host"] for plan in wave] for wave in preview["waves"]] == [["host1", "host2"], ["host3"]]
    assert {move["to"] for plan in preview["waves"][0] for move in plan["moves"]} == {"host3"}
    assert (preview["command"], preview["against"]) == (["true", "{host}"], [])


def test_without_a_roll_show_says_so(board: Board, hosts: Hosts) -> None:
    assert board.run("maintenance", "show").out == "There was no roll yet.\n"
    assert board.run("maintenance", "show", "--json").json == {"schema": 1, "roll": None}


def test_forget_drops_a_stopped_roll_and_says_what_is_left(board: Board, hosts: Hosts) -> None:
    with ticking(hosts):
        assert roll(hosts, "--hosts", "host3", "--run", "false")[0] == 1
    said = board.run("maintenance", "forget")
    assert said.code == 0
    assert said.out == "the roll is forgotten; `fangnetz host activate host3 --failback` ends what was begun.\n"
    assert board.store.roll() is None


def test_a_roll_that_cannot_be_read_is_named_and_can_be_forgotten(board: Board, hosts: Hosts) -> None:
    board.raw.set(KEY, json.dumps({"id": "x"}))
    for words in (("roll", "--run", "true"), ("show",), ("roll", "--resume")):
        said = board.run("maintenance", *words)
        assert (said.code, said.out) == (1, "")
        assert KEY in said.err
    assert board.run("maintenance", "forget").code == 0
    assert board.run("maintenance", "show").out == "There was no roll yet.\n"


def test_a_roll_that_is_forgotten_meanwhile_stops_at_once_and_stays_forgotten(
    board: Board, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(going, "STEADY_S", 60.0)
    command = f"{sys.executable} -c \"import redis; redis.Redis(port={board.port}).delete('{KEY}')\""
    with ticking(hosts):
        code, out, err = roll(hosts, "--hosts", "host3", "--run", command)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("another command took this roll in hand, or it was forgotten")
    assert board.store.roll() is None
