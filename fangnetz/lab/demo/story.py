"""The demo's story: a lab, a pulled plug, the incident as it happens, the witness's word. It decides nothing itself.

What Fangnetz says is shown; whether the demo succeeded is judged by QEMU processes and writes on disks alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.operations import OperationState
from fangnetz.lab.demo.judgement import Judged, faults, judge
from fangnetz.lab.demo.screen import Screen
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.names import default_name
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.stage import staged
from fangnetz.lab.whereabouts import first_write_after, fullest, places

HOSTS = 3
VMS = 4
RECOVERED_WITHIN_S = 90.0
NEWS_WITHIN_S = 0.2
PROGRAM = Path(sys.executable).parent / "fangnetz"


def tell(screen: Screen, name: str, *, keep: bool) -> tuple[str, ...]:
    """Play the whole demo; return why it failed, nothing if it succeeded. Raises LabError if it could not be played."""
    screen.console.print()
    screen.console.print(f"[bold]Fangnetz demo[/bold]  {HOSTS} hosts, {VMS} VMs, a plug to pull")
    screen.say("Real libvirt, QEMU, iSCSI and IPMI on this machine; nothing of the machine's own is touched.", "dim")
    screen.console.print()
    with staged(name=name, hosts=HOSTS, vms=VMS, keep=lambda: keep, say=screen.progress) as lab:
        onlooker = Onlooker(lab)
        screen.progress("waiting until every host can be fenced")
        onlooker.wait_until_calm()
        screen.progress("ready")
        screen.console.print()
        _fangnetz(screen, lab, "status")
        host, vms = fullest(lab.plan.hosts, places(lab))
        screen.title(f"Pulling the plug of {host}", f"with {', '.join(vms)} on it; its links and all on it are gone")
        began = onlooker.latest_event()
        at = lab.power(host, "off")
        screen.event(0.0, "plug", f"the plug of {host} is pulled")
        _follow(screen, lab, onlooker, host=host, vms=vms, at=at, after=began)
        screen.console.print()
        _fangnetz(screen, lab, "incident", "show")
        judged, report = _judged(lab, host, vms, at)
        screen.verdict(judged)
        screen.console.print()
        _fangnetz(screen, lab, "status")
        found = faults(judged, report)
        _sum_up(screen, host, judged, found)
        screen.console.print()
        if keep:
            _try_next(screen, lab, host)
    if not keep:
        screen.progress("gone")
    return found


def _follow(
    screen: Screen, lab: Lab, onlooker: Onlooker, *, host: str, vms: tuple[str, ...], at: float, after: str
) -> None:
    """Show what happens until the VMs write again and the incident is closed, or for RECOVERED_WITHIN_S at most."""
    silent = set(vms)
    until = time.monotonic() + RECOVERED_WITHIN_S
    closed = False
    while (silent or not closed) and time.monotonic() < until:
        try:
            news = onlooker.events_after(after, wait_s=NEWS_WITHIN_S)
            failover = onlooker.failover(host, at)
        except StoreUnreachable:
            time.sleep(NEWS_WITHIN_S)
            continue
        closed = failover is not None and failover.operation.state is not OperationState.OPEN
        for event in news:
            screen.event(event.at - at, event.kind, event.sentence)
            after = event.id
        report = lab.witness()
        for vm in sorted(silent):
            wrote_at = first_write_after(report, vm, at)
            if wrote_at is not None:
                silent.discard(vm)
                screen.event(wrote_at - at, "witness", f"{vm} writes on its disk again, as a new boot")
    if silent or not closed:
        screen.say(f"Nothing more is waited for after {RECOVERED_WITHIN_S:g} s.", "yellow")


def _judged(lab: Lab, host: str, vms: tuple[str, ...], at: float) -> tuple[tuple[Judged, ...], dict[str, Any]]:
    report = lab.witness()
    return judge(vms, host, places(lab), report, at), report


def _sum_up(screen: Screen, host: str, judged: tuple[Judged, ...], found: tuple[str, ...]) -> None:
    screen.console.print()
    if found:
        for fault in found:
            screen.say(f"Failed: {fault}.", "bold red")
        return
    away = max((each.away_s for each in judged if each.away_s is not None), default=0.0)
    screen.say(
        f"{len(judged)} of {len(judged)} VMs of {host} run elsewhere, by their own writes, each once; "
        f"the longest silence on a disk was {away:.1f} s.",
        "bold green",
    )


def _try_next(screen: Screen, lab: Lab, dead: str) -> None:
    """Print what one can do with a lab that is left up."""
    status = lab.status()
    alive = next(each for each in lab.plan.hosts if each != dead)
    other = next(each for each in lab.plan.hosts if each not in (dead, alive))
    named = "" if lab.name == default_name() else f" --name {lab.name}"
    program = _short(PROGRAM)
    screen.title("The lab is left up", "try")
    for command, why in (
        (f"export FANGNETZ_CONFIG={lab.config_path}", ""),
        (f"{program} events --follow", "in a second terminal"),
        (f"{program} lab power {dead} on{named}", f"{dead} rejoins by itself"),
        (f"{program} lab cut {alive}{named}", "a living host, cut off: it is fenced first"),
        (f"{program} lab heal {alive}{named}", ""),
        (f"{program} lab freeze {other}{named}", "a frozen host; `lab thaw` wakes it"),
        (f"{program} lab bmc {other} lying{named}", "its BMC says off and does nothing"),
        (f"{program} incident show", "the latest incident"),
        (f"{program} lab witness{named}", "who wrote on which disk, and when"),
        (f"{program} lab down{named}", "when you are done: removes all of it"),
    ):
        line = f"  {command}"
        screen.console.print(line, style="cyan", markup=False, soft_wrap=True, end="")
        fits = len(line) + len(why) + 4 <= screen.console.width
        screen.console.print(f"{'' if fits else chr(10) + '    '}  {why}" if why else "", style="dim", markup=False)
    if status["flower"]:
        flower = status["flower"]
        screen.console.print()
        screen.console.print(f"  Flower    {flower['url']}", soft_wrap=True)
        screen.console.print(f"  user      {flower['username']}", soft_wrap=True)
        screen.console.print(f"  password  in {flower['password_file']}", soft_wrap=True)


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _fangnetz(screen: Screen, lab: Lab, *words: str) -> None:
    """Run the command line as a person would, on this very screen. Raises LabError if it fails."""
    done = subprocess.run(
        [str(PROGRAM), "--config", str(lab.config_path), *words],
        env={**os.environ, "COLUMNS": str(screen.console.width)},
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"`fangnetz {' '.join(words)}` exited with {done.returncode}")
