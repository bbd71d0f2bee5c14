"""Busy loops that saturate all cores. Each ends by itself when its parent is gone, so none outlives a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PER_CORE = 2
_LOOP = """
import os, sys
parent = int(sys.argv[1])
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def saturated() -> Iterator[int]:
    """Keep all cores busy at normal niceness; yield the number of processes, ended when the block ends.

    Each has a session of its own: the kernel shares a core between sessions, so one session would weigh as little as
    one process.
    """
    burners: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(PER_CORE * (os.cpu_count() or 1)):
            command = [sys.executable, "-S", "-c", _LOOP, str(os.getpid())]
            burners.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True))
        yield len(burners)
    finally:
        for burner in burners:
            burner.kill()
        for burner in burners:
            burner.wait()
