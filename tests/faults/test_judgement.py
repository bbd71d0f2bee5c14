"""The table's cells are whole, its judgement misses nothing, and the page about it names the same points."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from fangnetz.core.operations import Operation, OperationKind, Step, StepKind, StepState, failover_steps
from fangnetz.core.units import Epoch, Instant, OperationId, VmId
from fangnetz.engine.execute import Done, Next
from fangnetz.engine.fault_points import POINTS
from fangnetz.lab.table.cells import STORE, Blow, Cell, Moment, all_cells, cell
from fangnetz.lab.table.judgement import Seen, faults_of, rows_of, went_on_at, words_of
from tasks.steps import follow
from workers.logs import set_up_logs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fault-points.md"
STEPS = ("confirm", "fence", "prove", "plan", "start", "running", "close")


def test_every_step_is_struck_at_every_moment_by_every_blow() -> None:
    cells = all_cells()
    for step in STEPS:
        assert {(c.moment, c.blow) for c in cells if c.step == step} == {(m, b) for m in Moment for b in Blow}
    assert {c.step for c in cells} == {"open", "dispatch", *STEPS}
    assert len({c.name for c in cells}) == len(cells)
    assert all(c.point in POINTS for c in cells)


def test_the_page_lists_the_points_of_the_table() -> None:
    page = PAGE.read_text().partition("## In a live migration")[0]
    rows = re.findall(r"^\| (\w+)[^|]*\| (`[^|]*`)? *\| (`[^|]*`)? *\| (`[^|]*`)? *\|$", page, re.MULTILINE)
    told = {(step, moment, point.strip("`")) for step, *points in rows for moment, point in zip(Moment, points)}  # noqa: B905
    assert {each for each in told if each[2]} == {(c.step, c.moment, c.point) for c in all_cells()}


def seen(name: str = "plan.settled:kill", **changed: object) -> Seen:
    """A cell that went as it must: struck at 102, gone on at 106, two VMs moved, a third left alone."""
    well = Seen(
        cell=cell(name),
        host="host1",
        vms=("vm1", "vm2"),
        caused_at=100.0,
        struck="c1/work",
        struck_at=102.0,
        thawed_at=None,
        went_on_at=106.0,
        ended_at=109.0,
        state="done",
        sentence="2 of 2 VMs run",
        incidents=1,
        offs=0,
        boots={"vm1": 1, "vm2": 1, "vm3": 0},
        copies={"vm1": 1, "vm2": 1, "vm3": 1},
        overlaps=0,
    )
    return replace(well, **changed)  # type: ignore[arg-type]  # what a test changes


def test_a_cell_that_went_well_has_no_fault_and_its_figures() -> None:
    assert faults_of(seen(), 12.0) == ()
    (row,) = rows_of([seen()], 12.0)
    assert (row["resumed_s"], row["incident_s"], row["boots"], row["faults"]) == (4.0, 9.0, 1, [])


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"state": "needs_person"}, "needs_person"),
        ({"incidents": 2}, "2 incidents"),
        ({"offs": 1}, "1 power-off"),
        ({"overlaps": 1}, "two copies"),
        ({"boots": {"vm1": 2, "vm2": 1}}, "vm1 booted 2"),
        ({"boots": {"vm1": 0, "vm2": 1}}, "vm1 booted 0"),
        ({"boots": {"vm1": 1, "vm2": 1, "vm3": 1}}, "vm3 booted 1"),
        ({"copies": {"vm1": 2}}, "vm1 has 2 QEMU"),
        ({"copies": {"vm1": 0}}, "vm1 has 0 QEMU"),
        ({"returned_and_cut": True}, "was cut by the thawed"),
        ({"went_on_at": 114.1}, "went on after 12.1 s"),
        ({"went_on_at": None}, "nobody took up"),
    ],
)
def test_anything_else_is_a_fault_with_its_reason(changed: dict[str, object], word: str) -> None:
    (fault,) = faults_of(seen(**changed), 12.0)
    assert word in fault


@pytest.mark.parametrize("offs", [0, 2])
def test_a_host_that_is_cut_off_gets_one_power_off_and_no_second(offs: int) -> None:
    assert faults_of(seen("fence.sent:kill", offs=1), 12.0) == ()
    assert faults_of(seen("fence.sent:kill", offs=offs), 12.0) != ()


def test_work_only_the_frozen_process_could_do_is_counted_from_its_thaw() -> None:
    assert seen(thawed_at=150.0, went_on_at=151.5).resumed_s == 1.5
    assert seen(thawed_at=150.0, went_on_at=106.0).resumed_s == 4.0


@pytest.mark.parametrize("chosen", all_cells(), ids=lambda chosen: chosen.name)
def test_only_after_the_last_write_is_nothing_left_to_take_up(chosen: Cell) -> None:
    offs = 1 if chosen.cause == "cut" else 0
    idle = seen(chosen.name, went_on_at=None, offs=offs, said="why it did nothing")
    assert idle.resumed_s is None
    nobody = "nobody took up what c1/work left"
    assert faults_of(idle, 12.0) == (() if chosen.point == "close.settled" else (nobody,))


@pytest.mark.parametrize("chosen", all_cells(), ids=lambda chosen: chosen.name)
def test_whoever_is_thawed_must_say_what_it_found(chosen: Cell) -> None:
    offs = 1 if chosen.cause == "cut" else 0
    silent = faults_of(seen(chosen.name, offs=offs), 12.0)
    assert silent == (("the thawed c1/work did not say what it found",) if chosen.blow is Blow.FREEZE else ())


LINES = """\
timestamp=1 level=info event=step task=see_running args="['op-1', 'running/vm2/1']" next=stop sentence="of another"
timestamp=2 level=info event=step task=fangnetz.close args="['op-2', 'close']" next=stop sentence="of another still"
timestamp=3 level=info event=sweep chains=1
timestamp=4 level=warning event=tick error="epoch 7 is no longer in charge"
timestamp=5 level=info event=step task=fangnetz.close args="['op-1', 'close']" next=stop sentence="op-1 is closed"
""".splitlines(keepends=True)


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("close.claimed:freeze", LINES, '"op-1 is closed"'),
        ("close.claimed:freeze", LINES[:4], ""),
        ("operation.opened:freeze", LINES[2:], '"epoch 7 is no longer in charge"'),
        ("operation.opened:freeze", LINES[2:3], ""),
    ],
)
def test_only_what_a_process_says_of_the_struck_step_counts(name: str, lines: list[str], words: str) -> None:
    assert words_of(lines, "op-1", cell(name).step_key(VmId("vm1"))) == words


def test_what_a_process_logs_of_a_step_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    done = Done(next=Next.STOP, sentence="its lease was lost")
    task = SimpleNamespace(name="fangnetz.start_vm", request=SimpleNamespace(args=["op-1", "start/vm1/1"], chain=None))
    root, kept = logging.getLogger(), logging.getLogger().handlers[:]
    set_up_logs("host", "host1")
    try:
        follow(task, done)  # type: ignore[arg-type]  # a Celery task
    finally:
        root.handlers[:] = kept
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    said = words_of(capsys.readouterr().err.splitlines(), "op-1", "start/vm1/1")
    assert said.startswith('"its lease was lost"')


def operation(**claims: tuple[int, float, float]) -> Operation:
    """A failover whose steps were claimed so: key -> (attempt, first claim, last claim)."""
    steps = []
    extra = Step(key="start/vm1/1", kind=StepKind.START, after=("plan/1",))
    for step in (*failover_steps(), extra):
        attempt, first, last = claims.get(step.key.partition("/")[0], (0, 0.0, 0.0))
        steps.append(
            replace(
                step,
                attempt=attempt,
                started_at=Instant(first),
                claimed_at=Instant(last),
                ended_at=Instant(last + 0.1),
                state=StepState.DONE,
            )
        )
    return Operation(
        id=OperationId("op"),
        kind=OperationKind.FAILOVER,
        subject="host1",
        epoch=Epoch(1),
        opened_at=Instant(101.0),
        reason="",
        steps=tuple(steps),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("operation.before_open:kill", 101.0),
        ("operation.opened:kill", 101.2),
        ("prove.claimed:kill", 106.0),
        ("prove.before_settle:kill", 106.0),
        ("prove.settled:kill", 107.0),
        ("plan.settled:kill", 108.0),
        ("close.settled:kill", None),
    ],
)
def test_work_goes_on_with_the_next_claim_of_the_step_or_of_what_follows_it(name: str, expected: float | None) -> None:
    went = operation(
        confirm=(1, 101.2, 101.2), prove=(2, 101.9, 106.0), plan=(1, 107.0, 107.0), start=(1, 108.0, 108.0)
    )
    chosen: Cell = cell(name)
    assert went_on_at(chosen, went, "vm1", 102.0) == expected


def test_what_follows_counts_however_late_the_blow_was_seen_and_only_if_it_has_begun() -> None:
    went = operation(fence=(1, 101.0, 101.0), prove=(1, 101.2, 101.2))
    assert went_on_at(cell("fence.settled:freeze"), went, "vm1", 103.0) == 101.2
    assert went_on_at(cell("prove.settled:kill"), went, "vm1", 103.0) is None
    assert went_on_at(cell("operation.opened:kill"), went, "vm1", 103.0) is None, "its first step never began"


def test_a_refused_start_goes_on_with_the_plan_it_asked_for() -> None:
    went = operation(start=(1, 101.0, 101.0))
    steps = tuple(replace(s, state=StepState.REFUSED) if s.kind is StepKind.START else s for s in went.steps)
    again = Step(key="replan/vm1/1", kind=StepKind.PLAN, started_at=Instant(105.0))
    went = replace(went, steps=(*steps, again))
    assert went_on_at(cell("start.settled:kill"), went, VmId("vm1"), 101.1) == 105.0


def test_after_the_store_was_killed_any_claim_goes_on_with_it() -> None:
    went = operation(confirm=(1, 101.0, 101.0), fence=(2, 101.5, 108.0), prove=(1, 109.0, 109.0))
    assert went_on_at(STORE, went, VmId("vm1"), 102.0) == 108.0
    assert went_on_at(STORE, went, VmId("vm1"), 110.0) is None


def test_a_store_that_was_killed_may_cost_an_incident_of_its_own_and_nothing_else() -> None:
    well = replace(seen(), cell=STORE)
    assert faults_of(replace(well, incidents=2), 18.0) == ()
    assert faults_of(replace(well, incidents=0), 18.0) == ("0 incidents for one failure",)
    assert faults_of(replace(well, went_on_at=None), 18.0) == ("nobody took up what c1/work left",)
    assert len(faults_of(replace(well, boots={"vm1": 2, "vm2": 1}, overlaps=1), 18.0)) == 2
