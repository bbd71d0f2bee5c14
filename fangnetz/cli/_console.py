"""How things look: two consoles, quiet colours, aligned rows with their sentence below. Knows nothing of the store."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

PIPE_WIDTH = 140
"""Columns when nobody says how wide the reader is."""

GOOD, BUSY, BAD, QUIET = "green", "yellow", "red", "dim"
STYLES: dict[str, str] = {
    **dict.fromkeys(("online", "running", "done", "protected", "alive"), GOOD),
    **dict.fromkeys(
        ("suspect", "isolated", "unknown", "degraded", "returning", "evacuating", "overdue", "rebooted",
         "starting", "stopping", "moving", "waiting", "open", "ready", "refused", "binding not tested"),
        BUSY,
    ),
    **dict.fromkeys(
        ("lost", "fencing", "needs_person", "failed", "quarantined", "not protected"), BAD
    ),
    **dict.fromkeys(
        ("fenced", "left", "maintenance", "stopped", "unmanaged", "cancelled", "skipped", "superseded", "unheard"),
        QUIET,
    ),
}  # fmt: skip


def _console(file: TextIO, *, stderr: bool) -> Console:
    known = file.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, highlight=False, width=None if known else PIPE_WIDTH)


def out() -> Console:
    return _console(sys.stdout, stderr=False)


def err() -> Console:
    return _console(sys.stderr, stderr=True)


def say(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence: wrapped at words for a reader, on one line for a pipe."""
    console.print(sentence, style=style, markup=False, soft_wrap=not console.is_terminal)


def style_of(word: str) -> str:
    return STYLES.get(word, "")


def state_cell(word: str) -> Text:
    """A state with its bullet, in its colour."""
    return Text(f"● {word}", style=style_of(word))


def quiet(text: str) -> Text:
    return Text(text, style=QUIET)


# --- numbers as people read them ---------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """`0.4s`, `12s`, `3m`, `5h`, `2d`: one unit, no more digits than it deserves."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for limit, size, unit in ((99.5, 1, "s"), (5970, 60, "m"), (171000, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"


def age(at: float | None, now: float) -> str:
    return span(now - at) if at else "–"


def clock(at: float | None, *, day: bool = False) -> str:
    """An instant in local time; with `day` its date too."""
    if not at:
        return "–"
    moment = datetime.fromtimestamp(at, UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S" if day else "%H:%M:%S")


def memory(used_mib: int, all_mib: int) -> str:
    return f"{used_mib / 1024:.1f}/{all_mib / 1024:.1f} GiB"


def few(names: Sequence[str], bound: int = 4) -> str:
    """`a, b, c`, and `+5` for what does not fit."""
    shown = ", ".join(names[:bound])
    return f"{shown} +{len(names) - bound}" if len(names) > bound else shown


# --- rows --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Cells in columns, and a sentence below them that may run over the whole width."""

    cells: tuple[str | Text, ...]
    note: str = ""
    note_style: str = QUIET


class Rows:
    """Rows with aligned columns and no lines. Notes are indented to the second column and wrapped at words."""

    def __init__(
        self, heads: Sequence[str], rows: Sequence[Row], *, right: Sequence[int] = (), heads_shown: bool = True
    ) -> None:
        self._heads, self._rows, self._right = tuple(heads), tuple(rows), frozenset(right)
        self._heads_shown = heads_shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [tuple(cell if isinstance(cell, Text) else Text(cell) for cell in row.cells) for row in self._rows]
        heads = tuple(quiet(head) for head in self._heads)
        columns = range(len(heads))
        widths = [max(cell_len(line[column].plain) for line in (heads, *lines)) for column in columns]
        if self._heads_shown:
            yield self._line(heads, widths, options.max_width)
        indent = widths[0] + 4 if widths[0] <= 12 else 6
        for row, line in zip(self._rows, lines, strict=True):
            yield self._line(line, widths, options.max_width)
            if row.note:
                for part in Text(row.note, style=row.note_style).wrap(console, max(20, options.max_width - indent)):
                    part.rstrip()
                    yield Text(" " * indent).append_text(part)

    def _line(self, cells: Sequence[Text], widths: Sequence[int], width: int) -> Text:
        line = Text("  ", no_wrap=True, overflow="ellipsis")
        for column, cell in enumerate(cells):
            space = " " * (widths[column] - cell_len(cell.plain))
            last = column == len(cells) - 1
            line.append(space if column in self._right else "")
            line.append_text(cell)
            line.append("" if last or column in self._right else space)
            line.append("" if last else "  ")
        line.truncate(width, overflow="ellipsis")
        return line


def title(words: str, note: str = "") -> Text:
    line = Text(words, style="bold")
    if note:
        line.append(f"  {note}", style=QUIET)
    return line


class Fields:
    """Name and value below each other, as `show` prints them; long values wrap beside their name."""

    def __init__(self, pairs: Sequence[tuple[str, str | Text]]) -> None:
        self._pairs = tuple(pairs)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max((cell_len(name) for name, _ in self._pairs), default=0)
        for name, value in self._pairs:
            text = value.copy() if isinstance(value, Text) else Text(value)
            for number, line in enumerate(text.wrap(console, max(20, options.max_width - width - 4))):
                head = quiet(f"  {(name if number == 0 else ''):<{width}}  ")
                head.append_text(line)
                head.rstrip()
                yield head
