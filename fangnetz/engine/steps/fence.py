"""Steps that touch power: fence a host level by level, or switch one on again. Proof is what is read back.

Gates, epoch and the executor's own deadline are checked right before every cut (SAFETY rule 5). Reboot and cycle
commands are never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from fangnetz.core.actions import Happened
from fangnetz.core.detector import heard
from fangnetz.core.errors import FenceRefused, FenceUnreachable, StaleToken, StoreUnreachable
from fangnetz.core.fencing import BindingState, binding_state, holds, proof_from_readings
from fangnetz.core.lifecycle import HostEvent, next_state
from fangnetz.core.model import HostRecord, HostSpec, HostState, OffProof, Power, PowerReading, ProofKind
from fangnetz.core.operations import Fact, OperationState, Outcome, StepState
from fangnetz.core.policy import Policy
from fangnetz.core.units import DeviceName, HostId, Incarnation, Instant, OperationId, Seconds
from fangnetz.engine.execute import Context, Settlement
from fangnetz.engine.faults import point
from fangnetz.engine.observe import Observation, observe
from fangnetz.engine.steps.failover import PROOF, PUT_TRIES_MAX, grounds
from fangnetz.ports import FenceDevice, Store

Devices = Callable[[HostId], Mapping[DeviceName, FenceDevice]]
READ_PAUSE_S = 0.1
"""Between two readings while a plug is expected to change."""


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """One claim's work on one host: what was found and said so far, and until when it may go on."""

    context: Context
    host: HostId
    devices: Mapping[DeviceName, FenceDevice]
    deadline: float
    level_deadline: float = 0.0
    """A level whose plug stays on may use its share of the bound only: the next one must have its turn."""
    facts: dict[str, Fact] = field(default_factory=dict)
    events: list[Happened] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def incarnation(self) -> Incarnation:
        return self.context.operation.incarnation

    @property
    def left(self) -> float:
        """Seconds of the fence bound that remain."""
        return max(0.0, self.deadline - self.context.clock.monotonic())


class FenceSteps:
    """Effects on the `fence` queue."""

    def __init__(self, store: Store, hosts: Mapping[HostId, HostSpec], policy: Policy, devices: Devices) -> None:
        self._store, self._hosts, self._policy, self._devices = store, hosts, policy, devices

    # -- fence --

    def fence(self, context: Context) -> Settlement:
        """Prove the host off: by a proof there is, by reading OFF, or by cutting and reading back, level by level."""
        operation = context.operation
        host = HostId(operation.subject)
        if host not in self._hosts:
            return self._unknown(host)
        attempt = _Attempt(
            context=context,
            host=host,
            devices=self._devices(host),
            # Counted from before the claim: by its `claimed_at` others reckon when nothing can be cut any more.
            deadline=context.began + self._policy.fence_bound_s,
        )
        seen = observe(self._store, self._hosts, self._policy)
        why, skips, _ = grounds(operation, seen, self._policy)
        if skips:
            return _not_needed(why, attempt)
        if operation.proof is not None and holds(seen.view, operation.proof, operation.incarnation):
            return self._proven(operation.proof, {}, [])
        levels = [(number, level) for number, level in enumerate(self._hosts[host].fencing, start=1) if level]
        for at, (number, level) in enumerate(levels):
            attempt.level_deadline = context.clock.monotonic() + attempt.left / (len(levels) - at)
            try:
                proof = self._try_level(attempt, number, level)
            except _NoLongerWanted as gone:
                return _cancelled(str(gone), attempt)
            if proof is not None:
                return self._proven(proof, attempt.facts, attempt.events)
        said = attempt.said or [f"{host} has no fence device"]
        # Whoever cut has asked before it. Not asked before reading either: OFF is proof whatever else holds.
        why, skips, refusal = self._grounds(attempt)
        if skips:
            return _not_needed(why, attempt)
        if refusal and "fence_sent_at" not in attempt.facts:
            return _cancelled(f"{refusal} ({'; '.join(said)})", attempt)
        return self._unproven(context, host, said, attempt.facts, attempt.events)

    def _grounds(self, attempt: _Attempt) -> tuple[str, tuple[str, ...], str]:
        seen = observe(self._store, self._hosts, self._policy)
        return grounds(attempt.context.operation, seen, self._policy, cut_sent="fence_sent_at" in attempt.facts)

    def _try_level(self, attempt: _Attempt, number: int, level: tuple[DeviceName, ...]) -> OffProof | None:
        """Return the proof this level makes, or None with its reason added to what was said."""
        readings = self._read_all(attempt, level)
        proof = self._proof(attempt, readings, ProofKind.ALREADY_OFF)
        if proof is not None:
            return proof
        seen = observe(self._store, self._hosts, self._policy)
        obstacle = self._level_obstacle(seen, attempt.host, attempt.incarnation, level, readings)
        if obstacle:
            attempt.said.append(f"level {number}: {obstacle}")
            return None
        on = [name for name in level if readings[name].power is Power.ON]
        for name in on:
            self._cut(attempt, number, attempt.devices[name])
        kind = ProofKind.READ_BACK_OFF if on else ProofKind.ALREADY_OFF  # off before we sent anything
        while attempt.context.clock.monotonic() < attempt.level_deadline:
            readings = self._read_all(attempt, level)
            proof = self._proof(attempt, readings, kind)
            if proof is not None:
                return proof
            if any(reading.power is Power.UNKNOWN for reading in readings.values()):
                break
            attempt.context.clock.sleep(Seconds(READ_PAUSE_S))
        answers = ", ".join(f"{name} reads {readings[name].power} ({readings[name].raw})" for name in level)
        attempt.said.append(f"level {number}: switched off, but {answers}")
        return None

    def _level_obstacle(
        self,
        seen: Observation,
        host: HostId,
        incarnation: Incarnation,
        level: tuple[DeviceName, ...],
        readings: Mapping[DeviceName, PowerReading],
    ) -> str:
        """Return why this level must not be used to cut, or an empty string."""
        for name in level:
            reading = readings[name]
            if reading.power is Power.UNKNOWN:
                return f"{name} gives no answer ({reading.raw})"
            binding = seen.view.bindings.get((host, name))
            state = binding_state(binding, incarnation)
            if state is not BindingState.BOUND:
                return f"{name} is not known to feed {host}: {state}"
            if binding is not None and reading.guid != binding.guid:
                return f"{name} answers as another device than before (GUID {reading.guid or 'none'})"
        return ""

    def _cut(self, attempt: _Attempt, number: int, device: FenceDevice) -> None:
        """Read the gates once more, then send off. What the device answers is only kept, never believed."""
        context, host = attempt.context, attempt.host
        intended_now = self._write_intent(attempt)
        try:
            why, skips, refusal = self._grounds(attempt)
            if refusal or skips:
                raise _NoLongerWanted(refusal or why)
            sent_at = self._store.now()
            until = self._permitted_until(attempt, "fence.before_cut")
        except StaleToken:
            if intended_now:
                self._withdraw_intent(attempt)
            raise
        try:
            answer = device.switch(Power.OFF, self._policy.power_ask_s, until)
        except (FenceRefused, FenceUnreachable) as error:
            answer = str(error)
            attempt.said.append(f"{device.name}: {error}")
        point("fence.sent", host)
        attempt.facts.setdefault("fence_sent_at", sent_at)
        attempt.facts[f"answer/{device.name}"] = answer
        attempt.events.append(
            Happened(
                kind="fence_sent",
                subject=host,
                sentence=f"{host} is switched off through {device.name}: {context.operation.reason}",
                facts={"host": host, "level": number, "device": device.name, "answer": answer},
            )
        )

    def _write_intent(self, attempt: _Attempt) -> bool:
        """Write into the host's record that this operation cuts it, before it does: whoever takes the step over must
        know whose cut it was. Returns whether that changed it: an earlier claim may have written it, and cut.
        """
        return self._put_cut_by(attempt, attempt.context.operation.id)

    def _withdraw_intent(self, attempt: _Attempt) -> None:
        """Take back what this claim intended and did not do, while it is still the one that may.

        A claim that was lost leaves it: whoever has taken over since may have cut, with the same word in its place.
        """
        with suppress(StaleToken, StoreUnreachable):
            attempt.context.guard(begins=False)
            self._put_cut_by(attempt, None)

    def _put_cut_by(self, attempt: _Attempt, operation: OperationId | None) -> bool:
        for _ in range(PUT_TRIES_MAX):
            record = self._store.view(self._hosts, None).host_records.get(attempt.host)
            if record is None or record.cut_by == operation:
                return False
            new = replace(record, cut_by=operation)
            if self._store.put_host(new, record, attempt.context.operation.epoch):
                return True
        raise StaleToken(f"{attempt.context.operation.id}: the record of {attempt.host} changes too fast")

    def _permitted_until(self, attempt: _Attempt, point_name: str) -> float:
        """Take the last look before a switch; return until when (monotonic) it may be sent. StaleToken if not at all.

        That is while the lease just confirmed lasts, and within the attempt's bound.
        """
        # A fence that has begun is brought to its end, also while the cluster is paused: half cut is no state to leave.
        begins = "fence_sent_at" not in attempt.facts
        until = min(attempt.context.last_look(point_name, attempt.host, begins=begins), attempt.deadline)
        if attempt.context.clock.monotonic() >= until:
            raise StaleToken(f"{attempt.context.operation.id}: the bound of this attempt on {attempt.host} has passed")
        return until

    def _proof(
        self, attempt: _Attempt, readings: Mapping[DeviceName, PowerReading], kind: ProofKind
    ) -> OffProof | None:
        view = self._store.view(self._hosts, None)
        beat = heard(view, attempt.host)
        since = beat.received_at if beat is not None and beat.incarnation == attempt.incarnation else Instant(0.0)
        return proof_from_readings(
            self._hosts[attempt.host],
            attempt.incarnation,
            since,
            tuple(readings.values()),
            view.bindings,
            now=view.now,
            life=view.life.incarnation,
            kind=kind,
        )

    def _read_all(self, attempt: _Attempt, level: tuple[DeviceName, ...]) -> dict[DeviceName, PowerReading]:
        bound = Seconds(max(0.2, min(self._policy.power_ask_s, attempt.left)))
        return {
            name: read_power(self._store, attempt.host, attempt.devices[name], bound, Incarnation("")) for name in level
        }

    def _proven(self, proof: OffProof, facts: dict[str, Fact], events: list[Happened]) -> Settlement:
        facts["proof"] = PROOF.dump_json(proof).decode()
        facts["fence_proven_at"] = self._store.now()
        for reading in proof.evidence:
            facts[f"read/{reading.device}"] = f"{reading.power}: {reading.raw}"
        return Settlement(Outcome(state=StepState.DONE, sentence=proof.sentence, facts=facts), events=events)

    def _unproven(
        self, context: Context, host: HostId, said: list[str], facts: dict[str, Fact], events: list[Happened]
    ) -> Settlement:
        reason = "; ".join(said)
        if context.step.attempt < self._policy.fence_attempts_max:
            return Settlement(
                Outcome(
                    state=StepState.READY,
                    sentence=f"{host} is not proven off: {reason}",
                    facts=facts,
                    retry_after_s=self._policy.fence_retry_s,
                ),
                events=events,
            )
        sentence = (
            f"{host} is lost and could not be proven off: {reason}. Make sure by hand that it is off, then "
            f"`fangnetz host confirm-off {host}`"
        )
        view = self._store.view(self._hosts, None)
        record = view.record_of(host)
        if record.state is not HostState.NEEDS_PERSON:
            state = next_state(record.state, HostEvent.UNPROVEN)
            new = replace(record, state=state, since=view.now, reason=sentence)
            self._store.put_host(new, view.host_records.get(host), context.operation.epoch)
        events.append(
            Happened(
                kind="host_state",
                subject=host,
                sentence=sentence,
                facts={"host": host, "state": HostState.NEEDS_PERSON.value},
            )
        )
        return Settlement(
            Outcome(state=StepState.FAILED, sentence=sentence, facts=facts, closes=OperationState.NEEDS_PERSON),
            events=events,
        )

    @staticmethod
    def _unknown(host: HostId) -> Settlement:
        sentence = f"{host} is not in this controller's cluster file (any more): put it back to fence it"
        return Settlement(Outcome(state=StepState.FAILED, sentence=sentence, closes=OperationState.NEEDS_PERSON))

    # -- power on --

    def power_on(self, context: Context) -> Settlement:
        """Switch on every device of a host that a fence of ours cut; proven by reading ON."""
        host = HostId(context.operation.subject)
        if host not in self._hosts:
            return self._unknown(host)
        view = self._store.view(self._hosts, None)
        record = view.host_records.get(host)
        ours = record is not None and record.cut_by and record.cut_by == context.operation.incident
        if record is None or record.state is not HostState.FENCED or not ours:
            return Settlement(Outcome(state=StepState.DONE, sentence=f"{host} is not off by a fence of ours any more"))
        if view.now < record.cut_possible_until:
            return Settlement(
                Outcome(
                    state=StepState.READY,
                    sentence=f"a lost executor could still cut {host}",
                    retry_after_s=Seconds(record.cut_possible_until - view.now),
                )
            )
        names = tuple(dict.fromkeys(name for level in self._hosts[host].fencing for name in level))
        attempt = _Attempt(
            context=context,
            host=host,
            devices=self._devices(host),
            deadline=context.began + self._policy.fence_bound_s,
        )
        troubles: list[str] = []
        for name, reading in self._read_all(attempt, names).items():
            try:
                if reading.power is not Power.ON:
                    until = self._permitted_until(attempt, "power_on.before_switch")
                    attempt.devices[name].switch(Power.ON, self._policy.power_ask_s, until)
                    point("power_on.switched", host)
            except (FenceRefused, FenceUnreachable) as error:
                troubles.append(f"{name}: {error}")
        while attempt.left > 0:
            if all(reading.power is Power.ON for reading in self._read_all(attempt, names).values()):
                return Settlement(
                    Outcome(state=StepState.DONE, sentence=f"{host} is switched on again"),
                    after=lambda: self._switched_on(record, context),
                )
            context.clock.sleep(Seconds(READ_PAUSE_S))
        sentence = f"{host} could not be switched on: {'; '.join(troubles) or 'its plug does not read ON'}"
        if context.step.attempt < self._policy.fence_attempts_max:
            return Settlement(
                Outcome(state=StepState.READY, sentence=sentence, retry_after_s=self._policy.fence_retry_s)
            )
        return Settlement(
            Outcome(state=StepState.FAILED, sentence=sentence, closes=OperationState.FAILED),
            after=lambda: self._switched_on(record, context),
        )

    def _switched_on(self, record: HostRecord, context: Context) -> None:
        self._store.put_host(
            replace(record, cut_by=None, reason=f"{record.reason}; switched on again, not heard yet"),
            record,
            context.operation.epoch,
        )


def _not_needed(why: str, attempt: _Attempt) -> Settlement:
    """The boot in question is over: go on to the plan without a proof."""
    return Settlement(
        Outcome(state=StepState.DONE, sentence=why, facts=attempt.facts, skips=("prove",)), events=attempt.events
    )


def _cancelled(why: str, attempt: _Attempt) -> Settlement:
    outcome = Outcome(state=StepState.FAILED, sentence=why, facts=attempt.facts, closes=OperationState.CANCELLED)
    return Settlement(outcome, events=attempt.events)


class _NoLongerWanted(StaleToken):
    """The gates, read again right before the cut, forbid it."""


def read_power(
    store: Store, host: HostId, device: FenceDevice, bound: Seconds, incarnation: Incarnation
) -> PowerReading:
    """Ask one device for its status and write the typed answer down."""
    reading = ask_device(store, host, device, bound, incarnation)
    store.put_reading(reading)
    return reading


def ask_device(
    store: Store, host: HostId, device: FenceDevice, bound: Seconds, incarnation: Incarnation
) -> PowerReading:
    """Ask one device for its status. No answer is `unknown`, never `off`. `incarnation`: the boot heard just before."""
    asked_at = store.now()
    try:
        answer = device.status(bound)
        power, guid, raw = answer.power, answer.guid, answer.raw
    except (FenceRefused, FenceUnreachable) as error:
        power, guid, raw = Power.UNKNOWN, "", str(error)
    return PowerReading(
        host=host,
        device=device.name,
        power=power,
        asked_at=asked_at,
        answered_at=store.now(),
        incarnation=incarnation,
        guid=guid,
        raw=raw,
    )
