"""Taking a host back: what still speaks against it, its acceptance as a member, and switching it on again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fangnetz.core.actions import Happened
from fangnetz.core.decide.openings import operation_id
from fangnetz.core.detector import Verdict
from fangnetz.core.lifecycle import HostEvent, next_state
from fangnetz.core.model import ClusterView, Heartbeat, HostRecord, HostState, HypervisorHealth
from fangnetz.core.operations import Operation, OperationKind, StepKind, StepState, return_steps
from fangnetz.core.policy import AfterFence, Policy, ReturnPolicy
from fangnetz.core.slots import not_written
from fangnetz.core.units import Epoch, HostId


def taken_back(
    record: HostRecord, beat: Heartbeat, view: ClusterView, policy: Policy, *, quarantine: str = ""
) -> tuple[HostRecord, Happened | None]:
    """RETURNING (or maintenance) -> online, once the new boot is clean and no cut can be on its way.

    Returns the record as it should be now, with the obstacle as its reason if there is one. `quarantine`: why it takes
    no VMs before a person activates it.
    """
    host = record.id
    obstacle = _obstacle(record, beat, view, policy)
    if obstacle:
        return replace(record, reason=obstacle), None
    accepted = replace(
        record,
        state=next_state(record.state, HostEvent.QUARANTINED if quarantine else HostEvent.ACCEPTED),
        since=view.now,
        reason=quarantine or f"{host} came back as a clean boot and has rejoined",
        incarnation=beat.incarnation,
        cut_by=None,
        suspected_at=None,
    )
    event = Happened(
        kind="rejoined",
        subject=host,
        sentence=f"{host} has rejoined as boot {beat.incarnation[:8]} with {len(beat.inventory)} VMs",
        facts={"host": host, "incarnation": beat.incarnation, "inventory": len(beat.inventory)},
    )
    return accepted, event


def _obstacle(record: HostRecord, beat: Heartbeat, view: ClusterView, policy: Policy) -> str:
    fenced = record.proof is not None and record.incarnation == record.proof.incarnation
    if fenced and policy.return_ is ReturnPolicy.MANUAL:
        return f"{record.id} is back and waits for `fangnetz host activate {record.id}`"
    return obstacle_to_return(record.id, beat, record, view, policy)


def obstacle_to_return(host: HostId, beat: Heartbeat, record: HostRecord, view: ClusterView, policy: Policy) -> str:
    """Return why a host may not rejoin yet, or an empty string (also asked by `host activate`)."""
    if beat.hypervisor is not HypervisorHealth.OK:
        return f"{host} is back, but its libvirt is {beat.hypervisor}"
    if not_written(beat, policy):
        return f"{host} is back, but it has not written its slot on the shared storage"
    if view.now < record.cut_possible_until:
        return f"{host} is back; a lost executor could still cut it for {record.cut_possible_until - view.now:.0f} s"
    for op in view.operations.values():
        running = [
            s for s in op.steps if s.kind in (StepKind.FENCE, StepKind.POWER_ON) and s.state is StepState.RUNNING
        ]
        if op.subject == host and running:
            return f"{host} is back, but {op.id} still works on its power"
    for seen in beat.inventory:
        vm = view.vm_records.get(seen.vm)
        if seen.generation is None or vm is None:
            continue
        if vm.owner != host or vm.generation != seen.generation:
            return f"{host} is back, but runs {seen.vm} of generation {seen.generation}, which belongs to {vm.owner}"
    return ""


def switch_on_again(
    record: HostRecord,
    verdict: Verdict,
    operations: Sequence[Operation],
    view: ClusterView,
    policy: Policy,
    epoch: Epoch,
) -> Operation | None:
    """Return the operation that switches on a host we cut, or None while it is not its time. `operations`: its own."""
    if record.state is not HostState.FENCED or not record.cut_by or operations:
        return None
    if policy.after_fence is not AfterFence.POWER_ON or verdict.fresh:
        return None
    if view.now < max(record.cut_possible_until, record.since + policy.power_on_after_s):
        return None
    return Operation(
        id=operation_id(OperationKind.RETURN, record.id, view.now),
        kind=OperationKind.RETURN,
        subject=record.id,
        epoch=epoch,
        opened_at=view.now,
        reason=f"{record.id} was cut by us, its VMs are taken care of, and after_fence is power_on",
        steps=return_steps(),
        incarnation=record.incarnation,
        incident=record.cut_by,
    )
