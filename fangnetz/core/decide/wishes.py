"""Operators' wishes: each is granted or refused once, with a sentence, by the same tick that decides all else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fangnetz.core.actions import (
    Action,
    EndOperation,
    ForgetRecord,
    ForgetVm,
    Granting,
    Happened,
    OpenOperation,
    PutHost,
    PutHostDoc,
    PutVm,
    PutVmDoc,
    RememberProof,
    SettleWish,
)
from fangnetz.core.decide.maintenance import activate, evacuate, maintain
from fangnetz.core.decide.mending import copies_of, how_to_mend, unseen_copies
from fangnetz.core.decide.moves import cancel, move
from fangnetz.core.decide.openings import failover_of, new_failover, wished_operation_id
from fangnetz.core.decide.outside import last_boot
from fangnetz.core.decide.questions import ASK_PAUSE_MAX_S
from fangnetz.core.detector import Verdict, Watch, heard
from fangnetz.core.errors import WishRefused
from fangnetz.core.fencing import holds, of_another_host
from fangnetz.core.identity import marks, shared
from fangnetz.core.lifecycle import HostEvent, next_state
from fangnetz.core.model import (
    DROPPED,
    FROM_FILE,
    REMOVED,
    UNKNOWN_BOOT,
    ClusterView,
    HostState,
    OffProof,
    PauseDoc,
    Power,
    ProofKind,
    VmDoc,
    VmState,
    VmWish,
    Wish,
    WishKind,
)
from fangnetz.core.operations import OperationKind, OperationState
from fangnetz.core.ownership import (
    Granted,
    end_the_held,
    held_on,
    may_run,
    owner_let_go,
    paused_on,
    proof_of,
    seen_gone,
    seen_running,
)
from fangnetz.core.pause import HOW_TO_END, pause, resume, told
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import unheard_in_this_life
from fangnetz.core.rules import RuleBook, contradictions
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, VmId


def decide_wish(
    wish: Wish, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy, epoch: Epoch
) -> list[Action]:
    """Return the actions that carry out or refuse one wish; the last one settles it.

    Granted once more, after a crash before it was settled, a wish has no effect that it did not have already.
    """
    try:
        _refuse_if_stale(wish, view)
        actions, sentence, operation = _grant(wish, view, watch, verdicts, policy, epoch)
        if view.paused is not None and wish.kind not in _ABOUT_THE_PAUSE:
            sentence = _in_the_pause(actions, sentence, view.paused)
    except WishRefused as refusal:
        return [SettleWish(wish=wish, granted=False, sentence=str(refusal))]
    return [*actions, SettleWish(wish=wish, granted=True, sentence=sentence, operation=operation)]


_ABOUT_THE_PAUSE = frozenset({WishKind.CLUSTER_PAUSE, WishKind.CLUSTER_RESUME})


def _in_the_pause(actions: Iterable[Action], sentence: str, pause: PauseDoc) -> str:
    """Return what is answered to a wish while the cluster is paused. WishRefused if it would order something now.

    What is only written down is kept: the tick that follows the pause sees it.
    """
    if any(isinstance(action, OpenOperation) for action in actions):
        raise WishRefused(f"{told(pause)}. {HOW_TO_END}; then say it again")
    return f"{sentence}; the cluster is paused, and what follows from it is ordered only afterwards"


WISH_AGE_MAX_S = 60.0
"""A wish that touches power or rests on what a person saw is not carried out later than this."""


def _refuse_if_stale(wish: Wish, view: ClusterView) -> None:
    age = view.now - wish.at
    if wish.kind in (WishKind.HOST_FENCE, WishKind.HOST_CONFIRM_OFF) and age > WISH_AGE_MAX_S:
        raise WishRefused(f"the wish is {age:.0f} s old; what {wish.by} saw then need not be so now: say it again")


def _refuse_if_booted_anew(wish: Wish, latest: Incarnation) -> None:
    """A wish about power is about the boot its writer saw: nobody meant what a later one runs."""
    if wish.boot and wish.boot != latest:
        known = "nobody can tell its last boot any more" if latest == UNKNOWN_BOOT else f"its last boot is {latest[:8]}"
        raise WishRefused(
            f"{wish.by} meant boot {wish.boot[:8]} of {wish.subject}, and {known}: look at it again, then say it again"
        )


def _grant(  # noqa: PLR0911, PLR0912 - one case a kind of wish
    wish: Wish, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy, epoch: Epoch
) -> Granting:
    match wish.kind:
        case WishKind.HOST_FENCE:
            return _fence(wish, _host(wish, view), view, verdicts, epoch)
        case WishKind.HOST_CONFIRM_OFF if wish.subject in view.outside:
            return _confirm_off_outside(wish, HostId(wish.subject), view, watch, policy)
        case WishKind.HOST_CONFIRM_OFF:
            return _confirm_off(wish, _host(wish, view), view, verdicts, policy, epoch)
        case WishKind.HOST_ACTIVATE:
            return activate(wish, _host(wish, view), view, verdicts, policy)
        case WishKind.HOST_MAINTENANCE:
            return maintain(wish, _host(wish, view), view)
        case WishKind.HOST_EVACUATE:
            return evacuate(wish, _host(wish, view), view, watch, verdicts, policy)
        case WishKind.VM_ADD:
            return _add(wish, view, unheard_in_this_life(view, watch, policy), policy)
        case WishKind.VM_START:
            return _start(_vm(wish, view), view)
        case WishKind.VM_IGNORE:
            return _ignore(_vm(wish, view), view)
        case WishKind.VM_STOP:
            return _stop(_vm(wish, view), view)
        case WishKind.VM_MIGRATE | WishKind.VM_RELOCATE:
            return move(wish, _vm(wish, view), view, watch, verdicts, policy, epoch)
        case WishKind.OPERATION_CANCEL:
            return cancel(wish, view)
        case WishKind.CLUSTER_PAUSE:
            return pause(wish, view)
        case WishKind.CLUSTER_RESUME:
            return resume(wish, view)
        case WishKind.VM_REMOVE if wish.subject in view.unreadable_records:
            return _forget(wish, VmId(wish.subject), view, unheard_in_this_life(view, watch, policy), policy)
        case WishKind.VM_REMOVE:
            hold = unheard_in_this_life(view, watch, policy)
            return _remove(wish, _vm(wish, view), view, verdicts, hold)


def _host(wish: Wish, view: ClusterView) -> HostId:
    host = HostId(wish.subject)
    if host not in view.hosts:
        raise WishRefused(f"{wish.subject} is no host of this cluster; it has {', '.join(sorted(view.hosts))}")
    return host


def _vm(wish: Wish, view: ClusterView) -> VmId:
    vm = VmId(wish.subject)
    if vm in view.unreadable_vms:
        raise WishRefused(how_to_mend(view)[vm])
    if vm not in view.vms:
        raise WishRefused(f"{wish.subject} is no VM of this cluster")
    return vm


def _fence(wish: Wish, host: HostId, view: ClusterView, verdicts: Mapping[HostId, Verdict], epoch: Epoch) -> Granting:
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
    said_lately = 2 * policy.window_s + ASK_PAUSE_MAX_S + policy.power_ask_s  # no gap between two questions
    for reading in view.readings.get(host, ()):
        if of_another_host(view, reading):
            continue  # wired crosswise: it says nothing of this one, and nobody could ever confirm it off
        if reading.power is Power.ON and view.now - reading.answered_at <= said_lately:
            return f"{reading.device} of {host} reads ON"
    return ""


def _confirm_off(
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
    proof = OffProof(
        host=host,
        incarnation=incarnation,
        kind=ProofKind.OPERATOR,
        proven_at=view.now,
        life=view.life.incarnation,
        sentence=f"{wish.by} confirmed that {host} (boot {incarnation[:8]}) is off",
    )
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


def _confirm_off_outside(wish: Wish, host: HostId, view: ClusterView, watch: Watch, policy: Policy) -> Granting:
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
    proof = OffProof(
        host=host,
        incarnation=incarnation,
        kind=ProofKind.OPERATOR,
        proven_at=view.now,
        life=view.life.incarnation,
        sentence=f"{wish.by} confirmed that {host} (boot {incarnation[:8]}, not in the cluster file) is off",
    )
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


def _refuse_rules(doc: VmDoc, view: ClusterView) -> None:
    """WishRefused if the rules of a new VM name what there is not, or can never be kept beside those of others."""
    given, vm = doc.spec.rules, doc.spec.id
    for host in (*given.allowed, *(host for host, _ in given.preferred)):
        if host not in view.hosts:
            raise WishRefused(f"{host} is no host of this cluster; it has {', '.join(sorted(view.hosts))}")
    for other in (*given.together, *given.apart):
        if other == vm or other not in view.vms:
            raise WishRefused(f"{vm} cannot have a rule about {other}: it must be another VM of this cluster")
    all_of_them = {name: one.spec.rules for name, one in view.vms.items()} | {vm: given}
    why = contradictions(RuleBook(all_of_them), all_of_them).get(vm)
    if why:
        raise WishRefused(f"the rules of {vm} can never be kept: {why}")


def _add(wish: Wish, view: ClusterView, hold: tuple[HostId, ...], policy: Policy) -> Granting:
    if wish.doc is None:
        raise WishRefused("the wish carries no definition")
    vm = wish.doc.spec.id
    old = view.vms.get(vm)
    if old == wish.doc:  # asked for once more
        return [], f"{vm} is added", None
    if old is not None and old.source != REMOVED:
        raise WishRefused(f"{vm} is defined already")
    mends: list[Action] = []
    _refuse_rules(wish.doc, view)
    _refuse_to_forget_a_disk(wish.doc, view, hold)
    if vm in view.unreadable_records:
        why, seen = unseen_copies(view, vm, hold, policy), copies_of(view, vm)
        if why or len(seen) > 1:
            why = why or f"it runs on {' and '.join(seen)}"
            raise WishRefused(f"{vm} cannot be taken up while its record cannot be read and more may run: {why}")
        mends = [
            ForgetRecord(vm=vm)
        ]  # until a copy is adopted, the last report of its host keeps others from starting it
    others = [name for name in view.unreadable_vms if name != vm]  # its own broken definition is what this mends
    if others:
        raise WishRefused(
            f"{vm} cannot be added while the definition or record of {', '.join(others)} cannot be read: "
            "it may have the same disk or the same name"
        )
    both = shared(wish.doc.spec, view.vms.values())
    if both:
        other, mark = next(iter(sorted(both.items())))
        raise WishRefused(f"{vm} has {mark} of {other}: two writers would destroy it; remove {other} first")
    if all(wish.doc.spec.memory_mib > host.memory_mib for host in view.hosts.values()):
        biggest = max(host.memory_mib for host in view.hosts.values())
        raise WishRefused(f"{vm} needs {wish.doc.spec.memory_mib} MiB; the biggest host has {biggest}")
    event = Happened(kind="vm_added", subject=vm, sentence=f"{wish.by} added {vm}", facts={"vm": vm})
    return [*mends, PutVmDoc(doc=wish.doc), event], f"{vm} is added", None


def _refuse_to_forget_a_disk(doc: VmDoc, view: ClusterView, hold: tuple[HostId, ...]) -> None:
    """Refuse a definition in the place of a broken one, or of one beside a broken record, while a copy may write a disk
    that it does not name: nobody would know of that disk any more, and another VM could be given it.
    """
    vm, had = doc.spec.id, view.set_aside.get(doc.spec.id)
    if vm not in view.unreadable_vms:
        return
    if had is None and vm not in view.unreadable_records:
        why = _not_yet_gone(vm, view, hold)
    else:  # that no copy runs unseen is asked of all hosts, below
        why = f"it runs on {seen}" if (seen := ", ".join(copies_of(view, vm))) else ""
    if not why:
        return
    if had is None:
        raise WishRefused(
            f"{vm} cannot be defined anew while a copy of it may run: nobody can tell which disk that copy writes. "
            f"Shut it down first, in the guest or by `virsh shutdown {vm}` on its host: {why}"
        )
    lacking = [mark for mark in marks(had.spec) if mark not in marks(doc.spec)]
    if lacking:
        raise WishRefused(
            f"{vm} runs with {' and '.join(lacking)}, which this definition lacks: give the one it had, or shut it "
            f"down first: {why}"
        )


_GONE = {DROPPED: "not in the cluster file any more", REMOVED: "removed"}


def _start(vm: VmId, view: ClusterView) -> Granting:
    doc, record = view.vms[vm], view.vm_records.get(vm)
    if doc.source in (DROPPED, REMOVED):
        raise WishRefused(f"{vm} is {_GONE[doc.source]}; put it back into the cluster file or `fangnetz vm add` it")
    if record is not None and record.state is VmState.RUNNING and doc.wish is VmWish.RUNNING:
        raise WishRefused(f"{vm} runs already on {record.owner}")
    held = held_on(view, vm)
    if held:
        raise WishRefused(f"{vm} cannot be started: {end_the_held(vm, held)}")
    paused = paused_on(view, vm)
    if paused and record is not None and record.state is VmState.NEEDS_PERSON:
        raise WishRefused(
            f"{vm} cannot be started while a copy of it is paused on {', '.join(paused)}: {record.reason}"
        )
    actions: list[Action] = [PutVmDoc(doc=replace(doc, wish=VmWish.RUNNING))]
    holding = [known for known in view.host_docs.values() if vm in known.stopped]
    actions += [PutHostDoc(doc=replace(known, stopped=tuple(sorted({*known.stopped} - {vm})))) for known in holding]
    waits = record is not None and record.state is VmState.WAITING
    held_back = (
        waits
        and record is not None
        and (bool(holding) or record.kept == record.generation or record.ended_on is not None)
    )
    if record is not None and (held_back or record.state in (VmState.FAILED, VmState.NEEDS_PERSON, VmState.STOPPED)):
        again = replace(
            record, state=VmState.WAITING, since=view.now, failures=0, reason="an operator wants it to run",
            kept=Generation(0),
        )  # fmt: skip
        actions.append(PutVm(record=again, expected=record.generation))
    elif record is not None and record.kept and record.state is VmState.UNMANAGED:  # ignored since it was stopped
        actions.append(PutVm(record=replace(record, kept=Generation(0)), expected=record.generation))
    return actions, f"{vm} is wished to run", None


def _stop(vm: VmId, view: ClusterView) -> Granting:
    doc = view.vms[vm]
    if doc.source == REMOVED:
        raise WishRefused(f"{vm} is removed: it is not managed any more")
    if doc.wish is VmWish.STOPPED:
        raise WishRefused(f"{vm} is wished to be stopped already")
    return [PutVmDoc(doc=replace(doc, wish=VmWish.STOPPED))], f"{vm} is wished to stop", None


def _ignore(vm: VmId, view: ClusterView) -> Granting:
    doc, record = view.vms[vm], view.vm_records.get(vm)
    if doc.source in (DROPPED, REMOVED):
        raise WishRefused(f"{vm} is {_GONE[doc.source]}: it is not managed any more")
    if doc.wish is VmWish.IGNORED:
        raise WishRefused(f"{vm} is not managed already")
    busy = next((op.id for op in view.operations.values() if op.subject == vm), None)
    if busy or (record is not None and record.moving is not None):
        raise WishRefused(f"{busy or 'a move of it'} is at work on {vm}: say it again once that has ended")
    sentence = f"{vm} is left alone, whatever becomes of it; `fangnetz vm start {vm}` takes it up again"
    return [PutVmDoc(doc=replace(doc, wish=VmWish.IGNORED))], sentence, None


def _forget(wish: Wish, vm: VmId, view: ClusterView, hold: tuple[HostId, ...], policy: Policy) -> Granting:
    """A VM whose record cannot be read: forgotten with it, once no host can have a copy. Its numbers do not come back:
    the next one is greater than the time by the store's clock.
    """
    seen = copies_of(view, vm)
    here = f"it runs on {', '.join(seen)}; `fangnetz vm add {vm} --xml FILE` takes it up again there" if seen else ""
    why = here or unseen_copies(view, vm, hold, policy)
    if why:
        raise WishRefused(f"the record of {vm} cannot be read, and a copy of it may run: {why}")
    sentence = f"{vm} is forgotten with its record that could not be read; no host had a copy"
    event = Happened(kind="vm_removed", subject=vm, sentence=f"{wish.by}: {sentence}", facts={"vm": vm})
    return [ForgetVm(vm=vm), event], sentence, None


def _remove(
    wish: Wish, vm: VmId, view: ClusterView, verdicts: Mapping[HostId, Verdict], hold: tuple[HostId, ...]
) -> Granting:
    """`hold`: hosts unheard in this life of the store, where a copy may run that nobody knows of."""
    doc = view.vms[vm]
    if doc.source == FROM_FILE:
        raise WishRefused(f"{vm} is declared in the cluster file; take it out there")
    if doc.source == REMOVED:
        return [], f"{vm} is removed already, and kept in mind until its copy is known to be gone", None
    busy = next((o.id for o in view.operations.values() if o.subject == vm), None)
    if busy:
        raise WishRefused(f"{busy} is at work on {vm}")
    record, seen = view.vm_records.get(vm), seen_running(view, vm)
    owner = verdicts.get(record.owner) if record is not None and record.owner is not None else None
    if record is not None and record.owner is not None and not seen and not (owner is not None and owner.fresh):
        let_go = owner_let_go(view, record)
        if not isinstance(let_go, Granted):
            raise WishRefused(f"{vm} may run where nobody sees it, and would be forgotten there: {let_go.because}")
    why = _not_yet_gone(vm, view, hold)
    if not why:
        event = Happened(kind="vm_removed", subject=vm, sentence=f"{wish.by} removed {vm}", facts={"vm": vm})
        return [ForgetVm(vm=vm), event], f"{vm} is removed from Fangnetz", None
    sentence = f"{vm} is removed from Fangnetz and not stopped: "
    if seen:
        sentence += f"its copy on {', '.join(seen)} runs on"
    else:
        sentence += f"{why}; it is kept in mind until its copy is known to be gone"
    event = Happened(kind="vm_removed", subject=vm, sentence=f"{wish.by}: {sentence}", facts={"vm": vm})
    # Kept in mind while it runs: its disk is still in use, and no other VM may have it.
    gone = replace(doc, source=REMOVED, wish=VmWish.IGNORED, declared=None)
    return [PutVmDoc(doc=gone), event], sentence, None


def _not_yet_gone(vm: VmId, view: ClusterView, hold: tuple[HostId, ...]) -> str:
    """Return why a copy of `vm` may run or be started still, or an empty string if it may be forgotten at once."""
    if hold:
        return f"{', '.join(hold)} has not been heard since the store's life began and may run it"
    record = view.vm_records.get(vm)
    for op in view.operations.values():  # its plan may be giving the VM to a host at this moment
        if (
            record is not None
            and op.kind is OperationKind.FAILOVER
            and (op.subject, op.incarnation) == (record.owner, record.owner_incarnation)
        ):
            return f"{op.id} may be about to start it"
    return "" if seen_gone(view, vm) else may_run(view, vm)
