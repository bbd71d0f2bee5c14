"""Two running copies of one VM at one generation: which of them must go (SAFETY rule 8). Pure; pauses nothing itself.

Never names the only copy: at least one other one of the same generation is among those it is told of.
"""

from __future__ import annotations

from collections.abc import Mapping

from fangnetz.core.detector import heard
from fangnetz.core.model import Answer, ClusterView, Sighting, VmSighting
from fangnetz.core.operations import Order
from fangnetz.core.ownership import proof_of
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Instant, VmId

Copies = Mapping[HostId, VmSighting]


def listed(view: ClusterView, vm: VmId, policy: Policy, since: Instant = Instant(0.0)) -> dict[HostId, VmSighting]:
    """Return where inventories taken within the last window, and after `since`, show the VM.

    Also on hosts that are not in this cluster file: another's may be newer, and a copy writes all the same. A boot
    proven off shows nothing. An inventory's age counts: a report that says what was so before proves no copy.
    """
    found: dict[HostId, VmSighting] = {}
    for host in view.heartbeats:
        beat = heard(view, host)
        if beat is None or (seen := beat.sees(vm)) is None or proof_of(view, host, beat.incarnation) is not None:
            continue
        listed_at = beat.received_at - beat.inventory_age_s
        if listed_at > since and view.now - listed_at <= policy.window_s:
            found[host] = seen
    return found


def later_copy(copies: Copies, owner: HostId | None) -> HostId | None:
    """Return which of the copies that share a generation was started last; None if none does or nobody can tell.

    Where the starts are not all known, or the last ones are equal: one that is not at the recorded owner, if one is.
    """
    for generation in sorted({seen.generation for seen in copies.values() if seen.generation is not None}):
        equal = {host: seen for host, seen in copies.items() if seen.generation == generation}
        if len(equal) < 2:
            continue
        starts = [seen.start_sent_at for seen in equal.values()]
        last = max((at for at in starts if at is not None), default=None)
        latest = [host for host, seen in equal.items() if seen.start_sent_at == last]
        if None not in starts and len(latest) == 1:
            return latest[0]
        if owner in equal:
            return max(host for host in (equal if None in starts else latest) if host != owner)
    return None


def running(copies: Copies) -> dict[HostId, VmSighting]:
    """Return the copies that run: a paused one writes nothing."""
    return {host: seen for host, seen in copies.items() if seen.state is Sighting.RUNNING}


def paused_later_copy(copies: Copies, owner: HostId | None) -> HostId | None:
    """Return the later copy if it is paused while another one of its generation runs; else None."""
    living = {h: s for h, s in copies.items() if s.state in (Sighting.RUNNING, Sighting.PAUSED)}
    later = later_copy(living, owner)
    if later is None or living[later].state is not Sighting.PAUSED:
        return None
    others = [s for s in running(living).values() if s.generation == living[later].generation]
    return later if others else None


def is_to_pause(view: ClusterView, order: Order, policy: Policy, since: Instant) -> tuple[Answer, str]:
    """Say whether the ordered copy is still the later of two that run, from inventories taken after `since` alone.

    Unknown while a host that showed the VM has not listed its VMs anew: its copy may have ended or moved meanwhile. And
    while one that the order names is not known here: this host's cluster file may be older than the order.
    """
    record = view.vm_records.get(order.vm)
    copies = running(listed(view, order.vm, policy, since))
    if later_copy(copies, record.owner if record is not None else None) == order.host:
        others = sorted(host for host in copies if host != order.host)
        return Answer.YES, f"{order.vm} also runs on {', '.join(others)}, where it was started earlier"
    unknown = sorted(host for host in order.beside if heard(view, host) is None)
    if unknown:
        return Answer.UNKNOWN, f"{order.host} hears nothing of {', '.join(unknown)}, where {order.vm} also runs"
    shown = [h for h in view.heartbeats if (beat := heard(view, h)) is not None and beat.sees(order.vm) is not None]
    waited_for = sorted(set(shown) - set(listed(view, order.vm, policy, since)))
    if waited_for:
        return Answer.UNKNOWN, f"{', '.join(waited_for)} has not said anew whether {order.vm} runs there"
    return Answer.NO, f"{order.vm} on {order.host} is not the later of two running copies any more: left alone"
