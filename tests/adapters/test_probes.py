"""Probes against real sockets, a real silent peer, and fping's own failures."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fangnetz.adapters.fping import read_answers, start_pings
from fangnetz.adapters.probes import NetworkProber
from fangnetz.adapters.tcp_knock import CONNECTED, NOT_ASKED, REFUSED, SILENT, knock
from fangnetz.core.model import Answer
from fangnetz.core.units import HostId, Seconds
from fangnetz.ports import ProbeReply, ProbeTarget

YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN
TIMEOUT = Seconds(0.6)


@contextlib.contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[int]:
    with socket.create_server((address, 0), backlog=2048) as server:
        yield int(server.getsockname()[1])


def closed_port() -> int:
    with listening() as port:
        return port


def probe_one(address: str, port: int) -> tuple[Answer, Answer, Answer]:
    (reply,) = NetworkProber().probe([ProbeTarget(host=HostId("h"), address=address, libvirt_port=port)], TIMEOUT)
    return reply.ping, reply.kernel, reply.libvirt


def test_a_neighbour_that_is_not_there_is_no(silent_peer: str) -> None:
    # ARP fails after 3 s: long enough for "no route to host", which is silence and not our own fault.
    subprocess.run(["ip", "-n", f"fnp{os.getpid() % 100000}", "addr", "flush", "dev", "eth0"], check=True)
    (reply,) = NetworkProber().probe([ProbeTarget(host=HostId("h"), address=silent_peer, libvirt_port=1)], Seconds(5))
    assert (reply.ping, reply.kernel, reply.libvirt) == (NO, NO, NO)


def test_one_silent_host_does_not_hide_the_others(silent_peer: str) -> None:
    with listening() as port:
        targets = [
            ProbeTarget(host=HostId("dead"), address=silent_peer, libvirt_port=port),
            ProbeTarget(host=HostId("well"), address="127.0.0.1", libvirt_port=port),
        ]
        replies = NetworkProber().probe(targets, TIMEOUT)
    assert replies == (
        ProbeReply(host=HostId("dead"), ping=NO, kernel=NO, libvirt=NO),
        ProbeReply(host=HostId("well"), ping=YES, kernel=YES, libvirt=YES),
    )
    assert NetworkProber().reach([silent_peer, "127.0.0.1"], TIMEOUT) == ("127.0.0.1",)


def test_our_own_missing_interface_is_not_the_hosts_silence() -> None:
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    code = "from fangnetz.adapters.probes import *; from fangnetz.ports import ProbeTarget as T\n"
    code += "(r,) = NetworkProber().probe([T(host='h', address='10.213.0.9', libvirt_port=1)], 0.3)\n"
    code += "print(r.ping, r.kernel, r.libvirt)"
    said = subprocess.run(["unshare", "-n", sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["unknown"] * 3


@pytest.mark.parametrize("address", ["localhost", "", "127.0.0.1 127.0.0.2", "-h", "127.1"])
def test_what_is_no_numeric_address_is_not_asked(address: str) -> None:
    assert probe_one(address, closed_port()) == (UNKNOWN, UNKNOWN, UNKNOWN)
    assert NetworkProber().reach([address], TIMEOUT) == ()


def fake_fping(folder: Path, script: str) -> str:
    program = folder / "fping"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.parametrize(
    ("script", "first", "second"),
    [
        ("exit 4", UNKNOWN, UNKNOWN),
        ("exit 1", UNKNOWN, UNKNOWN),
        ("echo 10.0.0.1 is alive; echo 10.0.0.2 is unreachable; exit 1", YES, NO),
        ("echo 10.0.0.1 is alive; echo 10.0.0.2 is unreachable; exit 3", YES, UNKNOWN),
        ("echo 10.0.0.1 is alive; echo 10.0.0.2 is unreachable; kill -9 $$", YES, UNKNOWN),
        ("echo 10.0.0.1 is alive; echo 10.0.0.2 is unreachable; exec sleep 60", YES, UNKNOWN),
        ("echo 10.0.0.1 is alive and well; echo what; exit 0", UNKNOWN, UNKNOWN),
        ("echo 10.0.0.11 is alive; echo 10.0.0 is alive; exit 0", UNKNOWN, UNKNOWN),
    ],
)
def test_a_failing_fping_is_never_a_no(tmp_path: Path, script: str, first: Answer, second: Answer) -> None:
    began = time.monotonic()
    asked = ["10.0.0.1", "10.0.0.2"]
    answers = start_pings(asked, Seconds(0.2), program=fake_fping(tmp_path, script)).collect()
    assert answers == {"10.0.0.1": first, "10.0.0.2": second}
    assert time.monotonic() - began < 5


def test_a_missing_fping_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe_one("127.0.0.1", closed_port()) == (UNKNOWN, YES, NO)
    assert NetworkProber().reach(["127.0.0.1"], TIMEOUT) == ()


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("No route to host", NO), ("Network is unreachable", UNKNOWN), ("Operation not permitted", UNKNOWN)],
)
def test_what_could_not_be_sent_was_not_asked(reason: str, expected: Answer) -> None:
    errors = f"10.0.0.1: error while sending ping: {reason}\n"
    assert read_answers(["10.0.0.1"], "10.0.0.1 is unreachable\n", errors, True) == {"10.0.0.1": expected}


def test_a_reply_read_late_still_counts(tmp_path: Path) -> None:
    # fping held up for longer than its whole wait, right after each send.
    script = "exec strace -f -o /dev/null -e inject=sendto:delay_exit=400000 /usr/bin/fping $@"
    if subprocess.run(["sh", "-c", "command -v strace"], capture_output=True).returncode:
        pytest.skip("strace is missing")
    answers = start_pings(["127.0.0.1"], Seconds(0.3), program=fake_fping(tmp_path, script)).collect()
    assert answers == {"127.0.0.1": YES}


def test_a_connection_made_while_we_were_held_up_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # The process is held up over its whole deadline right after it looked for the first time.
    class HeldUp(selectors.EpollSelector):
        looked = False

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if self.looked:
                return super().select(timeout)
            self.looked = True
            time.sleep(0.4)
            return []

    monkeypatch.setattr("fangnetz.adapters.tcp_knock.selectors.DefaultSelector", HeldUp)
    with listening() as port:
        assert knock([("127.0.0.1", port)], Seconds(0.2)) == {("127.0.0.1", port): CONNECTED}


def test_a_thousand_hosts_are_one_round() -> None:
    addresses = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]
    with listening("0.0.0.0") as port:
        targets = [ProbeTarget(host=HostId(a), address=a, libvirt_port=port) for a in addresses]
        replies = NetworkProber().probe(targets, Seconds(2))
    assert [reply.host for reply in replies] == addresses
    assert all(reply.ping is reply.kernel is reply.libvirt is YES for reply in replies)


def test_running_out_of_files_is_our_own_fault() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ports = [("127.0.0.1", closed_port())]
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        # All but the one that the selector needs.
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        os.close(opened.pop())
        answers = knock(ports, Seconds(0.2))
    finally:
        for handle in opened:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answers == {ports[0]: NOT_ASKED}
    assert knock(ports, Seconds(0.2)) == {ports[0]: REFUSED}


def test_a_host_asked_too_late_is_not_called_silent(silent_peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fangnetz.adapters.tcp_knock.AT_ONCE_MAX", 1)
    answers = knock([(silent_peer, 1), (silent_peer, 2)], Seconds(0.3))
    assert answers == {(silent_peer, 1): SILENT, (silent_peer, 2): NOT_ASKED}
