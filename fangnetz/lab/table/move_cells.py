"""The cells of the second table: which step of a live migration is struck, where, and who is. Plain values only.

Who carries the step out dies at a fault point. Whoever else is to die does so while the step is held at its point, so
that every row says exactly how far the move had come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from fangnetz.core.units import VmId
from fangnetz.lab.table.cells import Moment

Executor = Literal["control", "work", "source", "target"]
Way = Literal["migrate", "evacuate"]


class Victim(StrEnum):
    """Who is struck; the first four by a kill -9, the others by the world."""

    SOURCE_WORKER = "source's worker"
    TARGET_WORKER = "target's worker"
    WORK = "task workers"
    CONTROL = "control processes"
    SOURCE = "source host"
    TARGET = "target host"
    LINK = "link between them"
    STORE = "Redis"

    @property
    def slug(self) -> str:
        """As `--only` knows it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveCell:
    """One row of the table. An empty `point`: while memory is being sent, which no point of ours is passed in."""

    step: str
    moment: Moment
    point: str
    executor: Executor
    victim: Victim
    way: Way = "migrate"

    @property
    def name(self) -> str:
        """As `--only` knows it."""
        return f"{self.way}:{self.point or IN_FLIGHT}:{self.victim.slug}"

    @property
    def of_executor(self) -> bool:
        """Whether the struck process carries the step out: it dies right at its point, and nothing has to be held."""
        return bool(self.point) and self.victim is KILLED[self.executor]

    @property
    def is_last(self) -> bool:
        """Whether nothing is left to take up: the operation's end was written, and nothing follows it."""
        return self.step == "close" and self.moment is Moment.WRITTEN

    def step_key(self, vm: VmId) -> str:
        """Return the key of the struck step in the journal; empty for the controller's own writes."""
        match self.step:
            case "open" | "dispatch":
                return ""
            case "plan":
                return "plan/1"
            case "close":
                return "close"
            case _:
                return f"{self.step}/{vm}/1"

    def boots(self) -> tuple[int, ...]:
        """Return how often the VM may boot anew: never, unless the host died that had the only copy of it.

        As the source dies right after the VM has left it and before it has promised so, both are right: nobody knows.
        """
        step, sent = STEPS.index(self.step), STEPS.index("migrate")
        left = step > sent or (step == sent and self.moment is Moment.WRITTEN)
        match self.victim:
            case Victim.SOURCE:
                return (0,) if left else (0, 1) if self.point == "migrate.left" else (1,)
            case Victim.TARGET:
                return (1,) if left or self.point == "migrate.left" else (0,)
            case _:
                return (0,)


IN_FLIGHT = "in_flight"
KILLED = {
    "control": Victim.CONTROL,
    "work": Victim.WORK,
    "source": Victim.SOURCE_WORKER,
    "target": Victim.TARGET_WORKER,
}
PROCESSES = tuple(KILLED.values())
WORLD = (Victim.SOURCE, Victim.TARGET, Victim.LINK, Victim.STORE)

_POINTS: dict[str, tuple[Executor, tuple[str, ...]]] = {
    "open": ("control", ("operation.before_open", "", "operation.opened")),
    "dispatch": ("control", ("operation.before_dispatch", "", "operation.dispatched")),
    "plan": ("work", ("plan_move.claimed", "plan_move.before_settle", "plan_move.settled")),
    "prepare": ("target", ("prepare.claimed", "prepare.before_settle", "prepare.settled")),
    "migrate": ("source", ("migrate.before_send", "migrate.left", "migrate.settled")),
    "hand_over": ("work", ("hand_over.claimed", "hand_over.before_settle", "hand_over.settled")),
    "resume": ("target", ("resume.before_resume", "resume.resumed", "resume.settled")),
    "running": ("work", ("running.claimed", "running.before_settle", "running.settled")),
    "close": ("work", ("close.claimed", "close.before_settle", "close.settled")),
}
"""Step -> who carries it out, and its points before its effect, after it, and after its write (the controller's own
writes are their effect). What a plan writes is where the VM goes to; what a hand-over does, whose it is."""
STEPS = tuple(_POINTS)
_FAULTS: dict[Victim, tuple[str, ...]] = {
    Victim.SOURCE: ("prepare.claimed", "", "migrate.left", "hand_over.claimed", "resume.before_resume"),
    Victim.TARGET: ("prepare.claimed", "", "migrate.left", "hand_over.claimed", "resume.before_resume"),
    Victim.LINK: ("prepare.claimed", "", "hand_over.claimed"),
    Victim.STORE: ("plan_move.claimed", "prepare.claimed", "", "migrate.left", "hand_over.claimed", "running.claimed"),
}
"""Faults of the world -> the points of a move at which the world is different; each takes a minute or more."""


def all_move_cells() -> tuple[MoveCell, ...]:
    """Return the whole table, in the order of a move; evacuations and faults of the world come last."""
    kills = [*_executors("migrate"), *_bystanders(), *(_in_flight(victim) for victim in PROCESSES)]
    faults = [_at(point, victim) if point else _in_flight(victim) for victim in WORLD for point in _FAULTS[victim]]
    emptied = [cell for cell in _executors("evacuate") if cell.moment is Moment.AFTER or cell.step == "dispatch"]
    return (*sorted(kills, key=_order), *emptied, *faults)


def move_cell(name: str) -> MoveCell:
    """Return the cell of this name; KeyError if there is none."""
    return {each.name: each for each in all_move_cells()}[name]


def _order(cell: MoveCell) -> tuple[int, int, int]:
    return STEPS.index(cell.step), PROCESSES.index(cell.victim), list(Moment).index(cell.moment)


def _executors(way: Way) -> Iterator[MoveCell]:
    """Yield every step struck in its own process at every moment."""
    for step, (executor, points) in _POINTS.items():
        for moment, point in zip(Moment, points, strict=True):
            if point:
                yield MoveCell(
                    step=step, moment=moment, point=point, executor=executor, victim=KILLED[executor], way=way
                )


def _bystanders() -> Iterator[MoveCell]:
    """Yield every step with everybody else struck while it is held."""
    for step, (executor, points) in _POINTS.items():
        for victim in PROCESSES:
            if victim is not KILLED[executor]:
                yield _at(points[0] if step != "open" else points[2], victim)


def _at(point: str, victim: Victim) -> MoveCell:
    for step, (executor, points) in _POINTS.items():
        if point in points:
            moment = list(Moment)[points.index(point)]
            return MoveCell(step=step, moment=moment, point=point, executor=executor, victim=victim)
    raise KeyError(point)


def _in_flight(victim: Victim) -> MoveCell:
    return MoveCell(step="migrate", moment=Moment.BEFORE, point="", executor="source", victim=victim)
