"""Arming a process of a lab: its own file, known points only, and what hangs can be let go."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangnetz.engine import faults
from fangnetz.engine.faults import FaultInjected, point
from fangnetz.lab.arming import arm, armed, disarm
from fangnetz.lab.errors import LabError, LabUsageError
from fangnetz.lab.plan import Plan


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A lab that has folders and no processes."""
    monkeypatch.setenv("FANGNETZ_LAB_ROOT", str(tmp_path))
    made = Plan(
        name="unplugged",
        subnet="10.255.255.0/24",
        hosts=("host1",),
        controllers=("c1", "c2"),
        vms=(),
        policy="default",
        storage_lock=False,
        bare=False,
        flower_port=0,
    )
    for controller in made.controllers:
        (made.folder / "controllers" / controller / "run").mkdir(parents=True)
    return made


def test_each_process_of_a_controller_is_armed_by_itself(plan: Plan) -> None:
    arm(plan, "c1/fence", "fence.sent@host1:kill")
    assert armed(plan, "c1/fence") == "fence.sent@host1:kill"
    assert not any(armed(plan, other) for other in ("c1/work", "c1/control", "c2/fence"))
    arm(plan, "c1/fence", "fence.settled:freeze,fence.sent:raise")
    assert armed(plan, "c1/fence") == "fence.settled:freeze,fence.sent:raise"
    disarm(plan, "c1/fence")
    disarm(plan, "c1/fence")
    assert armed(plan, "c1/fence") == ""


def test_what_the_lab_arms_is_what_the_process_fails_at(plan: Plan) -> None:
    arm(plan, "c1/fence", "fence.sent:raise")
    deafen = faults.listen(plan.folder / "controllers" / "c1" / "run", "fence", "")
    try:
        with pytest.raises(FaultInjected):
            point("fence.sent")
    finally:
        deafen()
    assert armed(plan, "c1/fence") == ""


@pytest.mark.parametrize(
    ("target", "words", "named"),
    [
        ("c1/fence", "fence.send:kill", "'fence.send'"),
        ("c1/fence", "fence.sent:explode", "'explode'"),
        ("c1/fence", " , ", "no fault point"),
        ("c3/fence", "fence.sent:kill", "'c3/fence'"),
        ("c1/flower", "fence.sent:kill", "'c1/flower'"),
        ("c1", "fence.sent:kill", "'c1'"),
        ("host1/libvirtd", "start.created:kill", "'host1/libvirtd'"),
    ],
)
def test_what_cannot_be_armed_is_refused_by_its_name(plan: Plan, target: str, words: str, named: str) -> None:
    with pytest.raises(LabUsageError, match=named):
        arm(plan, target, words)


def test_a_host_that_is_off_is_not_armed_and_armed_for_nothing(plan: Plan) -> None:
    with pytest.raises(LabError, match="host1 is off"):
        arm(plan, "host1/worker", "start.created:kill")
    assert armed(plan, "host1/worker") == ""
