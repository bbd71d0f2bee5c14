"""A played story as a drawing: a row a host (power and what controllers held of it), a row a VM (where it ran)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from fangnetz.cli._console import BAD, BUSY, GOOD, QUIET
from fangnetz.sim.result import Result

NAME_MAX = 16
MARKS = {
    "online": ("━", GOOD),
    "suspect": ("?", BUSY),
    "unknown": ("?", BUSY),
    "degraded": ("~", BUSY),
    "isolated": ("!", BAD),
    "lost": ("!", BAD),
    "fencing": ("x", BAD),
    "fenced": ("─", QUIET),
    "returning": ("↑", BUSY),
    "needs_person": ("P", BAD),
}
"""How a powered host looks in each state; without power there is nothing to see."""


class History:
    """Drawn as wide as the console."""

    def __init__(self, result: Result) -> None:
        self._data, self._until = result.data, result.simulated_s

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = max(20, options.max_width - NAME_MAX - 2)
        yield self._axis(columns)
        for host in self._data["power"]:
            yield self._row(host, self._host_marks(host, columns))
        names = list(self._data["power"])
        letters = {host: str(number) for number, host in enumerate(names, start=1)}
        for vm, copies in self._data["running"].items():
            yield self._row(vm, self._vm_marks(copies, letters, columns))
        yield Text(f"{'':{NAME_MAX}}  VMs: the number of the host they run on, · nowhere", style=QUIET)

    @staticmethod
    def _row(name: str, marks: Iterator[tuple[str, str]]) -> Text:
        line = Text(f"{name[:NAME_MAX]:{NAME_MAX}}  ")
        for mark, style in marks:
            line.append(mark, style=style)
        return line

    def _axis(self, columns: int) -> Text:
        line = [" "] * columns
        for share in range(10):
            at = int(columns * share / 10)
            word = f"{self._until * share / 10:.0f}"
            line[at : at + len(word)] = word
        return Text(f"{'seconds':{NAME_MAX}}  " + "".join(line)[:columns], style=QUIET)

    def _at(self, column: int, columns: int) -> float:
        return self._until * (column + 0.5) / columns

    def _host_marks(self, host: str, columns: int) -> Iterator[tuple[str, str]]:
        states = [(e["t"], e["state"]) for e in self._data["events"] if e["kind"] == "host_state" and e["host"] == host]
        for column in range(columns):
            at = self._at(column, columns)
            powered = any(s["from"] <= at and (s["to"] is None or at < s["to"]) for s in self._data["power"][host])
            state = next((state for t, state in reversed(states) if t <= at), "online")
            mark, style = MARKS.get(state, ("·", QUIET))
            yield (mark, style) if powered else ("x" if state == "fencing" else " ", BAD)

    def _vm_marks(
        self, copies: list[dict[str, Any]], letters: dict[str, str], columns: int
    ) -> Iterator[tuple[str, str]]:
        for column in range(columns):
            at = self._at(column, columns)
            there = [letters[c["host"]] for c in copies if c["from"] <= at and (c["to"] is None or at < c["to"])]
            yield ("·", QUIET) if not there else (there[0], GOOD) if len(there) == 1 else ("#", BAD)
