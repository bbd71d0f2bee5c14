"""A host that goes down in order: what becomes of its VMs, and when its goodbye is complete. Pure.

The announcement proves nothing. A goodbye is proof for the VMs that the host released in it (SAFETY rule 2b) and for
no other; while one of them is not released, the host is watched, fenced and recovered as any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

from fangnetz.core.detector import Finding, Verdict, heard
from fangnetz.core.model import (
    DROPPED,
    REMOVED,
    ClusterView,
    Heartbeat,
    HostDoc,
    HostState,
    HypervisorHealth,
    Leaving,
    VmRecord,
    VmState,
    VmWish,
)
from fangnetz.core.ownership import Granted, arriving_at, owner_let_go
from fangnetz.core.policy import OnShutdown, Policy
from fangnetz.core.units import HostId, Seconds, VmId

STOPS_PER_HOST_MAX = 4
"""Orderly stops under way on one host: each waits for its guest in one of the host worker's eight slots, and starts
must find a slot free. The others wait for their turn."""
_MAY_RUN = frozenset(
    {VmState.RUNNING, VmState.STARTING, VmState.STOPPING, VmState.MOVING, VmState.LOST, VmState.UNKNOWN,
     VmState.NEEDS_PERSON}
)  # fmt: skip


class Parting(StrEnum):
    """What is done now with the VMs that run on a host."""

    NONE = "none"
    """No orderly shutdown is pending there."""
    KEEP = "keep"
    RECOVER = "recover"
    EVACUATE = "evacuate"


def leaving(view: ClusterView, host: HostId) -> Heartbeat | None:
    """Return the last report of a host if it announces an orderly shutdown. Of two machines of one name none does."""
    beat = heard(view, host)
    return beat if beat is not None and beat.leaving is not Leaving.NO and not beat.contested else None


def told(host: HostId, how: Leaving) -> str:
    return f"{host} is being {'rebooted' if how is Leaving.REBOOT else 'shut down'}"


def parting(view: ClusterView, host: HostId, verdicts: Mapping[HostId, Verdict], policy: Policy) -> Parting:
    """Return what the policy does with the VMs of `host` now; an operator's evacuation goes on, until its deadline."""
    beat = leaving(view, host)
    if beat is None:
        return Parting.NONE
    doc = view.host_docs.get(host)
    emptied = doc is not None and doc.evacuate and not doc.maintenance
    if emptied or policy.on_shutdown is OnShutdown.EVACUATE:
        moves = not deadline_over(view, host, policy) and _another_takes_vms(view, host, verdicts)
        return Parting.EVACUATE if moves else Parting.RECOVER
    reboot = beat.leaving is Leaving.REBOOT
    if policy.on_shutdown is OnShutdown.KEEP or (policy.on_shutdown is OnShutdown.CONDITIONAL and reboot):
        return Parting.KEEP
    return Parting.RECOVER


def deadline_over(view: ClusterView, host: HostId, policy: Policy) -> bool:
    """Whether moves away from, and to, a host that leaves have had their time."""
    record = view.host_records.get(host)
    return record is not None and record.leaving_at > 0 and view.now - record.leaving_at >= policy.evacuate_deadline_s


def _another_takes_vms(view: ClusterView, but: HostId, verdicts: Mapping[HostId, Verdict]) -> bool:
    for host, verdict in verdicts.items():
        record, doc = view.host_records.get(host), view.doc_of(host)
        online = record is not None and record.state is HostState.ONLINE and verdict.finding is Finding.ALIVE
        if host != but and online and leaving(view, host) is None and not (doc.maintenance or doc.evacuate):
            return True
    return False


def not_let_go(view: ClusterView, host: HostId) -> tuple[VmId, ...]:
    """Return the VMs that the last boot heard of `host` may run, or start, for all that it said; by name."""
    beat = heard(view, host)
    if beat is None:
        return ()
    found = {seen.vm for seen in beat.inventory if _managed(view, seen.vm)}
    for record in view.vm_records.values():
        doc, to = view.vms.get(record.id), record.moving
        counts = doc is not None and (doc.to_run or (_managed(view, record.id) and record.state in _MAY_RUN))
        if record.owner == host and counts and not isinstance(owner_let_go(view, record), Granted):
            found.add(record.id)
        if to is not None and (to.host, to.incarnation) == (host, beat.incarnation) and arriving_at(view, record):
            found.add(record.id)
    return tuple(sorted(found))


def _managed(view: ClusterView, vm: VmId) -> bool:
    """Whether it is ours to stop. One whose record or definition cannot be read may be anything: it counts."""
    doc = view.vms.get(vm)
    if doc is None:
        return vm in view.unreadable_vms
    left_alone = doc.source == REMOVED or (doc.source == DROPPED and doc.wish is VmWish.RUNNING)
    return doc.wish is not VmWish.IGNORED and not left_alone


def said_goodbye(view: ClusterView, host: HostId) -> bool:
    """Whether a host announced that it goes down and has let go every VM of ours: its silence is no failure."""
    beat = leaving(view, host)
    return beat is not None and beat.hypervisor is HypervisorHealth.OK and not not_let_go(view, host)


def stays_with(view: ClusterView, record: VmRecord) -> HostId | None:
    """Return the host with which a VM was stopped and with which alone it starts again, or None.

    Where its boot is the last one heard, only if it released the VM: what still ran when the power went is recovered.
    Where a later one is heard, only if that takes VMs: one in maintenance or quarantine may never do so.
    """
    owner = record.owner
    if owner is None or owner not in view.hosts or not record.kept or record.kept != record.generation:
        return None
    beat = heard(view, owner)
    if beat is not None and beat.incarnation == record.owner_incarnation:
        return owner if beat.promised(record.id) >= record.generation else None
    return None if beat is not None and _is_kept_out(view.host_docs.get(owner)) else owner


def _is_kept_out(doc: HostDoc | None) -> bool:
    """Whether a host that is back takes no VMs before a person activates it: nothing waits for it."""
    return doc is not None and (doc.maintenance or doc.evacuate or bool(doc.quarantine))


def goodbye_bound_s(policy: Policy, vms: int) -> Seconds:
    """Return how long a host waits for its goodbye: moves, then stops, a few at a time, and one lost controller."""
    turns = math.ceil(vms / STOPS_PER_HOST_MAX)
    return Seconds(policy.evacuate_deadline_s + turns * policy.stop_bound_s + 2 * policy.resume_s)
