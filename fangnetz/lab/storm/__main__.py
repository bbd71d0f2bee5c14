"""`python -m fangnetz.lab.storm`: one storm or several, each in a lab of its own; exit 1 if a law was broken.

A line for each goes into the records (build/soak.jsonl); what a broken storm left is kept beside them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from rich.console import Console

from fangnetz.core.errors import FangnetzError
from fangnetz.lab.bench.machine_load import machine_load
from fangnetz.lab.machine import check_root
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.stage import own_name, staged
from fangnetz.lab.storm import records
from fangnetz.lab.storm.evidence import keep_evidence
from fangnetz.lab.storm.plan import Cast, storm_plan
from fangnetz.lab.storm.points import points_by_role
from fangnetz.lab.storm.storm import Storm, blow

HOSTS = 3
VMS = 4
KEPT = Path("build")


def main() -> int:
    """Blow; return the exit code."""
    chosen = _arguments()
    errors = Console(stderr=True, highlight=False)

    def say(words: str) -> None:
        errors.print(f"storm: {words}", style="dim", markup=False, soft_wrap=True)

    if chosen.summary:
        return _sum_up(chosen.json, errors)
    first = chosen.seed if chosen.seed is not None else random.randrange(10**6)
    seeds = range(first, first + chosen.runs)
    if chosen.plan:
        return _show_plan(seeds[0], chosen.seconds, chosen.sentinel)
    broken = False
    try:
        check_root()
        for seed in seeds:
            say(f"seed {seed}, {chosen.seconds:g} s, policy {chosen.policy}")
            broken |= _one(chosen, seed, errors)
            if broken and not chosen.go_on:
                break
    except FangnetzError as error:
        errors.print(f"The storm failed: {error}", style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        errors.print("Interrupted.", style="yellow")
        return 130
    _sum_up(chosen.json, errors)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fangnetz.lab.storm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults in each storm (default 600)")
    parser.add_argument("--seed", type=int, help="of the first storm; each further one adds 1 (by chance)")
    parser.add_argument("--runs", type=int, default=1, help="storms one after the other, each with its own seed")
    parser.add_argument("--policy", choices=("default", "fast"), default="default")
    parser.add_argument("--sentinel", action="store_true", help="three Redis with a Sentinel each instead of one")
    parser.add_argument("--json", type=Path, default=KEPT / "soak.jsonl", help="the records (default build/soak.jsonl)")
    parser.add_argument("--name", default=own_name("storm"), help="the name of its labs")
    parser.add_argument("--go-on", action="store_true", help="blow the next storm although a law was broken")
    parser.add_argument("--plan", action="store_true", help="show what the seed would do, and do nothing")
    parser.add_argument("--summary", action="store_true", help="show the sum over the records, and do nothing")
    chosen = parser.parse_args()
    if chosen.seconds < 10:
        parser.error("--seconds must be at least 10")
    if chosen.runs < 1:
        parser.error("--runs must be at least 1")
    return chosen


def _one(chosen: argparse.Namespace, seed: int, errors: Console) -> bool:
    """Blow one storm in a lab of its own; True if a law was broken."""

    def tell(words: str) -> None:
        errors.print(words, style="dim", markup=False, soft_wrap=True)

    with staged(name=chosen.name, hosts=HOSTS, vms=VMS, policy=chosen.policy, sentinel=chosen.sentinel) as lab:
        Onlooker(lab).wait_until_calm()
        load = machine_load(lab.name)
        storm = blow(lab, seed, chosen.seconds, tell)
        storm.result["sentinel"] = chosen.sentinel
        storm.result["load_1min"], storm.result["other_labs"] = load.load_1min, load.other_labs
        if storm.violations:
            storm.result["kept"] = str(keep_evidence(lab, storm, KEPT))
    records.append(chosen.json, storm.result)
    _show(storm, errors)
    return bool(storm.violations)


def _show(storm: Storm, errors: Console) -> None:
    result = storm.result
    sys.stdout.write("\n".join(storm.story) + "\n")
    sys.stdout.write(json.dumps({k: v for k, v in result.items() if k not in ("recoveries_s",)}, indent=1) + "\n")
    sys.stdout.flush()
    if storm.violations:
        for violation in storm.violations:
            errors.print(f"Broken: {violation}", style="bold red", markup=False, soft_wrap=True)
    else:
        errors.print(
            f"Seed {result['seed']}: {sum(result['faults'].values())} faults, {sum(result['incidents'].values())} "
            f"incidents, whole again after {result['whole_again_s']} s; no law was broken.",
            style="bold green",
            markup=False,
            soft_wrap=True,
        )


def _sum_up(path: Path, errors: Console) -> int:
    results = records.load(path)
    sys.stdout.write(json.dumps({"records": str(path), **records.summary(results)}, indent=1) + "\n")
    sys.stdout.flush()
    return 0


def _show_plan(seed: int, seconds: float, sentinel: bool) -> int:
    cast = Cast(
        hosts=tuple(f"host{number + 1}" for number in range(HOSTS)),
        controllers=("c1", "c2"),
        vms=tuple(f"vm{number + 1}" for number in range(VMS)),
        stores=("redis1", "redis2", "redis3") if sentinel else ("redis",),
        points=tuple(points_by_role().items()),
    )
    for planned in storm_plan(seed, seconds, cast):
        lasts = f" for {planned.lasts_s:.1f} s" if planned.lasts_s else ""
        sys.stdout.write(f"{planned.begins_s:8.2f} s  {planned.fault.sentence}{lasts}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
