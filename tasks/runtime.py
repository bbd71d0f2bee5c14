"""What the tasks of one worker process work with. Set once when the process starts; never travels in a message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fangnetz.core.convergence import Progress
from fangnetz.core.operations import StepKind
from fangnetz.core.units import OperationId, Seconds
from fangnetz.engine.execute import Done, Executor
from fangnetz.engine.tick import Controller
from fangnetz.engine.watching import PowerAsker
from fangnetz.ports import Operators


@dataclass(slots=True, kw_only=True)
class Runtime:
    """Parts a role has; a task whose part is missing was sent to the wrong queue."""

    role: str
    executor: Executor | None = None
    controller: Controller | None = None
    power: PowerAsker | None = None
    probe: Callable[[], None] | None = None
    operators: Operators | None = None
    nudge: Callable[[], None] | None = None
    due: Callable[[Seconds | None], None] = lambda _span: None
    """Tells the process when the next tick is due at the latest."""


class WrongQueue(RuntimeError):
    """A message reached a worker that has no part for it."""


_runtime: Runtime | None = None


def install(runtime: Runtime) -> None:
    """Give this process its parts."""
    global _runtime  # noqa: PLW0603 - one process, one role
    _runtime = runtime


def runtime() -> Runtime:
    """Return this process's parts; WrongQueue before `install`."""
    if _runtime is None:
        raise WrongQueue("this process is no Fangnetz worker")
    return _runtime


def carry_out(operation: str, step: str, kind: StepKind, listener: Callable[[Progress], None]) -> Done:
    """Hand one step to this process's executor; `listener` is told how it comes on."""
    executor = runtime().executor
    if executor is None:
        raise WrongQueue(f"a {runtime().role} process carries out no steps")
    return executor.carry_out(OperationId(operation), step, kind, listener)
