"""What a verdict on a host leads to: a change of its state, a question to its fence device, a failover, or a brake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fangnetz.core.actions import (
    Action,
    Alarm,
    AskPower,
    EndOperation,
    Happened,
    OpenOperation,
    PutHost,
    PutHostDoc,
    Remember,
)
from fangnetz.core.detector import Finding, Verdict, Watch, heard
from fangnetz.core.fencing import (
    BindingState,
    bind,
    binding_state,
    contradicted,
    proof_from_readings,
    protection,
    stands,
)
from fangnetz.core.lifecycle import HostEvent, next_state
from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostSpec,
    HostState,
    HypervisorHealth,
    OffProof,
    Power,
    VmState,
)
from fangnetz.core.operations import (
    Operation,
    OperationKind,
    OperationState,
    StepKind,
    StepState,
    failover_steps,
    return_steps,
)
from fangnetz.core.policy import AfterFence, IsolatedPolicy, Policy, ReturnPolicy
from fangnetz.core.quorum import brakes
from fangnetz.core.units import Epoch, HostId, Incarnation, Instant, OperationId, VmId

_EVENT: Mapping[Finding, HostEvent] = {
    Finding.ALIVE: HostEvent.HEARD,
    Finding.DEGRADED: HostEvent.SICK,
    Finding.SUSPECT: HostEvent.WORKER_SILENT,
    Finding.ISOLATED: HostEvent.ISOLATED,
    Finding.LOST: HostEvent.LOST,
    Finding.UNKNOWN: HostEvent.NOT_KNOWN,
}
_OWNED_STATES = frozenset(
    {VmState.RUNNING, VmState.STARTING, VmState.STOPPING, VmState.MOVING, VmState.LOST, VmState.UNKNOWN,
     VmState.NEEDS_PERSON}
)  # fmt: skip


ASK_PAUSE_MAX_S = 10.0
"""A silent host's fence device is asked again after this long at the latest."""


def operation_id(kind: OperationKind, subject: str, now: Instant) -> OperationId:
    """Return a readable id that no other operation has: kind, subject, milliseconds."""
    return OperationId(f"{kind}-{subject}-{int(now * 1000):x}")


def new_failover(
    host: HostId,
    incarnation: Incarnation,
    view: ClusterView,
    epoch: Epoch,
    reason: str,
    *,
    proof: OffProof | None = None,
    forced_by: str = "",
    suspected_at: Instant | None = None,
) -> Operation:
    """Return a failover of one incarnation of `host`, ready to be journaled."""
    identity = operation_id(OperationKind.FAILOVER, host, view.now)
    beat = heard(view, host)
    return Operation(
        id=identity,
        kind=OperationKind.FAILOVER,
        subject=host,
        epoch=epoch,
        opened_at=view.now,
        reason=reason,
        steps=failover_steps(),
        incarnation=incarnation,
        incident=identity,
        forced_by=forced_by,
        proof=proof,
        suspected_at=suspected_at,
        last_heard_at=beat.received_at if beat else None,
    )


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
        self.record = view.host_records.get(spec.id, HostRecord(id=spec.id))
        self.beat = heard(view, spec.id)
        self.operations = [op for op in view.operations.values() if op.subject == spec.id]
        self.actions: list[Action] = []
        self.alarms: list[Alarm] = []

    def decide(self) -> tuple[list[Action], list[Alarm]]:
        """Return actions and alarms for this host."""
        self._remember_bindings()
        self._ask_power()
        if not self._old_boot_speaks():
            failover = next((op for op in self.operations if op.kind is OperationKind.FAILOVER), None)
            if failover is None and not self._open_failover():
                self._follow_verdict()
                self._switch_on_again()
            elif failover is not None and self._cutting(failover):
                if not self.verdict.fresh:
                    self._to(HostEvent.FENCING, failover.reason)
            elif failover is not None and self.verdict.fresh:
                self._follow_verdict()
        self._remember_boot()
        self._alarm_protection()
        return self.actions, self.alarms

    # -- memory and questions --

    def _remember_boot(self) -> None:
        doc = self.view.host_docs.get(self.spec.id, HostDoc(id=self.spec.id))
        if self.verdict.fresh and self.record.incarnation and doc.incarnation != self.record.incarnation:
            self.actions.append(PutHostDoc(doc=replace(doc, incarnation=self.record.incarnation)))

    def _remember_bindings(self) -> None:
        if self.beat is None or not self.verdict.fresh:
            return
        for reading in self.view.readings.get(self.spec.id, ()):
            made = bind(reading, self.beat)
            if made is None:
                continue
            shared = any(b.guid == made.guid and b.host != made.host for b in self.view.bindings.values())
            if made.guid_matches and shared:
                made = replace(made, guid_matches=None)  # a GUID that two hosts carry names neither
            old = self.view.bindings.get((self.spec.id, reading.device))
            same = old is not None and replace(old, seen_on_at=made.seen_on_at) == made
            if not same or (old and made.seen_on_at - old.seen_on_at >= self.policy.binding_check_s / 2):
                self.actions.append(Remember(binding=made))

    def _ask_power(self) -> None:
        devices = tuple(dict.fromkeys(device for level in self.spec.fencing for device in level))
        if not devices:
            return
        asked = max((r.asked_at for r in self.view.readings.get(self.spec.id, ())), default=Instant(0.0))
        since = self.view.now - asked
        if self.verdict.fresh:
            stale = [
                d
                for d in devices
                if (b := self.view.bindings.get((self.spec.id, d))) is None
                or b.incarnation != self.verdict.incarnation
                or (b.guid_matches is None and self.beat is not None and self.beat.bmc_guids)
                or self.view.now - b.seen_on_at >= self.policy.binding_check_s
            ]
            if stale and since >= max(2.0, 2 * self.policy.heartbeat_s):
                self.actions.append(AskPower(host=self.spec.id, devices=tuple(stale), why="is the fence path sound?"))
            return
        if not self.verdict.incarnation or self.verdict.silent_for < self.policy.overdue_s:
            return
        if stands(self.record.proof, self.verdict.incarnation, self.beat):
            return
        pause = min(ASK_PAUSE_MAX_S, max(0.9 * self.policy.tick_s, self.verdict.silent_for / 10))
        if since >= pause:
            self.actions.append(AskPower(host=self.spec.id, devices=devices, why=self.verdict.sentence))

    # -- the old boot of a host that was proven off --

    def _old_boot_speaks(self) -> bool:
        proof = self.record.proof
        if proof is None or self.beat is None or self.beat.incarnation != proof.incarnation:
            return False
        if not proof.void and not contradicted(proof, self.beat):
            return False
        sentence = (
            f"{self.spec.id} speaks as the very boot that was proven off ({proof.sentence}): the proof is void, "
            "its fence device lies or feeds another machine"
        )
        if not proof.void:
            self._put(
                replace(
                    self.record,
                    state=next_state(self.record.state, HostEvent.OLD_BOOT_SPEAKS)
                    if self.record.state in (HostState.FENCED, HostState.RETURNING, HostState.NEEDS_PERSON)
                    else HostState.NEEDS_PERSON,
                    since=self.view.now,
                    reason=sentence,
                    proof=replace(proof, void=True),
                )
            )
            for op in (*self.operations, *self._starts_resting_on_it()):
                self.actions.append(EndOperation(id=op.id, state=OperationState.NEEDS_PERSON, sentence=sentence))
        self.alarms.append(Alarm(kind="proof_void", subject=self.spec.id, sentence=sentence, highest=True))
        return True

    def _starts_resting_on_it(self) -> list[Operation]:
        """Return open starts of VMs that were, or are just being, planned away from this host because of the proof."""
        return [
            op
            for op in self.view.operations.values()
            if op.kind is OperationKind.START
            and (
                self._owns(VmId(op.subject))
                or any(
                    name.startswith("from/") and value == self.spec.id
                    for plan in op.of_kind(StepKind.PLAN)
                    for name, value in plan.facts.items()
                )
            )
        ]

    def _owns(self, vm: VmId) -> bool:
        record = self.view.vm_records.get(vm)
        return record is not None and record.owner == self.spec.id

    # -- failover --

    def _open_failover(self) -> bool:
        incarnation = self.verdict.incarnation
        if not incarnation or self.verdict.finding in (Finding.ALIVE, Finding.DEGRADED):
            return False
        if self.verdict.finding is Finding.REBOOTED:
            return self._open_after_reboot()
        if stands(self.record.proof, incarnation, self.beat):
            return False
        if self.verdict.silent:
            proof = proof_from_readings(
                self.spec,
                incarnation,
                self.beat.received_at if self.beat else self.view.life.since,
                self.view.readings.get(self.spec.id, ()),
                self.view.bindings,
                now=self.view.now,
            )
            alive = self._answered_since(proof) if proof is not None else ""
            if alive:
                sentence = f"{self.spec.id} answers {alive} after its device read OFF: that reading is no proof"
                self.alarms.append(Alarm(kind="off_contradicted", subject=self.spec.id, sentence=sentence))
            elif proof is not None:
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
            if earlier and not carried and vm.state in _OWNED_STATES and beat.sees(vm.id) is None:
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
        """Return which probe the host answered after it was read off, or an empty string."""
        off_since = max(reading.answered_at for reading in proof.evidence)
        for probe in self.view.probes:
            answer = probe.answer(self.spec.id)
            if answer is not None and answer.alive and probe.started_at > off_since:
                return f"the probe of {probe.prober}"
        return ""

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
        doc = self.view.host_docs.get(self.spec.id)
        if doc is not None and doc.maintenance and self.record.state is not HostState.MAINTENANCE:
            self._to(HostEvent.MAINTENANCE, doc.reason or "an operator asked for it")
            return
        if self.verdict.fresh and self.record.state is HostState.MAINTENANCE and (doc is None or not doc.maintenance):
            self._accept_if_clean("maintenance is over")
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
                self._to(HostEvent.COMES_BACK, f"{self.spec.id} reports as a new boot")
            else:
                self._accept_if_clean("")
            return
        if self.verdict.fresh and self.record.state is HostState.RETURNING:
            self._accept_if_clean("")
            return
        event = _EVENT[finding]
        if self._out() and self.verdict.fresh:
            return
        incarnation = self.beat.incarnation if self.beat and self.verdict.fresh else self.record.incarnation
        self._to(event, self.verdict.sentence, incarnation=incarnation)

    def _out(self) -> bool:
        return self.record.state is HostState.FENCED

    def _accept_if_clean(self, _why: str) -> None:
        """RETURNING (or maintenance) -> online, once the new boot is clean and no cut can be on its way."""
        beat = self.beat
        if beat is None:
            return
        obstacle = self._obstacle(beat)
        if obstacle:
            if self.record.reason != obstacle:
                self._put(replace(self.record, reason=obstacle))
            return
        self._put(
            replace(
                self.record,
                state=next_state(self.record.state, HostEvent.ACCEPTED),
                since=self.view.now,
                reason=f"{self.spec.id} came back as a clean boot and has rejoined",
                incarnation=beat.incarnation,
                cut_by_us=False,
                suspected_at=None,
            )
        )
        self.actions.append(
            Happened(
                kind="rejoined",
                subject=self.spec.id,
                sentence=f"{self.spec.id} has rejoined as boot {beat.incarnation[:8]} with {len(beat.inventory)} VMs",
                facts={
                    "host": self.spec.id,
                    "incarnation": beat.incarnation,
                    "inventory": len(beat.inventory),
                },
            )
        )

    def _obstacle(self, beat: Heartbeat) -> str:
        fenced = self.record.proof is not None and self.record.incarnation == self.record.proof.incarnation
        if fenced and self.policy.return_ is ReturnPolicy.MANUAL:
            return f"{self.spec.id} is back and waits for `fangnetz host activate {self.spec.id}`"
        return obstacle_to_return(self.spec.id, beat, self.record, self.view)

    def _switch_on_again(self) -> None:
        record = self.record
        if record.state is not HostState.FENCED or not record.cut_by_us or self.operations:
            return
        if self.policy.after_fence is not AfterFence.POWER_ON or self.verdict.fresh:
            return
        if self.view.now < max(record.cut_possible_until, record.since + self.policy.power_on_after_s):
            return
        self.actions.append(
            OpenOperation(
                operation=Operation(
                    id=operation_id(OperationKind.RETURN, self.spec.id, self.view.now),
                    kind=OperationKind.RETURN,
                    subject=self.spec.id,
                    epoch=self.epoch,
                    opened_at=self.view.now,
                    reason=f"{self.spec.id} was cut by us, its VMs are taken care of, and after_fence is power_on",
                    steps=return_steps(),
                    incarnation=record.incarnation,
                )
            )
        )

    # -- helpers --

    def _to(self, event: HostEvent, reason: str, incarnation: Incarnation | None = None) -> None:
        state = next_state(self.record.state, event)
        accepted = self.record.incarnation if incarnation is None else incarnation
        suspected = None if event in (HostEvent.HEARD, HostEvent.ACCEPTED) else self.record.suspected_at
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

    def _alarm_protection(self) -> None:
        if not self.verdict.fresh:
            return
        now = protection(self.view, self.spec, self.verdict.incarnation)
        if not now.protected:
            self.alarms.append(
                Alarm(
                    kind="not_protected",
                    subject=self.spec.id,
                    sentence=f"{self.spec.id} could not be fenced now: {'; '.join(now.sentences)}",
                )
            )


def obstacle_to_return(host: HostId, beat: Heartbeat, record: HostRecord, view: ClusterView) -> str:
    """Return why a host may not rejoin yet, or an empty string (also asked by `host activate`)."""
    if beat.hypervisor is not HypervisorHealth.OK:
        return f"{host} is back, but its libvirt is {beat.hypervisor}"
    if view.now < record.cut_possible_until:
        return f"{host} is back; a lost executor could still cut it for {record.cut_possible_until - view.now:.0f} s"
    for op in view.operations.values():
        running = [
            s for s in op.steps if s.kind in (StepKind.FENCE, StepKind.POWER_ON) and s.state is StepState.RUNNING
        ]
        if op.subject == host and running:
            return f"{host} is back, but {op.id} still works on its power"
    for seen in beat.inventory:
        vm = view.vm_records.get(seen.vm)
        if seen.generation is None or vm is None:
            continue
        if vm.owner != host or vm.generation != seen.generation:
            return f"{host} is back, but runs {seen.vm} of generation {seen.generation}, which belongs to {vm.owner}"
    return ""
