"""The cells of a live migration are whole, their judgement misses nothing, and the page about them names the points."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.core.operations import Order, migrate_steps, vm_move_steps
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, StoreIncarnation, VmId
from fangnetz.engine.fault_points import POINTS, STEP_NAMES
from fangnetz.lab.table.cells import Moment
from fangnetz.lab.table.move_cells import IN_FLIGHT, PROCESSES, WORLD, Victim, all_move_cells, move_cell
from fangnetz.lab.table.move_judgement import MoveSeen, move_faults, move_rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fault-points.md"
ORDER = Order(
    vm=VmId("vm1"),
    host=HostId("host1"),
    incarnation=Incarnation("a"),
    generation=Generation(1),
    life=StoreIncarnation("life"),
    deadline=Instant(0.0),
)
STEPS = (*migrate_steps(), *vm_move_steps(ORDER, ORDER, attempt=1, after="plan/1"))
"""What a move's journal holds, as the product makes it."""


def seen(name: str = "migrate:migrate.left:source_worker", **changed: object) -> MoveSeen:
    """A cell that went as it must: struck at 102, taken up at 106, vm1 where it was to go, vm2 left alone."""
    well = MoveSeen(
        cell=move_cell(name),
        vm="vm1",
        source="host1",
        target="host2",
        caused_at=100.0,
        struck="host1/worker",
        struck_at=102.0,
        went_on_at=106.0,
        ended_at=109.0,
        state="done",
        sentence="vm1 runs on host2",
        others=(),
        still_open=(),
        boots={"vm1": 0, "vm2": 0},
        died_with=(),
        runs_on={"vm1": ("host2",), "vm2": ("host1",)},
        overlaps=0,
        silence_s=0.0,
        rest_s=1.0,
    )
    return replace(well, **changed)  # what a test changes


def test_every_step_of_a_move_is_struck_in_whoever_carries_it_out_at_every_moment() -> None:
    own = [cell for cell in all_move_cells() if cell.of_executor and cell.way == "migrate"]
    for step in STEPS:
        point = STEP_NAMES[step.kind]
        moments = {cell.moment for cell in own if cell.point.partition(".")[0] == point}
        assert moments == set(Moment), f"{step.key} is struck {sorted(moments)}"
        assert {cell.step_key(VmId("vm1")) for cell in own if cell.point.partition(".")[0] == point} == {step.key}
    assert {cell.point for cell in own if cell.executor == "control"} == {
        "operation.before_open",
        "operation.opened",
        "operation.before_dispatch",
        "operation.dispatched",
    }


def test_at_every_step_every_process_of_the_cluster_is_killed() -> None:
    cells = [cell for cell in all_move_cells() if cell.way == "migrate"]
    for step in {cell.step for cell in cells}:
        assert {cell.victim for cell in cells if cell.step == step} >= set(PROCESSES), step
    assert {cell.victim for cell in cells if not cell.point} == {*PROCESSES, *WORLD}


def test_every_step_of_an_evacuations_moves_is_struck() -> None:
    emptied = {cell.point.partition(".")[0] for cell in all_move_cells() if cell.way == "evacuate"}
    assert emptied >= {STEP_NAMES[step.kind] for step in STEPS}


def test_names_are_told_apart_and_points_are_real() -> None:
    cells = all_move_cells()
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(cell.point in POINTS for cell in cells if cell.point)
    assert all(cell.point or IN_FLIGHT in cell.name for cell in cells)


def test_the_page_lists_the_points_of_the_moves() -> None:
    page = PAGE.read_text().partition("## In a live migration")[2]
    rows = re.findall(r"^\| [a-z][^|]*\| (`[^|]*`)? *\| (`[^|]*`)? *\| (`[^|]*`)? *\|$", page, re.MULTILINE)
    told = {(moment, point.strip("`")) for points in rows for moment, point in zip(Moment, points, strict=True)}
    assert {each for each in told if each[1]} == {(c.moment, c.point) for c in all_move_cells() if c.point}
    (cells,) = re.findall(r"(\d+) cells", page)
    assert int(cells) == len(all_move_cells())


def test_a_move_that_went_well_has_no_fault_and_its_figures() -> None:
    assert move_faults(seen(), 12.0) == ()
    (row,) = move_rows([seen()], 12.0)
    assert (row["resumed_s"], row["move_s"], row["boots"], row["faults"]) == (4.0, 9.0, 0, [])


def test_a_move_that_ended_with_a_name_where_it_began_is_as_it_must_be() -> None:
    stayed = {"state": "failed", "sentence": "vm1 stays", "runs_on": {"vm1": ("host1",)}, "went_on_at": None}
    assert move_faults(seen(**stayed), 12.0) == ()


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"state": "needs_person", "runs_on": {"vm1": ("host1",)}}, "needs_person"),
        ({"sentence": ""}, "nobody says why"),
        ({"still_open": ("stop-vm1-5",)}, "stop-vm1-5 is open"),
        ({"overlaps": 1}, "two copies"),
        ({"boots": {"vm1": 1}}, "vm1 booted 1 times, not 0"),
        ({"boots": {"vm1": 0, "vm2": 1}}, "vm2 booted 1"),
        ({"runs_on": {"vm1": ("host2",), "vm2": ()}}, "vm2 has 0 QEMU"),
        ({"runs_on": {"vm1": ("host1",)}}, "vm1 runs on host1, not on host2"),
        ({"state": "failed"}, "vm1 runs on host2, not on host1"),
        ({"went_on_at": 114.1}, "went on after 12.1 s"),
        ({"went_on_at": None}, "nobody took up"),
    ],
)
def test_anything_else_is_a_fault_with_its_reason(changed: dict[str, object], word: str) -> None:
    (fault,) = move_faults(seen(**changed), 12.0)
    assert word in fault


def test_a_copy_too_many_is_a_fault_wherever_it_is() -> None:
    faults = move_faults(seen(runs_on={"vm1": ("host1", "host2")}), 12.0)
    assert "vm1 has 2 QEMU processes" in faults


def test_an_emptied_host_has_nothing_left() -> None:
    name = "evacuate:migrate.left:source_worker"
    assert move_faults(seen(name, runs_on={"vm1": ("host3",)}), 12.0) == ()
    assert move_faults(seen(name, runs_on={"vm1": ("host1",)}), 12.0) == ("vm1 is left on host1",)


@pytest.mark.parametrize(
    ("point", "source_dies", "target_dies"),
    [
        ("prepare.claimed", (1,), (0,)),
        (IN_FLIGHT, (1,), (0,)),
        ("migrate.left", (0, 1), (1,)),
        ("hand_over.claimed", (0,), (1,)),
        ("resume.before_resume", (0,), (1,)),
    ],
)
def test_a_vm_boots_anew_only_where_its_only_copy_died(
    point: str, source_dies: tuple[int, ...], target_dies: tuple[int, ...]
) -> None:
    for victim, allowed in ((Victim.SOURCE, source_dies), (Victim.TARGET, target_dies)):
        cell = move_cell(f"migrate:{point}:{victim.slug}")
        assert cell.boots() == allowed
        for boots in (0, 1, 2):
            found = move_faults(seen(cell.name, boots={"vm1": boots, "vm2": 1}, died_with=("vm2",)), 12.0)
            assert (found == ()) is (boots in allowed)


def test_what_died_with_a_host_must_boot_once() -> None:
    left = seen("migrate:in_flight:source", boots={"vm1": 1, "vm2": 0}, died_with=("vm2",))
    assert move_faults(left, 12.0) == ("vm2 booted 0 times, not 1",)


def test_no_process_that_dies_may_cost_a_boot() -> None:
    dear = [cell.name for cell in all_move_cells() if cell.victim in (*PROCESSES, Victim.LINK, Victim.STORE)]
    assert {move_cell(name).boots() for name in dear} == {(0,)}
