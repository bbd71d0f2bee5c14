"""When a VM may be given to a host: the one door through which every start passes (SAFETY rule 2).

Pure. The plan step asks it before each assignment, and the store's script compares the same record again.
"""

from __future__ import annotations

from dataclasses import dataclass

from fangnetz.core.detector import heard
from fangnetz.core.fencing import stands
from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostRecord,
    HypervisorHealth,
    VmRecord,
)
from fangnetz.core.units import HostId, Incarnation, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The VM may be given away; `because` is the evidence in a sentence."""

    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """The VM may not be given away; `because` says what is missing."""

    because: str


def seen_running(view: ClusterView, vm: VmId) -> tuple[HostId, ...]:
    """Return every host whose last report of this life shows an active domain of that name (incoming ones too)."""
    return tuple(host for host in view.hosts if (beat := heard(view, host)) is not None and beat.sees(vm) is not None)


def starting_on(view: ClusterView, vm: VmId) -> tuple[HostId, ...]:
    """Return every host not proven off whose last report of this life says that it is starting `vm`."""
    return tuple(
        host
        for host in view.hosts
        if (beat := heard(view, host)) is not None
        and any(f"/start/{vm}/" in order for order in beat.orders)
        and not _proven_off(view, host)
    )


def owner_let_go(view: ClusterView, record: VmRecord, promised: int = 0) -> Granted | Withheld:
    """Whether the recorded owner's copy is known not to run and never to start again at the recorded generation.

    `promised`: the highest generation that owner's boot released by a typed refusal in the journal, which is written
    only after the promise; its next report says the same.
    """
    if record.owner is None:
        starting = starting_on(view, record.id)
        if starting:  # ordered in a life of the store that nobody remembers, and carried out at this moment
            return Withheld(because=f"{', '.join(starting)} is carrying out a start of {record.id}")
        return Granted(because=f"{record.id} has no owner")
    owner, incarnation = record.owner, record.owner_incarnation
    host = view.host_records.get(owner)
    beat = heard(view, owner)
    if host is not None and host.proof is not None and stands(host.proof, incarnation, beat):
        return Granted(because=host.proof.sentence)
    if beat is not None and beat.incarnation == incarnation:
        released = max([promised, *(r.generation for r in beat.releases if r.vm == record.id)])
        if released >= record.generation and beat.sees(record.id) is None:
            return Granted(because=f"{owner} released {record.id} at generation {released}")
        return Withheld(because=f"{owner} is alive as the boot that owns {record.id} and has not released it")
    if beat is not None:
        return _after_reboot(owner, host, beat, record)
    return Withheld(because=f"{owner} owns {record.id} and is neither proven off nor heard without it")


def _after_reboot(owner: HostId, host: HostRecord | None, beat: Heartbeat, record: VmRecord) -> Granted | Withheld:
    """Proof (e): a later boot of the owner speaks, uncontested for a while, without the VM; or it is off by now."""
    if beat.contested:
        return Withheld(because=f"two machines report as {owner}: nothing is known about the copy of {record.id}")
    if host is not None and host.proof is not None and stands(host.proof, beat.incarnation, beat):
        return Granted(because=f"a later boot of {owner} spoke, and: {host.proof.sentence}")
    if not beat.settled:
        return Withheld(because=f"{owner} has booted anew a moment ago; an earlier boot may still speak up")
    if beat.hypervisor is HypervisorHealth.OK and beat.sees(record.id) is None:
        return Granted(because=f"{owner} has booted anew and reports an inventory without {record.id}")
    return Withheld(because=f"{owner} has booted anew, but its inventory is not known to be without {record.id}")


def may_own(
    view: ClusterView,
    record: VmRecord,
    host: HostId,
    incarnation: Incarnation,
    hold: tuple[HostId, ...],
    promised: int = 0,
) -> Granted | Withheld:
    """Whether `host` in `incarnation` may own the VM next. `hold`: hosts unheard in this life of the store."""
    if hold:
        return Withheld(
            because=f"{', '.join(hold)} has not been heard since the store's life began and is not proven off"
        )
    elsewhere = [h for h in seen_running(view, record.id) if h != host and not _proven_off(view, h)]
    if elsewhere:
        return Withheld(because=f"{record.id} is seen on {', '.join(elsewhere)}")
    if record.owner == host and record.owner_incarnation == incarnation:
        return Granted(because=f"{host} owns it already")
    return owner_let_go(view, record, promised)


def _proven_off(view: ClusterView, host: HostId) -> bool:
    record, beat = view.host_records.get(host), heard(view, host)
    return beat is not None and record is not None and stands(record.proof, beat.incarnation, beat)


def rebooted_without(view: ClusterView, host: HostId) -> tuple[VmId, ...]:
    """Return VMs an earlier boot of `host` owns that its present boot reports not to have (proof e)."""
    beat = heard(view, host)
    if beat is None or beat.hypervisor is not HypervisorHealth.OK:
        return ()
    return tuple(
        r.id
        for r in view.vm_records.values()
        if r.owner == host and r.owner_incarnation != beat.incarnation and beat.sees(r.id) is None
    )
