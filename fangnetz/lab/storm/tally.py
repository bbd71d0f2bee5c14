"""What a storm came to: figures and everything that broke a law, from what was done and seen. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fangnetz.core.incidents import incident_of
from fangnetz.core.operations import Operation, OperationState, StepKind, StepState
from fangnetz.core.units import Instant
from fangnetz.lab.bench.arithmetic import spread
from fangnetz.lab.storm.chronicle import Chronicle
from fangnetz.lab.storm.copies import Copy, repeated_generations, unproven_starts
from fangnetz.lab.storm.laws import (
    Done,
    PowerCommand,
    Span,
    is_failover,
    needless_cuts,
    overdue,
    repeated_fences,
    stray_cuts,
)

FORGOTTEN_AFTER_S = 5.0
"""An open operation is in every look at the store; one unseen for longer stands in the store no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that was seen of one storm, from its begin to its end."""

    began_at: float
    ended_at: float
    done: Sequence[Done]
    copies: Sequence[Copy]
    commands: Sequence[PowerCommand]
    chronicle: Chronicle
    away: Sequence[Span]
    witness: Mapping[str, Any]
    unrest: str
    """Why the cluster was not whole again in the time it had after everything was healed; empty if it was."""
    blind: Sequence[str] = ()
    """What kept us from seeing: a storm that nobody watched proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One VM of one incident: seconds from the first missed report until the witness saw the new boot's first write."""

    vm: str
    incident: str
    seconds: float


def violations(seen: Seen) -> tuple[str, ...]:
    """Return every broken law in a sentence; the gravest first."""
    operations = known_operations(seen.chronicle)
    failovers = [op for op in operations if is_failover(op)]
    overlaps = [
        f"two copies of {overlap['vm']} wrote on its disk from {overlap['from']:.3f} to {overlap['to']:.3f}"
        for overlap in seen.witness["overlaps"]
    ]
    return (
        *overlaps,
        *unproven_starts(seen.copies),
        *seen.chronicle.unproven(),
        *repeated_generations(seen.copies),
        *seen.chronicle.repeated(),
        *needless_cuts(seen.commands, seen.done),
        *stray_cuts(seen.commands, failovers),
        *repeated_fences(seen.commands, failovers, seen.done),
        *overdue(operations, seen.ended_at, seen.away),
        *([f"the cluster is not whole again: {seen.unrest}"] if seen.unrest else []),
        *(f"nobody watched: {reason}" for reason in seen.blind),
    )


def known_operations(chronicle: Chronicle) -> tuple[Operation, ...]:
    """Return every operation; one that a store forgot while it was open ended for us when it was last seen."""
    return tuple(
        replace(op, closed_at=Instant(chronicle.seen_last[op.id]), state=OperationState.CANCELLED)
        if _forgotten(op, chronicle)
        else op
        for op in chronicle.operations.values()
    )


def _forgotten(op: Operation, chronicle: Chronicle) -> bool:
    return op.state is OperationState.OPEN and chronicle.looked_at - chronicle.seen_last[op.id] > FORGOTTEN_AFTER_S


def recoveries(chronicle: Chronicle, witness: Mapping[str, Any]) -> tuple[Recovery, ...]:
    """Return how long each VM of each failover was away: from the first doubt to the witness's first write."""
    found: list[Recovery] = []
    operations = tuple(chronicle.operations.values())
    for op in operations:
        if not is_failover(op):
            continue
        incident = incident_of(op)
        began = incident.suspected_at if incident.suspected_at is not None else incident.opened_at
        for step in op.of_kind(StepKind.SEE_RUNNING):
            if step.order is None or step.state is not StepState.DONE:
                continue
            planned = next((plan.ended_at for plan in op.of_kind(StepKind.PLAN) if plan.ended_at), incident.opened_at)
            wrote = [b["first_at"] for b in witness["vms"][step.order.vm]["boots"] if b["first_at"] > planned]
            if wrote:
                found.append(Recovery(vm=str(step.order.vm), incident=str(op.id), seconds=round(min(wrote) - began, 3)))
    return tuple(found)


def _end_of(op: Operation, chronicle: Chronicle) -> str:
    """Return the state an incident ended in; `forgotten` if the store was emptied or put back over it."""
    return "forgotten" if _forgotten(op, chronicle) else op.state.value


def figures(seen: Seen) -> dict[str, Any]:
    """Return the figures of one storm as plain values, fit for a line of the records."""
    done = [each for each in seen.done if not each.note]
    failovers = [op for op in seen.chronicle.operations.values() if is_failover(op)]
    recovered = recoveries(seen.chronicle, seen.witness)
    measured = spread(each.seconds for each in recovered)
    return {
        "faults": dict(sorted(Counter(each.fault.kind.value for each in done).items())),
        "not_done": sum(1 for each in seen.done if each.note),
        "incidents": dict(sorted(Counter(_end_of(op, seen.chronicle) for op in failovers).items())),
        "operations": len(seen.chronicle.operations),
        "store_lives": len(seen.chronicle.lives),
        "generations": len(seen.chronicle.numbers),
        "starts": len(seen.copies),
        "power_offs": sum(1 for command in seen.commands if command.off and command.was_on),
        "overlaps": len(seen.witness["overlaps"]),
        "unproven_starts": len(unproven_starts(seen.copies)) + len(seen.chronicle.unproven()),
        "recovery_s": None
        if measured is None
        else {"median": measured.median, "max": measured.max, "count": measured.count},
        "recoveries_s": [each.seconds for each in recovered],
        "store_away_s": round(sum(span.end - span.begin for span in seen.away), 1),
    }
