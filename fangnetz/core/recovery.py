"""Who goes where: the plan of a failover or a start, from one view. Every VM gets a host or a reason.

Passes every VM through `ownership.may_own`; knows no other way to a start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fangnetz.core.detector import Verdict, Watch
from fangnetz.core.evacuation import held_back, how_it_starts
from fangnetz.core.identity import rivals
from fangnetz.core.leaving import stays_with
from fangnetz.core.model import ClusterView, VmRecord, VmState
from fangnetz.core.operations import Operation, OperationKind, Step, StepKind, StepState
from fangnetz.core.ownership import Granted, Withheld, end_the_held, held_on, may_run, who_may_own
from fangnetz.core.placement import NotPlaced, Placed
from fangnetz.core.policy import Policy, StartOn
from fangnetz.core.quorum import unheard_in_this_life
from fangnetz.core.retries import leaves
from fangnetz.core.rooms import place_in, rooms, whereabouts
from fangnetz.core.rules import RuleBook
from fangnetz.core.units import HostId, Incarnation, VmId

LEASE_HELD = "storage_lease_held"
"""The `refusal` fact of a start that found the VM's storage lease taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    vm: VmId
    host: HostId
    incarnation: Incarnation
    because: str
    """Why the VM may leave its owner, and why this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unassigned:
    vm: VmId
    state: VmState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPlan:
    assignments: tuple[Assignment, ...]
    unassigned: tuple[Unassigned, ...]


def starts_of(operation: Operation, vm: VmId) -> tuple[Step, ...]:
    """Return the start steps of `vm` in this operation, oldest first."""
    return tuple(s for s in operation.of_kind(StepKind.START) if s.order is not None and s.order.vm == vm)


def subjects(operation: Operation, view: ClusterView) -> tuple[VmId, ...]:
    """Return the VMs this operation has to place now: not yet assigned by it, or refused at their present number."""
    chosen: list[VmId] = []
    for vm, record in view.vm_records.items():
        doc = view.vms.get(vm)
        if doc is None or not doc.to_run:
            continue
        tries = starts_of(operation, vm)
        if tries:
            last = tries[-1]
            if (
                last.state is StepState.REFUSED
                and last.order is not None
                and last.order.generation == record.generation
            ):
                chosen.append(vm)
        elif operation.kind in (OperationKind.START, OperationKind.RELOCATE):
            if vm == operation.subject:
                chosen.append(vm)
        elif (record.owner, record.owner_incarnation) == (operation.subject, operation.incarnation) and (
            record.state not in (VmState.STOPPED, VmState.FAILED)
        ):
            chosen.append(vm)
    return tuple(chosen)


def plan_recovery(
    operation: Operation,
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
) -> RecoveryPlan:
    """Return where each VM of the operation goes, or why it goes nowhere."""
    tries = {vm: starts_of(operation, vm) for vm in subjects(operation, view)}
    return plan_starts(tries, view, watch, verdicts, policy, target=operation.target)


def plan_starts(
    tries: Mapping[VmId, tuple[Step, ...]],
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    *,
    target: HostId | None = None,
    only: Collection[HostId] | None = None,
    reopened: HostId | None = None,
    promised: int = 0,
) -> RecoveryPlan:
    """Return where each VM goes, or why nowhere. `tries`: per VM its earlier starts; `target`: a host to prefer.

    For a relocation: `only` these hosts are asked; `reopened` counts as open although it is being emptied; `promised`:
    what the journal knows that the owner's boot released.
    """
    hold = unheard_in_this_life(view, watch, policy)
    sharing, waiting = rivals(view.vms), held_back(view)
    open_rooms = rooms(view, verdicts, reopened=reopened)
    if only is not None:
        open_rooms = tuple(room for room in open_rooms if room.spec.id in only)
    incarnations = {room.spec.id: view.host_records[room.spec.id].incarnation for room in open_rooms}
    because: dict[tuple[VmId, HostId], str] = {}
    forbidden: dict[VmId, dict[HostId, str]] = {}
    preferred: dict[VmId, HostId] = {}
    placeable: list[VmId] = []
    unassigned: list[Unassigned] = []
    for vm, starts in tries.items():
        record = view.vm_records[vm]
        a_persons = _a_persons(vm, view, waiting)
        if a_persons is not None:
            unassigned.append(a_persons)
            continue
        refusals = [s for s in starts if s.state is StepState.REFUSED]
        refused = {s.order.host for s in refusals if s.order is not None}
        if len(starts) >= policy.start_attempts_max or (refused and refused >= set(incarnations)):
            unassigned.append(_given_up(vm, record, starts, refusals))
            continue
        taken = _taken(vm, sharing.get(vm, {}), view, placeable)
        if taken:
            unassigned.append(Unassigned(vm=vm, state=VmState.WAITING, reason=taken))
            continue
        released = max(promised, _promised(record, refusals))
        home = _home(record, view)
        ways = _only(home, vm, who_may_own(view, record, incarnations, hold, released))
        granted = {host: way for host, way in ways.items() if isinstance(way, Granted)}
        if ways and not granted:
            state = VmState.LOST if record.owner and home is None else VmState.WAITING
            unassigned.append(Unassigned(vm=vm, state=state, reason=next(iter(ways.values())).because))
            continue
        because.update({(vm, host): way.because for host, way in granted.items()})
        forbidden[vm] = {host: way.because for host, way in ways.items() if host not in granted}
        forbidden[vm] |= {host: f"{host} refused it" for host in refused}
        if record.ended_on is not None and leaves(view.vms[vm].spec.retries, record.failures, policy):
            again = f"try there again: `fangnetz vm start {vm}`"
            forbidden[vm][record.ended_on] = f"it ended too often on {record.ended_on}; {again}"
        wanted = target or (record.owner if policy.start_on is StartOn.RECORDED else None)
        if wanted is not None:
            preferred[vm] = wanted
        placeable.append(vm)
    assignments: list[Assignment] = []
    for placed in place_in(view, open_rooms, placeable, policy, preferred=preferred, forbidden=forbidden):
        match placed:
            case Placed():
                assignments.append(
                    Assignment(
                        vm=placed.vm,
                        host=placed.host,
                        incarnation=incarnations[placed.host],
                        because=f"{because[placed.vm, placed.host]}; {placed.reason}",
                    )
                )
            case NotPlaced():
                unassigned.append(Unassigned(vm=placed.vm, state=VmState.WAITING, reason=placed.reason))
    return RecoveryPlan(assignments=tuple(assignments), unassigned=tuple(unassigned))


def _a_persons(vm: VmId, view: ClusterView, waiting: Mapping[VmId, HostId]) -> Unassigned | None:
    """Return what a person has to do before the VM may start at all, None if nothing. `waiting`: see `held_back`."""
    held = held_on(view, vm)
    if held:
        return Unassigned(vm=vm, state=VmState.NEEDS_PERSON, reason=end_the_held(vm, held))
    if vm in waiting:
        return Unassigned(vm=vm, state=VmState.WAITING, reason=how_it_starts(vm, waiting[vm]))
    return None


def _taken(vm: VmId, sharing: Mapping[VmId, str], view: ClusterView, placeable: list[VmId]) -> str:
    """Return why another VM may have the disk of `vm` in use, or an empty string."""
    for other, mark in sharing.items():
        if other in placeable:
            return f"it has {mark} of {other}, which starts first"
        running = may_run(view, other)
        if running:
            return f"it has {mark} of {other}, and {running}; two writers would destroy it"
    return ""


def _home(record: VmRecord, view: ClusterView) -> HostId | None:
    """Return the host with which alone a VM starts; None where there is none, or its rules keep it from there now."""
    home = stays_with(view, record)
    if home is None or RuleBook.of(view.vms.values()).why_not([record.id], home, whereabouts(view)):
        return None
    return home


def _only(home: HostId | None, vm: VmId, ways: dict[HostId, Granted | Withheld]) -> dict[HostId, Granted | Withheld]:
    """Return the ways of a VM that starts with `home` alone, that one first, with how a person lifts it; None: all."""
    if home is None:
        return ways
    sentence = f"it was stopped with {home} and starts again with it; elsewhere, too: `fangnetz vm start {vm}`"
    closed: Granted | Withheld = Withheld(because=sentence)
    return {home: ways.get(home, closed), **{host: closed for host in ways if host != home}}


def _promised(record: VmRecord, refusals: list[Step]) -> int:
    """Return the highest generation the owner's boot released by refusing it in this operation, 0 if none."""
    orders = [step.order for step in refusals if step.order is not None]
    own = [o.generation for o in orders if (o.host, o.incarnation) == (record.owner, record.owner_incarnation)]
    return max(own, default=0)


def _given_up(vm: VmId, record: VmRecord, starts: tuple[Step, ...], refusals: list[Step]) -> Unassigned:
    """Return the end of a VM that every host refused: a held storage lease is a person's matter."""
    last = f": {refusals[-1].sentence}" if refusals else ""
    if any(step.facts.get("refusal") == LEASE_HELD for step in refusals):
        reason = (
            f"the storage lease of {vm} is still held: something may still write its disk. Find and end that copy, "
            f"then `fangnetz vm start {vm}`{last}"
        )
        return Unassigned(vm=vm, state=VmState.NEEDS_PERSON, reason=reason)
    reason = f"{len(starts)} starts of {vm} were refused, last by {record.owner}{last}"
    return Unassigned(vm=vm, state=VmState.FAILED, reason=reason)
