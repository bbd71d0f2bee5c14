"""How VMs on the move come on, as people and scripts are shown it: in numbers, and by a bar each for who waits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from fangnetz.cli._evacuation import follow_evacuation
from fangnetz.cli._follow import Ended, follow_operation, follow_vm
from fangnetz.cli._session import Session, open_session
from fangnetz.core.convergence import Progress
from fangnetz.core.model import HostState, VmState
from fangnetz.core.operations import OperationState
from fangnetz.core.units import HostId, OperationId, Seconds, VmId
from fangnetz.ports import Claim

from .board import Board
from .stories import on_the_move

KEYS = {
    "elapsed_s", "total_mib", "sent_mib", "remaining_mib", "speed_mib_s", "dirty_mib_s", "rounds", "downtime_s",
    "share",
}  # fmt: skip
LEASE = Seconds(4.0)


def at(share: float) -> Progress:
    return Progress(
        elapsed_s=Seconds(10 * share),
        total_mib=200.0,
        sent_mib=210.0 * share,
        remaining_mib=200.0 * (1 - share),
        speed_mib_s=110.0,
        dirty_mib_s=7.0,
        rounds=2,
        downtime_s=Seconds(0.25),
    )


@pytest.fixture
def moving(board: Board) -> Claim:
    """web1 is on its way from host1 to host2."""
    board.well()
    return on_the_move(board, "web1")


@pytest.fixture
def session(board: Board, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("FANGNETZ_CONFIG", str(board.file))
    return open_session()


# --- the journal -------------------------------------------------------------------------------------------------


def test_an_operation_shows_how_its_move_comes_on_in_plain_numbers(board: Board, moving: Claim) -> None:
    assert migrate_step(board)["progress"] is None
    board.store.renew(moving, LEASE, at(0.5))
    progress = migrate_step(board)["progress"]
    assert set(progress) == KEYS
    assert (progress["total_mib"], progress["sent_mib"], progress["remaining_mib"]) == (200.0, 105.0, 100.0)
    assert (progress["dirty_mib_s"], progress["downtime_s"], progress["elapsed_s"]) == (7.0, 0.25, 5.0)
    assert progress["share"] == 0.5
    page = board.run("operation", "show", moving.operation.id).out
    assert "50%" in page
    assert "100 of 200 MiB" in page


def test_other_steps_and_steps_of_an_older_version_have_no_progress(board: Board, moving: Claim) -> None:
    steps = board.run("operation", "show", moving.operation.id, "--json").json["steps"]
    assert {step["progress"] for step in steps} == {None}
    assert board.run("operation", "show", moving.operation.id).code == 0


def migrate_step(board: Board) -> dict[str, dict[str, float] | None]:
    steps = board.run("operation", "show", "migrate-web1-1", "--json").json["steps"]
    found: dict[str, dict[str, float] | None] = next(step for step in steps if step["kind"] == "migrate_vm")
    return found


# --- whoever waits -----------------------------------------------------------------------------------------------


@contextmanager
def meanwhile(*acts: Callable[[], object]) -> Iterator[None]:
    """Do one thing after the other, half a second apart, beside what is done in the block."""

    def run() -> None:
        for act in acts:
            time.sleep(0.5)
            act()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run)
        yield
        done.result(10)


def ended(board: Board, session: Session, moving: Claim, *shares: float) -> Ended:
    """Follow the move while it comes on by these shares and then ends."""
    acts = [partial(board.store.renew, moving, LEASE, at(share)) for share in shares]
    end = partial(board.store.end_operation, moving.operation.id, OperationState.DONE, "moved", board.epoch)
    with meanwhile(*acts, end):
        return follow_operation(session, OperationId(moving.operation.id), 20)


def test_who_waits_for_a_move_is_told_each_tenth_of_the_way_without_a_terminal(
    board: Board, session: Session, moving: Claim
) -> None:
    board.capsys.readouterr()
    assert ended(board, session, moving, 0.2, 0.25, 0.75) == (True, "moved")
    lines = [line for line in board.capsys.readouterr().err.splitlines() if "web1  to host2" in line]
    assert [re.findall(r"\d+%", line) for line in lines] == [["20%"], ["75%"]]


def test_who_waits_for_a_move_at_a_terminal_sees_a_bar_of_it(
    board: Board, session: Session, moving: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    board.capsys.readouterr()
    assert ended(board, session, moving, 0.25, 0.75) == (True, "moved")
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", board.capsys.readouterr().err)
    for share, left in (("25%", "150 of 200 MiB"), ("75%", "50 of 200 MiB")):
        assert re.search(rf"━+ +{share} .*web1 to host2.*{left}", seen), seen


def test_who_waits_for_a_vm_sees_how_it_comes_on(board: Board, session: Session, moving: Claim) -> None:
    record = board.store.view(board.hosts, None).vm_records[VmId("web1")]
    runs = replace(record, state=VmState.RUNNING, moving=None)
    board.capsys.readouterr()
    with meanwhile(
        lambda: board.store.renew(moving, LEASE, at(0.5)),
        lambda: board.store.put_vm(runs, record.generation, board.epoch),
    ):
        assert follow_vm(session, VmId("web1"), VmState.RUNNING, 20)[0]
    assert "web1  to host2, 50%" in board.capsys.readouterr().err


def test_who_waits_for_an_evacuation_sees_a_bar_of_each_vm_that_moves(
    board: Board, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    board.well()
    board.vm("web4", host="host1")
    first, second = on_the_move(board, "web1"), on_the_move(board, "web4")
    board.capsys.readouterr()

    def leave(name: str) -> None:
        record = board.store.view(board.hosts, None).vm_records[VmId(name)]
        gone = replace(record, state=VmState.RUNNING, owner=HostId("host2"), moving=None)
        assert board.store.put_vm(gone, record.generation, board.epoch)
        board.beat("host1", {"web4": 7} if name == "web1" else {})

    outcome = None
    with meanwhile(
        lambda: board.store.renew(first, LEASE, at(0.1)),
        lambda: board.store.renew(second, LEASE, at(0.6)),
        lambda: leave("web1"),
        lambda: board.host("host1", HostState.MAINTENANCE),
        lambda: leave("web4"),
    ):
        outcome = follow_evacuation(session, HostId("host1"), 20)
    assert outcome == (True, "host1 is empty and in maintenance")
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", board.capsys.readouterr().err)
    assert re.search(r"━+ +10% .*web1 to host2", seen)
    assert re.search(r"━+ +60% .*web4 to host2", seen)
    last = seen[seen.rindex("1 of 2 VMs have left") :]
    assert "web4 to host2" in last
    assert "web1 to host2" not in last, "a VM that has left has no bar any more"
