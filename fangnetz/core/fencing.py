"""What counts as proof that a host is off, and which devices may be used to cut it.

Silence, errors, unbound devices and an OFF from a plug never seen ON are never proof (SAFETY rule 2a).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fangnetz.core.detector import heard
from fangnetz.core.model import (
    Binding,
    ClusterView,
    Heartbeat,
    HostSpec,
    OffProof,
    Power,
    PowerReading,
    ProofKind,
)
from fangnetz.core.slots import wrote_after
from fangnetz.core.units import DeviceName, HostId, Incarnation, Instant, Seconds, StoreIncarnation


class BindingState(StrEnum):
    """How sure we are that a device's plug feeds this very boot of this host."""

    BOUND = "bound"
    NOT_TESTED = "binding not tested"
    """Seen ON, but the host could not read its own BMC's GUID to compare."""
    MISMATCH = "another machine's device"
    NOT_SEEN_ON = "never seen ON while this boot was alive"
    READ_OFF = "it read OFF while this boot was alive"
    """It lies, or feeds another machine: not believed before it reads ON again."""


def binding_state(binding: Binding | None, incarnation: Incarnation) -> BindingState:
    if binding is None or not incarnation or binding.incarnation != incarnation:
        return BindingState.NOT_SEEN_ON
    if binding.read_off:
        return BindingState.READ_OFF
    if binding.guid_matches is None:
        return BindingState.NOT_TESTED
    return BindingState.BOUND if binding.guid_matches else BindingState.MISMATCH


def of_another_host(view: ClusterView, reading: PowerReading) -> bool:
    """Whether a device answered by the GUID that another host reads of its own or was seen to have.

    Not one that this host is known by as well: a GUID that two hosts carry names neither.
    """
    own, mine = view.heartbeats.get(reading.host), view.bindings.get((reading.host, reading.device))
    is_own = own is not None and reading.guid in own.bmc_guids
    was_own = mine is not None and mine.guid == reading.guid and mine.guid_matches is not False
    if not reading.guid or is_own or was_own:
        return False
    read = any(reading.guid in beat.bmc_guids for host, beat in view.heartbeats.items() if host != reading.host)
    bound = any(
        reading.guid == binding.guid and binding.guid_matches
        for (h, _), binding in view.bindings.items()
        if h != reading.host
    )
    return read or bound


def bind(reading: PowerReading, beat: Heartbeat) -> Binding | None:
    """Return the memory a reading makes, or None if it makes none.

    It makes one only if the plug was ON and the boot heard right before the question was heard again after the answer.
    """
    if reading.power is not Power.ON or not _while_alive(reading, beat):
        return None
    matches = reading.guid in beat.bmc_guids if reading.guid and beat.bmc_guids else None
    return Binding(
        host=reading.host,
        device=reading.device,
        incarnation=reading.incarnation,
        seen_on_at=reading.asked_at,
        guid=reading.guid,
        guid_matches=matches,
    )


def unbind(reading: PowerReading, beat: Heartbeat, binding: Binding | None) -> Binding | None:
    """Return the memory that a reading spoils, or None: the plug read OFF although the boot it is bound to lives."""
    if binding is None or binding.incarnation != beat.incarnation or reading.asked_at < binding.seen_on_at:
        return None
    if reading.power is not Power.OFF or not _while_alive(reading, beat):
        return None
    return replace(binding, read_off=True)


def _while_alive(reading: PowerReading, beat: Heartbeat) -> bool:
    """Whether the boot that was heard right before the question was heard again after the answer."""
    if not reading.incarnation or beat.incarnation != reading.incarnation:
        return False
    return beat.received_at > reading.answered_at


def counts_as_off(
    reading: PowerReading | None, binding: Binding | None, incarnation: Incarnation, heard_at: Instant
) -> bool:
    """Whether one reading shows that `incarnation`, last heard at `heard_at`, lost this plug's power."""
    return (
        reading is not None
        and reading.power is Power.OFF
        and reading.asked_at > heard_at
        and binding is not None
        and binding_state(binding, incarnation) is BindingState.BOUND
        and reading.guid == binding.guid
        and binding.seen_on_at <= reading.asked_at
    )


def proof_from_readings(
    spec: HostSpec,
    incarnation: Incarnation,
    heard_at: Instant,
    readings: Sequence[PowerReading],
    bindings: Mapping[tuple[HostId, DeviceName], Binding],
    *,
    now: Instant,
    life: StoreIncarnation,
    kind: ProofKind = ProofKind.ALREADY_OFF,
) -> OffProof | None:
    """Return the proof the readings make: one level all of whose devices are bound and read OFF, else None.

    `heard_at`: when that incarnation was last heard; an older reading proves nothing.
    """
    latest = {reading.device: reading for reading in readings}
    for level in spec.fencing:
        if level and all(
            counts_as_off(latest.get(device), bindings.get((spec.id, device)), incarnation, heard_at)
            for device in level
        ):
            used = tuple(latest[device] for device in level)
            names = " and ".join(level)
            how = (
                "was switched off and read back OFF"
                if kind is ProofKind.READ_BACK_OFF
                else "reads OFF, and was seen ON while this boot was alive"
            )
            return OffProof(
                host=spec.id,
                incarnation=incarnation,
                kind=kind,
                proven_at=now,
                sentence=f"{spec.id} is off: {names} {how}",
                evidence=used,
                life=life,
            )
    return None


def stands(proof: OffProof | None, incarnation: Incarnation, beat: Heartbeat | None) -> bool:
    """Whether a proof holds for this incarnation by itself. A later report of that very boot (`beat`) voids it.

    Before anything rests on it, ask `holds`: files may have withdrawn it.
    """
    if proof is None or proof.void or not incarnation or proof.incarnation != incarnation:
        return False
    return not contradicted(proof, beat)


def withdrawn(view: ClusterView, host: HostId, incarnation: Incarnation) -> bool:
    """Whether files say that this boot of `host` spoke after it was proven off.

    No device is believed about that boot any more, whatever a store that was rolled back says: only a person's later
    confirmation, written to the same file, is.
    """
    kept = view.proofs.get(host)
    return kept is not None and kept.void and kept.incarnation == incarnation


def holds(view: ClusterView, proof: OffProof | None, incarnation: Incarnation) -> bool:
    """Whether a proof may be used for this incarnation now: not contradicted by a report, not withdrawn in files."""
    if proof is None or not stands(proof, incarnation, heard(view, proof.host)) or spoke(proof, view):
        return False
    return not withdrawn(view, proof.host, incarnation)


def waits_for_files(view: ClusterView, proof: OffProof, grace_s: Seconds) -> bool:
    """Whether a proof of an earlier life of the store must not let VMs start yet, `grace_s` after the new one began.

    Newer files, which name a later boot as the last member, may still be on their way into the store. A device that
    reads OFF in this life needs no files.
    """
    if not from_earlier_life(proof, view) or view.now - view.life.since >= grace_s:
        return False
    spec = view.hosts.get(proof.host)
    read_off = spec and proof_from_readings(
        spec,
        proof.incarnation,
        view.life.since,
        view.readings.get(proof.host, ()),
        view.bindings,
        now=view.now,
        life=view.life.incarnation,
    )
    return not read_off


def contradicted(proof: OffProof, beat: Heartbeat | None) -> bool:
    """Whether that very boot was heard after it was read off (after the last answer the proof rests on)."""
    return beat is not None and beat.incarnation == proof.incarnation and beat.received_at > _off_since(proof)


def _off_since(proof: OffProof) -> Instant:
    return max((reading.answered_at for reading in proof.evidence), default=proof.proven_at)


def spoke(proof: OffProof, view: ClusterView) -> str:
    """Return how that very boot showed in this life that it lives after it was read off, or an empty string."""
    host = proof.host
    if contradicted(proof, heard(view, host)):
        return f"{host} reported"
    since = view.life.since if from_earlier_life(proof, view) else _off_since(proof)
    if wrote_after(host, proof.incarnation, since, view):
        return f"{host} wrote its slot on the shared storage"
    return ""


def from_earlier_life(proof: OffProof, view: ClusterView) -> bool:
    """Whether a remembered proof was made in an earlier life of the store, whose clock need not be this one's."""
    if proof.life:
        return proof.life != view.life.incarnation
    return not view.life.since <= proof.proven_at <= view.now


def remembered_voided(proof: OffProof, view: ClusterView) -> bool:
    """Whether the boot that a remembered proof is about was heard after it. Any report of this life is after an
    earlier one: the two clocks cannot be compared.
    """
    beat = heard(view, proof.host)
    if beat is not None and beat.incarnation == proof.incarnation and from_earlier_life(proof, view):
        return True
    return bool(spoke(proof, view))


def remembered_proof(view: ClusterView, host: HostId) -> OffProof | None:
    """Return the proof that files remember of the last boot of `host` that was a member, if it still holds.

    It outlives the store (decision 7): that boot cannot come back, and a later one that was never a member owns
    nothing. Files that name a later member make it worthless.
    """
    proof, doc = view.proofs.get(host), view.host_docs.get(host)
    if proof is None or proof.void or doc is None or not doc.incarnation or doc.incarnation != proof.incarnation:
        return None
    return None if remembered_voided(proof, view) else proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """Whether a living host could be fenced now, and if not, why: one sentence per device."""

    protected: bool
    sentences: tuple[str, ...]


def protection(view: ClusterView, spec: HostSpec, incarnation: Incarnation) -> Protection:
    """Return whether some level of the host has all its devices bound to `incarnation`."""
    if not spec.fencing:
        return Protection(protected=False, sentences=(f"{spec.id} has no fence device",))
    sentences = tuple(
        f"{device}: {binding_state(view.bindings.get((spec.id, device)), incarnation)}"
        for level in spec.fencing
        for device in level
    )
    return Protection(protected=is_protected(view, spec, incarnation), sentences=sentences)


def is_protected(view: ClusterView, spec: HostSpec, incarnation: Incarnation) -> bool:
    """Whether some level of the host has all its devices bound to `incarnation`."""
    for level in spec.fencing:
        for device in level:
            if binding_state(view.bindings.get((spec.id, device)), incarnation) is not BindingState.BOUND:
                break
        else:
            if level:
                return True
    return False
