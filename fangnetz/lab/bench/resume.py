"""How soon work goes on after each kind of process was killed. The blows are cells of the fault table.

The beat passes no fault point, so it is killed by itself; what it rings is the tick, and a pause of that is measured.
The store is killed as soon as a failover is open: it is back a second later, and by then has another memory.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fangnetz import wiring
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.policy import Policy
from fangnetz.core.units import Seconds
from fangnetz.lab.bench.machine_load import MachineLoad, machine_load
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.processes import processes_of, send
from fangnetz.lab.table.cells import cell
from fangnetz.lab.table.judgement import Seen, faults_of
from fangnetz.lab.table.play import play, play_store_killed, wait_for_rest
from fangnetz.ports import Operators, Store
from fangnetz.settings import load_settings

CELLS = {
    "control": "operation.before_open:kill",
    "work": "plan.claimed:kill",
    "fence": "fence.before_cut:kill",
    "host worker": "start.before_create:kill",
}
"""Killed with its work in hand and nothing of it done: the latest it can be noticed."""
BEAT = "beat"
REDIS = "redis"
RESTART_S = 1.0
"""A killed Redis is started again after so long, by its supervisor in a lab as by its service manager."""
FOUND_AGAIN_S = 2.0
"""Clients that lost it ask again this often at least."""
WATCHED_FOR_S = 8.0
LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """One kind of process and the seconds from each kill until its work went on. `faults`: what must not have been."""

    process: str
    resumed_s: tuple[float, ...]
    load: MachineLoad
    faults: tuple[str, ...] = ()


def resumes(lab: Lab, onlooker: Onlooker, rounds: int, say: Callable[[str], None]) -> list[Resume]:
    """Kill each kind of process so many times, one at a time, in a lab with at least three hosts."""
    bound_s = 2 * onlooker.policy.resume_s
    found = [
        _struck(lab, process, rounds, say, bound_s, partial(play, lab, onlooker, cell(name)))
        for process, name in CELLS.items()
    ]
    bound_s = 2 * store_resume_s(onlooker.policy)
    found.append(_struck(lab, REDIS, rounds, say, bound_s, partial(play_store_killed, lab, onlooker)))
    return [*found, _beat(lab, onlooker, rounds, say)]


def store_resume_s(policy: Policy) -> Seconds:
    """Return by when work goes on after Redis was killed: it is back, found, its lease has rested, the sweep came."""
    return Seconds(RESTART_S + FOUND_AGAIN_S + policy.resume_s)


def _struck(
    lab: Lab, process: str, rounds: int, say: Callable[[str], None], bound_s: float, strike: Callable[[], Seen]
) -> Resume:
    took: list[float] = []
    faults: list[str] = []
    load = machine_load(lab.name)
    for _ in range(rounds):
        seen = strike()
        faults += faults_of(seen, bound_s)
        if seen.resumed_s is None:
            raise LabError(f"nobody took up what the killed {seen.struck} left")
        took.append(seen.resumed_s)
    say(f"  {process} killed: its work went on after {', '.join(f'{span:.1f}' for span in took)} s")
    return Resume(process=process, resumed_s=tuple(took), load=load, faults=tuple(faults))


def _beat(lab: Lab, onlooker: Onlooker, rounds: int, say: Callable[[str], None]) -> Resume:
    """Kill the beat of the controller in charge; the longest pause between two looks at the cluster is its figure."""
    store = wiring.open_store(load_settings(lab.config_path, "host"), name="bench")
    load = machine_load(lab.name)
    took: list[float] = []
    for _ in range(rounds):
        wait_for_rest(lab, onlooker)
        killed_at = _kill_beat(lab, store)
        took.append(_longest_pause(store, killed_at))
    say(f"  beat killed: the longest pause between two looks was {', '.join(f'{span:.1f}' for span in took)} s")
    return Resume(process=BEAT, resumed_s=tuple(took), load=load)


def _kill_beat(lab: Lab, store: Operators) -> float:
    lease = store.control_lease()
    holder = lease.holder if lease is not None else lab.plan.controllers[0]
    found = [p for p in processes_of(lab.plan.name, lab.plan.tag) if (p.node, p.role) == (holder, BEAT)]
    if not found:
        raise LabError(f"no beat runs on {holder}")
    at = time.time()
    for process in found:
        send(process, signal.SIGKILL)
    return at


def _longest_pause(store: Store, from_: float) -> float:
    """Return the longest span without a look of whoever is in charge, from this instant on."""
    last, longest = from_, 0.0
    until = time.monotonic() + WATCHED_FOR_S
    while time.monotonic() < until:
        try:
            watch = store.holder_watch()
        except StoreUnreachable:
            watch = None
        if watch is not None and watch.looked_at > last:
            longest, last = max(longest, watch.looked_at - last), float(watch.looked_at)
        time.sleep(LOOK_EVERY_S)
    return max(longest, time.time() - last)
