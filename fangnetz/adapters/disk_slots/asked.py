"""Our end of the process that touches the storage (`child`): asks it, and never waits for it beyond the bound."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from fangnetz.core.errors import StorageUnreachable
from fangnetz.core.units import HostId, Incarnation, Seconds
from fangnetz.ports import SlotMark

START_BOUND_S = 5.0
"""The first exchange includes an interpreter's start, which takes several times the usual 0.2 s on a busy machine."""


class AskedSlots:
    """Slots in a folder or on a device, asked through a process of its own. For one thread."""

    def __init__(self, kind: Literal["folder", "device"], path: Path, cluster: str) -> None:
        self._path, self._words = path, (kind, str(path), cluster)
        self._child: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._owed = 0
        """Answers to earlier questions that nobody waited for; they come first."""

    def exchange(self, mine: SlotMark, others: Sequence[HostId], bound: Seconds) -> Mapping[HostId, SlotMark]:
        child, deadline = self._running(), time.monotonic() + bound
        if child is not self._child:
            self._child, self._said, self._owed = child, b"", 0
            deadline += START_BOUND_S
        while self._owed:  # it hangs still: one more question would only wait behind the last one
            self._next_line(child, deadline)
            self._owed -= 1
        request = {"mine": [mine.host, mine.incarnation, mine.sequence], "others": list(others)}
        assert child.stdin is not None  # noqa: S101 - made with a pipe
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        except OSError as error:
            raise self._lost(child) from error
        self._owed = 1
        line = self._next_line(child, deadline)
        self._owed = 0
        try:
            answer = json.loads(line)
            if "error" in answer:
                raise StorageUnreachable(answer["error"])
            return {
                HostId(host): SlotMark(host=HostId(host), incarnation=Incarnation(incarnation), sequence=int(sequence))
                for host, incarnation, sequence in answer["marks"]
            }
        except (ValueError, KeyError, TypeError) as error:
            raise self._lost(child) from error

    def close(self) -> None:
        """End the child. One that hangs in the kernel ends once its storage answers; it is not waited for."""
        if self._child is not None:
            self._child.kill()
            for end in (self._child.stdin, self._child.stdout):
                if end is not None:
                    end.close()
            self._child = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        command = [sys.executable, "-P", "-m", "fangnetz.adapters.disk_slots.child", *self._words]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise StorageUnreachable("The process that writes the slots cannot be started.") from error

    def _next_line(self, child: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert child.stdout is not None  # noqa: S101 - made with a pipe
        source = child.stdout.fileno()
        while b"\n" not in self._said:
            ready, _, _ = select.select([source], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise StorageUnreachable(f"{self._path} has not answered in time.")
            part = os.read(source, 65536)
            if not part:
                raise self._lost(child)
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _lost(self, child: subprocess.Popen[bytes]) -> StorageUnreachable:
        child.poll()
        self.close()
        return StorageUnreachable("The process that writes the slots has ended; it is started again.")
