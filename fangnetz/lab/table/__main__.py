"""`python -m fangnetz.lab.table`: strike every step of a failover and of a live migration in a lab, print both tables.

Exit 1 if any cell is not as it must be, or if a number came back or a start was unproven over all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from fangnetz.core.errors import FangnetzError
from fangnetz.lab.lab import Lab
from fangnetz.lab.machine import check_root
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.stage import own_name, staged
from fangnetz.lab.storm.lookout import Lookout
from fangnetz.lab.table.cells import Cell, all_cells
from fangnetz.lab.table.judgement import Seen, faults_of, rows_of
from fangnetz.lab.table.move_cells import MoveCell, all_move_cells
from fangnetz.lab.table.move_judgement import MoveSeen, move_faults, move_rows
from fangnetz.lab.table.move_play import play_move
from fangnetz.lab.table.play import play, wait_for_rest
from fangnetz.lab.table.show import show, show_moves

SCHEMA = 2
HOSTS, VMS = 3, 3
LAST_WORDS = 30


def main() -> int:
    """Strike; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fangnetz.lab.table", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", choices=("failover", "move", "both"), default="both")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cells whose name (point:blow, way:point:victim) contains it"
    )
    parser.add_argument("--policy", choices=("default", "fast"), default="default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--name", default=own_name("table"), help="the name of its lab")
    chosen = parser.parse_args()
    failovers = all_cells() if chosen.table != "move" else ()
    moves = all_move_cells() if chosen.table != "failover" else ()
    everything: tuple[Cell | MoveCell, ...] = (*failovers, *moves)
    cells = [cell for cell in everything if chosen.only in cell.name]
    if not cells:
        parser.error(f"no cell is called {chosen.only}")
    errors = Console(stderr=True, highlight=False)

    def say(words: str) -> None:
        errors.print(f"table: {words}", style="dim", markup=False, soft_wrap=True)

    problem = ""
    seen: list[Seen | MoveSeen] = []
    broken: list[str] = []
    bound_s = 0.0
    try:
        check_root()
        with staged(name=chosen.name, hosts=HOSTS, vms=VMS, policy=chosen.policy, say=say) as lab, Lookout(lab) as out:
            onlooker = Onlooker(lab)
            bound_s = 2 * onlooker.policy.resume_s
            for number, cell in enumerate(cells, start=1):
                say(f"{number}/{len(cells)} {cell.name}")
                _one(lab, onlooker, cell, seen, broken)
                say(f"  {broken[-1] if broken and broken[-1].startswith(cell.name) else _short(seen[-1], bound_s)}")
                broken += [f"{cell.name}: {offence}" for offence in out.news()]
            wait_for_rest(lab, onlooker)
            broken += [f"at rest: {offence}" for offence in out.news()]
    except FangnetzError as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    rows = rows_of([each for each in seen if isinstance(each, Seen)], bound_s)
    moved = move_rows([each for each in seen if isinstance(each, MoveSeen)], bound_s)
    if chosen.json is not None:
        chosen.json.write_text(
            json.dumps({"schema": SCHEMA, "rows": rows, "moves": moved, "broken": broken}, indent=1) + "\n"
        )
    console = Console(highlight=False, width=150)
    if rows:
        show(console, rows, bound_s)
    if moved:
        show_moves(console, moved, bound_s)
    for words in [*broken, problem]:
        if words:
            errors.print(words, style="bold red", markup=False)
    return 1 if problem or broken or any(row["faults"] for row in (*rows, *moved)) else 0


def _one(lab: Lab, onlooker: Onlooker, cell: Cell | MoveCell, seen: list[Seen | MoveSeen], broken: list[str]) -> None:
    """Play one cell; one that could not be finished is told with the last events, and the next one is played."""
    try:
        seen.append(play_move(lab, onlooker, cell) if isinstance(cell, MoveCell) else play(lab, onlooker, cell))
    except FangnetzError as error:
        said = "\n".join(f"    {e.at:.2f} {e.kind}: {e.sentence}" for e in onlooker.latest_events(LAST_WORDS))
        broken.append(f"{cell.name}: {error}\n{said}")


def _short(seen: Seen | MoveSeen, bound_s: float) -> str:
    resumed = "–" if seen.resumed_s is None else f"{seen.resumed_s:.1f} s"
    lasted = f"resumed {resumed}, ended {seen.ended_at - seen.caused_at:.1f} s after its cause"
    if isinstance(seen, MoveSeen):
        faults = move_faults(seen, bound_s)
        lasted += f", {seen.state}, at rest {seen.rest_s:.0f} s later"
    else:
        faults = faults_of(seen, bound_s)
    return f"{seen.struck}: {lasted}; {'; '.join(faults) or 'ok'}"


if __name__ == "__main__":
    sys.exit(main())
