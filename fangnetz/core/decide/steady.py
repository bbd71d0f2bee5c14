"""Hosts and VMs that are as they should be, most of a cluster in most ticks: of these nothing is decided. Pure.

A shortcut and no rule of its own: whatever is steady here, the long way would look at from every side and leave alone.
"""

from __future__ import annotations

from fangnetz.core.detector import Finding, Verdict
from fangnetz.core.model import (
    DROPPED,
    REMOVED,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostState,
    Leaving,
    OffProof,
    Sighting,
    VmDoc,
    VmRecord,
    VmSighting,
    VmState,
    VmWish,
)
from fangnetz.core.units import HostId, Incarnation


def host_is_steady(
    record: HostRecord, verdict: Verdict, beat: Heartbeat | None, doc: HostDoc | None, remembered: OffProof | None
) -> bool:
    """Whether a host is online and well as the very boot that is known, and nobody has anything left to do with it.

    `remembered`: the last proof that files hold of it. Operations on it are asked about elsewhere.
    """
    return (
        verdict.finding is Finding.ALIVE
        and record.state is HostState.ONLINE
        and beat is not None
        and beat.leaving is Leaving.NO
        and doc is not None
        and doc.incarnation == record.incarnation == beat.incarnation == verdict.incarnation
        and (record.proof is None or record.proof.incarnation != beat.incarnation)
        and (remembered is None or remembered.incarnation != beat.incarnation)
        and record.suspected_at is None
        and not record.leaving_at
        and not (doc.maintenance or doc.evacuate or doc.quarantine)
    )


def vm_is_steady(doc: VmDoc, record: VmRecord, host: HostId, boot: Incarnation, seen: VmSighting) -> bool:
    """Whether the one copy there is, on that boot of `host`, which stays up, is the one that the record and the wish
    are about, and nobody has anything left to do with it.
    """
    return (
        record.state is VmState.RUNNING
        and seen.state is Sighting.RUNNING
        and record.owner == host
        and record.owner_incarnation == boot
        and record.generation == seen.generation
        and not seen.held
        and record.moving is None
        and not record.kept
        and not record.failures
        and doc.wish is VmWish.RUNNING
        and doc.source not in (DROPPED, REMOVED)
    )
