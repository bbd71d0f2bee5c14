"""What a verdict on a host leads to: a change of its state, a failover, a brake, or a proof taken up or withdrawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fangnetz.core.actions import Action, Alarm, OpenOperation, PutHost, PutHostDoc, RememberProof
from fangnetz.core.decide.openings import new_failover
from fangnetz.core.decide.partings import followed
from fangnetz.core.decide.questions import bindings_to_remember, power_to_ask, protection_alarm
from fangnetz.core.decide.returns import switch_on_again, taken_back
from fangnetz.core.decide.steady import host_is_steady
from fangnetz.core.decide.withdrawals import endings, withdrawal, without_proof
from fangnetz.core.detector import Finding, Verdict, Watch, heard
from fangnetz.core.fencing import (
    BindingState,
    binding_state,
    from_earlier_life,
    holds,
    proof_from_readings,
    remembered_proof,
    remembered_voided,
    spoke,
    waits_for_files,
    withdrawn,
)
from fangnetz.core.leaving import said_goodbye
from fangnetz.core.lifecycle import HostEvent, next_state
from fangnetz.core.model import (
    ClusterView,
    HostDoc,
    HostRecord,
    HostSpec,
    HostState,
    HypervisorHealth,
    OffProof,
    Power,
    VmState,
)
from fangnetz.core.operations import Operation, OperationKind, StepKind
from fangnetz.core.ownership import seen_alive
from fangnetz.core.policy import IsolatedPolicy, Policy
from fangnetz.core.quarantine import exits_on_return, too_many, why_quarantined
from fangnetz.core.quorum import brakes
from fangnetz.core.units import Epoch, HostId, Incarnation

_EVENT: Mapping[Finding, HostEvent] = {
    Finding.ALIVE: HostEvent.HEARD,
    Finding.DEGRADED: HostEvent.SICK,
    Finding.SUSPECT: HostEvent.WORKER_SILENT,
    Finding.ISOLATED: HostEvent.ISOLATED,
    Finding.LOST: HostEvent.LOST,
    Finding.UNKNOWN: HostEvent.NOT_KNOWN,
}
_EMPTIABLE = frozenset({HostState.ONLINE, HostState.QUARANTINED})
_OWNED_STATES = frozenset(
    {VmState.RUNNING, VmState.STARTING, VmState.STOPPING, VmState.MOVING, VmState.LOST, VmState.UNKNOWN,
     VmState.NEEDS_PERSON}
)  # fmt: skip


class HostDecisions:
    """The decisions on one host in one tick, collected in order."""

    def __init__(
        self,
        spec: HostSpec,
        view: ClusterView,
        watch: Watch,
        verdicts: Mapping[HostId, Verdict],
        policy: Policy,
        epoch: Epoch,
    ) -> None:
        self.spec, self.view, self.watch, self.verdicts = spec, view, watch, verdicts
        self.policy, self.epoch = policy, epoch
        self.verdict = verdicts[spec.id]
        self.record = view.record_of(spec.id)
        self.beat = heard(view, spec.id)
        self.operations = [op for op in view.operations.values() if op.subject == spec.id]
        self.actions: list[Action] = []
        self.alarms: list[Alarm] = []

    def decide(self) -> tuple[list[Action], list[Alarm]]:
        """Return actions and alarms for this host."""
        self.actions.extend(bindings_to_remember(self.spec, self.view, self.verdict, self.beat, self.policy))
        asked = power_to_ask(self.spec, self.record, self.view, self.verdict, self.beat, self.policy)
        if asked is not None:
            self.actions.append(asked)
        if self.operations or not self._is_steady():
            self._decide()
        self.alarms.extend(protection_alarm(self.spec, self.view, self.verdict))
        return self.actions, self.alarms

    def _is_steady(self) -> bool:
        doc, remembered = self.view.host_docs.get(self.spec.id), self.view.proofs.get(self.spec.id)
        return host_is_steady(self.record, self.verdict, self.beat, doc, remembered)

    def _decide(self) -> None:
        if not self._old_boot_speaks():
            self._recall_proof()
            self._outlived_proof()
            failover = next((op for op in self.operations if op.kind is OperationKind.FAILOVER), None)
            if failover is None and not self._open_failover():
                self._follow_verdict()
                on = switch_on_again(self.record, self.verdict, self.operations, self.view, self.policy, self.epoch)
                self.actions.extend([OpenOperation(operation=on)] if on is not None else [])
            elif failover is not None and self._cutting(failover):
                if not self.verdict.fresh:
                    self._to(HostEvent.FENCING, failover.reason)
            elif failover is not None and self.verdict.fresh:
                self._follow_verdict()
        self._remember_boot()

    # -- memory --

    def _remember_boot(self) -> None:
        """Files name a member before the store does: after a wipe nobody may take an older boot for the last."""
        if self.verdict.fresh and self.beat is not None and self.record.incarnation == self.beat.incarnation:
            self._remember(self.record.incarnation)

    def _remember(self, incarnation: Incarnation) -> None:
        doc = self.view.doc_of(self.spec.id)
        if doc.incarnation != incarnation:
            self.actions.insert(0, PutHostDoc(doc=replace(doc, incarnation=incarnation)))

    def _recall_proof(self) -> None:
        """Take up again a proof that outlived the store, or withdraw it for good if that boot spoke."""
        host, remembered = self.spec.id, self.view.proofs.get(self.spec.id)
        if remembered is None or remembered.void:
            return
        if remembered_voided(remembered, self.view):
            sentence = f"{host} speaks as the very boot that was proven off ({remembered.sentence}): the proof is void"
            self.actions.append(RememberProof(proof=replace(remembered, void=True)))
            self.alarms.append(Alarm(kind="proof_void", subject=host, sentence=sentence, highest=True))
            return
        if self.verdict.fresh or remembered.incarnation != self.verdict.incarnation:
            return
        told = self.record.proof is not None and self.record.proof.incarnation == remembered.incarnation
        if told or remembered_proof(self.view, host) is None or self._failover_writes(remembered):
            return
        if waits_for_files(self.view, remembered, self.policy.startup_grace_s):
            return
        # The evidence's instants are another life's clock: whatever is heard from now on voids it.
        proof = replace(remembered, proven_at=self.view.now, evidence=(), life=self.view.life.incarnation)
        self._put(
            replace(
                self.record,
                state=next_state(self.record.state, HostEvent.PROVEN_OFF),
                since=self.view.now,
                reason=f"{remembered.sentence}; remembered from before the store's life began",
                incarnation=remembered.incarnation,
                proof=proof,
                cut_by=None,  # a person may have been at it since
            )
        )

    def _failover_writes(self, proof: OffProof) -> bool:
        """Whether a failover of this life is between its file and its record, which says more: whose cut it was."""
        return not from_earlier_life(proof, self.view) and any(
            op.kind is OperationKind.FAILOVER and op.incarnation == proof.incarnation for op in self.operations
        )

    def _outlived_proof(self) -> None:
        """A fenced host whose last boot is not the one that was proven off is not fenced: it is to be judged anew."""
        if self.record.state is not HostState.FENCED or self.verdict.fresh or not self.verdict.incarnation:
            return
        if not holds(self.view, self.record.proof, self.verdict.incarnation):
            boot = self.verdict.incarnation[:8]
            self._to(HostEvent.COMES_BACK, f"the last boot known of {self.spec.id}, {boot}, is not proven off")

    # -- the old boot of a host that was proven off --

    def _old_boot_speaks(self) -> bool:
        """Whether the boot in question was proven off and spoke after it: just now, or before, as files remember.

        A store that was rolled back says nothing of that: its proof is withdrawn again.
        """
        boot, kept = self.verdict.incarnation, self.view.proofs.get(self.spec.id)
        told = self.record.proof if self.record.proof is not None and self.record.proof.incarnation == boot else None
        proof = told or (kept if withdrawn(self.view, self.spec.id, boot) else None)
        if proof is None or not boot:
            return False
        if not proof.void and not withdrawn(self.view, self.spec.id, boot) and not spoke(proof, self.view):
            return False
        sentence = (
            f"{self.spec.id} spoke as the very boot that was proven off ({proof.sentence}): the proof is void, its "
            "fence device lies or feeds another machine. Once it is silent, make sure by hand that it is off, then "
            f"`fangnetz host confirm-off {self.spec.id}`"
        )
        if told is None or not told.void:
            self.actions.extend(withdrawal(self.view, proof))
            self._put(without_proof(self.record, proof, self.view, sentence))
            self.actions.extend(endings(self.view, self.spec.id, sentence))
        self.alarms.append(Alarm(kind="proof_void", subject=self.spec.id, sentence=sentence, highest=True))
        return True

    # -- failover --

    def _open_failover(self) -> bool:
        incarnation = self.verdict.incarnation
        if not incarnation or self.verdict.finding in (Finding.ALIVE, Finding.DEGRADED):
            return False
        if said_goodbye(self.view, self.spec.id):
            return False
        paused = self.view.paused is not None  # no recovery is ordered; what was read stays evidence for afterwards
        if self.verdict.finding is Finding.REBOOTED:
            return not paused and self._open_after_reboot()
        remembered = remembered_proof(self.view, self.spec.id)
        if holds(self.view, self.record.proof, incarnation) or (remembered and remembered.incarnation == incarnation):
            return False
        if self.verdict.silent:
            proof = proof_from_readings(
                self.spec,
                incarnation,
                self.beat.received_at if self.beat else self.view.life.since,
                self.view.readings.get(self.spec.id, ()),
                self.view.bindings,
                now=self.view.now,
                life=self.view.life.incarnation,
            )
            alive = self._answered_since(proof) if proof is not None else ""
            if alive:
                sentence = f"{alive} after its device read OFF: that reading is no proof"
                self.alarms.append(Alarm(kind="off_contradicted", subject=self.spec.id, sentence=sentence))
            elif proof is not None and not paused:
                self._open(incarnation, f"{self.verdict.sentence}; {proof.sentence}", proof)
                return True
        if self.verdict.finding is Finding.ISOLATED and self.policy.isolated is IsolatedPolicy.LEAVE:
            return False
        if self.verdict.finding not in (Finding.LOST, Finding.ISOLATED):
            return False
        if self.record.state is HostState.NEEDS_PERSON and not self._device_answers():
            return False
        held = brakes(self.spec.id, self.view, self.watch, self.verdicts, self.policy)
        if held:
            sentence = f"{self.spec.id} is not fenced: " + "; ".join(brake.sentence for brake in held)
            self.alarms.append(Alarm(kind=f"braked_{held[0].kind}", subject=self.spec.id, sentence=sentence))
            return False
        self._open(incarnation, self.verdict.sentence, None)
        return True

    def _open(self, incarnation: Incarnation, reason: str, proof: OffProof | None) -> None:
        suspected = self.record.suspected_at or self.view.now
        self._remember(incarnation)
        operation = new_failover(
            self.spec.id, incarnation, self.view, self.epoch, reason, proof=proof, suspected_at=suspected
        )
        self.actions.append(OpenOperation(operation=operation))
        self._put(
            replace(
                self.record,
                state=next_state(self.record.state, HostEvent.FENCING),
                since=self.view.now,
                reason=reason,
                suspected_at=suspected,
            )
        )

    def _open_after_reboot(self) -> bool:
        beat = self.beat
        if beat is None or beat.hypervisor is not HypervisorHealth.OK or not beat.settled:
            return False
        missing: dict[Incarnation, list[str]] = {}
        for vm in self.view.vm_records.values():
            earlier = vm.owner == self.spec.id and vm.owner_incarnation != beat.incarnation
            carried = vm.operation in self.view.operations
            if not earlier or carried or vm.state not in _OWNED_STATES or beat.sees(vm.id) is not None:
                continue
            if not seen_alive(self.view, vm.id):  # else no plan could move it, and each tick would open another one
                missing.setdefault(vm.owner_incarnation, []).append(vm.id)
        for incarnation, vms in missing.items():
            reason = (
                f"{self.spec.id} has booted anew and reports an inventory without {', '.join(sorted(vms))}, "
                "which its earlier boot owned"
            )
            operation = new_failover(
                self.spec.id, incarnation, self.view, self.epoch, reason,
                suspected_at=self.record.suspected_at or self.view.now,
            )  # fmt: skip
            self.actions.append(OpenOperation(operation=operation))
            self._follow_verdict()
            return True
        return False

    def _answered_since(self, proof: OffProof) -> str:
        """Return what says that the host lives after it was read off, or an empty string."""
        off_since = max(reading.answered_at for reading in proof.evidence)
        for probe in self.view.probes:
            answer = probe.answer(self.spec.id)
            if answer is not None and answer.alive and probe.started_at > off_since:
                return f"{self.spec.id} answers the probe of {probe.prober}"
        return spoke(proof, self.view)

    def _device_answers(self) -> bool:
        """Whether a level's devices all answered lately, so that another attempt has a chance."""
        latest = {r.device: r for r in self.view.readings.get(self.spec.id, ())}
        return any(
            level
            and all(
                (r := latest.get(d)) is not None
                and r.power is not Power.UNKNOWN
                and r.asked_at > self.record.since
                and binding_state(self.view.bindings.get((self.spec.id, d)), self.verdict.incarnation)
                is BindingState.BOUND
                for d in level
            )
            for level in self.spec.fencing
        )

    @staticmethod
    def _cutting(failover: Operation) -> bool:
        return any(
            step.kind in (StepKind.CONFIRM, StepKind.FENCE, StepKind.PROVE) and not step.settled
            for step in failover.steps
        )

    # -- state and return --

    def _follow_verdict(self) -> None:
        finding = self.verdict.finding
        if self.verdict.fresh and holds(self.view, self.record.proof, self.verdict.incarnation):
            return  # the last report of a boot that was cut a moment ago: older than the proof, and no return
        leaves = followed(self.record, self.verdict, self.view, self.verdicts, self.policy)
        if leaves is not None:
            if leaves != self.record:
                self._put(leaves)
            return
        doc = self.view.host_docs.get(self.spec.id)
        if doc is not None and doc.maintenance and self.record.state is not HostState.MAINTENANCE:
            self._to(HostEvent.MAINTENANCE, doc.reason or "an operator asked for it")
            return
        if self.verdict.fresh and self.record.state is HostState.MAINTENANCE and (doc is None or not doc.maintenance):
            self._take_back()
            return
        if doc is not None and doc.evacuate and self.record.state in _EMPTIABLE and finding is Finding.ALIVE:
            self._to(HostEvent.EVACUATE, doc.reason)
            return
        if finding is Finding.UNHEARD:
            return
        if finding is Finding.OVERDUE:
            if self.record.suspected_at is None and not self._out():
                self._put(replace(self.record, suspected_at=self.view.now))
            return
        new_boot = self.beat is not None and self.beat.incarnation != self.record.incarnation
        if self.verdict.fresh and (new_boot or self._out()) and self.record.incarnation:
            if self.record.state is not HostState.RETURNING:
                self.record = replace(self.record, exits=exits_on_return(self.record))
                self._to(HostEvent.COMES_BACK, f"{self.spec.id} reports as a new boot")
            else:
                self._take_back()
            return
        if self.verdict.fresh and self.record.state is HostState.RETURNING:
            self._take_back()
            return
        if not (self._out() and self.verdict.fresh):
            self._follow_finding(doc)

    def _follow_finding(self, doc: HostDoc | None) -> None:
        event = _EVENT[self.verdict.finding]
        if event is HostEvent.HEARD and doc is not None and doc.quarantine and not doc.evacuate:
            event = HostEvent.QUARANTINED
        incarnation = self.beat.incarnation if self.beat and self.verdict.fresh else self.record.incarnation
        reason = doc.quarantine if event is HostEvent.QUARANTINED and doc is not None else self.verdict.sentence
        self._to(event, reason, incarnation=incarnation)

    def _out(self) -> bool:
        return self.record.state is HostState.FENCED

    def _take_back(self) -> None:
        if self.beat is None:
            return
        doc = self.view.doc_of(self.spec.id)
        why = why_quarantined(self.record, self.policy) if self.record.state is HostState.RETURNING else ""
        if why and not doc.quarantine and not too_many(self.spec.id, self.view, self.policy):
            # Files first, and in the next tick the record: only a person undoes it.
            self.actions.append(PutHostDoc(doc=replace(doc, quarantine=why)))
            return
        record, event = taken_back(self.record, self.beat, self.view, self.policy, quarantine=doc.quarantine)
        if record != self.record:
            self._put(record)
        if event is not None:
            self.actions.append(event)

    # -- helpers --

    def _to(self, event: HostEvent, reason: str, incarnation: Incarnation | None = None) -> None:
        # A failover that was cancelled leaves its word behind: where nobody fences, what is seen counts.
        idle = self.record.state is HostState.FENCING and not any(
            op.kind is OperationKind.FAILOVER for op in self.operations
        )
        state = next_state(HostState.UNKNOWN if idle else self.record.state, event)
        accepted = self.record.incarnation if incarnation is None else incarnation
        well = event in (HostEvent.HEARD, HostEvent.ACCEPTED, HostEvent.QUARANTINED)
        suspected = None if well else self.record.suspected_at
        if suspected is None and event in (HostEvent.LOST, HostEvent.ISOLATED, HostEvent.WORKER_SILENT):
            suspected = self.view.now
        if (state, accepted, suspected) == (
            self.record.state,
            self.record.incarnation,
            self.record.suspected_at,
        ):
            return
        changed = state is not self.record.state
        self._put(
            replace(
                self.record,
                state=state,
                since=self.view.now if changed else self.record.since,
                reason=reason if changed else self.record.reason,
                incarnation=accepted,
                suspected_at=suspected,
            )
        )

    def _put(self, record: HostRecord) -> None:
        self.actions = [a for a in self.actions if not isinstance(a, PutHost)]
        self.actions.append(PutHost(record=record))
        self.record = record
