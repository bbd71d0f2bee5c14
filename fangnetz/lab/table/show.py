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
    failed = [row for row in rows if row["faults"]]
    for row in failed:
        console.print(f"{row['point']} {row['blow']}: {'; '.join(row['faults'])}", style="red", markup=False)
    well = len(rows) - len(failed)
    console.print(
        f"{well} of {len(rows)} cells are as they must be; work must go on within {bound_s:g} s", markup=False
    )
