"""Whether a VM that runs may be moved, and where to. Pure; the same questions for a preview, a wish and the plan step.

Nothing here gives a VM away: it stays its owner's until that host has let it go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fangnetz.core.detector import Finding, Verdict, Watch, heard
from fangnetz.core.model import ClusterView, HypervisorHealth, Sighting, VmRecord, VmState
from fangnetz.core.operations import Operation, Step, StepKind, StepState
from fangnetz.core.ownership import arriving_at
from fangnetz.core.placement import NotPlaced, Placed
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import unheard_in_this_life
from fangnetz.core.rooms import place_in, rooms
from fangnetz.core.rules import RuleBook
from fangnetz.core.units import HostId, Incarnation, VmId

_RUNS_NOWHERE = frozenset({VmState.WAITING, VmState.STOPPED, VmState.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One VM, where it leaves and where it goes; `because` says why there."""

    vm: VmId
    source: HostId
    target: HostId
    incarnation: Incarnation
    """Of the target's boot."""
    because: str
    live: bool = True
    """Whether it may run meanwhile; else it is stopped, moved and started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stays:
    """A VM that cannot be moved now, and why."""

    vm: VmId
    because: str


def plan_move(
    vm: VmId,
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    *,
    target: HostId | None = None,
    refused: Mapping[HostId, str] | None = None,
) -> Move | Stays:
    """Return where `vm` goes. `target`: there or nowhere; `refused`: hosts that said no already, and why."""
    (found,) = plan_moves([vm], view, watch, verdicts, policy, target=target, refused=refused)
    return found


def plan_moves(
    vms: Iterable[VmId],
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    *,
    target: HostId | None = None,
    refused: Mapping[HostId, str] | None = None,
    leaving: str = "is where it runs",
) -> tuple[Move | Stays, ...]:
    """Return where these VMs go, all of them placed at once, the most important first; `leaving`: why not where it is.

    VMs that run together are asked for in one call: alone, none of them can leave the others.
    """
    banned: dict[VmId, dict[HostId, str]] = {}
    for vm in vms:
        record = view.vm_records.get(vm)
        owner = record.owner if record is not None else None
        here = {owner: f"{owner} {leaving}"} if owner is not None else {}
        banned[vm] = {**here, **(refused or {})}
        if target is not None:
            others = (host for host in view.hosts if host != target)
            banned[vm] = dict.fromkeys(others, "") | {host: why for host, why in banned[vm].items() if host == target}
    return place_moves(banned, view, watch, verdicts, policy, target=target)


def place_moves(
    banned: Mapping[VmId, Mapping[HostId, str]],
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    *,
    target: HostId | None = None,
) -> tuple[Move | Stays, ...]:
    """Return where these VMs go. `banned`: per VM the hosts that it does not go to, its own among them, and why."""
    stays: list[Move | Stays] = []
    able: dict[VmId, Mapping[HostId, str]] = {}
    for vm, hosts in banned.items():
        why = why_not_now(vm, view, watch, verdicts, policy)
        if why:
            stays.append(Stays(vm=vm, because=why))
        else:
            able[vm] = hosts
    if not able:
        return tuple(stays)
    open_ones = rooms(view, verdicts)
    closed = target is not None and target not in {room.spec.id for room in open_ones}
    result: list[Move | Stays] = []
    for found in place_in(view, open_ones, able, policy, forbidden=able, running=True):
        match found:
            case Placed():
                source, incarnation = view.vm_records[found.vm].owner, view.host_records[found.host].incarnation
                assert source is not None, "asked for above"  # noqa: S101
                result.append(
                    Move(
                        vm=found.vm,
                        source=source,
                        target=found.host,
                        incarnation=incarnation,
                        because=found.reason,
                        live=view.vms[found.vm].spec.live,
                    )
                )
            case NotPlaced():
                reason = f"{target} is not online and open for VMs" if closed else _told(found.reason)
                result.append(Stays(vm=found.vm, because=reason))
    return (*_whole_groups(result, view), *stays)


def _whole_groups(found: list[Move | Stays], view: ClusterView) -> list[Move | Stays]:
    """Return the same with no group torn: where one of it has no place to go, those that would have one stay, too."""
    book = RuleBook.of(view.vms.values())
    stuck = {member: one.vm for one in found if isinstance(one, Stays) for member in book.group(one.vm)}
    return [
        Stays(vm=one.vm, because=f"it runs together with {stuck[one.vm]}, which has nowhere to go")
        if isinstance(one, Move) and one.vm in stuck
        else one
        for one in found
    ]


def _told(reasons: str) -> str:
    """Return the reasons without the empty ones of hosts that nobody asked for."""
    return "; ".join(reason for reason in reasons.split("; ") if reason)


def why_not_now(vm: VmId, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy) -> str:
    """Return why the VM cannot be moved at the moment wherever it may go, or an empty string."""
    doc, record = view.vms.get(vm), view.vm_records.get(vm)
    if doc is None or record is None or record.owner is None:
        return f"{vm} runs nowhere"
    hold = unheard_in_this_life(view, watch, policy)
    if hold:
        return f"{', '.join(hold)} has not been heard since the store's life began and is not proven off"
    if not doc.to_run:
        return f"{vm} is not wished to run"
    if record.state in _RUNS_NOWHERE:
        return _not_by_state(record)
    verdict, beat = verdicts.get(record.owner), heard(view, record.owner)
    alive = verdict is not None and verdict.finding is Finding.ALIVE
    if not alive or beat is None or beat.incarnation != record.owner_incarnation:
        why = verdict.sentence if verdict is not None else "it is not in the cluster file"
        return f"{record.owner}, where {vm} runs, is not well: {why}"
    seen = beat.sees(vm)
    if beat.hypervisor is not HypervisorHealth.OK or seen is None or seen.state is not Sighting.RUNNING:
        return f"{vm} does not run on {record.owner}" if seen is None else f"{vm} is {seen.state} on {record.owner}"
    if seen.generation not in (None, record.generation):
        return f"{record.owner} runs {vm} of generation {seen.generation}, not {record.generation}"
    return arriving_at(view, record) or _not_by_state(record)


def _not_by_state(record: VmRecord) -> str:
    return "" if record.state is VmState.RUNNING else f"{record.id} is {record.state}: {record.reason}"


def refusals(operation: Operation, vm: VmId) -> dict[HostId, str]:
    """Return the hosts that said in this operation that they cannot run the VM, and why."""
    return {
        step.order.host: step.sentence
        for step in operation.of_kind(StepKind.PREPARE)
        if step.order is not None and step.order.vm == vm and step.state is StepState.REFUSED
    }


def moves_of(operation: Operation, vm: VmId) -> tuple[Step, ...]:
    """Return the operation's migrations of this VM, oldest first."""
    return tuple(s for s in operation.of_kind(StepKind.MIGRATE) if s.order is not None and s.order.vm == vm)
