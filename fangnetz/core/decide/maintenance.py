"""Operators' wishes to take a host out for work, emptied or not, and to bring it back. Nothing is moved here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fangnetz.core.actions import Action, Granting, PutHost, PutHostDoc, PutVm
from fangnetz.core.decide.openings import failover_of
from fangnetz.core.decide.returns import obstacle_to_return
from fangnetz.core.detector import Finding, Verdict, Watch, heard
from fangnetz.core.errors import WishRefused
from fangnetz.core.evacuation import plan_evacuation, vms_on
from fangnetz.core.model import ClusterView, HostDoc, HostState, VmState, Wish
from fangnetz.core.policy import Policy
from fangnetz.core.rules import RuleBook
from fangnetz.core.units import HostId, Instant, VmId


def maintain(wish: Wish, host: HostId, view: ClusterView) -> Granting:
    """Have a host take no VMs and be cut by nobody; what runs there runs on."""
    known = view.doc_of(host)
    doc = replace(known, maintenance=True, reason=f"{wish.by} asked for maintenance")
    return [PutHostDoc(doc=doc)], f"{host} is in maintenance: it takes no new VMs and is not fenced", None


def evacuate(
    wish: Wish,
    host: HostId,
    view: ClusterView,
    watch: Watch,
    verdicts: Mapping[HostId, Verdict],
    policy: Policy,
) -> Granting:
    """Have a host emptied; of one that is lost or off it is remembered. Said again, it goes on with what is left."""
    known = view.doc_of(host)
    left = vms_on(host, view)
    if known.maintenance and not left:
        raise WishRefused(f"{host} is in maintenance already, and nothing runs there")
    if known.maintenance and not verdicts[host].fresh:
        raise WishRefused(
            f"{host} is in maintenance and does not report: nothing can leave it now, and to empty it would end the "
            "maintenance, which keeps it from being fenced"
        )
    reason = f"{wish.by} asked to empty it"
    doc = replace(known, evacuate=True, maintenance=False, failback=False, reason=reason)
    again = _tried_anew(left, view, live=not known.evacuate)
    if not verdicts[host].fresh:
        return [PutHostDoc(doc=doc)], f"{host} is not well; it is emptied once it reports: what runs there leaves", None
    plan = plan_evacuation(host, view, watch, verdicts, policy)
    sentence = f"{host} is being emptied: {len(plan.moves)} of {len(left)} VMs leave"
    if plan.stops:
        down = "; ".join(f"{one.vm}: {one.because}" for one in plan.stops)
        sentence += f"; {len(plan.stops)} are stopped until it is activated again, because {down}"
    if plan.stays:
        told = "; ".join(f"{one.vm}: {one.because}" for one in plan.stays)
        sentence += f"; for now {len(plan.stays)} stay, because {told}"
    return [PutHostDoc(doc=doc), *again], sentence, None


def _tried_anew(vms: Iterable[VmId], view: ClusterView, *, live: bool = False) -> list[Action]:
    """Return what lets moves of these VMs begin at once: a person asks for them, whatever became of the last ones.

    `live`: also those whose live migration failed are tried while they run.
    """
    actions: list[Action] = []
    for record in (view.vm_records.get(vm) for vm in vms):
        if record is not None and (record.tried_at or (live and record.stuck_at)):
            stuck_at = Instant(0.0) if live else record.stuck_at
            anew = replace(record, tried_at=Instant(0.0), tries=0, stuck_at=stuck_at)
            actions.append(PutVm(record=anew, expected=record.generation))
    return actions


def activate(
    wish: Wish, host: HostId, view: ClusterView, verdicts: Mapping[HostId, Verdict], policy: Policy
) -> Granting:
    """Have a host take VMs again. Those that left it come home if the wish, their rules or the policy say so."""
    record, beat, doc = view.host_records.get(host), heard(view, host), view.host_docs.get(host)
    if record is None or beat is None or not verdicts[host].fresh:
        raise WishRefused(f"{host} does not report: it joins only once its worker is heard")
    if record.state is HostState.ONLINE and not (doc and (doc.maintenance or doc.evacuate or doc.failback)):
        raise WishRefused(f"{host} is online already")
    if verdicts[host].finding is Finding.DEGRADED:
        raise WishRefused(verdicts[host].sentence)
    running = failover_of(host, view)
    if running:
        raise WishRefused(f"{running} is still at work on {host}")
    obstacle = obstacle_to_return(host, beat, record, view, policy)
    if obstacle:
        raise WishRefused(obstacle)
    put = PutHost(
        record=replace(record, state=HostState.ONLINE, since=view.now, reason="an operator activated it",
                       incarnation=beat.incarnation, proof=None, cut_by=None, suspected_at=None, exits=())
    )  # fmt: skip
    known = replace(doc or HostDoc(id=host), incarnation=beat.incarnation)
    rules = RuleBook.of(view.vms.values())
    home = tuple(vm for vm in known.away if wish.failback or rules.fails_back(vm, policy.failback))
    down = known.stopped
    if known.maintenance or known.evacuate or known.failback:
        known = replace(known, maintenance=False, evacuate=False, reason="", failback=bool(home), away=home, stopped=())
    known = replace(known, quarantine="")
    docs: list[Action] = [PutHostDoc(doc=known)] if known != doc else []
    docs += _tried_anew(home, view)
    docs += [
        PutVm(
            record=replace(waits, since=view.now, reason=f"{host} was activated", tried_at=Instant(0.0), tries=0),
            expected=waits.generation,
        )
        for vm in down
        if (waits := view.vm_records.get(vm)) is not None and waits.state is VmState.WAITING
    ]
    coming = f", and {len(home)} VMs come home" if home else ""
    starting = f", and what was stopped starts again: {', '.join(down)}" if down else ""
    return [*docs, put], f"{host} is online{coming}{starting}", None
