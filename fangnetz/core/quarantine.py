"""Hosts that went down again and again: how often counts, and why one is kept from taking VMs once it is back.

Counted are exits that nobody asked for: a host that was lost and then proven off or booted anew. A fence that a person
asked for is none, nor is anything in maintenance. Only a person's `host activate` ends a quarantine.
"""

from __future__ import annotations

from fangnetz.core.model import ClusterView, HostRecord, HostState
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Instant, at_utc

HOUR_S = 3600.0
EXITS_MAX = 20
"""So many exits of a host are remembered; the policy asks for no more."""
_LOST = frozenset({HostState.LOST, HostState.ISOLATED, HostState.FENCING, HostState.NEEDS_PERSON})


def with_exit(exits: tuple[Instant, ...], at: Instant) -> tuple[Instant, ...]:
    """Return the exits with one more, the latest hour of them; the same exit told again counts once."""
    known = sorted({*exits, at})
    return tuple(one for one in known if known[-1] - one <= HOUR_S)[-EXITS_MAX:]


def exits_on_return(record: HostRecord) -> tuple[Instant, ...]:
    """Return the exits of a host that comes back as a new boot: one that was lost and never proven off counts now.

    `suspected_at` is set by its silence alone: a host that a person had fenced, or that booted while it was heard, has
    none.
    """
    if record.state in _LOST and record.suspected_at is not None:
        return with_exit(record.exits, record.suspected_at)
    return record.exits


def too_many(host: HostId, view: ClusterView, policy: Policy) -> bool:
    """Return whether one more host in quarantine leaves too few: a power feed that fails thrice must not empty a site.

    Less than half of the hosts may be, of two one. Of those that come back at once, the first by name count.
    """
    kept = {name for name, doc in view.host_docs.items() if doc.quarantine and name in view.hosts}
    kept |= {
        name
        for name, record in view.host_records.items()
        if name < host
        and name in view.hosts
        and record.state is HostState.RETURNING
        and why_quarantined(record, policy)
    }
    most = max((len(view.hosts) - 1) // 2, int(len(view.hosts) > 1))
    return len(kept - {host}) >= most


def why_quarantined(record: HostRecord, policy: Policy) -> str:
    """Return why a host that is back takes no VMs before a person activates it, or an empty string."""
    enough = policy.quarantine_exits
    if enough == 0 or len(record.exits) < enough:
        return ""
    times = record.exits[-enough:]
    if times[-1] - times[0] > HOUR_S:
        return ""
    told = ", ".join(at_utc(at) for at in times)
    often = f"{enough} times within an hour" if enough > 1 else "unasked"
    return f"{record.id} went down {often} ({told}): it takes no VMs before `fangnetz host activate {record.id}`"
