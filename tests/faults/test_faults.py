"""What an armed point does to a process, and that nothing else ever does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fangnetz.cli.lab import app
from fangnetz.core.errors import SettingsError, WorldError
from fangnetz.core.operations import StepKind
from fangnetz.engine import faults
from fangnetz.engine.fault_points import POINTS
from fangnetz.engine.faults import Action, FaultInjected, parse, point, step_point
from tests.redis_server import wait_for

Arm = Callable[[str], None]

PROCESS = """
import sys
from pathlib import Path
from fangnetz.engine import faults
faults.listen(Path(sys.argv[1]), "fence")
print("before", flush=True)
faults.point("fence.sent", "host1")
print("after", flush=True)
"""


def process(run: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(run)],
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("by", ["file", "environment"])
def test_a_killed_process_ends_at_the_point_and_the_next_one_passes_it(tmp_path: Path, by: str) -> None:
    words = "fence.sent@host1:kill"
    if by == "file":
        (tmp_path / "fault.fence").write_text(words)
    environment = {"FANGNETZ_FAULT": words} if by == "environment" else {}
    first = process(tmp_path, **environment)
    said, _ = first.communicate(timeout=30)
    assert (first.returncode, said) == (-signal.SIGKILL, "before\n")
    for _ in range(2):
        again = process(tmp_path, **environment)
        assert again.communicate(timeout=30)[0] == "before\nafter\n", "a service manager gives it the same environment"


def test_of_the_environments_words_each_happens_once_however_often_a_process_is_started(tmp_path: Path) -> None:
    def met(words: str) -> bool:
        deafen = faults.listen(tmp_path, "test", words)
        try:
            point("fence.sent", "host1")
        except FaultInjected:
            return True
        finally:
            deafen()
        return False

    twice = "fence.sent@host1:raise,plan.claimed:kill,fence.sent:raise"
    assert [met(twice) for _ in range(4)] == [True, True, False, False]
    assert faults.struck_file(tmp_path, "test").read_text() == f"{twice}\nplan.claimed:kill\n"
    assert [met("fence.sent:raise") for _ in range(2)] == [True, False], "other words are another wish"
    faults.struck_file(tmp_path, "test").unlink()
    assert met("fence.sent:raise")


def test_what_cannot_be_remembered_does_not_happen(tmp_path: Path) -> None:
    deafen = faults.listen(tmp_path / "no-such-folder", "test", "fence.sent:raise")
    point("fence.sent", "host1")
    deafen()


def test_a_frozen_process_stops_at_the_point_and_goes_on_when_thawed(tmp_path: Path) -> None:
    (tmp_path / "fault.fence").write_text("fence.sent:freeze")
    frozen = process(tmp_path)
    try:
        assert wait_for(lambda: "T (stopped)" in Path(f"/proc/{frozen.pid}/status").read_text())
        frozen.send_signal(signal.SIGCONT)
        assert frozen.communicate(timeout=30)[0] == "before\nafter\n"
    finally:
        frozen.kill()
        frozen.wait()


def test_a_process_that_is_armed_for_nonsense_does_not_start(tmp_path: Path) -> None:
    refused = process(tmp_path, FANGNETZ_FAULT="fence.send:kill")
    _, trace = refused.communicate(timeout=30)
    assert refused.returncode == 1
    assert "no fault point is called 'fence.send'" in trace


def test_a_process_that_runs_already_notices_what_it_is_armed_for(tmp_path: Path) -> None:
    deafen = faults.listen(tmp_path, "test", "")
    try:
        point("fence.sent")
        faults.fault_file(tmp_path, "test").write_text("fence.sent:raise")

        def fails() -> bool:
            try:
                point("fence.sent")
            except FaultInjected:
                return True
            return False

        assert wait_for(fails)
    finally:
        deafen()


def test_only_the_thread_that_comes_by_hangs_until_it_is_let_go(arm: Arm, tmp_path: Path) -> None:
    arm("fence.sent:hang")
    passed = threading.Event()
    thread = threading.Thread(target=lambda: (point("fence.sent"), passed.set()), daemon=True)
    thread.start()
    hung = faults.hung_file(tmp_path, "test")
    assert wait_for(hung.exists)
    point("fence.sent")
    assert not passed.is_set()
    hung.unlink()
    assert passed.wait(10)


def test_a_raised_fault_is_a_world_that_says_no_and_comes_once(arm: Arm) -> None:
    arm("plan.claimed:raise")
    with pytest.raises(FaultInjected, match=r"plan\.claimed") as raised:
        step_point(StepKind.PLAN, "claimed", "host1")
    assert isinstance(raised.value, WorldError)
    step_point(StepKind.PLAN, "claimed", "host1")


def test_nothing_fails_at_other_points_for_other_subjects_or_unarmed(arm: Arm, tmp_path: Path) -> None:
    point("fence.sent", "host1")
    arm("fence.sent@host2:raise")
    point("fence.sent", "host1")
    point("fence.before_cut", "host2")
    assert faults.fault_file(tmp_path, "test").read_text() == "fence.sent@host2:raise"
    with pytest.raises(FaultInjected):
        point("fence.sent", "host2")


def test_several_faults_are_each_taken_out_as_they_happen(arm: Arm, tmp_path: Path) -> None:
    arm("fence.sent:raise, start.created@vm1:raise,fence.sent:raise")
    file = faults.fault_file(tmp_path, "test")
    with pytest.raises(FaultInjected):
        point("start.created", "vm1")
    assert parse(file.read_text()) == parse("fence.sent:raise,fence.sent:raise")
    for _ in range(2):
        with pytest.raises(FaultInjected):
            point("fence.sent")
    point("fence.sent")
    assert not file.exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [("no.such:kill", "'no.such'"), ("fence.sent:explode", "'explode'"), ("fence.sent", "''"), ("kill", "'kill'")],
)
def test_an_unknown_point_or_action_is_refused_by_its_name(arm: Arm, tmp_path: Path, words: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse(words)
    arm(words)
    point("fence.sent")
    assert named in (tmp_path / "fault.test.refused").read_text()
    assert not faults.fault_file(tmp_path, "test").exists()


def test_a_process_takes_only_what_is_armed_for_its_own_role(arm: Arm, tmp_path: Path) -> None:
    faults.fault_file(tmp_path, "another").write_text("fence.sent:raise")
    point("fence.sent")
    assert faults.fault_file(tmp_path, "another").exists()


def test_every_point_is_listed_with_its_sentence_and_can_be_armed() -> None:
    told = json.loads(CliRunner().invoke(app, ["faults", "--json"]).stdout)
    listed = told["items"]
    assert (told["schema"], told["next"]) == (1, None)
    assert {item["point"]: item["sentence"] for item in listed} == dict(POINTS)
    for item in listed:
        assert [str(fault) for fault in parse(f"{item['point']}@vm1:hang")] == [f"{item['point']}@vm1:hang"]
    assert {str(action) for action in Action} == {"kill", "freeze", "hang", "raise"}
