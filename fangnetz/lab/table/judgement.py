"""What a struck incident must look like afterwards, and when its work went on. Pure: what was seen goes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fangnetz.core.operations import ALL_OTHERS, Operation, OperationState, Step, StepState
from fangnetz.core.units import VmId
from fangnetz.lab.table.cells import Blow, Cell, Moment

CLOCKS_S = 0.3
"""A blow is seen this late at most: how often we look, on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one cell came to. Instants are seconds since the epoch; `boots`: VM -> boots that began after the cause."""

    cell: Cell
    host: str
    vms: tuple[str, ...]
    caused_at: float
    struck: str
    struck_at: float
    thawed_at: float | None
    went_on_at: float | None
    """When somebody took the struck work up again; None if nobody did, as must be where nothing was left to take up."""
    ended_at: float
    state: str
    sentence: str
    incidents: int
    offs: int
    """Power-off commands the host's BMC got."""
    boots: Mapping[str, int]
    copies: Mapping[str, int]
    overlaps: int
    returned_and_cut: bool = False
    """The host had come back, and was switched off again."""
    said: str = ""
    """What the thawed process said it did."""

    @property
    def resumed_s(self) -> float | None:
        """From the blow (where only the struck process could go on: from its thaw) until somebody took it up."""
        if self.went_on_at is None:
            return None
        from_ = self.struck_at
        if self.thawed_at is not None and self.went_on_at > self.thawed_at:
            from_ = self.thawed_at
        return max(0.0, self.went_on_at - from_)


class Struck(Protocol):
    """Where an operation was struck, of whatever kind it is."""

    @property
    def step(self) -> str: ...

    @property
    def moment(self) -> Moment: ...

    def step_key(self, vm: VmId) -> str:
        """Return the key of the struck step in the journal; empty for the controller's own writes."""
        ...


def went_on_at(cell: Struck, operation: Operation, vm: VmId, struck_at: float) -> float | None:
    """Return when the struck work was taken up: the step's next claim, or after its write its follower's first."""
    if cell.step == "store":  # whatever it was in the middle of: nothing is claimed while there is no store
        claims = (float(at) for step in operation.steps for at in (step.started_at, step.claimed_at))
        return min((at for at in claims if at >= struck_at), default=None)
    step = operation.step(cell.step_key(vm))  # none is called "": the controller's own writes have no line
    if step is None:
        first = operation.steps[0].started_at
        return float(operation.opened_at if cell.moment is Moment.BEFORE and cell.step == "open" else first) or None
    if cell.moment is not Moment.WRITTEN:
        again = step.attempt > 1 and step.claimed_at > struck_at - CLOCKS_S
        return float(step.claimed_at if again else step.ended_at) or None
    # A refused start is followed by a plan of its own, which waits for nothing. All these instants are the journal's:
    # what follows begins after the write, however late the blow was seen.
    refused = step.state is StepState.REFUSED
    followers = [other for other in operation.steps if other.key != step.key and (refused or follows(other, step))]
    return min((float(other.started_at) for other in followers if other.started_at >= step.ended_at), default=None)


def words_of(lines: Iterable[str], operation: str, step_key: str) -> str:
    """Return what a process logged first about a step, or about its tick (no `step_key`); empty if nothing.

    Lines about other steps or operations, which its other threads may write meanwhile, do not count.
    """
    for line in lines:
        if step_key and not (operation in line and f"'{step_key}'" in line):
            continue
        for mark in ("sentence=", "error="):
            if mark in line:
                return line.partition(mark)[2].strip()
    return ""


def follows(other: Step, step: Step) -> bool:
    """Whether a step waits for this one."""
    return step.key in other.after or (other.after == (ALL_OTHERS,) and other.key != step.key)


def faults_of(seen: Seen, bound_s: float) -> tuple[str, ...]:
    """Return everything that must not be; `bound_s`: twice what the policy computes for going on."""
    found: list[str] = []
    if seen.state != OperationState.DONE:
        found.append(f"the incident is {seen.state}: {seen.sentence}")
    # A memory that changed may end a failover nobody can answer for any more; what is still so is taken up anew.
    if seen.incidents != 1 and not (seen.cell.step == "store" and seen.incidents > 1):
        found.append(f"{seen.incidents} incidents for one failure")
    most = 1 if seen.cell.cause == "cut" else 0
    if seen.offs > most or (most and seen.offs == 0):
        found.append(f"{seen.offs} power-off commands, not {most}")
    if seen.overlaps:
        found.append(f"two copies of a VM wrote, {seen.overlaps} times")
    for vm, boots in seen.boots.items():
        wanted = 1 if vm in seen.vms else 0
        if boots != wanted:
            found.append(f"{vm} booted {boots} times, not {wanted}")
    found += [f"{vm} has {copies} QEMU processes" for vm, copies in seen.copies.items() if copies != 1]
    if seen.returned_and_cut:
        found.append(f"{seen.host} had come back and was cut by the thawed {seen.struck}")
    if seen.cell.blow is Blow.FREEZE and not seen.said:
        found.append(f"the thawed {seen.struck} did not say what it found")
    if seen.resumed_s is None and not seen.cell.is_last:
        found.append(f"nobody took up what {seen.struck} left")
    if seen.resumed_s is not None and seen.resumed_s > bound_s:
        found.append(f"it went on after {seen.resumed_s:.1f} s, more than {bound_s:g} s")
    return tuple(found)


def rows_of(seen: Sequence[Seen], bound_s: float) -> list[dict[str, object]]:
    """Return the table as plain values."""
    return [
        {
            "step": each.cell.step,
            "moment": each.cell.moment.value,
            "point": each.cell.point,
            "blow": each.cell.blow.value,
            "process": each.struck,
            "resumed_s": None if each.resumed_s is None else round(each.resumed_s, 2),
            "incident_s": round(each.ended_at - each.caused_at, 2),
            "fences": each.offs,
            "boots": max(each.boots.values(), default=0),
            "overlaps": each.overlaps,
            "said": each.said,
            "faults": list(faults_of(each, bound_s)),
        }
        for each in seen
    ]
