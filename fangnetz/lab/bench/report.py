"""The bench's figures as one JSON value: every series with its phases, its expected sum, its overhead, and the goals.

Pure: rounds go in, plain values come out. Seconds are rounded to milliseconds; a median of nothing is null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fangnetz.core.policy import Policy
from fangnetz.lab.bench.arithmetic import Spread, own_before_start, own_overhead, spread
from fangnetz.lab.bench.emptying import IDLE_MAX_S, RATIO_MAX, RUN_ELSEWHERE_MAX_S, Pair
from fangnetz.lab.bench.idle import WorkerCost
from fangnetz.lab.bench.journal import JournalCost
from fangnetz.lab.bench.machine_load import MachineLoad
from fangnetz.lab.bench.resume import REDIS, Resume, store_resume_s
from fangnetz.lab.bench.rounds import Cause, Round, VmFigures
from fangnetz.lab.bench.simulation import SimulationCost

SCHEMA = 1
OVERHEAD_MAX_S = 1.5
PSS_MAX_BYTES = 130_000_000
CPU_MAX_SHARE = 0.02
JOURNAL_MAX_US = 10_000.0
"""What the journal may add to a step: nobody notices a hundredth of a second in a recovery of seconds."""
BIG_MAX_S = 60.0
RESUME_MAX_S = 5.0
STORE_RESUME_MAX_S = float(store_resume_s(Policy()))
"""Longer than after any process of ours: a new memory's control lease rests first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Rounds of one kind. `error` says why it ended early, empty if it did not; `events` what was told before that."""

    name: str
    policy: str
    cause: Cause
    vms: int
    rounds: tuple[Round, ...]
    error: str = ""
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleBoot:
    """The guest's boot on this machine at rest, so many at once; the last one's seconds of each round."""

    at_once: int
    last_s: tuple[float, ...]
    load: MachineLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleWorkers:
    """What idle host workers of one policy cost."""

    policy: str
    costs: tuple[WorkerCost, ...]
    load: MachineLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most a series may take. None: no such limit was set."""

    median_s: float | None = None
    max_s: float | None = None


LIMITS: dict[str, Limit] = {
    "plug-default-1": Limit(median_s=7.0, max_s=10.0),
    "plug-default-4": Limit(max_s=13.0),
    "cut-default-1": Limit(median_s=10.0),
    "plug-fast-1": Limit(max_s=5.5),
    "plug-fast-4": Limit(max_s=10.5),
}
"""Seconds from the cause to the first write elsewhere, the last VM's where there are several."""


def whole(
    series: Sequence[Series],
    boots: Sequence[IdleBoot],
    workers: Sequence[IdleWorkers],
    began_at: float,
    *,
    journal: JournalCost | None = None,
    resumes: Sequence[Resume] = (),
    emptied: Sequence[Pair] = (),
    simulation: SimulationCost | None = None,
) -> dict[str, Any]:
    """Return everything that was measured."""
    by_count = {boot.at_once: spread(boot.last_s) for boot in boots}
    rows = [series_report(each, by_count.get(each.vms)) for each in series]
    return {
        "schema": SCHEMA,
        "began_at": round(began_at, 3),
        "end": "the witness's sight of the guest's first write elsewhere (it looks every 0.1 s)",
        "idle_boot": [
            {"at_once": boot.at_once, "last_s": _plain(spread(boot.last_s)), "load": asdict(boot.load)}
            for boot in boots
        ],
        "series": rows,
        "idle_host_worker": [
            {"policy": each.policy, "load": asdict(each.load), "hosts": [asdict(cost) for cost in each.costs]}
            for each in workers
        ],
        "journal": None if journal is None else asdict(journal),
        "resume": [
            {
                "process": each.process,
                "resumed_s": _plain(spread(each.resumed_s)),
                "rounds": [round(span, 3) for span in each.resumed_s],
                "faults": list(each.faults),
                "load": asdict(each.load),
            }
            for each in resumes
        ],
        "overlaps": max((one.overlaps for each in series for one in each.rounds), default=0),
        "emptying": emptying_report(emptied),
        "simulation": None if simulation is None else simulation.plain(),
        "goals": [
            *goals(rows, workers),
            *journal_goals(journal, resumes),
            *emptying_goals(emptied),
            *simulation_goals(simulation),
        ],
    }


def series_report(series: Series, boot: Spread | None) -> dict[str, Any]:
    """Return one series: totals and phases of the last VM of each round, and of all VMs beside them."""
    boot_s = boot.median if boot else None
    rounds = [_round(each, boot_s) for each in series.rounds]
    return {
        "name": series.name,
        "policy": series.policy,
        "cause": series.cause,
        "vms": series.vms,
        "error": series.error or None,
        "events": list(series.events),
        "first_vm_s": _spread(min(vm.total_s for vm in each.vms) for each in series.rounds),
        "last_vm_s": _spread(each.last.total_s for each in series.rounds),
        "phases_of_last_vm": {
            name: _spread(pick(each.last) for each in series.rounds) for name, pick in _PHASES.items()
        },
        "window_s": _spread(each.window_s for each in series.rounds),
        "fence_device_s": _spread(each.fence_device_s for each in series.rounds),
        "idle_boot_s": boot_s,
        "expected_s": _spread(each["expected_s"] for each in rounds if each["expected_s"] is not None),
        "ratio": _spread(each["ratio"] for each in rounds if each["ratio"] is not None),
        "own_overhead_s": _spread(each["own_overhead_s"] for each in rounds if each["own_overhead_s"] is not None),
        "own_before_start_s": _spread(each["own_before_start_s"] for each in rounds),
        "overlaps": max((each.overlaps for each in series.rounds), default=0),
        "rounds": rounds,
    }


def _round(one: Round, boot_s: float | None) -> dict[str, Any]:
    total = one.last.total_s
    expected = None if boot_s is None else one.window_s + one.fence_device_s + boot_s
    overhead = (
        None
        if boot_s is None
        else own_overhead(total_s=total, window_s=one.window_s, fence_s=one.fence_device_s, boot_s=boot_s)
    )
    return {
        "at": round(one.at, 3),
        "host": one.host,
        "load": asdict(one.load),
        "vms_on_host": len(one.vms),
        "last_vm_s": round(total, 3),
        "window_s": round(one.window_s, 3),
        "fence_device_s": round(one.fence_device_s, 3),
        "expected_s": _rounded(expected),
        "ratio": _rounded(total / expected if expected else None),
        "own_overhead_s": _rounded(overhead),
        "own_before_start_s": round(
            own_before_start(one.last.phases, window_s=one.window_s, fence_s=one.fence_device_s), 3
        ),
        "overlaps": one.overlaps,
        "vms": [
            {
                "vm": vm.vm,
                "to": vm.target,
                "total_s": round(vm.total_s, 3),
                **{name: round(pick(vm), 3) for name, pick in _PHASES.items()},
            }
            for vm in sorted(one.vms, key=lambda vm: vm.total_s)
        ],
    }


_PHASES: dict[str, Callable[[VmFigures], float]] = {
    "detection_s": lambda vm: vm.phases.detection_s,
    "fence_s": lambda vm: vm.phases.fence_s,
    "plan_start_s": lambda vm: vm.phases.plan_start_s,
    "boot_s": lambda vm: vm.phases.boot_s,
}


def goals(rows: Sequence[dict[str, Any]], workers: Sequence[IdleWorkers]) -> list[dict[str, Any]]:
    """Return every goal with its limit, what was measured and whether it was met."""
    found: list[dict[str, Any]] = []

    def goal(name: str, limit: float, value: float | None) -> None:
        met = value is not None and value <= limit
        found.append({"goal": name, "limit": limit, "measured": value, "met": met})

    for row in rows:
        limit, took = LIMITS.get(row["name"], Limit()), row["last_vm_s"] or {}
        if limit.median_s is not None:
            goal(f"{row['name']}: median, s", limit.median_s, took.get("median"))
        if limit.max_s is not None:
            goal(f"{row['name']}: max, s", limit.max_s, took.get("max"))
        goal(f"{row['name']}: own overhead, median, s", OVERHEAD_MAX_S, (row["own_overhead_s"] or {}).get("median"))
        goal(f"{row['name']}: overlaps", 0, row["overlaps"] if row["rounds"] else None)
    for each in workers:
        goal(f"idle host worker, {each.policy}: PSS, MB", PSS_MAX_BYTES / 1e6, _worst_pss_mb(each.costs))
        goal(f"idle host worker, {each.policy}: % of a core", CPU_MAX_SHARE * 100, _worst_cpu_percent(each.costs))
    return found


def journal_goals(journal: JournalCost | None, resumes: Sequence[Resume]) -> list[dict[str, Any]]:
    """Return the goals of what crashes cost: the journal's price for a step, and when work goes on."""
    found: list[tuple[str, float, float | None]] = []
    if journal is not None:
        found.append(("journal, a step: median, µs", JOURNAL_MAX_US, journal.step_us))
    for each in resumes:
        took = spread(each.resumed_s)
        most = STORE_RESUME_MAX_S if each.process == REDIS else RESUME_MAX_S
        found.append((f"{each.process} killed, goes on: median, s", most, took.median if took else None))
        found.append((f"{each.process} killed: faults", 0, len(each.faults)))
    return [
        {"goal": name, "limit": limit, "measured": value, "met": value is not None and value <= limit}
        for name, limit, value in found
    ]


def emptying_report(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """Return medians over the pairs, and each guest's longest time without a write; None if nothing was measured."""
    if not pairs:
        return None
    return {
        "guests": len(pairs[0].ours.gaps_s),
        "last_s": _spread(pair.ours.last_s for pair in pairs),
        "idle_s": _spread(pair.ours.idle_s for pair in pairs if pair.ours.idle_s is not None),
        "serial_s": _spread(pair.serial.last_s for pair in pairs),
        "ratio": _spread(pair.ratio for pair in pairs),
        "longest_gap_s": {
            vm: {
                "ours": round(max(pair.ours.gaps_s[vm] for pair in pairs), 3),
                "serial": round(max(pair.serial.gaps_s[vm] for pair in pairs), 3),
            }
            for vm in sorted(pairs[0].ours.gaps_s)
        },
        "pairs": [asdict(pair) for pair in pairs],
    }


def emptying_goals(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the goals of emptying a host: beside the same moves one after the other, and beside the field."""
    found = emptying_report(pairs)
    if found is None:
        return []
    rows = (
        ("emptying a host over the moves one by one, median", RATIO_MAX, found["ratio"]["median"]),
        ("the last guest runs elsewhere: median, s", RUN_ELSEWHERE_MAX_S, found["last_s"]["median"]),
        ("the host is in maintenance: median, s", IDLE_MAX_S, found["idle_s"]["median"]),
    )
    return [
        {"goal": name, "limit": limit, "measured": round(value, 3), "met": value <= limit}
        for name, limit, value in rows
    ]


def simulation_goals(cost: SimulationCost | None) -> list[dict[str, Any]]:
    """Return the goals of the simulator: what it takes for a thousand stories, and for a big cluster's bad day."""
    if cost is None:
        return []
    found = [
        ("a thousand stories by chance, minutes", 1.0, round(1000 / cost.seeds_a_minute, 2)),
        ("stories by chance: laws broken", 0, cost.laws_broken),
        ("a big cluster loses ten hosts, s", BIG_MAX_S, cost.big_s),
    ]
    return [{"goal": name, "limit": limit, "measured": value, "met": value <= limit} for name, limit, value in found]


def _worst_pss_mb(costs: Iterable[WorkerCost]) -> float | None:
    return max((round(cost.pss_bytes / 1e6, 1) for cost in costs), default=None)


def _worst_cpu_percent(costs: Iterable[WorkerCost]) -> float | None:
    return max((round(cost.cpu_share * 100, 2) for cost in costs), default=None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _spread(values: Iterable[float]) -> dict[str, Any] | None:
    return _plain(spread(values))


def _plain(found: Spread | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
