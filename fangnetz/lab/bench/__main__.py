"""`python -m fangnetz.lab.bench`: measure recoveries in labs of its own; a table on stdout, JSON where asked.

Exit 1 if a series could not be finished, two copies of a VM ever lived, or a number came back; a goal that is missed is
shown, no failure: figures of a busy machine are no fault. Figures taken beside other work carry their load.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from fangnetz.core.errors import FangnetzError
from fangnetz.lab.bench.emptying import Pair, emptying
from fangnetz.lab.bench.idle import boot_times, worker_costs
from fangnetz.lab.bench.journal import JournalCost, journal_cost
from fangnetz.lab.bench.machine_load import machine_load
from fangnetz.lab.bench.report import IdleBoot, IdleWorkers, Series, whole
from fangnetz.lab.bench.resume import Resume, resumes
from fangnetz.lab.bench.rounds import Cause, Round, gather, play, restore
from fangnetz.lab.bench.simulation import SimulationCost, simulation_cost
from fangnetz.lab.bench.table import show
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.machine import check_root
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.plan import Policy
from fangnetz.lab.stage import own_name, staged
from fangnetz.lab.storm.lookout import Lookout

HOSTS = 3
MANY = 4

POLICIES: dict[str, tuple[Policy, ...]] = {"default": ("default",), "fast": ("fast",), "both": ("default", "fast")}
CAUSES: dict[Policy, tuple[Cause, ...]] = {"default": ("plug", "cut"), "fast": ("plug",)}
LAST_WORDS = 15
"""So many events are kept of a series that ended early."""
IDLE_S = 30.0
IDLE_QUICK_S = 10.0
ROUNDS_QUICK = 1
KILLS_MAX = 3
"""Rounds of each kind of kill: each takes half a minute, and what they measure is a lease and a tick."""


class Bench:
    """Collects figures lab by lab; what was measured before an error is kept."""

    def __init__(self, *, name: str, rounds: int, idle_s: float, say: Callable[[str], None]) -> None:
        self._name, self._rounds, self._idle_s, self._say = name, rounds, idle_s, say
        self.series: list[Series] = []
        self.boots: list[IdleBoot] = []
        self.workers: list[IdleWorkers] = []
        self.journal: JournalCost | None = None
        self.resumes: list[Resume] = []
        self.emptied: list[Pair] = []
        self.simulation: SimulationCost | None = None

    def idle_boots(self) -> None:
        """The guest alone, and as many at once as the big series has, in a lab without Fangnetz."""
        with self._lab("guest boots at rest", vms=MANY, bare=True) as lab:
            boot_times(lab, lab.plan.vms[:1])  # the first one reads kernel and QEMU from the disk
            for at_once in (1, MANY):
                load = machine_load(lab.name)
                last = [max(boot_times(lab, lab.plan.vms[:at_once])) for _ in range(self._rounds)]
                self.boots.append(IdleBoot(at_once=at_once, last_s=tuple(last), load=load))
                self._say(f"  {at_once} at once: {', '.join(f'{took:.1f}' for took in last)} s")
            self.journal = journal_cost(lab)
            self._say(f"  the journal costs a step {self.journal.step_us:.0f} µs")

    def simulated(self) -> None:
        """The simulator and one decision, alone on the machine."""
        self._say("simulation")
        self.simulation = simulation_cost(self._name, self._say)

    def kills(self) -> None:
        """Each kind of process, killed with its work in hand."""
        with self._lab("kills, policy default", vms=MANY) as lab:
            onlooker = Onlooker(lab)
            onlooker.wait_until_calm()
            with _watched(lab) as out:
                self.resumes = resumes(lab, onlooker, min(self._rounds, KILLS_MAX), self._say)
                _check(out)

    def emptying(self) -> None:
        """A host emptied, and the same moves by hand, in turns."""
        with self._lab(f"emptying a host of {MANY} guests, policy default", vms=MANY) as lab:
            onlooker = Onlooker(lab)
            onlooker.wait_until_calm()
            self.emptied = emptying(lab, onlooker, self._rounds, self._say)

    def one_vm(self, policy: Policy, causes: tuple[Cause, ...]) -> None:
        """Idle workers, then one VM whose host is struck again and again."""
        with self._lab(f"one VM, policy {policy}", vms=1, policy=policy) as lab:
            onlooker = Onlooker(lab)
            onlooker.wait_until_calm()
            load = machine_load(lab.name)
            costs = worker_costs(lab, self._idle_s)
            self.workers.append(IdleWorkers(policy=policy, costs=tuple(costs), load=load))
            for cause in causes:

                def before(_: Lab) -> None:
                    onlooker.wait_until_calm()

                def after(lab: Lab, one: Round) -> None:
                    restore(lab, onlooker, one.host, one.cause)

                self._series(lab, onlooker, policy, cause, before=before, after=after)

    def many_vms(self, policy: Policy) -> None:
        """All VMs brought onto one host, whose plug is then pulled."""
        with self._lab(f"{MANY} VMs on one host, policy {policy}", vms=MANY, policy=policy) as lab:
            onlooker = Onlooker(lab)
            onlooker.wait_until_calm()

            def before(lab: Lab) -> None:
                gather(lab, onlooker)

            self._series(lab, onlooker, policy, "plug", before=before, after=lambda _lab, _round: None)

    def _series(
        self,
        lab: Lab,
        onlooker: Onlooker,
        policy: Policy,
        cause: Cause,
        *,
        before: Callable[[Lab], None],
        after: Callable[[Lab, Round], None],
    ) -> None:
        name = f"{cause}-{policy}-{len(lab.plan.vms)}"
        rounds: list[Round] = []
        error, last_words = "", list[str]()
        try:
            with _watched(lab) as out:
                for number in range(self._rounds):
                    before(lab)
                    one = play(lab, onlooker, cause, number, self._rounds)
                    rounds.append(one)
                    self._say(
                        f"  {name} {number + 1}/{self._rounds}: {one.host} with {len(one.vms)} VMs, "
                        f"last write after {one.last.total_s:.1f} s"
                    )
                    after(lab, one)
                    _check(out)
        except FangnetzError as problem:
            error = str(problem)
            last_words = _last_words(onlooker)
            self._say("\n".join([f"  {name}: {error}", *(f"    {words}" for words in last_words)]))
        self.series.append(
            Series(
                name=name,
                policy=policy,
                cause=cause,
                vms=len(lab.plan.vms),
                rounds=tuple(rounds),
                error=error,
                events=tuple(last_words),
            )
        )

    @contextmanager
    def _lab(self, title: str, *, vms: int, policy: Policy = "default", bare: bool = False) -> Iterator[Lab]:
        self._say(title)
        with staged(name=self._name, hosts=HOSTS, vms=vms, policy=policy, bare=bare) as lab:
            yield lab


def _watched(lab: Lab) -> Lookout:
    """Watch the machine alone, at a fiftieth of a core: reading the store as well would load what is measured."""
    return Lookout(lab, listens=False)


def _check(out: Lookout) -> None:
    """Raise LabError for a second copy or a number that came back."""
    if news := out.news():
        raise LabError("; ".join(news))


def _last_words(onlooker: Onlooker) -> list[str]:
    try:
        return [f"{event.at:.3f} {event.kind}: {event.sentence}" for event in onlooker.latest_events(LAST_WORDS)]
    except FangnetzError as error:
        return [str(error)]


def main() -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fangnetz.lab.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--rounds", type=int, default=5, help="pulled plugs of each kind (default 5)")
    parser.add_argument("--quick", action="store_true", help="one round of each kind: to see that it works")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="both")
    parser.add_argument("--name", default=own_name("bench"), help="the name of its labs")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    errors = Console(stderr=True, highlight=False)
    bench = Bench(
        name=chosen.name,
        rounds=ROUNDS_QUICK if chosen.quick else chosen.rounds,
        idle_s=IDLE_QUICK_S if chosen.quick else IDLE_S,
        say=lambda words: errors.print(f"bench: {words}", style="dim", markup=False, soft_wrap=True),
    )
    began_at = time.time()
    problem = ""
    try:
        check_root()
        bench.idle_boots()
        for policy in POLICIES[chosen.policy]:
            bench.one_vm(policy, CAUSES[policy])
            bench.many_vms(policy)
        bench.kills()
        bench.emptying()
        bench.simulated()
    except (LabError, FangnetzError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    figures = whole(
        bench.series,
        bench.boots,
        bench.workers,
        began_at,
        journal=bench.journal,
        resumes=bench.resumes,
        emptied=bench.emptied,
        simulation=bench.simulation,
    )
    report = {**figures, "error": problem or None}
    if chosen.json is not None and (bench.series or not problem):
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    if bench.series:
        show(Console(highlight=False), report)
    if problem:
        errors.print(f"The bench failed: {problem}", style="bold red", markup=False)
    failed = problem or report["overlaps"] or any(row["error"] for row in report["series"])
    failed = failed or any(each["faults"] for each in report["resume"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
