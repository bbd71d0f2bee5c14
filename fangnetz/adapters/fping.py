"""One round of pings by one `fping` process.

Never takes fping's failure for a host's silence: only the words "is unreachable" without a local error are NO.

Why retries and not one long wait: fping judges a reply by the kernel's receive time against the time it noted before
sending, so being late at *reading* loses nothing (tried with injected delays), but being stopped between that note and
the send makes one try look lost. Three tries would have to be hit one after the other.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence

from fangnetz.core.model import Answer
from fangnetz.core.units import Seconds

TRIES = 3
GRACE = Seconds(1.0)
"""How long fping may overrun on a saturated machine before it is killed and its unread answers are UNKNOWN."""
SENDING_SHARE = 0.1
"""Part of one try's wait that sending to all targets may take: sets the gap between two packets."""
GAP_MAX_MS = 1.0
SETTLED = (0, 1, 2)
"""fping's exits that are verdicts: all answered, some silent, some names unknown. Others are its own failure."""

_VERDICT = re.compile(r"(?P<address>\S+) is (?P<word>alive|unreachable)")
_LOCAL_ERROR = re.compile(r"(?P<address>\S+): error while sending ping: (?P<reason>.*)")
_NO_ROUTE = "No route to host"
"""EHOSTUNREACH: the neighbour did not answer ARP, so it was asked and is silent. All else is our own fault."""


class Pings:
    """A round under way."""

    def __init__(self, process: subprocess.Popen[str] | None, addresses: Sequence[str], deadline: float) -> None:
        self._process = process
        self._addresses = addresses
        self._deadline = deadline

    def collect(self) -> Mapping[str, Answer]:
        """Wait for the round's end or its bound and return an answer for every address."""
        process = self._process
        if process is None:
            return dict.fromkeys(self._addresses, Answer.UNKNOWN)
        ended = True
        try:
            output, errors = process.communicate(
                timeout=max(self._deadline - time.monotonic(), 0.01),
            )
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            ended = False
        return read_answers(self._addresses, output, errors, ended and process.returncode in SETTLED)


def start_pings(addresses: Sequence[str], timeout: Seconds, program: str = "fping") -> Pings:
    """Start asking all addresses; `timeout` seconds for all tries together."""
    if not addresses:
        return Pings(None, addresses, 0.0)
    wait_ms = max(timeout * 1000 / TRIES, 10)
    gap_ms = min(wait_ms * SENDING_SHARE / len(addresses), GAP_MAX_MS)
    command = [program, f"-r{TRIES - 1}", "-B1", f"-t{wait_ms:.0f}", f"-i{gap_ms:.3f}"]
    deadline = time.monotonic() + timeout + GRACE
    # A file in memory and not a pipe: nothing to wait for, however many targets there are.
    with open(os.memfd_create("targets"), "w+", encoding="ascii") as targets:
        targets.writelines(f"{address}\n" for address in addresses)
        targets.seek(0)
        try:
            process = subprocess.Popen(
                command,
                stdin=targets,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError:
            return Pings(None, addresses, deadline)
    return Pings(process, addresses, deadline)


def read_answers(addresses: Sequence[str], output: str, errors: str, settled: bool) -> Mapping[str, Answer]:
    """Turn fping's words into answers. `settled` False (killed, crashed): "alive" still counts, silence does not."""
    answers = dict.fromkeys(addresses, Answer.UNKNOWN)
    not_asked = {
        found["address"]
        for line in errors.splitlines()
        if (found := _LOCAL_ERROR.fullmatch(line)) and found["reason"].strip() != _NO_ROUTE
    }
    for line in output.splitlines():
        verdict = _VERDICT.fullmatch(line.strip())
        if verdict is None or verdict["address"] not in answers:
            continue
        if verdict["word"] == "alive":
            answers[verdict["address"]] = Answer.YES
        elif settled and verdict["address"] not in not_asked:
            answers[verdict["address"]] = Answer.NO
    return answers
