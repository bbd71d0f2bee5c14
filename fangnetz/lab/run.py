"""Run one of the machine's tools and return what it said. Never through a shell, never without a time limit."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from fangnetz.lab.errors import LabError

SCRIPTS = Path(__file__).parent / "scripts"


def run(*argv: str | Path, given: str | None = None, timeout_s: float = 30, tolerate: bool = False) -> str:
    """Return stdout of a command. Raises LabError with its last words unless `tolerate`."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(words)}` did not end within {timeout_s:g} s") from error
    if done.returncode != 0 and not tolerate:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LabError(f"`{' '.join(words)}` failed: {said[-1] if said else f'exit {done.returncode}'}")
    return done.stdout


def ip(*words: str) -> str:
    """Run iproute2's `ip`."""
    return run("ip", *words)


def ip_batch(namespace: str | None, lines: Sequence[str]) -> None:
    """Run several `ip` commands in one process, inside a namespace or in the machine's own."""
    run("ip", *(["-n", namespace] if namespace else []), "-batch", "-", given="\n".join(lines) + "\n")


def script(name: str, *argv: str | Path) -> float:
    """Run one of the lab's scripts; return the instant just before its effect, which is its first line of output."""
    said = run("/bin/bash", SCRIPTS / f"{name}.sh", *argv, timeout_s=60)
    return float(said.split()[0])
