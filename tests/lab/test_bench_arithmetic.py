"""What the bench, the demo and the soak make of what they saw: pure sums and judgements, on instants given by hand."""

from __future__ import annotations

from io import StringIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fangnetz.core.policy import Policy
from fangnetz.lab.bench import resume
from fangnetz.lab.bench.arithmetic import (
    Marks,
    Phases,
    cpu_share,
    device_time,
    own_before_start,
    own_overhead,
    phase_of_interval,
    phases,
    spread,
    window_left,
)
from fangnetz.lab.bench.emptying import Emptied, Pair
from fangnetz.lab.bench.journal import JournalCost
from fangnetz.lab.bench.machine_load import MachineLoad
from fangnetz.lab.bench.report import IdleBoot, Series, whole
from fangnetz.lab.bench.resume import Resume, resumes, store_resume_s
from fangnetz.lab.bench.rounds import Round, VmFigures
from fangnetz.lab.bench.table import show
from fangnetz.lab.demo.judgement import faults, judge
from fangnetz.lab.errors import LabError
from fangnetz.lab.soak_idle.tally import Tally
from fangnetz.lab.table.cells import STORE, Cell
from fangnetz.lab.table.judgement import Seen
from fangnetz.lab.whereabouts import first_write_after, fullest

LOAD = MachineLoad(load_1min=0.5, cores=2, other_labs=0)


def marks(
    opened: float | None = 11.5, proven: float | None = 12.0, sent: float | None = 12.25, wrote: float = 16.0
) -> Marks:
    return Marks(cause_at=10.0, opened_at=opened, proven_at=proven, start_sent_at=sent, first_write_at=wrote)


# --- phases ---


def test_phases_follow_each_other_from_the_cause_to_the_first_write() -> None:
    assert phases(marks()) == Phases(detection_s=1.5, fence_s=0.5, plan_start_s=0.25, boot_s=3.75)


def test_a_proof_older_than_the_failover_costs_no_fence_time() -> None:
    assert phases(marks(proven=11.25)).fence_s == 0.0
    assert phases(marks(proven=11.25)).plan_start_s == 0.75


def test_what_the_journal_does_not_say_is_part_of_the_next_phase() -> None:
    cut = phases(marks(sent=None))
    assert (cut.plan_start_s, cut.boot_s) == (0.0, 4.0)


instants = st.one_of(st.none(), st.floats(min_value=0.0, max_value=100.0))


@given(instants, instants, instants, st.floats(min_value=10.0, max_value=100.0))
def test_phases_lose_no_second_and_count_none_twice(
    opened: float | None, proven: float | None, sent: float | None, wrote: float
) -> None:
    cut = phases(marks(opened, proven, sent, wrote))
    assert cut.total_s == pytest.approx(wrote - 10.0)
    assert min(cut.detection_s, cut.fence_s, cut.plan_start_s, cut.boot_s) >= 0.0


# --- what it should take ---


def test_the_window_is_counted_from_the_last_heartbeat() -> None:
    assert window_left(cause_at=10.0, last_heard_at=9.25, window_s=1.5) == 0.75
    assert window_left(cause_at=10.0, last_heard_at=None, window_s=1.5) == 1.5
    assert window_left(cause_at=10.0, last_heard_at=2.0, window_s=1.5) == 0.0


def test_a_heartbeat_after_the_cause_makes_no_window_longer_than_the_policy_s() -> None:
    assert window_left(cause_at=10.0, last_heard_at=10.5, window_s=1.5) == 1.5


def test_the_device_takes_from_the_cut_to_the_proof_or_as_long_as_its_slowest_answer() -> None:
    assert device_time(sent_at=11.0, proven_at=11.5, asked=[(9.0, 10.0)]) == 0.5
    assert device_time(sent_at=None, proven_at=11.5, asked=[(11.0, 11.25), (11.0, 11.5)]) == 0.5
    assert device_time(sent_at=None, proven_at=None, asked=[]) == 0.0


def test_overhead_is_what_window_fence_and_boot_do_not_explain() -> None:
    assert own_overhead(total_s=6.0, window_s=1.0, fence_s=0.25, boot_s=4.0) == 0.75
    assert own_before_start(phases(marks()), window_s=1.0, fence_s=0.25) == 1.0


def test_rounds_cover_the_heartbeat_s_interval_evenly() -> None:
    assert [phase_of_interval(number, 4, 1.0) for number in range(4)] == [0.125, 0.375, 0.625, 0.875]


def test_a_spread_is_minimum_median_and_maximum() -> None:
    found = spread([5.0, 1.0, 2.0, 4.0])
    assert found is not None
    assert (found.min, found.median, found.max, found.count) == (1.0, 3.0, 5.0, 4)
    assert spread([]) is None


def test_a_share_of_a_core_is_processor_time_over_elapsed_time() -> None:
    assert cpu_share(100, 160, 100, 30.0) == pytest.approx(0.02)


# --- the report ---


def round_of(*totals: float, overlaps: int = 0) -> Round:
    vms = tuple(
        VmFigures(vm=f"vm{index + 1}", target="host2", total_s=total, phases=phases(marks(wrote=10.0 + total)))
        for index, total in enumerate(totals)
    )
    return Round(
        cause="plug",
        host="host1",
        at=10.0,
        load=LOAD,
        vms=vms,
        window_s=1.0,
        fence_device_s=0.25,
        overlaps=overlaps,
    )


def report_of(*rounds: Round, vms: int = 1, boots: tuple[float, ...] = (3.0,)) -> dict[str, Any]:
    series = Series(name=f"plug-default-{vms}", policy="default", cause="plug", vms=vms, rounds=rounds)
    return whole([series], [IdleBoot(at_once=vms, last_s=boots, load=LOAD)], [], 0.0)


def goal(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in report["goals"] if each["goal"] == name)


def test_a_series_counts_the_last_vm_of_each_round() -> None:
    row = report_of(round_of(4.0, 9.0), round_of(5.0, 7.0), vms=2)["series"][0]
    assert row["last_vm_s"] == {"min": 7.0, "median": 8.0, "max": 9.0, "count": 2}
    assert row["first_vm_s"]["median"] == 4.5


def test_the_expected_sum_is_window_and_fence_and_idle_boot() -> None:
    row = report_of(round_of(5.25))["series"][0]
    assert row["expected_s"]["median"] == 4.25
    assert row["own_overhead_s"]["median"] == 1.0
    assert row["ratio"]["median"] == pytest.approx(5.25 / 4.25, abs=0.001)


def test_a_goal_is_missed_by_the_slowest_round_and_by_no_round_at_all() -> None:
    assert goal(report_of(round_of(6.0), round_of(9.0)), "plug-default-1: max, s")["met"]
    assert not goal(report_of(round_of(6.0), round_of(10.5)), "plug-default-1: max, s")["met"]
    assert not goal(report_of(), "plug-default-1: max, s")["met"]


def test_one_overlap_is_one_too_many() -> None:
    report = report_of(round_of(6.0), round_of(6.0, overlaps=1))
    assert report["overlaps"] == 1
    assert not goal(report, "plug-default-1: overlaps")["met"]


# --- what crashes cost ---


def crashed(
    *seconds: float, faults: tuple[str, ...] = (), step_us: float = 900.0, process: str = "work"
) -> dict[str, Any]:
    journal = JournalCost(steps=3, claim_us=500.0, renew_us=100.0, settle_us=300.0, step_us=step_us, load=LOAD)
    killed = Resume(process=process, resumed_s=seconds, load=LOAD, faults=faults)
    return whole([], [], [], 0.0, journal=journal, resumes=[killed])


def test_work_that_goes_on_late_or_wrongly_misses_its_goal() -> None:
    late, wrong = "work killed, goes on: median, s", "work killed: faults"
    assert goal(crashed(4.0, 4.9, 6.0), late)["met"]
    assert not goal(crashed(4.0, 5.1, 6.0), late)["met"]
    assert not goal(crashed(), late)["met"]
    assert goal(crashed(4.0), wrong)["met"]
    assert not goal(crashed(4.0, faults=("vm1 booted 2 times, not 1",)), wrong)["met"]


def test_a_killed_store_has_its_own_sum_for_going_on() -> None:
    """Back after 1 s, found again within 2 s, a lease that rests 4 s, two ticks: 9 s."""
    late = "redis killed, goes on: median, s"
    assert store_resume_s(Policy()) == 9.0
    assert goal(crashed(6.0, 9.0, 14.0, process="redis"), late)["met"]
    assert not goal(crashed(9.1, process="redis"), late)["met"]
    assert not goal(crashed(process="redis"), late)["met"]


class Struck:
    """What each kind of kill came to, by who was struck."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **resumed_s: float | None) -> None:
        def seen(cell: Cell) -> Seen:
            after = resumed_s.get(cell.role, 2.0)
            return Seen(
                cell=cell, host="host1", vms=("vm1",), caused_at=100.0, struck=cell.role, struck_at=102.0,
                thawed_at=None, went_on_at=None if after is None else 102.0 + after, ended_at=120.0, state="done",
                sentence="", incidents=1, offs=1 if cell.cause == "cut" else 0, boots={"vm1": 1}, copies={"vm1": 1},
                overlaps=0,
            )  # fmt: skip

        monkeypatch.setattr(resume, "play", lambda _lab, _onlooker, cell: seen(cell))
        monkeypatch.setattr(resume, "play_store_killed", lambda _lab, _onlooker: seen(STORE))
        monkeypatch.setattr(resume, "machine_load", lambda _name: LOAD)
        monkeypatch.setattr(resume, "_beat", lambda *_: Resume(process="beat", resumed_s=(1.0,), load=LOAD))

    def killed(self) -> dict[str, Resume]:
        onlooker, lab = SimpleNamespace(policy=Policy()), SimpleNamespace(name="unplugged")
        return {each.process: each for each in resumes(lab, onlooker, 2, lambda _: None)}  # type: ignore[arg-type]


def test_every_kind_of_process_and_the_store_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Struck(monkeypatch, redis=7.5).killed()
    assert set(found) == {"control", "work", "fence", "host worker", "redis", "beat"}
    assert found["redis"].resumed_s == (7.5, 7.5)
    assert all(each.faults == () for each in found.values())


def test_each_kill_is_judged_by_twice_its_own_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Struck(monkeypatch, redis=17.9, work=11.9).killed()["redis"].faults == ()
    late = Struck(monkeypatch, redis=18.1, work=12.1).killed()
    assert [len(late[process].faults) for process in ("redis", "work", "fence")] == [2, 2, 0]
    with pytest.raises(LabError, match="redis"):
        Struck(monkeypatch, redis=None).killed()


def test_a_dear_journal_misses_its_goal() -> None:
    assert goal(crashed(), "journal, a step: median, µs")["met"]
    assert not goal(crashed(step_us=10_001.0), "journal, a step: median, µs")["met"]


def test_what_crashes_cost_is_shown_with_its_figures() -> None:
    console = Console(width=150, record=True, file=StringIO())
    show(console, crashed(4.0, 4.5, 6.0, faults=("two incidents",)))
    said = console.export_text()
    for words in ("900 µs", "4.0 … 4.5 … 6.0 s", "two incidents"):
        assert words in said


# --- the demo's judgement ---


def witness(**disks: list[tuple[float, float]]) -> dict[str, Any]:
    """A report at 20.0 from (first, last) of each boot; boots that overlap are listed as the witness would."""
    overlaps = [
        {"vm": vm, "boots": [], "from": later[0], "to": earlier[1]}
        for vm, boots in disks.items()
        for earlier, later in pairwise(boots)
        if earlier[1] > later[0]
    ]
    return {
        "at": 20.0,
        "vms": {
            vm: {
                "boots": [{"first_at": first, "last_at": last} for first, last in boots],
                "overlaps": [each for each in overlaps if each["vm"] == vm],
            }
            for vm, boots in disks.items()
        },
        "overlaps": overlaps,
    }


def said(report: dict[str, Any], *targets: str) -> str:
    judged = judge(("vm1",), "host1", {"vm1": targets}, report, 10.0)
    return "; ".join(faults(judged, report))


def test_a_vm_that_writes_elsewhere_as_a_new_boot_has_come_back() -> None:
    report = witness(vm1=[(1.0, 9.9), (14.0, 19.9)])
    (judged,) = judge(("vm1",), "host1", {"vm1": ("host2",)}, report, 10.0)
    assert judged.fault == ""
    assert judged.away_s == pytest.approx(4.1)
    assert said(report, "host2") == ""


@pytest.mark.parametrize(
    ("report", "targets", "word"),
    [
        (witness(vm1=[(1.0, 9.9)]), ("host2",), "has not written"),
        (witness(vm1=[(1.0, 9.9), (14.0, 15.0)]), ("host2",), "has stopped"),
        (witness(vm1=[(1.0, 9.9), (14.0, 19.9)]), (), "no QEMU"),
        (witness(vm1=[(1.0, 9.9), (14.0, 19.9)]), ("host1",), "whose plug was pulled"),
        (witness(vm1=[(1.0, 9.9), (14.0, 19.9)]), ("host2", "host3"), "2 QEMU processes"),
        (witness(vm1=[(1.0, 15.0), (14.0, 19.9)]), ("host2",), "two copies of vm1"),
        (witness(vm1=[(1.0, 9.9), (14.0, 19.9)], vm2=[(1.0, 19.9), (5.0, 19.9)]), ("host2",), "two copies of vm2"),
    ],
)
def test_anything_else_is_a_failure_with_its_reason(
    report: dict[str, Any], targets: tuple[str, ...], word: str
) -> None:
    assert word in said(report, *targets)


def test_the_first_write_is_of_the_first_boot_that_began_after_the_cause() -> None:
    report = witness(vm1=[(1.0, 9.9), (14.0, 15.0), (17.0, 19.9)])
    assert first_write_after(report, "vm1", 10.0) == 14.0
    assert first_write_after(report, "vm1", 18.0) is None


def test_the_host_with_the_most_vms_is_the_first_of_equals() -> None:
    where = {"vm1": ("host2",), "vm2": ("host3",), "vm3": ()}
    assert fullest(("host1", "host2", "host3"), where) == ("host2", ("vm1",))


# --- the soak's tally ---


def test_a_suspect_host_is_counted_but_only_a_lost_or_fenced_one_fails_the_run() -> None:
    tally = Tally()
    tally.event(1.0, "host_state", {"host": "host1", "state": "suspect"}, "host1 is suspect: …")
    assert tally.faults(0) == []
    tally.event(2.0, "host_state", {"host": "host1", "state": "fencing"}, "host1 is fencing: …")
    tally.event(2.0, "operation_opened", {"id": "x"}, "failover of host1 begins: …")
    tally.event(3.0, "fence_sent", {"host": "host1"}, "host1 is switched off through ipmi: …")
    assert len(tally.faults(0)) == 3
    assert [each["kind"] for each in tally.told] == ["host_state", "host_state", "operation_opened", "fence_sent"]


def test_an_operation_that_is_no_failover_and_a_host_that_is_online_are_nothing() -> None:
    tally = Tally()
    tally.event(1.0, "operation_opened", {"id": "x"}, "start of vm1 begins: …")
    tally.event(1.0, "host_state", {"host": "host1", "state": "online"}, "host1 is online: …")
    assert tally.faults(0) == []
    assert tally.told == []
    assert tally.faults(1) == ["1 times two copies of a VM wrote"]


def test_the_longest_silence_is_between_two_heartbeats() -> None:
    tally = Tally()
    for at in (10.0, 11.0, 11.0, 13.5, 14.5):
        tally.heartbeats({"host1": at})
    assert tally.silence_s == {"host1": 2.5}


# --- emptying a host ---------------------------------------------------------------------------------------------


def pair(idle_s: float, serial_s: float) -> Pair:
    ours = Emptied(last_s=idle_s - 0.1, idle_s=idle_s, gaps_s={"vm1": 0.7, "vm2": 0.3})
    return Pair(ours=ours, serial=Emptied(last_s=serial_s, gaps_s={"vm1": 0.2, "vm2": 0.4}), load=LOAD)


def test_emptying_a_host_is_judged_by_the_median_of_its_pairs_and_each_guest_by_its_worst_moment() -> None:
    report = whole([], [], [], 0.0, emptied=[pair(1.0, 2.0), pair(4.0, 2.0), pair(1.2, 2.0)])
    assert report["emptying"]["ratio"]["median"] == pytest.approx(0.6)
    assert report["emptying"]["longest_gap_s"] == {
        "vm1": {"ours": 0.7, "serial": 0.2}, "vm2": {"ours": 0.3, "serial": 0.4}
    }  # fmt: skip
    assert goal(report, "emptying a host over the moves one by one, median")["met"]
    slow = whole([], [], [], 0.0, emptied=[pair(1.7, 2.0)])
    assert not goal(slow, "emptying a host over the moves one by one, median")["met"]
    assert whole([], [], [], 0.0)["emptying"] is None
