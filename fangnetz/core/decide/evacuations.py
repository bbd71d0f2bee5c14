"""Hosts that are being emptied, and VMs on their way home: which moves begin in this tick, and what is still left.

Asked anew in every tick from what is so: whatever moved by other means has left, and what failed is tried again later.
A VM that does not move stays and runs where it is, or is stopped there if its fallback says so; nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from fangnetz.core.actions import Action, Alarm, PutHost, PutHostDoc
from fangnetz.core.decide.pacing import Pace
from fangnetz.core.detector import Verdict, Watch, heard
from fangnetz.core.evacuation import EvacuationPlan, plan_evacuation, vms_on, why_not_stopped
from fangnetz.core.leaving import Parting, leaving, parting, told
from fangnetz.core.model import ClusterView, HostDoc, HostState, HypervisorHealth, VmRecord, VmState
from fangnetz.core.moving import Move, Stays, plan_moves
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, VmId

_EMPTIED = (HostState.EVACUATING, HostState.ONLINE)
"""Online: in this very tick it becomes the other."""


class Evacuations:
    """The decisions on hosts that are emptied or filled again, in one tick."""

    def __init__(
        self,
        view: ClusterView,
        watch: Watch,
        verdicts: Mapping[HostId, Verdict],
        policy: Policy,
        *,
        pace: Pace,
        documented: Collection[HostId],
    ) -> None:
        """`documented`: hosts whose document this tick writes already: one written over it would lose what it says."""
        self.documented = frozenset(documented)
        self.view, self.watch, self.verdicts, self.policy, self.pace = view, watch, verdicts, policy, pace
        self.docs: list[Action] = []
        self.records: list[Action] = []
        self.alarms: list[Alarm] = []

    def decide(self) -> tuple[list[Action], list[Alarm]]:
        for host in sorted(self.view.hosts):
            if host in self.documented:
                continue
            doc = self._without_the_started(self.view.doc_of(host))
            going = parting(self.view, host, self.verdicts, self.policy)
            if going is Parting.EVACUATE or (going is Parting.NONE and doc.evacuate and not doc.maintenance):
                self._empty(host, doc)
            elif doc.failback and not doc.maintenance:
                self._fill(host, doc)
            elif doc.stopped != self.view.doc_of(host).stopped:
                self.docs.append(PutHostDoc(doc=doc))
        return [*self.docs, *self.pace.begun, *self.records], self.alarms

    # -- emptying --

    def _empty(self, host: HostId, doc: HostDoc) -> None:
        record, verdict = self.view.host_records.get(host), self.verdicts[host]
        going_down = record is not None and record.state is HostState.MAINTENANCE and not doc.evacuate
        if record is None or not (record.state in _EMPTIED or going_down) or not verdict.fresh:
            return  # while it is silent or lost, its failover decides on its VMs
        left = vms_on(host, self.view)
        if not left:
            if (
                doc.evacuate
                and record.state is HostState.EVACUATING
                and self._knows_its_vms(host)
                and host not in self.pace.busy
                and host not in self.pace.awaited
                and not self.pace.unclear
                and not self.pace.coming[host]
            ):
                down = f"; {', '.join(doc.stopped)} stopped until it is activated" if doc.stopped else ""
                reason = f"{doc.reason}; every VM has left it{down}"
                self.docs.append(PutHostDoc(doc=replace(doc, maintenance=True, reason=reason)))
            return
        plan = plan_evacuation(host, self.view, self.watch, self.verdicts, self.policy)
        beat = leaving(self.view, host)
        why = doc.reason if doc.evacuate or beat is None else told(host, beat.leaving)
        begun = self.pace.begin_all(plan.moves, f"{host} is being emptied: {why}")
        known = doc
        if begun:
            gone = {move.vm for move in begun if doc.evacuate or self.pace.rules.fails_back(move.vm, True)}
            away = tuple(sorted({*doc.away, *gone} - self._at_home_elsewhere(host)))
            known = replace(doc, away=away, failback=not doc.evacuate)  # one that only goes down has them back
        stopped = self._begin_stops(plan, doc)
        if doc.evacuate:
            known = replace(known, stopped=tuple(sorted({*doc.stopped, *stopped})))
        if known != self.view.doc_of(host):
            self.docs.append(PutHostDoc(doc=known))
        self._say_what_is_left(doc, why, left, plan)

    def _begin_stops(self, plan: EvacuationPlan, doc: HostDoc) -> list[VmId]:
        """Stop what is to stay down, and return what of it has its turn. Files name it before it is stopped.

        Of a host that only goes down nobody says `activate` afterwards: these start again with it, as any it keeps.
        """
        until = f"it is stopped until {doc.id} is {'activated' if doc.evacuate else 'back'}"
        return [
            one.vm
            for one in plan.stops
            if self.pace.begin_stop(
                one.vm, f"{one.because}: {until}", kept=not doc.evacuate, again=one.vm in doc.stopped
            )
        ]

    def _without_the_started(self, doc: HostDoc) -> HostDoc:
        """Return the document without those that run after all, by whomever they were started, or are not known."""
        down = tuple(vm for vm in doc.stopped if vm in self.pace.busy or self._is_to_be_down(vm, doc))
        return replace(doc, stopped=down) if down != doc.stopped else doc

    def _is_to_be_down(self, vm: VmId, doc: HostDoc) -> bool:
        record = self.view.vm_records.get(vm)
        if vm not in self.view.vms:
            return False
        runs = record is not None and record.state is VmState.RUNNING and not self._is_let_go(record)
        return not runs or (record is not None and record.owner == doc.id and not doc.maintenance)  # stopped again

    def _is_let_go(self, record: VmRecord) -> bool:
        """Whether its owner has just promised not to start it again, and may not have listed its VMs since."""
        beat = heard(self.view, record.owner) if record.owner is not None else None
        return beat is not None and beat.promised(record.id) >= record.generation

    def _at_home_elsewhere(self, host: HostId) -> frozenset[VmId]:
        """Return the VMs that came only because another host was emptied: that one is where they go home to."""
        return frozenset(vm for other in self.view.host_docs.values() if other.id != host for vm in other.away)

    def _knows_its_vms(self, host: HostId) -> bool:
        beat = heard(self.view, host)
        return beat is not None and beat.hypervisor is HypervisorHealth.OK

    def _say_what_is_left(self, doc: HostDoc, because: str, left: tuple[VmId, ...], plan: EvacuationPlan) -> None:
        host, within = doc.id, f"within {self.policy.move_again_s:g} s"
        why = {one.vm: one.because for one in plan.stays if one.vm not in self.pace.busy}
        down = {one.vm: one.because for one in plan.stops}
        for vm in left:
            record = self.view.vm_records.get(vm)
            if record is None:
                continue
            if vm in doc.stopped and self._stop_failed(record):
                why[vm] = f"its stop came to nothing; it is tried again {within}"
            elif vm not in why and vm not in self.pace.busy and self.pace.tried_lately(vm):
                why[vm] = (
                    f"{down[vm]}; it is stopped {within}"
                    if vm in down
                    else f"its move came to nothing; it is tried again {within}"
                )
        if why:
            told = "; ".join(f"{vm}: {because}" for vm, because in sorted(why.items()))
            self.alarms.append(
                Alarm(kind="evacuation_waits", subject=host, sentence=f"{host} has {len(left)} left, because {told}")
            )
        known = self.view.host_records[host]
        reason = f"{because}; {len(left)} left"
        if known.reason != reason and host not in self.pace.busy:
            self.records.append(PutHost(record=replace(known, reason=reason)))

    def _stop_failed(self, record: VmRecord) -> bool:
        """Whether one that is to be stopped runs on: before it is tried again, and while it is."""
        if record.state is VmState.STOPPING:
            return record.tries > 0
        return record.state is VmState.RUNNING and not self._is_let_go(record)

    # -- filling again --

    def _fill(self, host: HostId, doc: HostDoc) -> None:
        record = self.view.host_records.get(host)
        if record is None or record.state is not HostState.ONLINE or not self.verdicts[host].fresh:
            return
        away = tuple(vm for vm in doc.away if self._is_away(vm, host) or vm in self.pace.on_the_way)
        there = [vm for vm in away if vm not in self.pace.on_the_way]
        kept = [
            Stays(vm=vm, because=why)
            for vm in there
            if not self.view.vms[vm].spec.live and (why := why_not_stopped(vm, self.view, self.policy))
        ]
        able = [vm for vm in there if vm not in {one.vm for one in kept}]
        found = (*kept, *plan_moves(able, self.view, self.watch, self.verdicts, self.policy, target=host))
        self.pace.begin_all((move for move in found if isinstance(move, Move)), f"{host} is back: it goes home")
        for one in found:
            if isinstance(one, Stays) and one.vm not in self.pace.busy:
                sentence = f"{one.vm} cannot go home to {host} yet: {one.because}"
                self.alarms.append(Alarm(kind="failback_waits", subject=one.vm, sentence=sentence))
        if away != doc.away or not away:
            self.docs.append(PutHostDoc(doc=replace(doc, away=away, failback=bool(away))))

    def _is_away(self, vm: VmId, home: HostId) -> bool:
        """Whether it is still to go home: not if it was stopped or removed meanwhile, or would leave again at once."""
        doc, record = self.view.vms.get(vm), self.view.vm_records.get(vm)
        if doc is None or not doc.to_run or record is None or record.owner is None or record.owner == home:
            return False
        rules = self.pace.rules
        leaves = rules.weight(vm, record.owner) > rules.weight(vm, home)
        return not (leaves and rules.fails_back(vm, self.policy.failback))
