"""`fangnetz simulate`: what would happen if. Plays scenario files, stories by chance, or losses in the real cluster.

Only reads the real one, and only with --from-cluster.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from fangnetz.cli._console import BAD, BUSY, GOOD, QUIET, err, out, say
from fangnetz.cli._history import History
from fangnetz.sim.play import play
from fangnetz.sim.result import Result
from fangnetz.sim.stories.read import ScenarioRefused, read_story
from fangnetz.sim.stories.story import Story
from fangnetz.sim.storm import Played, Size, play_seeds
from fangnetz.sim.what_if.today import Loss

app = typer.Typer(add_completion=False)
USAGE = 2


@app.command()
def simulate(  # noqa: PLR0917 - typer calls it by name
    path: Annotated[Path | None, typer.Argument(metavar="FILE|FOLDER", help="A scenario, or a folder of them")] = None,
    seed: Annotated[int, typer.Option(help="Chance; with --random the first seed")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, a folder's as an array")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Draw hosts and VMs as rows, time as columns")] = False,
    random: Annotated[bool, typer.Option("--random", help="Stories by chance instead of a file")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="How many, with --random")] = 100,
    hosts: Annotated[int, typer.Option(min=2, max=50, help="With --random")] = 5,
    vms: Annotated[int, typer.Option(min=1, max=500, help="With --random")] = 20,
    faults: Annotated[int, typer.Option(min=1, max=100, help="With --random")] = 8,
    from_cluster: Annotated[
        bool, typer.Option("--from-cluster", help="Begin with the real cluster as it stands now; it is only read")
    ] = False,
    lose: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="With --from-cluster: lose it; may be repeated")
    ] = None,
    loss: Annotated[Loss, typer.Option("--at", help="With --from-cluster: where it is lost")] = Loss.POWER,
) -> None:
    """Play a story on a virtual clock: production code, simulated hosts, a store and devices that break as told.

    Exit 0 all well; 1 a law broken, an expectation unmet or the cluster not readable; 2 the file is refused.
    """
    if [path is not None, random, from_cluster].count(True) != 1:
        _refuse("either a FILE or a FOLDER, or --random, or --from-cluster")
    if from_cluster != bool(lose):
        _refuse("--from-cluster and --lose HOST go together")
    if from_cluster:
        from fangnetz.cli._what_if import ask

        raise typer.Exit(0 if ask(lose or (), loss, seed, as_json=as_json) else 1)
    if random:
        raise typer.Exit(_by_chance(seed, seeds, Size(hosts, vms, faults), as_json=as_json))
    assert path is not None  # noqa: S101 - told apart above
    try:
        stories = [read_story(file) for file in _files(path)]
    except ScenarioRefused as refused:
        _refuse(str(refused))
    results = [_play(story, seed, silent=as_json, brief=path.is_dir(), timeline=timeline) for story in stories]
    if as_json:
        plain: Any = [result.data for result in results] if path.is_dir() else results[0].data
        sys.stdout.write(json.dumps(plain) + "\n")
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


def _refuse(sentence: str) -> None:
    say(err(), sentence, BAD)
    raise typer.Exit(USAGE)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.yaml"))
    if not found:
        raise ScenarioRefused(f"{path}: holds no scenario (*.yaml)")
    return found


# --- files -------------------------------------------------------------------------------------------------------


def _play(story: Story, seed: int, *, silent: bool, brief: bool, timeline: bool) -> Result:
    began = time.monotonic()
    result = play(story, seed)
    if silent:
        return result
    console, took = out(), time.monotonic() - began
    if not brief:
        console.print(Text(story.name, style="bold"))
        if story.about:
            say(console, story.about, QUIET)
        console.print()
        _events(console, result.data["events"])
    if timeline:
        console.print(History(result))
    _verdict(console, result, took)
    return result


def _events(console: Console, events: list[dict[str, Any]]) -> None:
    for event in events:
        style = {"timeline": "bold", "alarm": BUSY, "fence_sent": BAD, "vm_started": GOOD}.get(event["kind"], "")
        mark = "▸" if event["kind"] == "timeline" else " "
        line = Text(f"{event['t']:9.1f} {mark} ", style=QUIET)
        line.append(event["sentence"], style=style)
        console.print(line, soft_wrap=not console.is_terminal)
    console.print()


def _verdict(console: Console, result: Result, took: float) -> None:
    data = result.data
    for item in data["broken"]:
        say(console, f"{item['t']:9.1f}   law broken: {item['what']}: {item['sentence']}", BAD)
    for item in data["unmet"]:
        say(console, f"{item['t']:9.1f}   not as expected: {item['what']}: {item['sentence']}", BAD)
    counts = data["counts"]
    told = f"{result.simulated_s:.0f} s in {took:.1f} s, {counts['starts']} starts, {counts['fences']} cuts"
    line = Text("● ok  " if result.ok else "● not ok  ", style=GOOD if result.ok else BAD)
    line.append(data["name"])
    line.append(f"  {told}", style=QUIET)
    console.print(line, soft_wrap=True)


# --- chance ------------------------------------------------------------------------------------------------------


def _by_chance(first: int, count: int, size: Size, *, as_json: bool) -> int:
    began, events, simulated_s, broken = time.monotonic(), 0, 0.0, list[Played]()
    for played in play_seeds(first, count, size, cores=os.cpu_count() or 1):
        events, simulated_s = events + played.events, simulated_s + played.simulated_s
        if played.broken:
            broken.append(played)
            if not as_json:
                _tell(played)
    took = max(0.001, time.monotonic() - began)
    if as_json:
        failures = [{"seed": p.seed, "broken": list(p.broken), "story": p.shortest} for p in broken]
        sums = {"seeds": count, "events": events, "simulated_s": round(simulated_s, 3), "took_s": round(took, 3)}
        sys.stdout.write(json.dumps({**sums, "broke": failures}) + "\n")
    else:
        sentence = (
            f"{count} seeds, {events} events, {simulated_s / 3600 / took:.2f} simulated hours per second "
            f"({60 * count / took:.0f} seeds a minute); {len(broken)} broke a law"
        )
        say(out(), sentence, BAD if broken else GOOD)
    return 1 if broken else 0


def _tell(played: Played) -> None:
    console = out()
    for item in played.broken:
        say(console, f"seed {played.seed}: {item['t']:.1f} s: {item['what']}: {item['sentence']}", BAD)
    say(console, "the shortest story that breaks it:", QUIET)
    console.print(played.shortest, markup=False, soft_wrap=True)
