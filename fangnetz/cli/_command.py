"""The administrator's own command, run on this machine for one host: no shell, its output shown line by line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from fangnetz.core.errors import WishRefused
from fangnetz.engine.rolling import CommandEnded

LOOK_EVERY_S = 0.2
END_S = 10.0
"""How long a command that was asked to end may take before it is killed."""
NOT_STARTED = 127
"""Exit code of a command that could not be started, as shells have it."""


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a command line as a shell would split it; WishRefused if it cannot be read."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise WishRefused(f"the command of --run cannot be read: {str(error).lower()}") from error
    if not words:
        raise WishRefused("the command of --run is empty")
    return words


def for_host(words: Sequence[str], host: str, address: str) -> tuple[str, ...]:
    """Return the words with `{host}` and `{address}` filled in; all else stays as it is."""
    return tuple(word.replace("{host}", host).replace("{address}", address) for word in words)


def must_be_there(program: str) -> None:
    """WishRefused if this machine has no such program."""
    if shutil.which(program) is None:
        raise WishRefused(f"this machine has no program {program!r} to run")


def run_command(
    words: Sequence[str],
    names: Mapping[str, str],
    show: Callable[[str], None],
    meanwhile: Callable[[], None],
    bound_s: float,
) -> CommandEnded:
    """Run it to its end, at most `bound_s`. `names` are added to its environment; it gets no standard input.

    `meanwhile` is called several times a second. What that raises, and a KeyboardInterrupt, ends the command first.
    """
    try:
        child = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **names},
            text=True,
            errors="replace",
        )
    except OSError as error:
        return CommandEnded(exit_code=NOT_STARTED, output=f"{words[0]}: {error.strerror}")
    said: list[str] = []

    def listen() -> None:
        for line in child.stdout or ():
            said.append(line)
            show(line.rstrip("\n"))

    ear = threading.Thread(target=listen, daemon=True)
    ear.start()
    deadline = time.monotonic() + bound_s
    try:
        while child.poll() is None:
            if time.monotonic() >= deadline:
                _end(child)
                ear.join(timeout=1.0)
                return CommandEnded(exit_code=None, output="".join(said))
            meanwhile()
            time.sleep(LOOK_EVERY_S)
    except BaseException:
        _end(child)
        raise
    ear.join(timeout=1.0)  # what it left behind may hold its output open
    return CommandEnded(exit_code=child.returncode, output="".join(said))


def _end(child: subprocess.Popen[str]) -> None:
    """Ask it to end, then kill it. A Ctrl-C at the terminal has reached it already."""
    child.terminate()
    try:
        child.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
