"""Wishes about a host's power: to fence it, and a person's word that it is off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fangnetz.core.actions import (
    Action,
    EndOperation,
    Granting,
    Happened,
    OpenOperation,
    PutHost,
    PutHostDoc,
    PutVm,
    RememberProof,
)
from fangnetz.core.decide.openings import failover_of, new_failover, wished_operation_id
from fangnetz.core.decide.outside import last_boot
from fangnetz.core.decide.questions import ASK_PAUSE_MAX_S
from fangnetz.core.detector import Verdict, Watch, heard
from fangnetz.core.errors import WishRefused
from fangnetz.core.fencing import holds, of_another_host
from fangnetz.core.lifecycle import HostEvent, next_state
from fangnetz.core.model import (
    UNKNOWN_BOOT,
    Answer,
    ClusterView,
    HostState,
    OffProof,
    Power,
    ProofKind,
    Wish,
)
from fangnetz.core.operations import OperationState
from fangnetz.core.ownership import (
    proof_of,
)
from fangnetz.core.policy import Policy
from fangnetz.core.slots import evidence_of
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant


def _refuse_if_booted_anew(wish: Wish, latest: Incarnation) -> None:
    """A wish about power is about the boot its writer saw: nobody meant what a later one runs."""
    if wish.boot and wish.boot != latest:
        known = "nobody can tell its last boot any more" if latest == UNKNOWN_BOOT else f"its last boot is {latest[:8]}"
        raise WishRefused(
            f"{wish.by} meant boot {wish.boot[:8]} of {wish.subject}, and {known}: look at it again, then say it again"
        )


def fence(wish: Wish, host: HostId, view: ClusterView, verdicts: Mapping[HostId, Verdict], epoch: Epoch) -> Granting:
    verdict, record = verdicts[host], view.record_of(host)
    if not verdict.incarnation:
        raise WishRefused(f"{host} has never been heard: there is no boot of it to fence")
    _refuse_if_booted_anew(wish, verdict.incarnation)
    if verdict.incarnation == UNKNOWN_BOOT:
        raise WishRefused(
            f"nobody can tell which boot of {host} was the last, so no cut could be proven: make sure by hand that it "
            f"is off, then `fangnetz host confirm-off {host}`"
        )
    if holds(view, record.proof, verdict.incarnation):
        raise WishRefused(f"{host} is proven off already")
    running = failover_of(host, view)
    if running:
        raise WishRefused(f"{running} is already at work on {host}")
    reason = f"{wish.by} asked to fence {host}"
    operation = new_failover(
        host, verdict.incarnation, view, epoch, reason, forced_by=wish.by, suspected_at=wish.at,
        identity=wished_operation_id(wish),
    )  # fmt: skip
    put = PutHost(
        record=replace(
            record, state=next_state(record.state, HostEvent.FENCING), since=view.now, reason=reason,
            incarnation=verdict.incarnation,
        )
    )  # fmt: skip
    known = _known_boot(host, verdict.incarnation, view)
    return [*known, OpenOperation(operation=operation), put], f"{host} is being fenced", operation.id


def _known_boot(host: HostId, incarnation: Incarnation, view: ClusterView) -> list[Action]:
    """Return what makes files name this boot, as its record will."""
    doc = view.doc_of(host)
    return [] if doc.incarnation == incarnation else [PutHostDoc(doc=replace(doc, incarnation=incarnation))]


def signs_of_life(host: HostId, view: ClusterView, verdicts: Mapping[HostId, Verdict], policy: Policy) -> str:
    """Return what speaks for the host being alive, or an empty string."""
    verdict = verdicts[host]
    if verdict.fresh:
        return f"{host} reports"
    if verdict.silent_for < policy.window_s:
        return f"{host} reported {verdict.silent_for:.1f} s ago; wait out its window of {policy.window_s:g} s"
    for probe in view.probes:
        answer = probe.answer(host)
        if answer is not None and answer.alive and view.now - probe.ended_at <= policy.probe_fresh_s:
            return f"{host} answers the probe of {probe.prober}"
    if _writes_its_slot(host, view, policy):
        return f"{host} writes its slot on the shared storage"
    said_lately = 2 * policy.window_s + ASK_PAUSE_MAX_S + policy.power_ask_s  # no gap between two questions
    for reading in view.readings.get(host, ()):
        if of_another_host(view, reading):
            continue  # wired crosswise: it says nothing of this one, and nobody could ever confirm it off
        if reading.power is Power.ON and view.now - reading.answered_at <= said_lately:
            return f"{reading.device} of {host} reads ON"
    return ""


def _writes_its_slot(host: HostId, view: ClusterView, policy: Policy) -> bool:
    beat = heard(view, host)
    slot = evidence_of(host, beat.received_at if beat is not None else view.life.since, view, policy)
    return slot is not None and slot.answer is Answer.YES


def confirm_off(
    wish: Wish,
    host: HostId,
    view: ClusterView,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
    epoch: Epoch,
) -> Granting:
    verdict, record = verdicts[host], view.record_of(host)
    if not verdict.incarnation:
        raise WishRefused(f"{host} has never been heard: there is no boot of it to confirm")
    _refuse_if_booted_anew(wish, verdict.incarnation)
    incarnation = _boot_to_confirm(verdict.incarnation, host, wish, view)
    if holds(view, record.proof, verdict.incarnation):
        raise WishRefused(f"{host} is proven off already")
    beat = heard(view, host)
    if beat is not None and beat.received_at > wish.at:
        raise WishRefused(f"{host} cannot be confirmed off: it reported after {wish.by} had confirmed it")
    life = signs_of_life(host, view, verdicts, policy)
    if life:
        raise WishRefused(f"{host} cannot be confirmed off: {life}")
    proof = _word_of(wish, host, incarnation, view)
    actions: list[Action] = []
    running = failover_of(host, view)
    if running:
        actions.append(
            EndOperation(id=running, state=OperationState.CANCELLED, sentence=f"{proof.sentence}; a new one recovers")
        )
    operation = new_failover(
        host, incarnation, view, epoch, proof.sentence, proof=proof, suspected_at=record.suspected_at,
        identity=wished_operation_id(wish),
    )  # fmt: skip
    put = PutHost(
        record=replace(record, state=next_state(record.state, HostEvent.FENCING), since=view.now,
                       reason=proof.sentence, incarnation=incarnation)
    )  # fmt: skip
    # In files before anything rests on it: there it replaces a proof that was withdrawn.
    known = _known_boot(host, incarnation, view)
    kept = [record for record in view.vm_records.values() if record.owner == host and record.kept]
    actions.extend(PutVm(record=replace(one, kept=Generation(0)), expected=one.generation) for one in kept)
    actions.extend([*known, RememberProof(proof=proof), OpenOperation(operation=operation), put])
    freed = ", ".join(sorted(one.id for one in kept if one.kept == one.generation))
    sentence = f"{proof.sentence}; what was stopped with it starts elsewhere: {freed}" if freed else proof.sentence
    return actions, sentence, operation.id


def _word_of(wish: Wish, host: HostId, incarnation: Incarnation, view: ClusterView, note: str = "") -> OffProof:
    """Return a person's word as a proof."""
    return OffProof(
        host=host,
        incarnation=incarnation,
        kind=ProofKind.OPERATOR,
        proven_at=view.now,
        life=view.life.incarnation,
        sentence=f"{wish.by} confirmed that {host} (boot {incarnation[:8]}{note}) is off",
    )


def _boot_to_confirm(latest: Incarnation, host: HostId, wish: Wish, view: ClusterView) -> Incarnation:
    """Return the boot that a person's word is about. Where nobody can tell the last one, the word is about the host
    whatever its boot: it goes by the boot the store knows, or by a name that no boot and no other wish has.
    """
    if latest != UNKNOWN_BOOT:
        return latest
    record = view.host_records.get(host)
    owned = sorted(vm.owner_incarnation for vm in view.vm_records.values() if vm.owner == host)
    recorded = record.incarnation if record is not None and record.incarnation != UNKNOWN_BOOT else Incarnation("")
    return recorded or Incarnation("".join(owned[-1:])) or Incarnation(f"{UNKNOWN_BOOT}{wish.id}")


def confirm_off_outside(wish: Wish, host: HostId, view: ClusterView, watch: Watch, policy: Policy) -> Granting:
    """A host only remembered: nobody can probe or fence it any more, so the person's word is the proof."""
    beat, latest = heard(view, host), last_boot(view, host)
    _refuse_if_booted_anew(wish, latest)
    incarnation = _boot_to_confirm(latest, host, wish, view)
    if proof_of(view, host, latest) is not None:
        raise WishRefused(f"{host} is proven off already")
    if beat is not None and beat.received_at > wish.at:
        raise WishRefused(f"{host} cannot be confirmed off: it reported after {wish.by} had confirmed it")
    # What the store heard while it was away, or before its life began, nobody knows: the window starts anew.
    silent_since = max(watch.since, beat.received_at if beat is not None else Instant(0.0))
    if view.now - silent_since < policy.window_s:
        raise WishRefused(f"{host} cannot be confirmed off before nothing was heard of it for {policy.window_s:g} s")
    if _writes_its_slot(host, view, policy):
        raise WishRefused(f"{host} cannot be confirmed off: it writes its slot on the shared storage")
    proof = _word_of(wish, host, incarnation, view, ", not in the cluster file")
    record = view.record_of(host)
    put = PutHost(
        record=replace(record, state=HostState.FENCED, since=view.now, reason=proof.sentence, incarnation=incarnation,
                       proof=proof, cut_by=None)
    )  # fmt: skip
    event = Happened(
        kind="host_confirmed_off",
        subject=host,
        sentence=proof.sentence,
        facts={"host": host, "by": wish.by, "incarnation": incarnation},
    )
    # The proof holds once files name that boot and it; the record is for people.
    return [*_known_boot(host, incarnation, view), RememberProof(proof=proof), put, event], proof.sentence, None
