"""What may never be, told from what was done to the lab and what came of it. Pure; instants are epoch seconds.

The laws about copies stand in `copies`, those about orders and numbers in `chronicle`; here are those about power and
time: a living host is not cut, one incident cuts once, and every incident ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fangnetz.core.operations import Operation, OperationKind, OperationState
from fangnetz.lab.storm.faults import Fault, FaultKind

CUT_AFTER_FAULT_S = 20.0
"""A host that is well again may still be cut for what befell it until so long ago: a fence step's whole bound."""
SEEN_LATE_S = 1.5
"""Operations are read once a second."""
INCIDENT_BOUND_S = 240.0
"""An operation may be open this long, the time the store was away not counted: three rounds over the fence levels
(3 x (20 + 10) s), a start without an answer (60 s) and one more attempt after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One fault as it was really done. `ended_at` is infinite while it lasts; `note`: why it was not as planned."""

    fault: Fault
    began_at: float
    ended_at: float
    note: str = ""

    def lasted_at(self, at: float, slack_s: float = 0.0) -> bool:
        """Whether it was on at that instant, or until `slack_s` before it."""
        return self.began_at <= at <= self.ended_at + slack_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCommand:
    """What a BMC was told. `off`: to switch off, else on. The storm's own hands do not use BMCs."""

    host: str
    at: float
    off: bool
    was_on: bool
    """Whether the host had power when the command came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From one instant to another."""

    begin: float
    end: float


def needless_cuts(commands: Iterable[PowerCommand], done: Iterable[Done]) -> tuple[str, ...]:
    """Return each cut of a running host that nothing had been done to: a gap of ours was counted as its silence."""
    troubles = [each for each in done if each.fault.takes_host]
    return tuple(
        f"{command.host} was cut at {command.at:.3f} although nothing was wrong with it"
        for command in commands
        if command.off
        and command.was_on
        and not any(
            each.fault.target == command.host and each.lasted_at(command.at, CUT_AFTER_FAULT_S) for each in troubles
        )
    )


def stray_cuts(commands: Iterable[PowerCommand], failovers: Sequence[Operation]) -> tuple[str, ...]:
    """Return each cut of a running host for which no failover of it was open: an executor out of its time."""
    return tuple(
        f"{command.host} was cut at {command.at:.3f} while no failover of it was open"
        for command in commands
        if command.off
        and command.was_on
        and not any(
            op.subject == command.host
            and op.opened_at - SEEN_LATE_S <= command.at <= (op.closed_at or float("inf")) + SEEN_LATE_S
            for op in failovers
        )
    )


def repeated_fences(
    commands: Iterable[PowerCommand], failovers: Sequence[Operation], done: Sequence[Done]
) -> tuple[str, ...]:
    """Return each failover that sent more than one cut although its device, and the way to it, worked all the time."""
    known = tuple(commands)
    found: list[str] = []
    for op in failovers:
        until = op.closed_at or float("inf")
        sent = [c for c in known if c.off and c.host == op.subject and op.opened_at <= c.at <= until]
        if len(sent) > 1 and not any(_hampers(each, op, until) for each in done):
            found.append(f"{op.id} cut {op.subject} {len(sent)} times")
    return tuple(found)


def _hampers(done: Done, op: Operation, until: float) -> bool:
    """Whether the fault was one of the device or of the way to it, at any time of this failover."""
    fault = done.fault
    device = fault.kind is FaultKind.BMC and fault.target == op.subject
    way = fault.kind is FaultKind.CUT and fault.how.startswith("bmc")
    return (device or way) and done.began_at <= until and done.ended_at >= op.opened_at


def overdue(operations: Iterable[Operation], now: float, away: Sequence[Span]) -> tuple[str, ...]:
    """Return each operation that is open, or was open, for longer than the bound; `away`: when the store was."""
    found: list[str] = []
    for op in operations:
        ended = op.closed_at if op.state is not OperationState.OPEN and op.closed_at is not None else now
        took = ended - op.opened_at
        took -= sum(max(0.0, min(ended, span.end) - max(op.opened_at, span.begin)) for span in away)
        if took > INCIDENT_BOUND_S:
            found.append(f"{op.id} was open for {took:.0f} s while the store was there")
    return tuple(found)


def is_failover(operation: Operation) -> bool:
    return operation.kind is OperationKind.FAILOVER
