"""A VM that is stopped, given to another host and started there: whether, where to, where in the end. Pure.

Nothing is given away here before the host that had the VM has let it go. A VM that was stopped for a relocation is put
somewhere, be it again on the host it left: it waits only if no host may have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fangnetz.core.detector import Finding, Verdict, Watch, heard
from fangnetz.core.model import ClusterView, HypervisorHealth, VmRecord, VmState, VmWish
from fangnetz.core.moving import Move, Stays, plan_moves
from fangnetz.core.operations import Operation, OperationKind, OperationState, Step, StepKind, StepState
from fangnetz.core.ownership import Granted, owner_let_go
from fangnetz.core.placement import NotPlaced, Placed
from fangnetz.core.policy import Capacity, Policy
from fangnetz.core.quorum import unheard_in_this_life
from fangnetz.core.recovery import Assignment, RecoveryPlan, Unassigned, plan_starts, starts_of, subjects
from fangnetz.core.rooms import place_in, rooms
from fangnetz.core.units import Generation, HostId, VmId

# --- whether, and where to ---------------------------------------------------------------------------------------


def is_stopped(vm: VmId, view: ClusterView) -> bool:
    """Whether the VM is stopped, as wished: a move of it changes its record only."""
    doc, record = view.vms.get(vm), view.vm_records.get(vm)
    return doc is not None and doc.wish is VmWish.STOPPED and record is not None and record.state is VmState.STOPPED


def plan_relocations(
    vms: Iterable[VmId],
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    *,
    target: HostId | None = None,
) -> tuple[Move | Stays, ...]:
    """Return where these VMs go, whether they run or are stopped; as `plan_moves` does for those that run."""
    asked = list(vms)
    if not all(is_stopped(vm, view) for vm in asked):
        return plan_moves(asked, view, watch, verdicts, policy, target=target)
    return _record_moves(asked, view, watch, verdicts, policy, target)


def _record_moves(
    vms: list[VmId],
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    target: HostId | None,
) -> tuple[Move | Stays, ...]:
    """A stopped VM takes no room, so only rules say where it may be; and its host has to let it go all the same."""
    hold = unheard_in_this_life(view, watch, policy)
    stays: list[Move | Stays] = []
    forbidden: dict[VmId, dict[HostId, str]] = {}
    for vm in vms:
        record = view.vm_records[vm]
        why = (
            f"{', '.join(hold)} has not been heard since the store's life began and is not proven off"
            if hold
            else _not_let_go(record, view, verdicts)
        )
        if why:
            stays.append(Stays(vm=vm, because=why))
            continue
        banned = {} if record.owner is None else {record.owner: f"{record.owner} has its record"}
        if target is not None:
            banned = dict.fromkeys((host for host in view.hosts if host != target), "")
        forbidden[vm] = banned
    open_ones = rooms(view, verdicts)
    closed = target is not None and target not in {room.spec.id for room in open_ones}
    roomy = replace(policy, capacity=Capacity.RANK)
    result: list[Move | Stays] = []
    for found in place_in(view, open_ones, forbidden, roomy, forbidden=forbidden):
        match found:
            case Placed():
                result.append(
                    Move(
                        vm=found.vm,
                        source=view.vm_records[found.vm].owner or found.host,
                        target=found.host,
                        incarnation=view.host_records[found.host].incarnation,
                        because=found.reason,
                    )
                )
            case NotPlaced():
                said = "; ".join(reason for reason in found.reason.split("; ") if reason)
                reason = f"{target} is not online and open for VMs" if closed else said
                result.append(Stays(vm=found.vm, because=reason))
    return (*result, *stays)


def _not_let_go(record: VmRecord, view: ClusterView, verdicts: Mapping[HostId, Verdict]) -> str:
    """Return why the host of a stopped VM can neither be asked to let it go nor has done so, or an empty string."""
    way = owner_let_go(view, record)
    return "" if isinstance(way, Granted) or asks_its_owner(record, view, verdicts) else way.because


def asks_its_owner(record: VmRecord, view: ClusterView, verdicts: Mapping[HostId, Verdict]) -> bool:
    """Whether the boot that owns the VM is well, and can be told to stop it."""
    owner = record.owner
    if owner is None or owner not in verdicts or verdicts[owner].finding is not Finding.ALIVE:
        return False
    beat = heard(view, owner)
    return beat is not None and (beat.incarnation, beat.hypervisor) == (record.owner_incarnation, HypervisorHealth.OK)


# --- where it starts, once it is stopped -------------------------------------------------------------------------


def stop_of(operation: Operation) -> Step | None:
    """Return the step that stops the VM, None if its host had let it go before."""
    return next(iter(operation.of_kind(StepKind.STOP)), None)


def not_listed_yet(operation: Operation, view: ClusterView, policy: Policy) -> bool:
    """Whether the host that was left has stopped the VM, and has not listed its VMs since: it will in a moment."""
    stop = stop_of(operation)
    if stop is None or stop.order is None or stop.state is not StepState.DONE:
        return False
    beat = heard(view, stop.order.host)
    if beat is None or beat.incarnation != stop.order.incarnation or beat.sees(stop.order.vm) is None:
        return False
    listed_at = beat.received_at - beat.inventory_age_s
    return listed_at <= stop.ended_at and view.now - stop.ended_at < policy.start_bound_s


def plan_restart(
    operation: Operation, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy
) -> RecoveryPlan:
    """Return where the VM of a relocation starts: on its target, else on another host, else where it came from.

    Nowhere if it is not this operation's any more: its host was lost before it had stopped, and a failover has it.
    """
    vm = VmId(operation.subject)
    record = view.vm_records.get(vm)
    if record is None or not _is_ours(operation, record):
        return RecoveryPlan(assignments=(), unassigned=())
    if is_stopped(vm, view):
        return _record_only(operation, record, view, watch, verdicts, policy)
    if vm not in subjects(operation, view):
        return RecoveryPlan(assignments=(), unassigned=())
    tries = {vm: starts_of(operation, vm)}
    source, target, promised = _source(operation), operation.target, _promised(operation, record)
    anywhere = [host for host in view.hosts if host != source]
    first = [] if target is None or tries[vm] else [frozenset({target})]
    plan = RecoveryPlan(assignments=(), unassigned=())
    for only in (*first, frozenset(anywhere), frozenset(view.hosts)):
        reopened = source if source in only else None
        plan = plan_starts(
            tries, view, watch, verdicts, policy, target=target, only=only, reopened=reopened, promised=promised
        )
        if plan.assignments:
            return plan
    return plan


def _is_ours(operation: Operation, record: VmRecord) -> bool:
    """Whether nobody else gave the VM away since this operation stopped it, or last gave it to a host."""
    tries, stop = starts_of(operation, record.id), stop_of(operation)
    last = tries[-1] if tries else stop
    if last is None or last.order is None:
        return True  # its host had let it go before: whoever is given it is asked for leave, here as ever
    order = last.order
    ended = last.state is (StepState.REFUSED if tries else StepState.DONE)
    return ended and (order.host, order.incarnation, order.generation) == (
        record.owner, record.owner_incarnation, record.generation
    )  # fmt: skip


def _source(operation: Operation) -> HostId | None:
    stop = stop_of(operation)
    return stop.order.host if stop is not None and stop.order is not None else None


def _promised(operation: Operation, record: VmRecord) -> Generation:
    """Return what the owner's boot released by its answer to the stop, 0 if it did not."""
    stop = stop_of(operation)
    if stop is None or stop.order is None or stop.state is not StepState.DONE:
        return Generation(0)
    order = stop.order
    same = (order.host, order.incarnation) == (record.owner, record.owner_incarnation)
    return order.generation if same else Generation(0)


def _record_only(
    operation: Operation,
    record: VmRecord,
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
) -> RecoveryPlan:
    (found,) = _record_moves([record.id], view, watch, verdicts, policy, operation.target)
    let_go = owner_let_go(view, record, _promised(operation, record))
    if isinstance(found, Stays) or not isinstance(let_go, Granted):
        because = found.because if isinstance(found, Stays) else let_go.because
        left = Unassigned(vm=record.id, state=VmState.STOPPED, reason=f"stopped; it was not moved: {because}")
        return RecoveryPlan(assignments=(), unassigned=(left,))
    because = f"{let_go.because}; {found.because}"
    given = Assignment(vm=record.id, host=found.target, incarnation=found.incarnation, because=because)
    return RecoveryPlan(assignments=(given,), unassigned=())


# --- how it ended ------------------------------------------------------------------------------------------------


def fell_back(operation: Operation, host: HostId) -> bool:
    """Whether a relocation has come to starting the VM where it had just been stopped."""
    return operation.kind is OperationKind.RELOCATE and host == _source(operation)


def verdict_of_relocation(operation: Operation) -> tuple[OperationState, str]:
    """Return the state and the sentence a relocation ends with, from its steps."""
    vm, source = operation.subject, _source(operation)
    ran = next((s for s in reversed(operation.of_kind(StepKind.SEE_RUNNING)) if s.state is StepState.DONE), None)
    if ran is not None and ran.order is not None:
        if ran.order.host != source:
            return OperationState.DONE, ran.sentence
        refused = [s.sentence for s in operation.of_kind(StepKind.START) if s.state is StepState.REFUSED]
        why = "; ".join(refused) or "no other host would have it"
        return OperationState.FAILED, f"{vm} runs again on {source}, where it was: {why}"
    plans = [plan for plan in operation.of_kind(StepKind.PLAN) if plan.state is StepState.DONE]
    if plans and not operation.of_kind(StepKind.START) and (to := plans[-1].facts.get(f"to/{vm}")):
        return OperationState.DONE, f"{vm} is stopped and belongs to {to}"
    for step in reversed(operation.steps):
        if step.kind is StepKind.CLOSE or step.state is StepState.SKIPPED:
            continue
        left = step.facts.get(f"left/{vm}")
        said = f"{vm} is stopped: {left}" if left and step.kind is StepKind.PLAN else step.sentence
        if step.kind is StepKind.PLAN and not left:
            said = f"{vm} was given to another host meanwhile, or is not wished to run any more"
        return OperationState.FAILED, said
    return OperationState.FAILED, f"{vm} was not moved"
