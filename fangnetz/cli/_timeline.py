"""An incident as bars: a row a phase, then a row a VM, on one axis of seconds since the last sign of life."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from fangnetz.cli._console import BUSY, QUIET, style_of
from fangnetz.core.incidents import Incident, IncidentVm, VmOutcome
from fangnetz.core.operations import OperationState

NAME_MAX = 24
BARS_MIN = 20
FIGURES = 18
"""Columns for `took` and `at` on the right."""
STEPS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000, 86400)
TICK_COLUMNS = 8
"""The axis has a mark at least so many columns apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A stretch in seconds from the beginning. `open_ended`: it has not ended yet."""

    start: float
    end: float
    style: str
    open_ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row: its name, its bars, or a word where there is nothing to draw."""

    name: str
    bars: tuple[Bar, ...] = ()
    word: str = ""


def lines(incident: Incident, now: float) -> tuple[Line, ...]:
    """Return the rows: detection, confirm, fence, proof, then each VM's start and boot."""
    zero = incident.began_at
    proven = incident.fence_proven_at
    marks = sorted(
        at - zero
        for at in (incident.suspected_at, incident.confirmed_at, incident.fence_sent_at, proven)
        if at is not None
    )
    is_open = incident.state is OperationState.OPEN

    def before(end: float) -> float:
        return max((mark for mark in marks if mark < end), default=0.0)

    def phase(name: str, at: float | None, style: str, *, word: str = "", due: bool = True) -> Line:
        if at is None:
            if is_open and due:
                bar = Bar(start=max(marks, default=0.0), end=max(0.0, now - zero), style=style, open_ended=True)
                return Line(name=name, bars=(bar,))
            return Line(name=name, word=word)
        return Line(name=name, bars=(Bar(start=before(at - zero), end=max(0.0, at - zero), style=style),))

    confirmed = incident.confirmed_at is not None
    found = [
        phase("detection", incident.suspected_at, "blue", word="not seen"),
        phase("confirm", incident.confirmed_at, "cyan", word="not confirmed", due=incident.suspected_at is not None),
        phase(
            "fence",
            incident.fence_sent_at,
            "red",
            word="nothing was cut" if not is_open or proven is not None else "",
            due=confirmed and proven is None,
        ),
        phase("proof", proven, "magenta", word="none" if not is_open else "", due=False),
    ]
    placed_after = max(marks, default=0.0)
    found += [_vm(vm, zero, placed_after, now, is_open) for vm in incident.vms]
    return tuple(found)


def _vm(vm: IncidentVm, zero: float, ready: float, now: float, is_open: bool) -> Line:
    name = f"{vm.vm} → {vm.target}" if vm.target else vm.vm
    style = style_of(vm.outcome.value) or "green"
    sent = None if vm.start_sent_at is None else vm.start_sent_at - zero
    ran = None if vm.running_at is None else vm.running_at - zero
    if ran is None and sent is None:
        if is_open and vm.target is not None:
            return Line(name=name, bars=(Bar(start=ready, end=max(ready, now - zero), style=QUIET, open_ended=True),))
        return Line(name=name, word=vm.outcome.value)
    start = sent if sent is not None else min(ready, ran if ran is not None else ready)
    bars = [Bar(start=min(ready, start), end=start, style=QUIET)]
    if ran is not None:
        bars.append(Bar(start=start, end=ran, style=style))
    elif is_open and vm.outcome is VmOutcome.WAITING:
        bars.append(Bar(start=start, end=max(start, now - zero), style=BUSY, open_ended=True))
    return Line(name=name, bars=tuple(bars), word="" if ran is not None else vm.outcome.value)


class Timeline:
    """Draws the rows in the width there is."""

    def __init__(self, incident: Incident, now: float) -> None:
        self._lines = lines(incident, now)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        names = min(NAME_MAX, max(cell_len(line.name) for line in self._lines))
        width = max(BARS_MIN, options.max_width - names - FIGURES - 4)
        last = max((bar.end for line in self._lines for bar in line.bars), default=0.0)
        scale = _Scale(seconds=max(last, 0.1), columns=width)
        yield Text(" " * (names + 4) + scale.axis(), style=QUIET, no_wrap=True)
        for line in self._lines:
            row = Text("  ", no_wrap=True)
            row.append(set_cell_size(line.name, names) if cell_len(line.name) <= names else _cut(line.name, names))
            row.append("  ")
            row.append_text(scale.draw(line))
            row.append_text(_figures(line))
            yield row


def _cut(name: str, width: int) -> str:
    return set_cell_size(name, width - 1) + "…"


def _figures(line: Line) -> Text:
    if not line.bars:
        return Text("")
    took = line.bars[-1].end - line.bars[0].start
    more = "…" if line.bars[-1].open_ended else " "
    return Text(f"{took:>7.1f} s {line.bars[-1].end:>+7.1f}{more}", style=QUIET)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    seconds: float
    columns: int

    def column(self, at: float) -> int:
        return min(self.columns, max(0, round(at / self.seconds * self.columns)))

    def axis(self) -> str:
        """Numbers where they stand, as many as fit."""
        row = [" "] * (self.columns + 8)
        step = next((s for s in STEPS if s / self.seconds * self.columns >= TICK_COLUMNS), STEPS[-1])
        for mark in _marks(step, self.seconds):
            at = self.column(mark)
            for offset, letter in enumerate(f"{mark:g}"):
                row[at + offset] = letter
        return "".join(row).rstrip()

    def draw(self, line: Line) -> Text:
        cells: list[tuple[str, str]] = [(" ", "")] * self.columns
        for bar in line.bars:
            first = min(self.columns - 1, self.column(bar.start))
            until = max(first + 1, self.column(bar.end)) if bar.end > bar.start else first
            for at in range(first, until):
                cells[at] = ("╌" if bar.open_ended else "━", bar.style)
        text = Text()
        for letter, style in _placed(cells, line):
            text.append(letter, style=style)
        return text


def _placed(cells: Sequence[tuple[str, str]], line: Line) -> Iterator[tuple[str, str]]:
    """Yield the cells with the row's word behind its last bar."""
    if not line.word:
        yield from cells
        return
    used = max((at + 1 for at, (letter, _) in enumerate(cells) if letter != " "), default=0)
    start = used + 1 if used else 0
    word = line.word[: max(0, len(cells) - start)]
    for at, cell in enumerate(cells):
        yield (word[at - start], QUIET) if start <= at < start + len(word) else cell


def _marks(step: float, seconds: float) -> Iterator[float]:
    at = 0.0
    while at <= seconds:
        yield at
        at += step
