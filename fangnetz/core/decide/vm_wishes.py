"""Wishes about one VM: to add, start, stop, ignore and remove it, and to forget a record nobody can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fangnetz.core.actions import (
    Action,
    ForgetRecord,
    ForgetVm,
    Granting,
    Happened,
    PutHostDoc,
    PutVm,
    PutVmDoc,
)
from fangnetz.core.decide.mending import copies_of, unseen_copies
from fangnetz.core.detector import Verdict
from fangnetz.core.errors import WishRefused
from fangnetz.core.identity import marks, shared
from fangnetz.core.model import (
    DROPPED,
    FROM_FILE,
    REMOVED,
    ClusterView,
    VmDoc,
    VmState,
    VmWish,
    Wish,
)
from fangnetz.core.operations import OperationKind
from fangnetz.core.ownership import (
    Granted,
    end_the_held,
    held_on,
    may_run,
    owner_let_go,
    paused_on,
    seen_gone,
    seen_running,
)
from fangnetz.core.policy import Policy
from fangnetz.core.rules import RuleBook, contradictions
from fangnetz.core.units import Generation, HostId, VmId


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


def add(wish: Wish, view: ClusterView, hold: tuple[HostId, ...], policy: Policy) -> Granting:
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


def start(vm: VmId, view: ClusterView) -> Granting:
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


def stop(vm: VmId, view: ClusterView) -> Granting:
    doc = view.vms[vm]
    if doc.source == REMOVED:
        raise WishRefused(f"{vm} is removed: it is not managed any more")
    if doc.wish is VmWish.STOPPED:
        raise WishRefused(f"{vm} is wished to be stopped already")
    return [PutVmDoc(doc=replace(doc, wish=VmWish.STOPPED))], f"{vm} is wished to stop", None


def ignore(vm: VmId, view: ClusterView) -> Granting:
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


def forget(wish: Wish, vm: VmId, view: ClusterView, hold: tuple[HostId, ...], policy: Policy) -> Granting:
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


def remove(
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
