"""Whatever goes wrong, the command line ends with one sentence and the right code, and never with a traceback."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fangnetz.cli.main import NOUNS, main

from .board import Board

READS = (
    ["status"],
    ["status", "--json"],
    ["host", "list"],
    ["host", "show", "host1"],
    ["vm", "list"],
    ["operation", "list"],
    ["incident", "list"],
    ["events"],
    ["simulate", "--from-cluster", "--lose", "host1"],
)


def _child(board: Board, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fangnetz.cli.main", "--config", str(board.file), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("words", READS, ids=" ".join)
def test_a_store_that_is_down_is_a_sentence(board: Board, words: list[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        board.file.write_text(board.file.read_text().replace(str(board.port), str(port)))
        said = board.run(*words)
    assert (said.code, said.out) == (1, "")
    assert "the store did not answer" in said.err
    assert f"127.0.0.1:{port}" in said.err
    assert len(said.err.splitlines()) == 1


def test_a_store_that_hangs_is_given_up_in_time(board: Board) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)
        board.file.write_text(board.file.read_text().replace(str(board.port), str(deaf.getsockname()[1])))
        began = time.monotonic()
        said = board.run("status")
    assert said.code == 1
    assert "the store did not answer" in said.err
    assert time.monotonic() - began < 25


@pytest.mark.parametrize("words", READS, ids=" ".join)
@pytest.mark.parametrize(
    "key",
    ["lease", "life", "hb:host1", "host:host1", "power:host1", "ledger", "vms", "ops:open", "ops:closed", "alarms",
     "events", "wishes", "controllers", "watch:c1"],
)  # fmt: skip
def test_a_key_of_another_kind_is_a_sentence(board: Board, key: str, words: list[str]) -> None:
    board.well()
    name = f"fn:{{demo}}:{key}"
    kind = board.raw.type(name)
    board.raw.delete(name)
    if kind == "string" or key == "alarms":
        board.raw.rpush(name, "garbage")
    else:
        board.raw.set(name, "garbage")
    said = board.run(*words)
    assert said.code in (0, 1), said
    assert "Traceback" not in said.err
    if said.code == 1:
        assert (said.out, len(said.err.splitlines())) == ("", 1), said.err


GARBAGE: list[tuple[str, str, str]] = [
    ("hb:host1", "doc", "}{"),
    ("hb:host1", "doc", "[1, 2]"),
    ("hb:host1", "at", "noon"),
    ("life", "since", "yesterday"),
    ("lease", "epoch", "first"),
    ("lease", "until", "later"),
    ("ledger", "vm/web1", "no json"),
    ("ledger", "vm/web1", '{"key": "vm/web1", "version": 1, "body": "{}"}'),
    ("power:host1", "ipmi", "{}"),
    ("vm:web1", "state", "flying"),
    ("vm:web1", "generation", "seven"),
    ("controllers", "c1", "now"),
    ("wishes", "w1", "please"),
]


@pytest.mark.parametrize(("key", "field", "value"), GARBAGE)
def test_garbage_in_the_store_is_a_sentence_that_names_it(board: Board, key: str, field: str, value: str) -> None:
    board.well()
    board.raw.hset(f"fn:{{demo}}:{key}", field, value)
    said = board.run("status", "--json")
    assert (said.code, said.out) == (1, "")
    assert len(said.err.splitlines()) == 1
    assert key.split(":", maxsplit=1)[0] in said.err or "content this version does not understand" in said.err


@pytest.mark.parametrize("key", ["host:host1", "watch:c1", "alarms"])
@pytest.mark.parametrize("value", ["", "null", "{}", "[[]]", '{"id": 7}', "\x00\x01"])
def test_garbage_texts_in_the_store_are_sentences(board: Board, key: str, value: str) -> None:
    board.well()
    board.raw.set(f"fn:{{demo}}:{key}", value)
    said = board.run("status")
    assert said.code in (0, 1)
    assert "Traceback" not in said.err
    if said.code:
        assert len(said.err.splitlines()) == 1


def test_bytes_that_are_no_text_are_a_sentence(board: Board) -> None:
    board.well()
    board.raw.set("fn:{demo}:alarms", b"\xff\xfe\xfd")
    said = board.run("status")
    assert said.code == 1
    assert said.err.startswith("fn:{demo}:alarms: ")
    assert len(said.err.splitlines()) == 1


def test_another_layout_of_the_store_is_refused(board: Board) -> None:
    board.well()
    board.raw.set("fn:{demo}:schema", "99")
    said = board.run("status")
    assert said.code == 1
    assert "understands layout 1 only" in said.err


def test_no_wish_is_written_into_another_layout(board: Board) -> None:
    board.well()
    board.raw.set("fn:{demo}:schema", "99")
    said = board.run("host", "evacuate", "host1")
    assert (said.code, board.raw.hlen("fn:{demo}:wishes")) == (1, 0)
    assert "understands layout 1 only" in said.err


@pytest.mark.parametrize("text", ["", "}{", "cluster: [", "cluster: demo\n", "\x00", "- a\n- b\n", "!!python/x {}"])
def test_a_bad_cluster_file_is_told_with_its_faults(board: Board, text: str) -> None:
    board.file.write_text(text)
    for words in READS:
        said = board.run(*words)
        assert (said.code, said.out) == (1, "")
        assert all(line.startswith(str(board.file)) for line in said.err.splitlines()), said.err


def test_a_missing_cluster_file_is_a_sentence(board: Board) -> None:
    board.file.unlink()
    said = board.run("host", "list")
    assert said.code == 1
    assert "No such file" in said.err


def test_a_secret_that_cannot_be_read_is_a_sentence_without_it(board: Board, tmp_path: Path) -> None:
    secret = tmp_path / "redis-password"
    secret.write_text("h0rse\n")
    secret.chmod(0o644)
    text = board.file.read_text().replace('/0"}', f'/0", password_file: {secret}}}')
    board.file.write_text(text)
    said = board.run("status")
    assert said.code == 1
    assert str(secret) in said.err
    assert "h0rse" not in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["host"],
        ["host", "show"],
        ["host", "fly", "host1"],
        ["vm", "add", "x"],
        ["vm", "add", "x", "--xml", "f", "--priority", "many"],
        ["vm", "start", "x", "--timeout", "0"],
        ["events", "--limit", "-1"],
        ["status", "--colour"],
        ["--config"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(board: Board, words: list[str]) -> None:
    said = board.run(*words)
    assert said.code == 2, said
    assert "Traceback" not in said.err


def test_an_interrupt_is_exit_1_without_a_traceback(board: Board) -> None:
    board.well()
    child = subprocess.Popen(
        [sys.executable, "-m", "fangnetz.cli.main", "--config", str(board.file), "vm", "stop", "web1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(200):
            if board.store.view(board.hosts, None).wishes:
                break
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
        assert (child.returncode, out) == (1, "")
        assert err == "interrupted before an answer; the wish stays written\n"
    finally:
        child.kill()
        child.wait()


def test_an_interrupt_while_the_store_hangs_is_exit_1(board: Board) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)
        board.file.write_text(board.file.read_text().replace(str(board.port), str(deaf.getsockname()[1])))
        child = subprocess.Popen(
            [sys.executable, "-m", "fangnetz.cli.main", "--config", str(board.file), "host", "list"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            deaf.settimeout(20)
            asked, _ = deaf.accept()
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=10)
            asked.close()
            assert (child.returncode, out, err) == (1, "", "interrupted\n")
        finally:
            child.kill()
            child.wait()


def test_watching_ends_quietly_with_an_interrupt(board: Board) -> None:
    board.well()
    child = subprocess.Popen(
        [sys.executable, "-m", "fangnetz.cli.main", "--config", str(board.file), "status", "--watch", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert [child.stdout.readline()[:12], child.stdout.readline()[:12]] == ['{"schema": 1'] * 2
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=10)
        assert (child.returncode, err) == (0, "")
    finally:
        child.kill()
        child.wait()


def test_the_config_option_beats_the_environment(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.well()
    monkeypatch.setenv("FANGNETZ_CONFIG", "/nowhere/cluster.yaml")
    assert board.run("host", "list").code == 0
    monkeypatch.setenv("FANGNETZ_CONFIG", str(board.file))
    assert main(["host", "list"]) == 0
    assert board.run("config", "check", "--on-host").code == 0, "`config check` takes the same file"


def test_every_noun_is_there(board: Board) -> None:
    said = board.run("--help")
    assert said.code == 0
    for noun in NOUNS:
        assert noun in said.out
        assert board.run(noun, "--help").code == 0, noun


def test_version_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "/nowhere", "version"]) == 0
    assert capsys.readouterr().out.startswith("fangnetz 0.")


def test_a_reader_that_leaves_is_no_traceback(board: Board) -> None:
    board.well()
    words = f"{sys.executable} -m fangnetz.cli.main --config {board.file} status --watch --json | head -n 1"
    done = subprocess.run(["timeout", "20", "sh", "-c", words], capture_output=True, text=True)
    assert done.stdout.startswith('{"schema": 1')
    assert "Traceback" not in done.stderr


def test_two_commands_at_once_do_not_disturb_each_other(board: Board) -> None:
    board.well()
    answers: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(_child(board, "host", "list", "--json"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.returncode for answer in answers] == [0, 0, 0]
