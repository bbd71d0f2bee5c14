"""The table of fault points and the code are equal, and every write of the ports lies between two points."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fangnetz import ports
from fangnetz.core.operations import StepKind
from fangnetz.engine.fault_points import (
    BOOT_CALLS,
    DISPATCHER_CALLS,
    EFFECTS,
    FILE_CALLS,
    POINTS,
    STEP_NAMES,
    STEP_STAGES,
    STEP_WRITES,
    STORE_CALLS,
    Call,
)
from fangnetz.engine.marked import marked_store
from workers import controller, host

SOURCE = Path(ports.__file__).parent
NAMED = {"point": 0, "last_look": 0, "_permitted_until": 1, "partial": 1}
"""Functions that pass a point, and which of their arguments names it."""


def calls(*names: str) -> Iterator[ast.Call]:
    """Every call in the product of a function or method of one of these names."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in names:
                    yield node


def literals(index: int, *names: str) -> set[str]:
    found = set()
    for call in calls(*names):
        if len(call.args) > index and isinstance(call.args[index], ast.Constant):
            found.add(str(call.args[index].value))  # type: ignore[attr-defined]
    return found


def test_every_effect_in_the_table_is_passed_by_the_code_and_the_other_way_round() -> None:
    passed: set[str] = set()
    for name, index in NAMED.items():
        passed |= {found for found in literals(index, name) if "." in found}
    assert passed == set(EFFECTS)


def test_every_stage_in_the_table_is_passed_by_the_executor_and_the_other_way_round() -> None:
    assert literals(0, "stage") | literals(1, "step_point") == set(STEP_STAGES)
    assert set(STEP_NAMES) == set(StepKind)


def methods(port: type) -> set[str]:
    return {
        name
        for base in port.__mro__
        if base.__module__ == ports.__name__
        for name, member in vars(base).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


QUESTIONS = {
    "now", "operation", "view", "holder_watch", "alarms", "ledger", "definition", "control_lease", "wish_result",
    "operations", "events", "reports", "unfinished", "wishes_waiting",
}  # fmt: skip
AT_THE_COMMAND_LINE = {"roll", "put_roll", "drop_roll"}
"""Of rolls over hosts: no worker and no controller calls these; tests/cli kill the command on its way."""
AT_SHUTDOWN = {"leave"}
"""Of a host's goodbye: no worker and no controller calls it, but the command that the host's shutdown waits for."""


AROUND = {
    "create": {("start.before_create", "start.created")},
    "shutdown": {("stop.before_shutdown", "stop.shut_down")},
    "destroy": {("stop.before_destroy", "stop.destroyed")},
    "suspend": {("pause.before_suspend", "pause.suspended")},
    "migrate": {("migrate.before_send", "migrate.left")},
    "resume": {("resume.before_resume", "resume.resumed")},
    "switch": {("fence.before_cut", "fence.sent"), ("power_on.before_switch", "power_on.switched")},
}
"""Effects of the hypervisor and of a fence device, each with the points its steps pass right before and after it."""


@pytest.mark.parametrize(
    ("port", "marked", "questions"),
    [
        ((ports.Store, ports.Operators), set(STORE_CALLS) | STEP_WRITES, QUESTIONS | AT_THE_COMMAND_LINE),
        ((ports.Dispatcher,), set(DISPATCHER_CALLS), set()),
        ((ports.LedgerFiles,), set(FILE_CALLS), {"load"}),
        (
            (ports.BootFiles,),
            set(BOOT_CALLS),
            {"lock", "released", "releases", "unanswered_starts", "leaving"} | AT_SHUTDOWN,
        ),
        (
            (ports.Hypervisor,),
            set(AROUND) - {"switch"},
            {"domains", "consumed", "receivable", "settled", "settle", "unanswered_since"},
        ),
        ((ports.FenceDevice,), {"switch"}, {"status"}),
    ],
    ids=["store", "dispatcher", "ledger files", "boot files", "hypervisor", "fence device"],
)
def test_every_method_of_a_port_is_a_question_or_lies_between_two_points(
    port: tuple[type, ...], marked: set[str], questions: set[str]
) -> None:
    found = set().union(*(methods(each) for each in port))
    assert found == marked | questions
    assert not marked & questions


def effects_of(function: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
    """Every effect a function has on the world, with the points passed last before (or within) and first after it."""
    made = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    passed = [
        (node.lineno, str(node.args[index].value))  # type: ignore[attr-defined]
        for node in made
        if (
            index := NAMED.get(node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
        )
        is not None
        and len(node.args) > index
        and isinstance(node.args[index], ast.Constant)
    ]
    for node in made:
        on = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if not ("hypervisor" in on or "device" in on) or node.func.attr not in AROUND:  # type: ignore[attr-defined]
            continue
        end = node.end_lineno or node.lineno
        before = max(((at, name) for at, name in passed if at <= end), default=(0, ""))[1]
        after = min(((at, name) for at, name in passed if at > end), default=(0, ""))[1]
        yield node.func.attr, (before, after)  # type: ignore[attr-defined]


def test_every_effect_on_the_world_lies_between_its_two_points() -> None:
    found: dict[str, set[tuple[str, str]]] = {}
    for file in sorted((SOURCE / "engine").rglob("*.py")):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                for effect, pair in effects_of(function):
                    found.setdefault(effect, set()).add(pair)
    assert found == AROUND
    assert {name for pairs in AROUND.values() for pair in pairs for name in pair} == set(EFFECTS)


MARKS = {
    "open_store": "marked_store",
    "CeleryDispatcher": "marked_dispatcher",
    "open_ledger_files": "marked_files",
    "open_boot_files": "marked_boot",
}


@pytest.mark.parametrize("module", [controller, host], ids=["controller", "host"])
def test_whatever_a_worker_opens_to_write_has_its_points(module: ModuleType) -> None:
    """Also what it only wraps around something else: an unmarked one would never fail when it is asked to."""
    tree = ast.parse(inspect.getsource(module))
    inside = {
        id(argument): call.func.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        for argument in call.args
    }
    opened = [
        (name, inside.get(id(call)))
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and (name := call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")) in MARKS
    ]
    assert len(opened) >= 3
    assert opened == [(name, MARKS[name]) for name, _ in opened]


def test_no_two_points_share_a_name_and_each_has_a_sentence() -> None:
    all_calls: list[Call] = [
        call
        for table in (STORE_CALLS, DISPATCHER_CALLS, FILE_CALLS, BOOT_CALLS)
        for call in table.values()
    ]  # fmt: skip
    assert len(POINTS) == len(STEP_NAMES) * len(STEP_STAGES) + len(EFFECTS) + 2 * len(all_calls)
    assert all(len(sentence) > 10 for sentence in POINTS.values())


class Notes:
    """A store that says yes or no."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def put_host(self, _record: object) -> object:
        return self.answer

    def log(self, _events: object) -> object:
        return self.answer

    def now(self) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("method", "answer", "passed"),
    [
        ("put_host", True, ["host.before_put", "host.put"]),
        ("put_host", False, ["host.before_put"]),
        ("log", None, ["events.before_log", "events.logged"]),
        ("now", 7.0, []),
    ],
)
def test_a_marked_call_passes_both_its_points_unless_nothing_was_changed(
    monkeypatch: pytest.MonkeyPatch, method: str, answer: object, passed: list[str]
) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr("fangnetz.engine.marked.is_armed", lambda: True)
    monkeypatch.setattr("fangnetz.engine.marked.point", lambda name, subject: seen.append((name, subject)))
    marked = marked_store(Notes(answer))
    arguments = () if method == "now" else ("host1",)
    for _ in range(2):
        assert getattr(marked, method)(*arguments) == answer
    assert seen == [(name, "host1") for name in passed] * 2
