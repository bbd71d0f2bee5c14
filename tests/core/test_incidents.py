"""An incident read from operations: each way a failover goes leaves its own timeline, proof and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from fangnetz.core.incidents import Incident, IncidentVm, VmOutcome, incident_of, incidents
from fangnetz.core.model import OffProof, Power, PowerReading, ProofKind
from fangnetz.core.operations import (
    Fact,
    Operation,
    OperationKind,
    OperationState,
    Order,
    Step,
    StepKind,
    StepState,
    failover_steps,
    start_steps,
    stop_steps,
    vm_start_steps,
)
from fangnetz.core.units import (
    DeviceName,
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    StoreIncarnation,
    VmId,
)

T = 1000.0
OLD = Incarnation("old-boot")


def order(vm: str, host: str) -> Order:
    return Order(
        vm=VmId(vm), host=HostId(host), incarnation=Incarnation("b"), generation=Generation(9),
        life=StoreIncarnation("1"), deadline=Instant(T + 60),
    )  # fmt: skip


def operation(kind: OperationKind, subject: str, steps: tuple[Step, ...], at: float = T + 2) -> Operation:
    return Operation(
        id=OperationId(f"{kind}-{subject}-{at:g}"), kind=kind, subject=subject, epoch=Epoch(1), opened_at=Instant(at),
        reason=f"{subject} is lost", steps=steps,
    )  # fmt: skip


def failover() -> Operation:
    op = operation(OperationKind.FAILOVER, "host2", failover_steps())
    return replace(op, incarnation=OLD, suspected_at=Instant(T + 1.5), last_heard_at=Instant(T))


def end(
    op: Operation,
    key: str,
    at: float,
    facts: Mapping[str, Fact] | None = None,
    *,
    state: StepState = StepState.DONE,
    sentence: str = "",
) -> Operation:
    steps = tuple(
        replace(s, state=state, ended_at=Instant(at), facts=facts or {}, sentence=sentence) if s.key == key else s
        for s in op.steps
    )
    assert steps != op.steps, f"there is no step {key}"
    return replace(op, steps=steps)


def close(op: Operation, state: OperationState = OperationState.DONE, at: float = T + 30) -> Operation:
    return replace(op, state=state, closed_at=Instant(at), sentence="over")


def fenced(op: Operation, *, sent: bool = True) -> Operation:
    op = end(op, "confirm", T + 3, {"signal_1": "heartbeat: no (none for 3.0 s)"}, sentence="host2 is lost")
    facts: dict[str, Fact] = {"fence_proven_at": T + 4, "read/ipmi": "off: chassis power is off"}
    if sent:
        facts["fence_sent_at"] = T + 3.2
    op = end(op, "fence", T + 4, facts, sentence="host2 is off")
    return end(op, "prove", T + 4.1, {"fence_proven_at": T + 4}, sentence="host2 is off")


def planned(op: Operation, to: Mapping[str, str], left: Mapping[str, tuple[str, str]] | None = None) -> Operation:
    facts: dict[str, Fact] = {f"to/{vm}": host for vm, host in to.items()}
    facts |= {f"because/{vm}": f"{host} has room" for vm, host in to.items()}
    for vm, (state, reason) in (left or {}).items():
        facts |= {f"left/{vm}": reason, f"left_state/{vm}": state}
    adds = [step for vm, host in to.items() for step in vm_start_steps(order(vm, host), attempt=1, after="plan/1")]
    op = end(op, "plan/1", T + 4.2, facts)
    return replace(op, steps=(*op.steps, *adds))


def ran(op: Operation, vm: str, sent: float, running: float, attempt: int = 1) -> Operation:
    op = end(op, f"start/{vm}/{attempt}", sent + 0.2, {"start_sent_at": sent})
    return end(op, f"running/{vm}/{attempt}", running + 0.1, {"running_at": running})


def vm_of(incident: Incident, vm: str) -> IncidentVm:
    return next(one for one in incident.vms if one.vm == vm)


def test_a_whole_failover_has_every_instant() -> None:
    op = planned(fenced(failover()), {"web1": "host1", "db1": "host3"})
    op = close(ran(ran(op, "web1", T + 4.4, T + 6), "db1", T + 4.5, T + 7.5))
    it = incident_of(op)
    assert (it.host, it.incarnation, it.state) == ("host2", OLD, OperationState.DONE)
    assert (it.suspected_at, it.confirmed_at, it.fence_sent_at, it.fence_proven_at, it.recovered_at) == (
        T + 1.5, T + 3, T + 3.2, T + 4, T + 7.5)  # fmt: skip
    assert it.began_at == T
    assert it.proof is not None
    assert (it.proof.kind, it.proof.answers) == (ProofKind.READ_BACK_OFF, ("ipmi: off: chassis power is off",))
    web1 = vm_of(it, "web1")
    assert (web1.source, web1.target, web1.start_sent_at, web1.running_at, web1.guest_up_at) == (
        "host2", "host1", T + 4.4, T + 6, None)  # fmt: skip
    assert web1.outcome is VmOutcome.RUNNING
    assert web1.reason == "host1 has room"


def test_evidence_keeps_its_order_and_says_nothing_twice() -> None:
    it = incident_of(fenced(failover()))
    assert it.evidence == (
        "host2 is lost",
        "heartbeat: no (none for 3.0 s)",
        "read: ipmi: off: chassis power is off",
        "host2 is off",
    )


def test_a_host_that_was_already_off_was_never_cut() -> None:
    it = incident_of(fenced(failover(), sent=False))
    assert it.fence_sent_at is None
    assert it.fence_proven_at == T + 4
    assert it.proof is not None
    assert it.proof.kind is ProofKind.ALREADY_OFF


def test_a_proof_found_before_the_failover_keeps_its_own_time() -> None:
    reading = PowerReading(
        host=HostId("host2"), device=DeviceName("ipmi"), power=Power.OFF, asked_at=Instant(T + 1.6),
        answered_at=Instant(T + 1.7), raw="off",
    )  # fmt: skip
    proof = OffProof(
        host=HostId("host2"), incarnation=OLD, kind=ProofKind.ALREADY_OFF, proven_at=Instant(T + 1.8),
        sentence="host2 is off", evidence=(reading,),
    )  # fmt: skip
    it = incident_of(replace(failover(), proof=proof))
    assert it.fence_proven_at == T + 1.8
    assert it.proof is not None
    assert it.proof.answers == ("ipmi: off: off",)


def test_a_reboot_is_a_proof_without_a_fence() -> None:
    op = end(failover(), "confirm", T + 3, sentence="host2 has booted anew: nothing is left to fence")
    op = end(end(op, "fence", T + 3, state=StepState.SKIPPED), "prove", T + 3, state=StepState.SKIPPED)
    it = incident_of(op)
    assert (it.fence_sent_at, it.fence_proven_at) == (None, None)
    assert it.proof is not None
    assert (it.proof.kind, it.proof.at) == (ProofKind.REBOOTED, T + 3)


def test_a_reboot_that_was_seen_only_when_the_fence_began_is_a_proof_of_that_instant() -> None:
    op = end(failover(), "confirm", T + 3)
    op = end(op, "fence", T + 5, sentence="host2 has booted anew: nothing is left to fence")
    it = incident_of(end(op, "prove", T + 5, state=StepState.SKIPPED))
    assert it.proof is not None
    assert (it.proof.kind, it.proof.at, it.fence_proven_at) == (ProofKind.REBOOTED, T + 5, None)


def test_a_cancelled_failover_was_not_confirmed_and_moved_nothing() -> None:
    op = end(failover(), "confirm", T + 3, state=StepState.FAILED, sentence="no longer lost: host2 reports")
    it = incident_of(close(op, OperationState.CANCELLED))
    assert (it.confirmed_at, it.proof, it.vms, it.recovered_at) == (None, None, (), None)
    assert "no longer lost: host2 reports" in it.evidence


def test_an_unproven_host_has_no_proof() -> None:
    op = end(failover(), "confirm", T + 3, sentence="lost")
    op = end(op, "fence", T + 24, {"fence_sent_at": T + 4}, state=StepState.FAILED, sentence="ipmi gives no answer")
    it = incident_of(close(op, OperationState.NEEDS_PERSON))
    assert (it.state, it.proof, it.fence_sent_at, it.fence_proven_at) == (
        OperationState.NEEDS_PERSON, None, T + 4, None)  # fmt: skip
    assert it.evidence[-1] == "ipmi gives no answer"


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("waiting", VmOutcome.WAITING),
        ("lost", VmOutcome.WAITING),
        ("failed", VmOutcome.FAILED),
        ("needs_person", VmOutcome.NEEDS_PERSON),
    ],
)
def test_a_vm_that_fits_nowhere_is_named_with_its_reason(state: str, outcome: VmOutcome) -> None:
    op = planned(fenced(failover()), {"web1": "host1"}, {"db1": (state, "no room anywhere")})
    it = incident_of(close(ran(op, "web1", T + 5, T + 6)))
    db1 = vm_of(it, "db1")
    assert (db1.outcome, db1.reason, db1.target, db1.start_sent_at) == (outcome, "no room anywhere", None, None)
    assert it.recovered_at is None


def start_later(vm: str, host: str, at: float) -> Operation:
    op = end(operation(OperationKind.START, vm, start_steps(), at), "plan/1", at, {f"to/{vm}": host})
    op = replace(op, steps=(*op.steps, *vm_start_steps(order(vm, host), attempt=1, after="plan/1")))
    return close(ran(op, vm, at + 1, at + 2), at=at + 3)


def test_a_later_start_finishes_what_was_left_waiting() -> None:
    op = planned(fenced(failover()), {"web1": "host1"}, {"db1": ("waiting", "no room anywhere")})
    op = close(ran(op, "web1", T + 5, T + 6))
    later = start_later("db1", "host3", T + 50)
    it = incident_of(op, [later, op, start_later("web1", "host3", T + 90)])
    assert (vm_of(it, "db1").target, vm_of(it, "db1").running_at) == ("host3", T + 52)
    assert vm_of(it, "web1").running_at == T + 6, "what ran once is not told again"
    assert it.recovered_at == T + 52


def test_an_earlier_start_has_nothing_to_do_with_it() -> None:
    op = close(planned(fenced(failover()), {}, {"db1": ("waiting", "no room")}))
    it = incident_of(op, [start_later("db1", "host3", T - 50)])
    assert vm_of(it, "db1").outcome is VmOutcome.WAITING


def test_a_vm_an_operator_stopped_meanwhile_is_superseded_whatever_starts_later() -> None:
    op = close(planned(fenced(failover()), {}, {"db1": ("waiting", "no room")}))
    stop = close(operation(OperationKind.STOP, "db1", stop_steps(order("db1", "host1")), T + 40), at=T + 41)
    it = incident_of(op, [stop, start_later("db1", "host3", T + 90)])
    assert vm_of(it, "db1").outcome is VmOutcome.SUPERSEDED
    assert it.recovered_at is None


def test_a_refused_start_is_tried_elsewhere_and_the_last_try_counts() -> None:
    op = planned(fenced(failover()), {"web1": "host1"})
    op = end(op, "start/web1/1", T + 5, state=StepState.REFUSED, sentence="host1 cannot start web1")
    op = end(op, "running/web1/1", T + 5, state=StepState.SKIPPED)
    again = Step(key="plan/2", kind=StepKind.PLAN, state=StepState.DONE, facts={"to/web1": "host3"})
    op = replace(op, steps=(*op.steps, again, *vm_start_steps(order("web1", "host3"), attempt=2, after="plan/2")))
    waiting = vm_of(incident_of(op), "web1")
    assert (waiting.outcome, waiting.target) == (VmOutcome.WAITING, "host3")
    done = vm_of(incident_of(close(ran(op, "web1", T + 6, T + 8, attempt=2))), "web1")
    assert (done.outcome, done.target, done.start_sent_at) == (VmOutcome.RUNNING, "host3", T + 6)


def test_a_vm_refused_everywhere_ends_as_the_last_plan_says() -> None:
    op = planned(fenced(failover()), {"web1": "host1"})
    op = end(op, "start/web1/1", T + 5, state=StepState.REFUSED, sentence="host1 cannot start web1")
    again = Step(
        key="plan/2", kind=StepKind.PLAN, state=StepState.DONE,
        facts={"left/web1": "1 starts were refused", "left_state/web1": "failed"},
    )  # fmt: skip
    web1 = vm_of(incident_of(close(replace(op, steps=(*op.steps, again)))), "web1")
    assert (web1.outcome, web1.reason, web1.target) == (VmOutcome.FAILED, "1 starts were refused", None)


def test_a_start_without_an_answer_needs_a_person() -> None:
    """It may be running there: nobody else may start it."""
    op = end(planned(fenced(failover()), {"web1": "host1"}), "start/web1/1", T + 70, state=StepState.FAILED,
             sentence="host1 has not answered")  # fmt: skip
    web1 = vm_of(incident_of(close(op)), "web1")
    assert (web1.outcome, web1.target, web1.running_at) == (VmOutcome.NEEDS_PERSON, "host1", None)
    assert web1.reason == "host1 has not answered"


def test_a_vm_that_moved_on_meanwhile_is_superseded() -> None:
    op = planned(fenced(failover()), {"web1": "host1"})
    op = end(op, "start/web1/1", T + 5, {"start_sent_at": T + 5})
    op = end(op, "running/web1/1", T + 9, {"superseded": True}, state=StepState.FAILED, sentence="moved on")
    assert vm_of(incident_of(close(op)), "web1").outcome is VmOutcome.SUPERSEDED


def test_a_vm_that_ended_at_once_has_failed() -> None:
    op = planned(fenced(failover()), {"web1": "host1"})
    op = end(op, "start/web1/1", T + 5, {"start_sent_at": T + 5})
    op = end(op, "running/web1/1", T + 9, state=StepState.FAILED, sentence="web1 ended at once")
    web1 = vm_of(incident_of(close(op)), "web1")
    assert (web1.outcome, web1.start_sent_at, web1.reason) == (VmOutcome.FAILED, T + 5, "web1 ended at once")


def test_a_person_who_solved_it_ends_needs_person() -> None:
    op = close(planned(fenced(failover()), {}, {"db1": ("needs_person", "lease held")}), OperationState.NEEDS_PERSON)
    assert incident_of(op).state is OperationState.NEEDS_PERSON
    assert incident_of(op, [start_later("db1", "host3", T + 90)]).state is OperationState.DONE


def test_a_host_heard_again_is_no_beginning() -> None:
    assert incident_of(replace(failover(), last_heard_at=Instant(T + 1.9))).began_at == T + 1.5
    assert incident_of(replace(failover(), last_heard_at=None, suspected_at=None)).began_at == T + 2


def test_garbage_in_a_written_proof_leaves_the_rest_readable() -> None:
    op = end(fenced(failover()), "fence", T + 4, {"fence_proven_at": T + 4, "proof": "}{"}, sentence="off")
    proof = incident_of(op).proof
    assert proof is not None
    assert proof.kind is ProofKind.ALREADY_OFF


def test_incidents_are_failovers_only_the_latest_first() -> None:
    first, second = failover(), replace(failover(), id=OperationId("second"), opened_at=Instant(T + 500))
    found = incidents([first, start_later("db1", "host3", T + 50), second])
    assert [one.id for one in found] == ["second", first.id]
