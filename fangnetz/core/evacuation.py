"""Where the VMs of a host would go if it were emptied now, and which cannot. Pure; a preview and the tick both ask it.

Nothing is moved here, and nothing is planned for longer than a tick: what has left is looked at anew in the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fangnetz.core.detector import Verdict, Watch, heard
from fangnetz.core.model import ClusterView, Sighting, VmSpec, VmState, VmWish
from fangnetz.core.moving import Move, Stays, plan_moves, why_not_now
from fangnetz.core.policy import Fallback, Policy
from fangnetz.core.rooms import TAKES_ROOM
from fangnetz.core.units import HostId, VmId

STUCK_S = 3600.0
"""A live migration that failed within so long is not tried again in an evacuation whose fallback is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """A VM that is stopped where it is until its host is activated again, and why."""

    vm: VmId
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvacuationPlan:
    """What becomes of each VM on a host, the one that leaves first in front; of those stopped, the least important."""

    host: HostId
    moves: tuple[Move, ...]
    stays: tuple[Stays, ...]
    stops: tuple[Stops, ...] = ()


def vms_on(host: HostId, view: ClusterView) -> tuple[VmId, ...]:
    """Return the known VMs that are, or may be, on a host: owned and not stopped, or seen there; by name."""
    beat = heard(view, host)
    seen = {s.vm for s in beat.inventory if s.state is not Sighting.INCOMING} if beat is not None else set[VmId]()
    owned = {r.id for r in view.vm_records.values() if r.owner == host and r.state in TAKES_ROOM}
    return tuple(vm for vm in sorted(owned | seen) if vm in view.vms)


def plan_evacuation(
    host: HostId, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy
) -> EvacuationPlan:
    """Return where each VM on `host` goes, all of them placed together, and why the others stay."""
    return _plan(dict.fromkeys(vms_on(host, view), host), (host,), view, watch, verdicts, policy)[0]


def plan_evacuations(
    hosts: Sequence[HostId], view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy
) -> tuple[EvacuationPlan, ...]:
    """Return the plans for hosts that are emptied at the same time: none of them takes what leaves another."""
    known = {host: view.doc_of(host) for host in hosts}
    closed = {host: replace(doc, evacuate=True) for host, doc in known.items()}
    emptied = replace(view, host_docs={**view.host_docs, **closed})
    home = {vm: host for host in hosts for vm in vms_on(host, view)}
    return _plan(home, hosts, emptied, watch, verdicts, policy)


def _plan(
    home: Mapping[VmId, HostId],
    hosts: Sequence[HostId],
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
) -> tuple[EvacuationPlan, ...]:
    """`home`: each VM with the host that it is on."""
    kept: list[Stays | Stops] = []
    for vm in home:
        if why := _kept(vm, view, policy):
            kept.append(Stays(vm=vm, because=why))
        elif why := _why_stopped(vm, view, policy):
            not_now = why_not_now(vm, view, watch, verdicts, policy)
            kept.append(Stays(vm=vm, because=not_now) if not_now else Stops(vm=vm, because=why))
    able = [vm for vm in home if vm not in {one.vm for one in kept}]
    found = (*kept, *plan_moves(able, view, watch, verdicts, policy, leaving="is being emptied"))
    stops = sorted(
        (one for one in kept if isinstance(one, Stops)), key=lambda one: (view.vms[one.vm].spec.priority, one.vm)
    )
    return tuple(
        EvacuationPlan(
            host=host,
            moves=tuple(
                _as_it_can(one, view, policy) for one in found if isinstance(one, Move) and home[one.vm] == host
            ),
            stays=tuple(one for one in found if isinstance(one, Stays) and home[one.vm] == host),
            stops=tuple(one for one in stops if home[one.vm] == host),
        )
        for host in hosts
    )


def fallback_of(spec: VmSpec, policy: Policy) -> Fallback:
    """Return what an evacuation does about a VM that does not move while it runs."""
    if spec.fallback is not None:
        return spec.fallback
    return policy.evacuate_fallback if spec.live else policy.unmovable


def held_back(view: ClusterView) -> dict[VmId, HostId]:
    """Return the VMs that start nowhere before a person says so, each with the host whose emptying stopped it.

    A host that is not in the cluster file any more can be activated by nobody: nothing waits for it.
    """
    return {vm: host for host in sorted(view.hosts) if (doc := view.host_docs.get(host)) for vm in doc.stopped}


def how_it_starts(vm: VmId, host: HostId) -> str:
    """Return what is said of a VM that `held_back` names."""
    return (
        f"it was stopped as {host} was emptied, and starts again with `fangnetz host activate {host}`; before that, "
        f"elsewhere: `fangnetz vm start {vm}`"
    )


def _kept(vm: VmId, view: ClusterView, policy: Policy) -> str:
    """Return why a VM is not taken from a host that is emptied although it could be moved, or an empty string."""
    doc, record = view.vms[vm], view.vm_records.get(vm)
    if doc.wish is VmWish.IGNORED or (record is not None and record.state is VmState.UNMANAGED):
        return f"{vm} is not managed: move or stop it by hand"
    if (doc.spec.live and not _is_stuck(vm, view, policy)) or fallback_of(doc.spec, policy) is Fallback.STOP:
        return ""
    return why_not_stopped(vm, view, policy)


def _why_stopped(vm: VmId, view: ClusterView, policy: Policy) -> str:
    """Return why a VM is stopped where it is, and not moved, or an empty string."""
    spec = view.vms[vm].spec
    if fallback_of(spec, policy) is not Fallback.STOP or (spec.live and not _is_stuck(vm, view, policy)):
        return ""
    return _why_not_live(spec)


def _why_not_live(spec: VmSpec) -> str:
    return "its live migration failed" if spec.live else "it cannot be moved while it runs (live: false)"


def _is_stuck(vm: VmId, view: ClusterView, policy: Policy) -> bool:
    """Whether it is not tried again while it runs, as its live migration failed and its fallback is another one."""
    record = view.vm_records.get(vm)
    lately = record is not None and record.stuck_at > 0 and 0 <= view.now - record.stuck_at < STUCK_S
    return lately and fallback_of(view.vms[vm].spec, policy) is not Fallback.STAY


def _as_it_can(move: Move, view: ClusterView, policy: Policy) -> Move:
    return replace(move, live=False) if _is_stuck(move.vm, view, policy) else move


def why_not_stopped(vm: VmId, view: ClusterView, policy: Policy) -> str:
    """Return why a VM that cannot be moved while it runs is not stopped for that unasked, or an empty string."""
    doc, record = view.vms[vm], view.vm_records.get(vm)
    by_hand = f"`fangnetz vm relocate {vm}` stops it, moves it and starts it"
    why, fallback = _why_not_live(doc.spec), fallback_of(doc.spec, policy)
    if fallback is not Fallback.RELOCATE and not doc.spec.live:
        key = "unmovable" if doc.spec.fallback is None else "evacuate_fallback"
        return f"{why}, and {key} is {fallback}: {by_hand}"
    if record is not None and record.failures:
        return f"{why}, and it failed to start or ended lately: {by_hand}"
    return ""
