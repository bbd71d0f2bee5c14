"""What a person does about a VM whose definition or record cannot be read, and when that is safe. Mends nothing itself.

A definition is written anew over the broken one, once no copy runs whose disk nobody knows. A record cannot be made up:
nobody knows whom it named. It is only forgotten, once every host is heard or proven off and at most one has a copy:
there it is adopted as any copy is, with the disks and the uuid it had.
"""

from __future__ import annotations

from collections.abc import Mapping

from fangnetz.core.decide.outside import last_boot
from fangnetz.core.detector import heard
from fangnetz.core.model import ClusterView, HypervisorHealth
from fangnetz.core.operations import OperationKind
from fangnetz.core.ownership import seen_running, starting_on
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import proven_off
from fangnetz.core.units import HostId, VmId


def how_to_mend(view: ClusterView) -> Mapping[VmId, str]:
    """Return for each VM of which something cannot be read, what to do about it."""
    return {
        vm: _mend_record(vm) if vm in view.unreadable_records else _mend_definition(vm) for vm in view.unreadable_vms
    }


def _mend_definition(vm: VmId) -> str:
    return (
        f"the definition of {vm} cannot be read, so {vm} is left alone: `fangnetz vm add {vm} --xml FILE`, with the "
        "definition it had, writes it anew once no copy runs any more (nobody can tell which disk one writes: shut it "
        "down in the guest or on its host); who owns it is on record still"
    )


def _mend_record(vm: VmId) -> str:
    return (
        f"the record of {vm} cannot be read, so nobody knows who owns it and it is left alone: once every host reports "
        f"or is proven off, `fangnetz vm add {vm} --xml FILE`, with the definition it had, takes it up again where it "
        f"runs, and `fangnetz vm remove {vm}` forgets it if it runs nowhere"
    )


def copies_of(view: ClusterView, vm: VmId) -> tuple[HostId, ...]:
    """Return the hosts not proven off whose last report shows a copy."""
    return tuple(host for host in seen_running(view, vm) if not proven_off(view, host))


def unseen_copies(view: ClusterView, vm: VmId, hold: tuple[HostId, ...], policy: Policy) -> str:
    """Return why a copy of a VM without a readable record may run or be started unseen; empty if all copies are seen.

    Asked of every host there is or was, since no record names one. `hold`: hosts unheard in this life of the store.
    A report tells of one instant what runs and what is in hand; without an open order nothing begins after it.
    """
    if hold:
        return f"{', '.join(hold)} has not been heard since the store's life began and may run it"
    for op in view.operations.values():
        if op.subject == vm or op.kind is OperationKind.FAILOVER or any(s.order and s.order.vm == vm for s in op.steps):
            return f"{op.id} may be about to start it"
    starting = starting_on(view, vm)
    if starting:
        return f"{', '.join(starting)} is carrying out a start of it"
    return next((why for host in (*view.hosts, *view.outside) if (why := _not_seen_through(view, host, policy))), "")


def _not_seen_through(view: ClusterView, host: HostId, policy: Policy) -> str:
    if proven_off(view, host):
        return ""
    beat = heard(view, host)
    if beat is None:  # without the hold: a host that was never a member
        return f"{host} is neither heard nor proven off" if last_boot(view, host) else ""
    if view.now - beat.received_at >= policy.overdue_s:
        return f"{host} does not report and is not proven off"
    if not beat.settled:
        return f"{host} has booted anew a moment ago, or two machines report as {host}"
    if beat.hypervisor is not HypervisorHealth.OK:
        return f"{host} reports, but its libvirt is {beat.hypervisor}"
    return ""
