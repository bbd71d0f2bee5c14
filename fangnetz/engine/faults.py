"""Make this process fail at a named point, as a crash or a hung library would. Off unless armed; fires once.

Armed by the environment (`FANGNETZ_FAULT=fence.sent:kill`) or by a file `fault.<role>` with the same words in the run
folder, which is root's or the process's own user's. Never fails by itself, never at a point that was not named.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, Protocol

from fangnetz.core.errors import SettingsError, WorldError
from fangnetz.core.operations import StepKind
from fangnetz.engine.fault_points import POINTS, STEP_NAMES

LOOK_EVERY_S = 0.01
"""A healthy process looks for its file this often at most: a look costs more than all its points without one."""
HANG_LOOK_S = 0.05
"""A hung thread looks this often whether it may go on."""


class Action(StrEnum):
    """What happens at an armed point."""

    KILL = "kill"
    """SIGKILL to this process."""
    FREEZE = "freeze"
    """SIGSTOP to this process, until somebody sends SIGCONT."""
    HANG = "hang"
    """This thread waits until the file `hung.<role>` is removed; the others go on."""
    RAISE = "raise"
    """FaultInjected."""


class FaultInjected(WorldError):
    """A test asked for this failure; the code around it meets it like a world that says no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One armed point. `subject`: only for this host or VM; empty for any."""

    point: str
    subject: str
    action: Action

    def __str__(self) -> str:
        return f"{self.point}{'@' + self.subject if self.subject else ''}:{self.action}"


def parse(words: str) -> tuple[Fault, ...]:
    """Read `POINT[@SUBJECT]:ACTION[,…]`. SettingsError naming the word at fault."""
    faults = []
    for word in filter(None, (part.strip() for part in words.split(","))):
        where, _, what = word.partition(":")
        name, _, subject = where.partition("@")
        if name not in POINTS:
            raise SettingsError(f"fault {word!r}: no fault point is called {name!r}; `fangnetz lab faults` lists them")
        if what not in set(Action):
            choice = ", ".join(Action)
            raise SettingsError(f"fault {word!r}: a process can {choice}, not {what!r}, at a fault point")
        faults.append(Fault(point=name, subject=subject, action=Action(what)))
    return tuple(faults)


def fault_file(run_dir: Path, role: str) -> Path:
    """Return the file that arms a process; it loses each fault just before that one happens."""
    return run_dir / f"fault.{role}"


def struck_file(run_dir: Path, role: str) -> Path:
    """Return the file that says what is left of the environment's words: a restart brings all of them again."""
    return run_dir / f"struck.{role}"


def hung_file(run_dir: Path, role: str) -> Path:
    """Return the file that keeps the hung threads of a process hung."""
    return run_dir / f"hung.{role}"


class Armed:
    """What one process was asked to fail at. Thread-safe."""

    def __init__(self, run_dir: Path, role: str, environment: str) -> None:
        self._words, self._struck = environment.replace("\n", ","), struck_file(run_dir, role)
        self._environment = list(parse(self._left()))
        self._file, self._hung = fault_file(run_dir, role), hung_file(run_dir, role)
        self._path = str(self._file)
        self._there, self._look_again_at = False, 0.0
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        if self._environment:
            return True
        now = time.monotonic()
        if now >= self._look_again_at:
            self._look_again_at, self._there = now + LOOK_EVERY_S, os.access(self._path, os.F_OK)
        return self._there

    def meet(self, point: str, subject: str) -> None:
        """Fail here if somebody asked for it."""
        with self._lock:
            fault = self._taken_from_environment(point, subject) or self._taken_from_file(point, subject)
        if fault is not None:
            self._fail(fault)

    def _taken_from_environment(self, point: str, subject: str) -> Fault | None:
        found = next((fault for fault in self._environment if _fits(fault, point, subject)), None)
        if found is None:
            return None
        self._environment.remove(found)
        new = Path(f"{self._struck}.new")
        try:
            new.write_text(f"{self._words}\n{','.join(map(str, self._environment))}\n")
            new.rename(self._struck)
        except OSError:
            return None  # what cannot be remembered would happen again after every restart
        return found

    def _left(self) -> str:
        """Return the environment's words without what an earlier process of this role and boot has met already."""
        try:
            words, left, *_ = [*self._struck.read_text().splitlines(), ""]
        except OSError:
            return self._words
        return left if words == self._words else self._words

    def _taken_from_file(self, point: str, subject: str) -> Fault | None:
        try:
            armed = parse(self._file.read_text())
        except OSError:
            return None
        except SettingsError as refused:
            with contextlib.suppress(OSError):
                self._file.rename(f"{self._path}.refused")
                Path(f"{self._path}.refused").write_text(f"{refused}\n")
            return None
        found = next((fault for fault in armed if _fits(fault, point, subject)), None)
        if found is not None:
            left = [str(fault) for fault in armed if fault is not found]
            with contextlib.suppress(OSError):
                if left:
                    new = Path(f"{self._path}.new")
                    new.write_text(",".join(left))
                    new.rename(self._file)
                else:
                    self._file.unlink(missing_ok=True)
        return found

    def _fail(self, fault: Fault) -> None:
        match fault.action:
            # To this very thread: it ends or stops here, not a few lines further on.
            case Action.KILL:
                signal.pthread_kill(threading.get_ident(), signal.SIGKILL)
            case Action.FREEZE:
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            case Action.HANG:
                self._hang(fault)
            case Action.RAISE:
                raise FaultInjected(f"fault point {fault.point}: a failure was asked for")

    def _hang(self, fault: Fault) -> None:
        try:
            self._hung.write_text(f"{fault}\n")
        except OSError:
            _wait_for_ever()
        while self._hung.exists():
            time.sleep(HANG_LOOK_S)


def _fits(fault: Fault, point: str, subject: str) -> bool:
    return fault.point == point and fault.subject in ("", subject)


def _wait_for_ever() -> NoReturn:
    while True:
        time.sleep(3600)


class Arms(Protocol):
    """Whatever decides whether a point fails: asked only while it is true."""

    def __bool__(self) -> bool: ...

    def meet(self, point: str, subject: str) -> None: ...


_armed: Arms | None = None


def listen(run_dir: Path, role: str, environment: str | None = None) -> Callable[[], None]:
    """From now on fail where `environment` (None: FANGNETZ_FAULT) or the role's file says; return how to stop that.

    Called once by each process that may be made to fail. SettingsError for words that name no point or no action.
    """
    global _armed  # noqa: PLW0603 - one process, one role
    _armed = Armed(run_dir, role, os.environ.get("FANGNETZ_FAULT", "") if environment is None else environment)
    return _deafen


def listen_to(arms: Arms | None) -> None:
    """From now on fail where `arms` says; None: nowhere. For whoever plays many processes in one."""
    global _armed  # noqa: PLW0603 - one process, one role
    _armed = arms


def _deafen() -> None:
    global _armed  # noqa: PLW0603 - one process, one role
    _armed = None


def is_armed() -> bool:
    """Whether any point may fail now."""
    return bool(_armed)


def point(name: str, subject: str = "") -> None:
    """Fail here if this point is armed for this subject or for any."""
    armed = _armed
    if armed is not None and armed:
        armed.meet(name, subject)


def step_point(kind: StepKind, stage: str, subject: str) -> None:
    """Fail here if this stage of this kind of step is armed."""
    armed = _armed
    if armed is not None and armed:
        armed.meet(f"{STEP_NAMES[kind]}.{stage}", subject)
