"""Follow an operation or a VM to its end by polling the journal, never a task's result. Progress goes to stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from fangnetz.cli._console import QUIET, err, say, span
from fangnetz.cli._moves import OnTheMove, on_the_move
from fangnetz.cli._session import Session
from fangnetz.core.errors import StoredContentError, StoreUnreachable
from fangnetz.core.model import HostState, VmRecord, VmState
from fangnetz.core.operations import Operation, OperationState, StepState
from fangnetz.core.units import HostId, OperationId, Seconds, VmId

LOOK_EVERY_S = 0.25
PAUSE_S = 0.05
"""Between two looks at the least: what happens comes in bursts."""
EVENTS_MAX = 1000
"""So many at once tell that something happened as well as one does."""
BEFORE_ALL = "0-0"
"""An event's id that none has."""
Ended = tuple[bool, str]
"""Whether it ended well, and the sentence it ended with."""


class Meter(Protocol):
    """What shows the way: bars on a terminal, a line per piece of news elsewhere."""

    def show(self, done: int, total: int, words: str, moves: Sequence[OnTheMove] = ()) -> None:
        """Show how much is done, and how far each of the VMs has come that are on the move now."""
        ...


class Lines:
    """One line per change, with the seconds since the start; of a VM on the move each time a tenth more has come."""

    def __init__(self) -> None:
        self._began, self._last, self._console = time.monotonic(), "", err()
        self._tenths: dict[VmId, int] = {}

    def show(self, done: int, total: int, words: str, moves: Sequence[OnTheMove] = ()) -> None:
        if words and words != self._last:
            self._last = words
            self._say(f"{done}/{total}  {words}")
        for move in moves:
            tenths = round(100 * move.share) // 10
            if move.progress is not None and tenths > self._tenths.get(move.vm, -1):
                self._tenths[move.vm] = tenths
                self._say(f"{move.vm}  {move.sentence}")

    def _say(self, words: str) -> None:
        say(self._console, f"{span(time.monotonic() - self._began):>6}  {words}", QUIET)


@contextmanager
def _meter() -> Iterator[Meter]:
    console = err()
    if not console.is_terminal:
        yield Lines()
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
    from rich.table import Column

    progress = Progress(
        BarColumn(bar_width=24, style=QUIET, complete_style="cyan", finished_style="green"),
        TextColumn("{task.fields[count]}", style=QUIET),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=console,
        expand=True,
        transient=True,
    )
    task = progress.add_task("", total=1, count="")
    of_vm: dict[VmId, TaskID] = {}

    class Bars:
        def show(self, done: int, total: int, words: str, moves: Sequence[OnTheMove] = ()) -> None:
            progress.update(
                task, completed=done, total=max(1, total), description=words, count=f"{done}/{max(1, total)}"
            )
            for gone in of_vm.keys() - {move.vm for move in moves}:
                progress.remove_task(of_vm.pop(gone))
            for move in moves:
                if move.vm not in of_vm:
                    of_vm[move.vm] = progress.add_task("", total=1.0, count="")
                progress.update(
                    of_vm[move.vm],
                    completed=move.share,
                    description=f"{move.vm} {move.sentence}",
                    count=f"{move.share:.0%}",
                )

    with progress:
        yield Bars()


def news(operation: Operation) -> str:
    """Return what the operation is at: its running step, else the last word of one."""
    running = [step for step in operation.steps if step.state is StepState.RUNNING]
    for step in running:
        return f"{step.key}: {step.sentence}" if step.sentence else step.key
    ended = [step for step in operation.steps if step.settled and step.sentence]
    if ended:
        last = max(ended, key=lambda step: step.ended_at)
        return f"{last.key}: {last.sentence}"
    return operation.reason


def _settled(operation: Operation) -> int:
    return sum(1 for step in operation.steps if step.settled)


def follow_operation(session: Session, identity: OperationId, timeout_s: float) -> Ended:
    """Return how the operation ended; not well is also one that has not ended after `timeout_s` seconds."""
    with _meter() as meter:
        for _ in _looks(session, timeout_s):
            found = _operation(session, identity)
            if found is None:
                continue
            meter.show(_settled(found), len(found.steps), news(found), on_the_move([found]))
            if found.state is not OperationState.OPEN:
                return found.state is OperationState.DONE, found.sentence or f"{identity} is {found.state}"
    return False, f"{identity} has not ended within {timeout_s:g} s; it goes on: `fangnetz operation show {identity}`"


def follow_vm(session: Session, vm: VmId, goal: VmState | None, timeout_s: float) -> Ended:
    """Return how it went until the VM's state is `goal` (None: until it is forgotten or left alone)."""
    reason = "no controller has taken it up"
    bad = {VmState.FAILED, VmState.NEEDS_PERSON} - {goal}
    with _meter() as meter:
        for _ in _looks(session, timeout_s):
            seen = _vm(session, vm)
            if seen is None:
                continue
            record, operation = seen
            if record is None:
                if goal is None:
                    return True, f"{vm} is forgotten"
                meter.show(0, 1, reason)
                continue
            reason = f"it is {record.state}" + (f" ({record.reason})" if record.reason else "")
            if operation is not None:
                meter.show(_settled(operation), len(operation.steps), news(operation), on_the_move([operation]))
            else:
                meter.show(0, 1, record.reason or record.state.value)
            if goal is None and record.state is VmState.UNMANAGED:
                return True, f"{vm} is not managed any more: {record.reason}"
            if record.state is goal:
                where = f" on {record.owner}" if goal is VmState.RUNNING and record.owner else ""
                return True, f"{vm} is {goal}{where}"
            if goal is not None and record.state in bad:
                return False, f"{vm} is {record.state}: {record.reason}"
    wanted = f"not {goal} after" if goal else "still there after"
    return False, f"{vm} is {wanted} {timeout_s:g} s: {reason}"


def follow_host(session: Session, host: HostId, goal: HostState, timeout_s: float) -> Ended:
    """Return how it went until the host's state is `goal`."""
    state, reason = "not known", ""
    with _meter() as meter:
        for _ in _looks(session, timeout_s):
            try:
                with session.asking() as store:
                    record = store.view(session.hosts, None).host_records.get(host)
            except StoreUnreachable:
                continue
            if record is None:
                continue
            state, reason = record.state.value, record.reason
            meter.show(0, 1, f"{host} is {state}: {reason}")
            if record.state is goal:
                return True, f"{host} is {goal}"
    return False, f"{host} is not {goal} after {timeout_s:g} s: it is {state} ({reason})"


@contextmanager
def counted(session: Session, timeout_s: float) -> Iterator[tuple[Iterator[float], Meter]]:
    """Give the looks to be taken, each as seconds since the first, and where to show what was seen."""
    began = time.monotonic()
    with _meter() as meter:
        yield (time.monotonic() - began for _ in _looks(session, timeout_s)), meter


def _looks(session: Session, timeout_s: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout_s
    known = _news(session, "", 0.0) or BEFORE_ALL
    while True:
        yield
        if time.monotonic() >= deadline:
            return
        time.sleep(PAUSE_S)
        known = _news(session, known, LOOK_EVERY_S - PAUSE_S)


def _news(session: Session, after: str, bound_s: float) -> str:
    """Wait for the next event, at most `bound_s` seconds; return the id of the last one, `after` if there is none.

    `after` empty: of the last one there is, without waiting.
    """
    try:
        with session.asking() as store:
            found = store.events(after, EVENTS_MAX if after else 1, Seconds(bound_s))
    except (StoreUnreachable, StoredContentError):
        time.sleep(bound_s)  # whoever looks says what is wrong
        return after
    return found[-1].id if found else after


def _operation(session: Session, identity: OperationId) -> Operation | None:
    """Return the operation, or None while the store is away: following outlives a pause of the store."""
    try:
        with session.asking() as store:
            return store.operation(identity)
    except StoreUnreachable:
        return None


def _vm(session: Session, vm: VmId) -> tuple[VmRecord | None, Operation | None] | None:
    try:
        with session.asking() as store:
            view = store.view(session.hosts, None)
    except StoreUnreachable:
        return None
    record = view.vm_records.get(vm)
    wanted = record.operation if record is not None else None
    found = [op for op in view.operations.values() if op.subject == vm or op.id == wanted]
    return record, (found[0] if found else None)
