"""When a VM may be given to a host: the one door through which every start passes (SAFETY rule 2).

Pure. The plan step asks it before each assignment, and the store's script compares the same record again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fangnetz.core.detector import heard
from fangnetz.core.fencing import holds, remembered_proof
from fangnetz.core.model import ClusterView, Heartbeat, HypervisorHealth, OffProof, Sighting, VmRecord
from fangnetz.core.operations import StepKind, StepState
from fangnetz.core.units import HostId, Incarnation, Instant, OperationId, VmId


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
    return tuple(
        host for host in view.heartbeats if (beat := heard(view, host)) is not None and beat.sees(vm) is not None
    )


def unanswered_order(vm: VmId) -> str:
    """Return what a report says is in hand for a start that may still come, though no step waits for it any more.

    Shaped like a step, so that every reader of reports takes it for one; of no operation there is, so that no journal,
    be it new or older, can call it ended.
    """
    return f"unanswered/start/{vm}/-"


def seen_alive(view: ClusterView, vm: VmId) -> tuple[HostId, ...]:
    """Return those of them that are not proven off."""
    return tuple(host for host in seen_running(view, vm) if not _proven_off(view, host))


def held_on(view: ClusterView, vm: VmId) -> tuple[HostId, ...]:
    """Return every host not proven off whose last report of this life shows a copy paused as the later of two.

    It has the disk open and an old memory of it: while it is there the VM starts nowhere, and where it is it is no run.
    """
    seen = ((host, heard(view, host)) for host in seen_alive(view, vm))
    return tuple(host for host, beat in seen if beat is not None and (copy := beat.sees(vm)) is not None and copy.held)


def end_the_held(vm: VmId, hosts: tuple[HostId, ...]) -> str:
    """Return what is wrong with the copies of `vm` held on these hosts, and what a person does about it."""
    return (
        f"its copy on {', '.join(hosts)} was paused as the later of two that ran, and is out of date: resumed, it "
        f"would spoil the disk, and while it is there {vm} starts nowhere. End it with `fangnetz vm stop {vm}` (or, "
        f"there, `virsh destroy {vm}`), then `fangnetz vm start {vm}`"
    )


def starting_on(view: ClusterView, vm: VmId) -> tuple[HostId, ...]:
    """Return every host not proven off whose last report of this life says that it is starting `vm`.

    Not counted: a start that its host is known to have ended since that report.
    """
    return tuple(
        host
        for host in view.heartbeats
        if (beat := heard(view, host)) is not None
        and any(f"/start/{vm}/" in order and not _ended(view, order) for order in beat.orders)
        and not _proven_off(view, host)
    )


def _ended(view: ClusterView, order: str) -> bool:
    """Whether the open operation named by `<operation>/<step>` holds an answer of its host to that step.

    A start that was given up for want of an answer has not ended: whoever has it in hand may still carry it out.
    """
    identity, _, key = order.partition("/")
    operation = view.operations.get(OperationId(identity))
    step = operation.step(key) if operation is not None else None
    return step is not None and step.state in (StepState.DONE, StepState.REFUSED)


def owner_let_go(view: ClusterView, record: VmRecord, promised: int = 0) -> Granted | Withheld:
    """Whether the recorded owner's copy is known not to run and never to start again at the recorded generation.

    `promised`: the highest generation that owner's boot released by a typed refusal in the journal, which is written
    only after the promise; its next report says the same.
    """
    starting = starting_on(view, record.id)
    if starting:  # ordered in a life of the store that nobody remembers, or before it was rolled back
        return Withheld(because=f"{', '.join(starting)} is carrying out a start of {record.id}")
    arriving = arriving_at(view, record)
    if arriving:
        return Withheld(because=arriving)
    if record.owner is None:
        return Granted(because=f"{record.id} has no owner")
    owner, incarnation = record.owner, record.owner_incarnation
    beat = heard(view, owner)
    proof = proof_of(view, owner, incarnation)
    if proof is not None:
        return Granted(because=proof.sentence)
    if beat is not None and beat.incarnation == incarnation:
        released = max(promised, beat.promised(record.id))
        if released >= record.generation and beat.sees(record.id) is None:
            return Granted(because=f"{owner} released {record.id} at generation {released}")
        return Withheld(because=f"{owner} is alive as the boot that owns {record.id} and has not released it")
    if beat is not None:
        return _after_reboot(view, owner, beat, record)
    return Withheld(because=f"{owner} owns {record.id} and is neither proven off nor heard without it")


def arriving_at(view: ClusterView, record: VmRecord) -> str:
    """Return where a copy of the VM may still be arriving, in a sentence, or an empty string.

    It is known to be gone once that boot promised never to run it, is proven off, or was followed by another one.
    """
    to = record.moving
    if to is None:
        return ""
    beat = heard(view, to.host)
    gone = proof_of(view, to.host, to.incarnation) is not None
    if beat is not None and beat.incarnation == to.incarnation:
        gone = gone or (beat.promised(record.id) >= to.generation and beat.sees(record.id) is None)
    elif beat is not None:
        gone = gone or isinstance(_after_reboot(view, to.host, beat, record), Granted)
    return "" if gone else f"a copy of {record.id} was being moved to {to.host} and may be there still"


def _after_reboot(view: ClusterView, owner: HostId, beat: Heartbeat, record: VmRecord) -> Granted | Withheld:
    """Proof (e): a later boot of the owner speaks, uncontested for a while, without the VM; or it is off by now."""
    if beat.contested:
        return Withheld(because=f"two machines report as {owner}: nothing is known about the copy of {record.id}")
    proof = proof_of(view, owner, beat.incarnation)
    if proof is not None:
        return Granted(because=f"a later boot of {owner} spoke, and: {proof.sentence}")
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
    return who_may_own(view, record, {host: incarnation}, hold, promised)[host]


def who_may_own(
    view: ClusterView,
    record: VmRecord,
    hosts: Mapping[HostId, Incarnation],
    hold: tuple[HostId, ...],
    promised: int = 0,
) -> dict[HostId, Granted | Withheld]:
    """Return for each of `hosts`, in that boot, whether it may own the VM next: one look around for all of them."""
    if hold:
        held = Withheld(
            because=f"{', '.join(hold)} has not been heard since the store's life began and is not proven off"
        )
        return dict.fromkeys(hosts, held)
    stale = held_on(view, record.id)
    if stale:
        return dict.fromkeys(hosts, Withheld(because=end_the_held(record.id, stale)))
    seen = seen_alive(view, record.id)
    # Ordered in a life of the store that nobody remembers, or before it was rolled back, and in hand at this moment.
    starting = starting_on(view, record.id)
    arriving = arriving_at(view, record)
    if arriving:
        return dict.fromkeys(hosts, Withheld(because=arriving))
    let_go = owner_let_go(view, record, promised)
    ways: dict[HostId, Granted | Withheld] = {}
    for host, incarnation in hosts.items():
        seen_elsewhere = [h for h in seen if h != host]
        starting_elsewhere = [h for h in starting if h != host]
        if seen_elsewhere:
            ways[host] = Withheld(because=f"{record.id} is seen on {', '.join(seen_elsewhere)}")
        elif starting_elsewhere:
            ways[host] = Withheld(because=f"{', '.join(starting_elsewhere)} is carrying out a start of {record.id}")
        elif record.owner == host and record.owner_incarnation == incarnation:
            ways[host] = Granted(because=f"{host} owns it already")
        elif _paused_there(view, record.id, host):  # not at its owner: perhaps held, and nobody knows any more
            ways[host] = Withheld(because=f"{record.id} is paused on {host}, which does not own it")
        else:
            ways[host] = let_go
    return ways


def proof_of(view: ClusterView, host: HostId, incarnation: Incarnation) -> OffProof | None:
    """Return the proof that this boot of `host` is off, from its record or from what files remember; None if none."""
    record = view.host_records.get(host)
    if record is not None and holds(view, record.proof, incarnation):
        return record.proof
    kept = view.proofs.get(host)
    return remembered_proof(view, host) if kept is not None and kept.incarnation == incarnation else None


def may_run(view: ClusterView, vm: VmId) -> str:
    """Return why a copy of `vm` may be running somewhere, or an empty string if it is known that none does.

    Not asked about hosts unheard in this life of the store: the hold is about all VMs at once.
    """
    seen = seen_alive(view, vm)
    if seen:
        return f"{vm} runs on {', '.join(seen)}"
    starting = starting_on(view, vm)
    if starting:
        return f"{', '.join(starting)} is carrying out a start of {vm}"
    record = view.vm_records.get(vm)
    let_go = owner_let_go(view, record) if record is not None else None
    return let_go.because if isinstance(let_go, Withheld) else ""


def seen_gone(view: ClusterView, vm: VmId) -> bool:
    """Whether a copy is seen no more: its owner's same boot lists what runs there, without it, and no start is open.

    Enough to stop thinking of a VM that nobody may start any more; never enough to start it elsewhere.
    """
    record = view.vm_records.get(vm)
    beat = heard(view, record.owner) if record is not None and record.owner is not None else None
    if record is None or beat is None or beat.incarnation != record.owner_incarnation:
        return False
    listed_at = Instant(beat.received_at - beat.inventory_age_s)
    if beat.hypervisor is not HypervisorHealth.OK or listed_at <= record.since or _start_since(view, vm, listed_at):
        return False
    return not seen_running(view, vm) and not starting_on(view, vm)


def _start_since(view: ClusterView, vm: VmId, listed_at: Instant) -> bool:
    """Whether a start of `vm` is still to come, or ended only after that inventory: its copy would not be in it."""
    record = view.vm_records.get(vm)
    return (record is not None and newer_than_shown(view, record)) or any(
        step.order is not None and step.order.vm == vm and (not step.settled or step.ended_at >= listed_at)
        for op in view.operations.values()
        for step in op.of_kind(StepKind.START)
    )


def newer_than_shown(view: ClusterView, record: VmRecord) -> bool:
    """Whether an open operation has given the VM this generation, and was read before it had: its order is not shown.

    A look reads operations first.
    """
    operation = view.operations.get(record.operation) if record.operation is not None else None
    return operation is not None and not any(
        step.order is not None and (step.order.vm, step.order.generation) == (record.id, record.generation)
        for step in operation.steps
    )


def paused_on(view: ClusterView, vm: VmId) -> tuple[HostId, ...]:
    """Return every host not proven off whose last report of this life shows a paused copy, whoever paused it."""
    return tuple(host for host in seen_alive(view, vm) if _paused_there(view, vm, host))


def _paused_there(view: ClusterView, vm: VmId, host: HostId) -> bool:
    beat = heard(view, host)
    seen = beat.sees(vm) if beat is not None else None
    return seen is not None and seen.state is Sighting.PAUSED


def _proven_off(view: ClusterView, host: HostId) -> bool:
    beat = heard(view, host)
    return beat is not None and proof_of(view, host, beat.incarnation) is not None


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
