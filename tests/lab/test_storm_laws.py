"""What a storm calls broken, on stories made by hand: each law is seen to speak, and to keep silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostRecord,
    HostState,
    HypervisorHealth,
    OffProof,
    ProofKind,
    StoreLife,
    VmRecord,
    VmSighting,
    VmState,
)
from fangnetz.core.model import Sighting as Sighted
from fangnetz.core.operations import Operation, OperationKind, OperationState, Order, Step, StepKind, StepState
from fangnetz.core.units import (
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    Seconds,
    StoreIncarnation,
    VmId,
)
from fangnetz.lab.storm import records
from fangnetz.lab.storm.chronicle import Chronicle
from fangnetz.lab.storm.copies import Copy, repeated_generations, unproven_starts
from fangnetz.lab.storm.faults import Fault, FaultKind
from fangnetz.lab.storm.laws import (
    INCIDENT_BOUND_S,
    Done,
    PowerCommand,
    Span,
    needless_cuts,
    overdue,
    repeated_fences,
    stray_cuts,
)
from fangnetz.lab.storm.tally import Seen, figures, violations

VM, A, B = VmId("vm1"), HostId("host1"), HostId("host2")
BOOT_A, BOOT_B, BOOT_A2 = Incarnation("a" * 8), Incarnation("b" * 8), Incarnation("c" * 8)
G1, G2 = Generation(2_000_000_100_000_000), Generation(2_000_000_200_000_000)
T1, T2 = 2_000_000_100.0, 2_000_000_200.0
"""When those numbers were given."""


# --- copies ---


def copy(host: str, started: float, ended: float, generation: int | None = None, pid: int = 1) -> Copy:
    return Copy(
        vm="vm1",
        host=host,
        host_boot="b",
        pid=pid,
        started_at=started,
        ended_at=ended,
        alive=False,
        generation=generation,
    )


def test_a_copy_begun_while_another_lives_is_an_unproven_start() -> None:
    (said,) = unproven_starts([copy("host1", 0.0, 10.0), copy("host2", 9.0, 20.0)])
    assert "started on host2" in said
    assert "1.00 s more" in said


def test_a_frozen_copy_is_no_dead_one_and_the_same_host_no_excuse() -> None:
    assert unproven_starts([copy("host1", 0.0, 10.0), copy("host1", 5.0, 20.0, pid=2)])


def test_one_copy_after_the_other_breaks_nothing() -> None:
    assert unproven_starts([copy("host2", 10.5, 20.0), copy("host1", 0.0, 10.0)]) == ()


def test_copies_of_different_vms_may_live_together() -> None:
    assert unproven_starts([copy("host1", 0.0, 10.0), replace(copy("host2", 5.0, 9.0), vm="vm2")]) == ()


def arrived(started: float, ended: float, runs_from: float | None, pid: int = 9) -> Copy:
    return replace(copy("host2", started, ended, pid=pid), incoming=True, runs_from=runs_from)


def test_what_arrives_by_a_migration_is_a_copy_from_when_it_runs() -> None:
    leaves = copy("host1", 0.0, 10.0)
    assert unproven_starts([leaves, arrived(9.0, 20.0, 10.2)]) == ()
    (said,) = unproven_starts([leaves, arrived(9.0, 20.0, 9.5)])
    assert "started on host2" in said
    assert "0.50 s more" in said


def test_what_arrived_and_was_never_let_run_is_no_copy() -> None:
    assert unproven_starts([copy("host1", 0.0, 30.0), arrived(9.0, 20.0, None)]) == ()
    assert unproven_starts([arrived(9.0, 20.0, None), copy("host3", 15.0, 30.0)]) == ()
    assert unproven_starts([arrived(9.0, 20.0, 10.0), copy("host3", 15.0, 30.0)]), "it ran, and another was started"


def test_a_number_that_comes_back_or_goes_down_is_told() -> None:
    assert repeated_generations([copy("host1", 0.0, 1.0, 7), copy("host2", 2.0, 3.0, 7)])
    assert repeated_generations([copy("host1", 0.0, 1.0, 7), copy("host2", 2.0, 3.0, 6)])
    assert repeated_generations([copy("host1", 0.0, 1.0, 7), copy("host2", 2.0, 3.0), copy("host1", 4.0, 5.0, 7)])
    assert repeated_generations([copy("host1", 0.0, 1.0, 7), copy("host2", 2.0, 3.0, 8)]) == ()


# --- power ---


def done(kind: FaultKind, target: str, begin: float, end: float, how: str = "") -> Done:
    return Done(fault=Fault(kind=kind, target=target, how=how), began_at=begin, ended_at=end)


def cut_at(at: float, host: str = "host1", was_on: bool = True) -> PowerCommand:
    return PowerCommand(host=host, at=at, off=True, was_on=was_on)


def failover(opened: float, closed: float | None, host: str = "host1") -> Operation:
    return Operation(
        id=OperationId(f"failover-{host}-{opened:.0f}"),
        kind=OperationKind.FAILOVER,
        subject=host,
        epoch=Epoch(1),
        opened_at=Instant(opened),
        reason="it is lost",
        steps=(),
        state=OperationState.OPEN if closed is None else OperationState.DONE,
        closed_at=None if closed is None else Instant(closed),
    )


def test_a_cut_of_a_host_that_nothing_befell_is_needless() -> None:
    store_hung = done(FaultKind.STORE_HANG, "redis", 0.0, 40.0)
    other = done(FaultKind.HOST_FREEZE, "host2", 30.0, 60.0)
    worker = done(FaultKind.FREEZE, "host1/worker", 30.0, 60.0)
    assert needless_cuts([cut_at(45.0)], [store_hung, other, worker])


@pytest.mark.parametrize("kind", [FaultKind.HOST_FREEZE, FaultKind.POWER_OFF, FaultKind.CUT])
def test_a_cut_of_a_host_in_trouble_or_just_out_of_it_is_not_needless(kind: FaultKind) -> None:
    trouble = done(kind, "host1", 30.0, 40.0, "cluster both")
    assert needless_cuts([cut_at(35.0), cut_at(45.0)], [trouble]) == ()
    assert needless_cuts([cut_at(100.0)], [trouble])


def test_a_command_to_a_host_that_is_off_cuts_nobody() -> None:
    assert needless_cuts([cut_at(45.0, was_on=False)], []) == ()
    assert needless_cuts([replace(cut_at(45.0), off=False)], []) == ()


def test_a_cut_outside_every_failover_of_that_host_is_a_stray_one() -> None:
    ops = [failover(10.0, 20.0), failover(40.0, 50.0, "host2")]
    assert stray_cuts([cut_at(15.0)], ops) == ()
    assert stray_cuts([cut_at(45.0)], ops)
    assert stray_cuts([cut_at(45.0)], [failover(40.0, None)]) == ()


def test_a_second_cut_in_one_failover_needs_a_faulty_device() -> None:
    ops = [failover(10.0, 30.0)]
    twice = [cut_at(15.0), cut_at(18.0, was_on=False)]
    assert repeated_fences(twice, ops, [])
    assert repeated_fences(twice, ops, [done(FaultKind.BMC, "host2", 0.0, 60.0, "slow")])
    assert repeated_fences(twice, ops, [done(FaultKind.BMC, "host1", 12.0, 16.0, "slow")]) == ()
    assert repeated_fences(twice, ops, [done(FaultKind.CUT, "c1", 12.0, 16.0, "bmc both")]) == ()
    assert repeated_fences([cut_at(15.0)], ops, []) == ()


def test_an_operation_may_not_stay_open_but_a_store_that_was_away_does_not_count() -> None:
    late = failover(0.0, None)
    assert overdue([late], INCIDENT_BOUND_S + 10.0, [])
    assert overdue([late], INCIDENT_BOUND_S + 10.0, [Span(begin=5.0, end=30.0)]) == ()
    assert overdue([failover(0.0, 20.0)], 10_000.0, []) == ()
    assert overdue([failover(0.0, INCIDENT_BOUND_S + 1.0)], 10_000.0, [])


# --- the chronicle ---


def beat(host: HostId, boot: Incarnation, at: float, generation: Generation | None = None) -> Heartbeat:
    seen = () if generation is None else (VmSighting(vm=VM, state=Sighted.RUNNING, generation=generation),)
    return Heartbeat(
        host=host,
        incarnation=boot,
        sequence=1,
        hypervisor=HypervisorHealth.OK,
        inventory=seen,
        inventory_age_s=Seconds(0.0),
        received_at=Instant(at),
    )


def owned(host: HostId | None, boot: Incarnation, generation: Generation, since: float) -> VmRecord:
    return VmRecord(
        id=VM,
        state=VmState.RUNNING,
        owner=host,
        owner_incarnation=boot,
        generation=generation,
        since=Instant(since),
    )


def view(
    record: VmRecord, *beats: Heartbeat, now: float, life: str = "one", proof: OffProof | None = None
) -> ClusterView:
    return ClusterView(
        now=Instant(now),
        life=StoreLife(incarnation=StoreIncarnation(life), since=Instant(0.0)),
        lease=None,
        hosts={},
        host_records={} if proof is None else {A: HostRecord(id=A, state=HostState.FENCED, proof=proof)},
        host_docs={},
        heartbeats={each.host: each for each in beats},
        probes=(),
        readings={},
        bindings={},
        vms={},
        vm_records={VM: record},
        operations={},
    )


def start_of(host: HostId, boot: Incarnation, generation: Generation) -> Operation:
    order = Order(
        vm=VM,
        host=host,
        incarnation=boot,
        generation=generation,
        life=StoreIncarnation("one"),
        deadline=Instant(T2 + 60),
    )
    step = Step(key="start/vm1/1", kind=StepKind.START, state=StepState.RUNNING, order=order)
    return replace(failover(T2 - 1.0, None), steps=(step,))


def proof_of(boot: Incarnation, at: float) -> OffProof:
    return OffProof(host=A, incarnation=boot, kind=ProofKind.ALREADY_OFF, proven_at=Instant(at), sentence="it is off")


def told(*looks: ClusterView, ordered: Operation | None = None) -> Chronicle:
    chronicle = Chronicle()
    for look in looks[:-1]:
        chronicle.read(look, ())
    chronicle.read(looks[-1], () if ordered is None else (ordered,))
    return chronicle


BEFORE = view(owned(A, BOOT_A, G1, T1), beat(A, BOOT_A, T1 + 1, G1), now=T1 + 2)


def after(**more: Any) -> ClusterView:
    return view(owned(B, BOOT_B, G2, T2), beat(A, BOOT_A, T1 + 1, G1), now=T2 + 0.3, **more)


def test_an_order_without_evidence_about_the_owner_s_boot_is_unproven() -> None:
    (said,) = told(BEFORE, after(), ordered=start_of(B, BOOT_B, G2)).unproven()
    assert "from host1" in said
    assert "without evidence" in said


def test_what_is_unproven_stays_so_however_often_it_is_asked() -> None:
    chronicle = told(BEFORE, after(), ordered=start_of(B, BOOT_B, G2))
    first = chronicle.unproven()
    assert first
    assert chronicle.unproven() == first


def test_a_proof_of_the_owner_s_very_boot_is_evidence_and_of_another_boot_is_none() -> None:
    order = start_of(B, BOOT_B, G2)
    assert told(BEFORE, after(proof=proof_of(BOOT_A, T2 - 1)), ordered=order).unproven() == ()
    assert told(BEFORE, after(proof=proof_of(BOOT_A2, T2 - 1)), ordered=order).unproven()
    assert told(BEFORE, after(proof=proof_of(BOOT_A, T2 + 0.2)), ordered=order).unproven(), "it came afterwards"


def test_a_new_boot_heard_without_the_vm_is_evidence() -> None:
    booted = view(owned(A, BOOT_A, G1, T1), beat(A, BOOT_A2, T2 - 2), now=T2 - 1)
    assert told(BEFORE, booted, after(), ordered=start_of(B, BOOT_B, G2)).unproven() == ()


def test_the_same_boot_heard_without_the_vm_is_none() -> None:
    lacking = view(owned(A, BOOT_A, G1, T1), beat(A, BOOT_A, T2 - 2), now=T2 - 1)
    assert told(BEFORE, lacking, after(), ordered=start_of(B, BOOT_B, G2)).unproven()


def test_a_start_on_the_owner_s_own_boot_needs_no_evidence() -> None:
    assert told(BEFORE, after(), ordered=start_of(A, BOOT_A, G2)).unproven() == ()


def test_evidence_is_asked_about_the_last_owner_not_about_an_earlier_one() -> None:
    middle = Generation(G1 + 50_000_000)
    moved = view(owned(B, BOOT_B, middle, T1 + 50), beat(B, BOOT_B, T1 + 51, middle), now=T1 + 52)
    proof_about_the_first = proof_of(BOOT_A, T1 + 49)
    assert told(BEFORE, moved, after(proof=proof_about_the_first), ordered=start_of(A, BOOT_A2, G2)).unproven()


def test_what_a_store_forgot_is_no_owner_in_its_next_life() -> None:
    empty = view(owned(None, Incarnation(""), Generation(0), T2 - 3), now=T2 - 3, life="two")
    given = view(owned(B, BOOT_B, G2, T2), now=T2 + 0.3, life="two")
    assert told(BEFORE, empty, given, ordered=start_of(B, BOOT_B, G2)).unproven() == ()


def test_a_number_given_to_two_boots_is_told_over_all_lives_of_the_store() -> None:
    other = view(owned(B, BOOT_B, G1, T1), beat(B, BOOT_B, T2, G1), now=T2, life="two")
    (said,) = told(BEFORE, other).repeated()
    assert str(G1) in said
    assert told(BEFORE, after()).repeated() == ()


# --- the tally and the records ---


def seen(**more: Any) -> Seen:
    witness = {"at": T2, "vms": {"vm1": {"boots": [], "overlaps": [], "gaps": []}}, "overlaps": []}
    base = Seen(
        began_at=T1,
        ended_at=T2 + 10,
        done=(),
        copies=(),
        commands=(),
        chronicle=Chronicle(),
        away=(),
        witness=witness,
        unrest="",
    )
    return replace(base, **more)


def test_a_quiet_storm_breaks_nothing_and_an_unwatched_one_proves_nothing() -> None:
    assert violations(seen()) == ()
    assert violations(seen(blind=("the witness was silent",)))
    assert violations(seen(unrest="host2 is fenced"))


def test_an_overlap_is_the_first_thing_told() -> None:
    witness = {**seen().witness, "overlaps": [{"vm": "vm1", "boots": ["a", "b"], "from": T1, "to": T1 + 2}]}
    found = violations(seen(witness=witness, unrest="host2 is fenced"))
    assert "vm1" in found[0]
    assert figures(seen(witness=witness))["overlaps"] == 1


def test_an_operation_that_an_emptied_store_forgot_is_not_called_open_for_ever() -> None:
    chronicle = told(BEFORE, after(), ordered=failover(T1, None))
    assert violations(seen(chronicle=chronicle, ended_at=T2 + 1000))
    chronicle.read(view(owned(B, BOOT_B, G2, T2), beat(B, BOOT_B, T2 + 900, G2), now=T2 + 900, life="two"), ())
    assert violations(seen(chronicle=chronicle, ended_at=T2 + 1000)) == ()


def test_a_recovery_lasts_from_the_first_doubt_to_the_first_write_seen() -> None:
    order = start_of(B, BOOT_B, G2).steps[0].order
    plan = Step(key="plan/1", kind=StepKind.PLAN, state=StepState.DONE, ended_at=Instant(T2), facts={"to/vm1": B})
    ran = Step(key="running/vm1/1", kind=StepKind.SEE_RUNNING, state=StepState.DONE, order=order)
    op = replace(failover(T2 - 1.0, T2 + 6), steps=(plan, ran), suspected_at=Instant(T2 - 2.0))
    chronicle = told(BEFORE, after(proof=proof_of(BOOT_A, T2 - 1)), ordered=op)
    boots = [{"boot": "x", "first_at": at, "last_at": at, "writes": 1} for at in (T1, T2 + 3.5, T2 + 9)]
    witness = {**seen().witness, "vms": {"vm1": {"boots": boots, "overlaps": [], "gaps": []}}}
    found = figures(seen(chronicle=chronicle, witness=witness))
    assert found["recovery_s"] == {"median": 5.5, "max": 5.5, "count": 1}
    assert found["incidents"] == {"done": 1}


def test_results_add_up_over_runs(tmp_path: Path) -> None:
    line = {
        **figures(seen(done=(done(FaultKind.BLINK, "host1", T1, T1 + 1),))),
        "seconds": 1800.0,
        "person": {"host confirm-off": 1},
        "whole_again_s": 12.0,
        "violations": [],
    }
    path = tmp_path / "build" / "soak.jsonl"
    for seed in (1, 2, 2):
        records.append(path, {**line, "seed": seed, "recoveries_s": [float(seed)]})
    total = records.summary(records.load(path))
    assert (total["storms"], total["seeds"], total["hours"]) == (3, 2, 1.5)
    assert total["faults"] == {"blink": 3}
    assert total["person"] == {"host confirm-off": 3}
    assert total["recovery_s"] == {"median": 2.0, "max": 2.0, "count": 3}
    assert total["violations"] == 0
    assert records.load(tmp_path / "nothing.jsonl") == []
