"""Named points in the product where a test may make it fail. Off unless armed; an armed point fires once.

Armed by the environment (`FANGNETZ_FAULT=start.before_create:freeze`) or by a file `fault` with the same words in the
run folder, which only root can write. kill = SIGKILL to this process, freeze = SIGSTOP, raise = FaultInjected.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fangnetz.core.errors import FangnetzError

POINTS = (
    "step.claimed",
    "step.before_settle",
    "step.settled",
    "fence.before_cut",
    "fence.sent",
    "start.before_create",
    "start.created",
)


class FaultInjected(FangnetzError):
    """A test asked for this failure."""


_fired: set[str] = set()


def point(name: str) -> None:
    """Fail here if this point is armed."""
    armed = os.environ.get("FANGNETZ_FAULT", "")
    if armed and armed not in _fired and _matches(armed, name):
        _fired.add(armed)
        _fire(armed)
    file = Path(os.environ.get("FANGNETZ_RUN_DIR", "/run/fangnetz")) / "fault"
    try:
        words = file.read_text().strip()
    except OSError:
        return
    if _matches(words, name):
        file.unlink(missing_ok=True)
        _fire(words)


def _matches(armed: str, name: str) -> bool:
    return armed.partition(":")[0] == name


def _fire(armed: str) -> None:
    name, _, what = armed.partition(":")
    match what:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            raise FaultInjected(f"fault point {name}: {what or 'raise'}")
