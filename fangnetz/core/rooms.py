"""The hosts that may take VMs now, what is promised on them already, and where VMs are for the sake of rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fangnetz.core.demand import demands
from fangnetz.core.detector import Finding, Verdict, heard
from fangnetz.core.model import ClusterView, Heartbeat, HostState, Leaving, VmRecord, VmState
from fangnetz.core.operations import Operation, OperationKind, StepKind
from fangnetz.core.ownership import Granted, owner_let_go, proof_of
from fangnetz.core.placement import NotPlaced, Placed, place
from fangnetz.core.policy import Policy, RankBy
from fangnetz.core.room import HostRoom
from fangnetz.core.rules import RuleBook, Whereabouts
from fangnetz.core.units import HostId, Incarnation, VmId

TAKES_ROOM = frozenset(
    {VmState.RUNNING, VmState.STARTING, VmState.STOPPING, VmState.MOVING, VmState.LOST, VmState.UNKNOWN,
     VmState.NEEDS_PERSON}
)  # fmt: skip
_OPEN = frozenset({HostState.ONLINE})
_MAY_COME_BACK = _OPEN | {HostState.EVACUATING}


def rooms(
    view: ClusterView, verdicts: Mapping[HostId, Verdict], *, reopened: HostId | None = None
) -> tuple[HostRoom, ...]:
    """Return the hosts that may take VMs now: online, reporting, not going down, with what they already carry.

    `reopened`: counts also while it is being emptied; a VM that was stopped to leave it has nowhere else to go.
    """
    result: list[HostRoom] = []
    theirs = _by_host(view)
    for host, spec in view.hosts.items():
        record, beat, doc = view.host_records.get(host), heard(view, host), view.host_docs.get(host)
        states = _MAY_COME_BACK if host == reopened else _OPEN
        if record is None or record.state not in states or beat is None:
            continue
        if verdicts[host].finding is not Finding.ALIVE or record.incarnation != beat.incarnation:
            continue
        if beat.leaving is not Leaving.NO:
            continue
        if doc is not None and (doc.maintenance or (doc.evacuate and host != reopened)):
            continue
        there = {vm.id for vm in theirs.get(host, ()) if vm.owner != host or _takes_room(vm, beat)}
        specs = [view.vms[vm].spec for vm in there]
        result.append(
            HostRoom(
                spec=spec,
                memory_used_mib=sum(vm.memory_mib for vm in specs),
                cpus_used=sum(vm.cpus for vm in specs),
                residents=frozenset(there),
            )
        )
    return tuple(result)


def place_in(
    view: ClusterView,
    open_rooms: Iterable[HostRoom],
    vms: Iterable[VmId],
    policy: Policy,
    *,
    preferred: Mapping[VmId, HostId] | None = None,
    forbidden: Mapping[VmId, Mapping[HostId, str]] | None = None,
    running: bool = False,
) -> tuple[Placed | NotPlaced, ...]:
    """Place these VMs by the rules of all VMs: the only way to a place for a start or a move.

    `running`: they are moved, and bind others where they are until they have left.
    """
    book = RuleBook.of(view.vms.values())
    specs = [view.vms[vm].spec for vm in vms]
    where = whereabouts(view) if book else {}
    demand = demands(view) if policy.rank_by is RankBy.MEASURED else None
    zones = {host: spec.zone for host, spec in view.hosts.items() if spec.zone}
    return place(
        specs,
        open_rooms,
        policy,
        preferred=preferred,
        forbidden=forbidden,
        rules=book,
        where=where,
        demand=demand,
        zones=zones,
        running=running,
    )


def whereabouts(view: ClusterView) -> Whereabouts:
    """Return where each VM runs, may run, or will run by a move that is under way; one known to be gone is nowhere."""
    found: dict[VmId, set[HostId]] = {}
    off: dict[tuple[HostId, Incarnation], bool] = {}
    for record in view.vm_records.values():
        if record.owner is None or not (record.state in TAKES_ROOM or record.state is VmState.UNMANAGED):
            continue
        boot = record.owner, record.owner_incarnation
        if boot not in off:
            off[boot] = proof_of(view, *boot) is not None
        gone = record.state is VmState.LOST and isinstance(owner_let_go(view, record), Granted)
        if record.state is VmState.UNMANAGED:  # nobody says of it that it ended, but its host
            beat = heard(view, record.owner)
            gone = beat is not None and beat.sees(record.id) is None
        if not gone and not off[boot]:
            found.setdefault(record.id, set()).add(record.owner)
    for vm, host in _arrivals(view):
        found.setdefault(vm, set()).add(host)
    return {vm: frozenset(hosts) for vm, hosts in found.items()}


def _by_host(view: ClusterView) -> dict[HostId, list[VmRecord]]:
    """Return, per host, the known VMs that it owns or that are being moved there: looked through once for all hosts."""
    found: dict[HostId, list[VmRecord]] = {}
    for record in view.vm_records.values():
        if record.owner is not None and record.id in view.vms:
            found.setdefault(record.owner, []).append(record)
    for vm, host in _arrivals(view):
        if vm in view.vms and view.vm_records[vm].owner != host:
            found.setdefault(host, []).append(view.vm_records[vm])
    return found


def _arrivals(view: ClusterView) -> list[tuple[VmId, HostId]]:
    """Return the VMs that are being moved, with the host they go to; one whose host is not chosen yet is left out."""
    moving = [(record.id, record.moving.host) for record in view.vm_records.values() if record.moving is not None]
    moving.extend(
        (VmId(op.subject), op.target)
        for op in view.operations.values()
        if _is_on_its_way(op) and op.target is not None and op.subject in view.vm_records
    )
    return moving


def _is_on_its_way(op: Operation) -> bool:
    """Whether its VM is to leave its owner for `target`; once a relocation has given it to a host, its record says."""
    if op.kind is OperationKind.RELOCATE:
        return not op.of_kind(StepKind.START)
    return op.kind is OperationKind.MIGRATE


def _takes_room(vm: VmRecord, beat: Heartbeat) -> bool:
    """Whether a VM of its owner's is, or may be, there."""
    return vm.state in TAKES_ROOM or (vm.state is VmState.UNMANAGED and beat.sees(vm.id) is not None)
