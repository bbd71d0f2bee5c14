"""The cells of the table: which step of a failover is struck, at which moment, by what. Plain values, nothing acts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from fangnetz.core.units import HostId, VmId

Role = Literal["control", "work", "fence", "worker", "redis"]
Cause = Literal["plug", "cut"]


class Moment(StrEnum):
    """Where in its step a process is struck."""

    BEFORE = "before the effect"
    AFTER = "after the effect, before the write"
    WRITTEN = "after the write"


class Blow(StrEnum):
    """What strikes it; the words of a fault point's action."""

    KILL = "kill"
    FREEZE = "freeze"
    """Thawed when the incident has ended without it, or where it cannot, when its lease was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of the table. `about_vm`: the point is passed once for each VM, and one VM's is struck."""

    step: str
    moment: Moment
    point: str
    blow: Blow
    role: Role
    cause: Cause = "plug"
    about_vm: bool = False

    @property
    def name(self) -> str:
        """As `--only` knows it."""
        return f"{self.point}:{self.blow}"

    @property
    def is_last(self) -> bool:
        """Whether nothing is left to take up: the operation's end was written, and nothing follows it."""
        return self.step == "close" and self.moment is Moment.WRITTEN

    def subject(self, host: HostId, vm: VmId) -> str:
        """Return whom the armed point is about."""
        return vm if self.about_vm else host

    def step_key(self, vm: VmId) -> str:
        """Return the key of the struck step in the journal; empty for the controller's own writes."""
        match self.step:
            case "open" | "dispatch":
                return ""
            case "plan":
                return "plan/1"
            case "start" | "running":
                return f"{self.step}/{vm}/1"
            case _:
                return self.step


_ROLES: dict[str, Role] = {
    "confirm": "work",
    "fence": "fence",
    "prove": "work",
    "plan": "work",
    "start": "worker",
    "running": "work",
    "close": "work",
}
_EFFECTS = {
    "fence": ("fence.before_cut", "fence.sent"),
    "start": ("start.before_create", "start.created"),
}
"""Steps that change more than the store; the effect of the others is what they have worked out or written beside."""


def all_cells() -> tuple[Cell, ...]:
    """Return the whole table, in the order of a failover."""
    cells: list[Cell] = []
    for blow in Blow:
        cells += [
            Cell(step="open", moment=Moment.BEFORE, point="operation.before_open", blow=blow, role="control"),
            Cell(step="open", moment=Moment.WRITTEN, point="operation.opened", blow=blow, role="control"),
            Cell(step="dispatch", moment=Moment.BEFORE, point="operation.before_dispatch", blow=blow, role="control"),
            Cell(step="dispatch", moment=Moment.WRITTEN, point="operation.dispatched", blow=blow, role="control"),
        ]
        for step, role in _ROLES.items():
            before, after = _EFFECTS.get(step, (f"{step}.claimed", f"{step}.before_settle"))
            places = ((Moment.BEFORE, before), (Moment.AFTER, after), (Moment.WRITTEN, f"{step}.settled"))
            cells += [
                Cell(
                    step=step,
                    moment=moment,
                    point=point,
                    blow=blow,
                    role=role,
                    cause="cut" if step == "fence" else "plug",  # a host without power is not cut any more
                    about_vm=step in ("start", "running"),
                )
                for moment, point in places
            ]
    steps = ["open", "dispatch", *_ROLES]
    return tuple(sorted(cells, key=lambda cell: (steps.index(cell.step), cell.blow is Blow.FREEZE)))


def cell(name: str) -> Cell:
    """Return the cell of this name; KeyError if there is none."""
    return {each.name: each for each in all_cells()}[name]


STORE = Cell(step="store", moment=Moment.BEFORE, point="redis", blow=Blow.KILL, role="redis")
"""Not in the table: no process of ours is struck, but the store under all of them, in the middle of the failover."""
