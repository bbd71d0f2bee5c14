"""The table as a person reads it. Takes the rows and adds nothing to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(console: Console, rows: Sequence[dict[str, Any]], bound_s: float) -> None:
    """Print every cell, then what is wrong with those that failed."""
    table = Table(box=None, padding=(0, 1), collapse_padding=True, header_style="dim")
    for head in ("step", "point", "blow", "process"):
        table.add_column(head, no_wrap=True)
    for head in ("resumed", "incident", "fences", "boots", "overlaps"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        resumed = row["resumed_s"]
        table.add_row(
            row["step"],
            row["point"],
            row["blow"],
            row["process"],
            "–" if resumed is None else f"{resumed:.1f} s",
            f"{row['incident_s']:.1f} s",
            str(row["fences"]),
            str(row["boots"]),
            str(row["overlaps"]),
            Text("FAILED", style="bold red") if row["faults"] else Text("ok", style="green"),
        )
    console.print(table)
    _tell(console, rows, [f"{row['point']} {row['blow']}" for row in rows])
    well = sum(not row["faults"] for row in rows)
    console.print(
        f"{well} of {len(rows)} cells are as they must be; work must go on within {bound_s:g} s", markup=False
    )


def show_moves(console: Console, rows: Sequence[dict[str, Any]], bound_s: float) -> None:
    """Print every cell of the live migrations, a line between two steps, then what is wrong with those that failed."""
    table = Table(box=None, padding=(0, 1), collapse_padding=True, header_style="dim")
    for head in ("step", "held or struck at", "killed"):
        table.add_column(head, no_wrap=True)
    for head in ("resumed", "move"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("ended", no_wrap=True)
    table.add_column("runs on", no_wrap=True)
    for head in ("boots", "overlaps", "silent"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    before = ("", "")
    for row in rows:
        step, resumed = (row["way"], row["step"]), row["resumed_s"]
        if before[0] and step != before:
            table.add_section()
        table.add_row(
            "" if step == before else f"{'emptied: ' if row['way'] == 'evacuate' else ''}{row['step']}",
            row["point"] or "in flight",
            Text(row["victim"], style="bold" if row["resumed_s"] is None else ""),
            "–" if resumed is None else f"{resumed:.1f} s",
            f"{row['move_s']:.1f} s",
            Text(row["state"], style="" if row["state"] == "done" else "yellow"),
            _where(row),
            str(row["boots"]),
            str(row["overlaps"]),
            f"{row['silence_s']:.1f} s" if row["silence_s"] else "–",
            Text("FAILED", style="bold red") if row["faults"] else Text("ok", style="green"),
        )
        before = step
    console.print(table)
    for row in rows:
        if row["state"] != "done":
            console.print(f"{row['name']} ended {row['state']}: {row['sentence']}", style="yellow", markup=False)
    _tell(console, rows, [row["name"] for row in rows])
    well, done = sum(not row["faults"] for row in rows), sum(row["state"] == "done" for row in rows)
    console.print(
        f"{well} of {len(rows)} cells are as they must be: {done} moves were carried through, {len(rows) - done} ended "
        f"with a name; a struck step must be taken up within {bound_s:g} s",
        markup=False,
    )


def _where(row: dict[str, Any]) -> str:
    on = ", ".join(row["runs_on"])
    return {row["source"]: "source", row["target"]: "target"}.get(on, on or "nowhere")


def _tell(console: Console, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    for row, name in zip(rows, names, strict=True):
        if row["faults"]:
            console.print(f"{name}: {'; '.join(row['faults'])}", style="red", markup=False)
