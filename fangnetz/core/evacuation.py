"""Where the VMs of a host would go if it were emptied now, and which cannot. Pure; a preview and the tick both ask it.

Nothing is moved here, and nothing is planned for longer than a tick: what has left is looked at anew in the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fangnetz.core.detector import Verdict, Watch, heard
from fangnetz.core.model import ClusterView, HostDoc, Sighting, VmState, VmWish
from fangnetz.core.moving import Move, Stays, plan_moves
from fangnetz.core.policy import Fallback, Policy, Unmovable
from fangnetz.core.rooms import TAKES_ROOM
from fangnetz.core.units import HostId, VmId

STUCK_S = 3600.0
"""A live migration that failed within so long is not tried again in an evacuation whose fallback is to relocate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvacuationPlan:
    """What becomes of each VM on a host, the one that leaves first in front."""

    host: HostId
    moves: tuple[Move, ...]
    stays: tuple[Stays, ...]


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
    here = vms_on(host, view)
    stays = [Stays(vm=vm, because=why) for vm in here if (why := _kept(vm, view, policy))]
    able = [vm for vm in here if vm not in {one.vm for one in stays}]
    found = plan_moves(able, view, watch, verdicts, policy, leaving="is being emptied")
    moves = tuple(_as_it_can(one, view, policy) for one in found if isinstance(one, Move))
    return EvacuationPlan(host=host, moves=moves, stays=(*stays, *(one for one in found if isinstance(one, Stays))))


def plan_evacuations(
    hosts: Sequence[HostId], view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy
) -> tuple[EvacuationPlan, ...]:
    """Return the plans for hosts that are emptied at the same time: none of them takes what leaves another."""
    known = {host: view.host_docs.get(host, HostDoc(id=host)) for host in hosts}
    closed = {host: replace(doc, evacuate=True) for host, doc in known.items()}
    emptied = replace(view, host_docs={**view.host_docs, **closed})
    home = {vm: host for host in hosts for vm in vms_on(host, view)}
    stays = [Stays(vm=vm, because=why) for vm in home if (why := _kept(vm, view, policy))]
    able = [vm for vm in home if vm not in {one.vm for one in stays}]
    found = (*stays, *plan_moves(able, emptied, watch, verdicts, policy, leaving="is being emptied"))
    return tuple(
        EvacuationPlan(
            host=host,
            moves=tuple(
                _as_it_can(one, view, policy) for one in found if isinstance(one, Move) and home[one.vm] == host
            ),
            stays=tuple(one for one in found if isinstance(one, Stays) and home[one.vm] == host),
        )
        for host in hosts
    )


def _kept(vm: VmId, view: ClusterView, policy: Policy) -> str:
    """Return why a VM is not taken from a host that is emptied although it could be moved, or an empty string."""
    doc, record = view.vms[vm], view.vm_records.get(vm)
    if doc.wish is VmWish.IGNORED or (record is not None and record.state is VmState.UNMANAGED):
        return f"{vm} is not managed: move or stop it by hand"
    return "" if doc.spec.live and not _is_stuck(vm, view, policy) else why_not_stopped(vm, view, policy)


def _is_stuck(vm: VmId, view: ClusterView, policy: Policy) -> bool:
    """Whether the policy has it stopped for its move, as it could not be moved while it runs."""
    record = view.vm_records.get(vm)
    lately = record is not None and record.stuck_at > 0 and 0 <= view.now - record.stuck_at < STUCK_S
    return lately and policy.evacuate_fallback is Fallback.RELOCATE


def _as_it_can(move: Move, view: ClusterView, policy: Policy) -> Move:
    return replace(move, live=False) if _is_stuck(move.vm, view, policy) else move


def why_not_stopped(vm: VmId, view: ClusterView, policy: Policy) -> str:
    """Return why a VM that cannot be moved while it runs is not stopped for that unasked, or an empty string."""
    doc, record = view.vms[vm], view.vm_records.get(vm)
    by_hand = f"`fangnetz vm relocate {vm}` stops it, moves it and starts it"
    why = "its live migration failed" if doc.spec.live else "it cannot be moved while it runs (live: false)"
    if policy.unmovable is Unmovable.STAY and not doc.spec.live:
        return f"{why}, and unmovable is stay: {by_hand}"
    if record is not None and record.failures:
        return f"{why}, and it failed to start or ended lately: {by_hand}"
    return ""
