"""`python -m tests.mutants.run`: apply each sabotage to a copy of the package and see that the simulator notices it.

Prints a table; exit 1 if one is not noticed. Nothing of the checkout is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.mutants.sabotages import SABOTAGES, Sabotage

ROOT = Path(__file__).parents[2]
STORIES = ROOT / "tests" / "scenarios"
PLAY = Path(__file__).with_name("play.py")
BOUND_S = 900.0
"""A sabotage may make a story hang: that is noticed, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """`by`: law, story, error (the sabotaged code fails) or an empty string."""

    sabotage: Sabotage
    by: str
    what: str
    story: str
    seconds: float


def sabotaged(sabotage: Sabotage, root: Path) -> dict[str, str]:
    """Return the files it changes, by path below the package, each with its sabotaged text.

    ValueError if a place is not there exactly once.
    """
    texts: dict[str, str] = {}
    for file, old, new in ((sabotage.file, sabotage.old, sabotage.new), *sabotage.more):
        text = texts.get(file) or (root / file).read_text()
        count = text.count(old)
        if count != 1:
            raise ValueError(f"{sabotage.name}: its text stands {count} times in {file}, not once")
        texts[file] = text.replace(old, new)
    return texts


def try_one(sabotage: Sabotage, seeds: int) -> Noticed:
    """Play stories on a sabotaged copy."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fangnetz-mutant-") as place:
        package = Path(place) / "fangnetz"
        shutil.copytree(ROOT / "fangnetz", package, ignore=shutil.ignore_patterns("__pycache__"))
        for file, text in sabotaged(sabotage, package).items():
            (package / file).write_text(text)
        words = [sys.executable, str(PLAY), str(STORIES), str(seeds), *sabotage.stories]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((place, str(ROOT))), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(words, env=environment, cwd=place, capture_output=True, text=True, timeout=BOUND_S)
        except subprocess.TimeoutExpired:
            return Noticed(sabotage=sabotage, by="law", what="it hangs", story="", seconds=BOUND_S)
    seconds = time.monotonic() - began
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["?"])[-1]
        return Noticed(sabotage=sabotage, by="error", what=last, story="", seconds=seconds)
    found = json.loads(done.stdout)
    return Noticed(
        sabotage=sabotage,
        by=found.get("by", ""),
        what=found.get("what", ""),
        story=found.get("story", ""),
        seconds=seconds,
    )


def table_of(found: Sequence[Noticed]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("sabotage", "rule", "noticed by", "in", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for one in found:
        by = f"{one.by}: {one.what}" if one.by else "NOBODY"
        table.add_row(one.sabotage.name, one.sabotage.rule, by, one.story, f"{one.seconds:.0f}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="sabotages whose name contains it")
    parser.add_argument("--seeds", type=int, default=200, help="stories by chance after all others (default 200)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    chosen = [one for one in SABOTAGES if given.only in one.name]
    out = Console(width=160 if not sys.stdout.isatty() else None)
    with ThreadPoolExecutor(given.jobs) as pool:
        found = []
        for one in pool.map(lambda sabotage: try_one(sabotage, given.seeds), chosen):
            found.append(one)
            print(f"mutants: {len(found)}/{len(chosen)} {one.sabotage.name}: {one.by or 'NOBODY'}", file=sys.stderr)
    out.print(table_of(found))
    seen = [one for one in found if one.by in ("law", "story")]
    laws = sum(1 for one in seen if one.by == "law")
    out.print(f"{len(seen)} of {len(found)} sabotages are noticed, {laws} of them by a law")
    return 0 if len(seen) == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
