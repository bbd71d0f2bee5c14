"""Our end of the IPMI helper process (`call`): start it, hand it calls, replace it when it is stuck.

Never waits beyond a call's deadline, and one dark BMC never delays another one's answer: each call has a socket and a
child of its own.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from fangnetz.core.errors import FenceUnreachable

PACKET_MAX = 65536
STARTED = b"started"
START_BOUND = 5.0
"""Seconds after which a helper that never forked our child is taken for stuck and replaced. Its first call includes
the interpreter's start, which takes several times the usual 0.2 s when all cores are busy."""
ATTEMPTS_MAX = 2


class IpmiHelper:
    """One helper process, started at the first call. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._started_at = 0.0

    def warm(self) -> None:
        """Start the helper now, so that the first question is as quick as the others."""
        with self._guard:
            self._running()

    def ask(self, request: dict[str, Any], deadline: float) -> dict[str, str]:
        """Return the child's answer; FenceUnreachable at `deadline` (time.monotonic) or if the helper fails.

        The request holds the password and goes through a private socket only.
        """
        for _ in range(ATTEMPTS_MAX):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours:
                with theirs:
                    process = self._hand_over(theirs)
                if _receive(ours, min(time.monotonic() + START_BOUND, deadline)) == STARTED:
                    ours.send(json.dumps({**request, "deadline": deadline}).encode())
                    return _content(_receive(ours, deadline))
            # A child that comes to life after this finds its socket closed and ends: it was told nothing.
            self._replace_if_stuck(process)
            if time.monotonic() >= deadline:
                break
        raise FenceUnreachable("The IPMI helper process did not take the call in time; nothing was sent.")

    def close(self) -> None:
        """End the helper; calls under way end at their own deadline."""
        with self._guard:
            self._discard()

    def _hand_over(self, end: socket.socket) -> subprocess.Popen[bytes]:
        with self._guard:
            for _ in range(2):  # a helper that somebody killed is found out by writing to it
                process, control = self._running()
                try:
                    socket.send_fds(control, [b"call"], [end.fileno()])
                    return process
                except OSError:
                    self._discard()
        raise FenceUnreachable("The IPMI helper process cannot be reached.")

    def _running(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._process is None or self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)  # a stuck helper's full queue must not hold us up
            with theirs:
                command = [sys.executable, "-P", "-m", "fangnetz.adapters.ipmi.call", str(theirs.fileno())]
                try:
                    self._process = subprocess.Popen(
                        command,
                        pass_fds=(theirs.fileno(),),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                except OSError as error:
                    ours.close()
                    raise FenceUnreachable("The IPMI helper process cannot be started.") from error
            self._control = ours
            self._started_at = time.monotonic()
        return self._process, self._control

    def _replace_if_stuck(self, suspect: subprocess.Popen[bytes]) -> None:
        with self._guard:
            old_enough = time.monotonic() - self._started_at >= START_BOUND
            if self._process is suspect and (old_enough or suspect.poll() is not None):
                self._discard()

    def _discard(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None


def shared_helper() -> IpmiHelper:
    """Return this process's helper; a forked process gets its own."""
    return _helper_of(os.getpid())


@functools.lru_cache(maxsize=1)
def _helper_of(_pid: int) -> IpmiHelper:
    return IpmiHelper()


def _receive(end: socket.socket, deadline: float) -> bytes:
    end.settimeout(max(deadline - time.monotonic(), 0.001))
    try:
        return end.recv(PACKET_MAX)
    except OSError:
        return b""


def _content(answer: bytes) -> dict[str, str]:
    if not answer:
        raise FenceUnreachable("The device did not answer in time.")
    content: dict[str, str] = json.loads(answer)
    return content
