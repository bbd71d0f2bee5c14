"""Hosts taken out of the cluster file: remembered, named, confirmed off by a person, forgotten once they own none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.actions import (
    Decision,
    EndOperation,
    OpenOperation,
    PutHost,
    PutHostDoc,
    PutVm,
    RememberProof,
    SettleWish,
)
from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostDoc,
    HostState,
    HypervisorHealth,
    Sighting,
    VmRecord,
    VmState,
    WishKind,
)
from fangnetz.core.operations import Operation, OperationKind
from fangnetz.core.ownership import unanswered_order
from fangnetz.core.units import Epoch, HostId, Incarnation, Instant, OperationId, VmId
from tests.core.moving_world import World
from tests.core.test_stories import begin_new_life, keep_the_laws, owner, steady
from tests.core.world import (
    T0,
    beat,
    binding,
    decided,
    host_record,
    off_proof,
    sighting,
    view,
    vm_doc,
    vm_record,
    wish,
)

BOUND = [binding(h) for h in ("h1", "h2", "h3")]
H9 = HostId("h9")
MEMBER = HostDoc(id=H9, incarnation=Incarnation("i1"))


def left(*beats: Heartbeat, owns: bool = True, doc: HostDoc = MEMBER, **more: object) -> ClusterView:
    """h9 was a member and is not in the file; it owns web."""
    vms = [(vm_doc("web"), vm_record("web", "h9" if owns else "h1", 5))]
    said = [beat(h, T0 - 0.1, runs={} if owns or h != "h1" else {"web": 5}) for h in ("h1", "h2", "h3")]
    return view(T0, beats=[*said, *beats], vms=vms, docs=[doc], bindings=BOUND, **more)  # type: ignore[arg-type]


def starts(decision: Decision) -> list[str]:
    return [
        a.operation.subject
        for a in decision.actions
        if isinstance(a, OpenOperation) and a.operation.kind is OperationKind.START
    ]


def outside(decision: Decision) -> list[str]:
    return [a.sentence for a in decision.alarms if a.kind == "host_outside"]


def confirmed(seen: ClusterView) -> tuple[SettleWish, Decision]:
    decision = decided(replace(seen, wishes=(wish(WishKind.HOST_CONFIRM_OFF, "h9"),)))
    (settled,) = [a for a in decision.actions if isinstance(a, SettleWish)]
    return settled, decision


def test_its_vms_start_nowhere_else_and_the_alarm_says_what_to_do() -> None:
    decision = decided(left())
    assert starts(decision) == []
    (said,) = outside(decision)
    assert "web" in said
    assert "confirm-off h9" in said


@pytest.mark.parametrize("runs", [True, False], ids=["seen with it", "seen without it"])
def test_while_it_reports_it_owns_its_vms(runs: bool) -> None:
    decision = decided(left(beat("h9", T0 - 0.1, runs={"web": 5} if runs else {})))
    assert starts(decision) == []
    assert len(outside(decision)) == 1


def test_it_holds_starts_back_after_a_wipe_until_it_is_proven_off() -> None:
    wiped = left(owns=False, life_since=T0 - 100)
    assert [a.subject for a in decided(wiped).alarms if a.kind == "hold"] == ["h9"]
    proven = left(owns=False, life_since=T0 - 100, proofs=[off_proof("h9", T0 - 200)])
    assert [a.subject for a in decided(proven).alarms if a.kind == "hold"] == []


def test_a_person_confirms_it_off_and_the_proof_is_written_to_files_for_the_boot_remembered() -> None:
    settled, decision = confirmed(left())
    assert settled.granted
    (proof,) = [a.proof for a in decision.actions if isinstance(a, RememberProof)]
    assert proof.incarnation == "i1"
    assert "ada" in proof.sentence
    kinds = [type(a) for a in decision.actions if isinstance(a, (RememberProof, PutHost)) and a != SettleWish]
    assert kinds.index(RememberProof) < kinds.index(PutHost)


@pytest.mark.parametrize(
    ("said", "granted"),
    [
        (beat("h9", T0 - 0.5), False),
        (beat("h9", T0 - 2.5), False),
        (beat("h9", T0 + 0.0), False),
        (beat("h9", T0 - 60), True),
    ],
    ids=["it reports", "its window is not over", "heard just now", "silent"],
)
def test_confirm_off_is_refused_while_it_gives_a_sign_of_life(said: Heartbeat, granted: bool) -> None:
    assert confirmed(left(said))[0].granted is granted


@pytest.mark.parametrize(("boot", "granted"), [("i1", True), ("i0", False)])
def test_a_confirmation_is_about_the_boot_that_was_meant(boot: str, granted: bool) -> None:
    asked = replace(left(beat("h9", T0 - 60)), wishes=(wish(WishKind.HOST_CONFIRM_OFF, "h9", boot=boot),))
    assert [a.granted for a in decided(asked).actions if isinstance(a, SettleWish)] == [granted]


def test_after_a_gap_of_the_store_its_silence_begins_anew() -> None:
    asked = replace(left(beat("h9", T0 - 60)), wishes=(wish(WishKind.HOST_CONFIRM_OFF, "h9"),))
    decision = decided(asked, started=T0 - 1)
    assert [a.granted for a in decision.actions if isinstance(a, SettleWish)] == [False]


def test_a_later_boot_that_speaks_makes_the_confirmation_worthless() -> None:
    proven = left(beat("h9", T0 - 0.1, boot="i2", runs={"web": 5}), proofs=[off_proof("h9", T0 - 30)])
    assert starts(decided(proven)) == []


def test_the_very_boot_that_speaks_again_makes_the_confirmation_worthless() -> None:
    assert starts(decided(left(beat("h9", T0 - 0.1), proofs=[off_proof("h9", T0 - 30)]))) == []
    assert starts(decided(left(beat("h9", T0 - 60), proofs=[off_proof("h9", T0 - 30)]))) == ["web"]


def test_a_boot_outside_that_speaks_after_its_confirmation_withdraws_it_for_good() -> None:
    proof = off_proof("h9", T0 - 30)
    members = [host_record(h) for h in ("h1", "h2", "h3")]
    failing = Operation(
        id=OperationId("op"), kind=OperationKind.START, subject="web", epoch=Epoch(7), opened_at=Instant(T0), reason="",
        steps=(),
    )  # fmt: skip
    fenced = [*members, host_record("h9", HostState.FENCED, proof=proof)]
    ahead = off_proof("h9", T0 + 5000)  # an earlier life's clock
    for records, proofs in ((fenced, [proof]), (members, [proof]), (fenced, []), (members, [ahead])):
        decision = decided(left(beat("h9", T0 - 0.1), proofs=proofs, records=records, operations=[failing]))
        acts = [a for a in decision.actions if isinstance(a, (RememberProof, PutHost))]
        assert [type(a) for a in acts] == [RememberProof, PutHost], "files first"
        told = [a.proof if isinstance(a, RememberProof) else a.record.proof for a in acts]
        assert told == [replace(ahead if ahead in proofs else proof, void=True)] * 2
        assert [a.id for a in decision.actions if isinstance(a, EndOperation)] == ["op"]
        assert [a.highest for a in decision.alarms if a.kind == "proof_void"] == [True]
        assert retired(decision) == []


def test_a_confirmation_that_was_withdrawn_does_not_come_back_with_a_wipe_or_a_rollback() -> None:
    proof = off_proof("h9", T0 - 500)
    fenced = [*[host_record(h) for h in ("h1", "h2", "h3")], host_record("h9", HostState.FENCED, proof=proof)]
    void = replace(proof, void=True)
    for more in ({}, {"records": fenced}):
        seen = left(owns=False, life_since=T0 - 100, proofs=[void], **more)
        decision = decided(seen)
        assert [a.subject for a in decision.alarms if a.kind == "hold"] == ["h9"]
        assert retired(decision) == []
        granted, _ = confirmed(left(proofs=[void], **more))
        assert granted.granted, "a person may look again"


def test_a_host_outside_is_not_forgotten_on_a_proof_while_newer_files_may_be_on_their_way() -> None:
    young = left(owns=False, life_since=T0 - 20, proofs=[off_proof("h9", T0 - 100)])
    assert retired(decided(young)) == []
    assert retired(decided(replace(young, now=Instant(T0 + 50)))) == ["h9"]


def retired(decision: Decision) -> list[str]:
    return [a.doc.id for a in decision.actions if isinstance(a, PutHostDoc) and not a.doc.incarnation]


EMPTY = beat("h9", T0 - 0.1)
NOT_EMPTY = {
    "it runs something": beat("h9", T0 - 0.1, seen=(sighting("other", None, Sighting.PAUSED),)),
    "it is starting something": beat("h9", T0 - 0.1, orders=("op/start/web/1",)),
    "it may be starting something": beat("h9", T0 - 0.1, orders=(unanswered_order(VmId("web")),)),
    "its libvirt is hung": beat("h9", T0 - 0.1, hypervisor=HypervisorHealth.HUNG),
}


def test_an_empty_host_is_forgotten_without_a_word_from_anybody() -> None:
    decision = decided(left(EMPTY, owns=False))
    assert retired(decision) == ["h9"]
    assert outside(decision) == []


@pytest.mark.parametrize("why", list(NOT_EMPTY))
def test_a_host_that_may_not_be_empty_is_not_forgotten(why: str) -> None:
    assert retired(decided(left(NOT_EMPTY[why], owns=False))) == []


def test_a_silent_host_and_one_that_owns_a_vm_are_not_forgotten() -> None:
    assert retired(decided(left(owns=False))) == []
    assert retired(decided(left(EMPTY))) == []
    assert retired(decided(left(owns=False, proofs=[off_proof("h9", T0 - 30)]))) == ["h9"]


def test_nobody_is_forgotten_while_the_controllers_read_different_files() -> None:
    two = {"c1": "a", "c2": "b"}
    assert retired(decided(left(EMPTY, owns=False, files=two, looked={"c1": T0, "c2": T0}))) == []


# --- the whole story ---------------------------------------------------------------------------------------------


def test_a_dead_host_is_taken_out_of_the_file_and_its_vm_starts_elsewhere_once_a_person_has_looked() -> None:
    world = steady(vms={"web": "h1"})
    world.machines[HostId("h1")].device = "dark"
    world.power_off("h1")
    world.take_out("h1")
    world.run(100)
    assert owner(world) == "h1"
    assert world.view.vm_records[VmId("web")].state is VmState.LOST
    assert "host_outside" in {a.kind for a in world.alarms}
    world.wish(WishKind.HOST_CONFIRM_OFF, "h1")
    world.run(10)
    assert world.settled[-1].granted, world.settled[-1].sentence
    assert owner(world) in ("h2", "h3")
    assert world.view.host_records[HostId("h1")].state is HostState.FENCED
    assert world.view.outside == ()
    assert world.alarms == ()


def test_after_a_wipe_a_host_that_is_only_remembered_holds_starts_until_a_person_has_looked() -> None:
    world = steady(vms={"web": "h1"})
    world.cut("h1")
    world.take_out("h1")
    begin_new_life(world)
    world.run(150)
    assert owner(world) is None, "it runs on h1, which nobody hears"
    assert {"hold", "host_outside"} <= {a.kind for a in world.alarms if a.subject == "h1"}
    world.power_off("h1")
    world.wish(WishKind.HOST_CONFIRM_OFF, "h1")
    world.run(10)
    assert world.settled[-1].granted, world.settled[-1].sentence
    assert owner(world) in ("h2", "h3")


def test_a_host_taken_out_while_its_vms_run_and_put_back_is_as_before() -> None:
    world = steady(vms={"web": "h1"})
    spec = world.view.hosts[HostId("h1")]
    world.each_tick = keep_the_laws
    world.take_out("h1")
    world.run(60)
    assert owner(world) == "h1"
    assert world.opened == []
    world.view = replace(world.view, hosts={HostId("h1"): spec, **world.view.hosts})
    world.run(20)
    assert world.view.host_records[HostId("h1")].state is HostState.ONLINE
    assert world.opened == []
    assert world.alarms == ()
    assert isinstance(world, World)


# --- one of two copies is on a host outside ----------------------------------------------------------------------


def copy(host: str, started: float, generation: int = 5, *, at: float = T0 - 0.1, held: bool = False) -> Heartbeat:
    state = Sighting.PAUSED if held else Sighting.RUNNING
    seen = replace(sighting("web", generation, state), start_sent_at=Instant(started), held=held)
    return beat(host, at, seen=(seen,))


def with_copies(*beats: Heartbeat, record: VmRecord | None = None, **more: object) -> ClusterView:
    said = {b.host: b for b in (beat("h1", T0 - 0.1), beat("h2", T0 - 0.1), beat("h3", T0 - 0.1), *beats)}
    vms = [(vm_doc("web"), record or vm_record("web", "h2", 5))]
    return view(T0, beats=said.values(), vms=vms, docs=[MEMBER], bindings=BOUND, **more)  # type: ignore[arg-type]


def ordered(decision: Decision) -> list[tuple[OperationKind, str]]:
    opened = [a.operation for a in decision.actions if isinstance(a, OpenOperation)]
    return [(op.kind, step.order.host) for op in opened for step in op.steps if step.order]


def twice(decision: Decision) -> list[str]:
    return [a.sentence for a in decision.alarms if a.kind == "runs_twice" and a.highest]


def test_the_later_copy_in_the_file_is_paused_for_an_earlier_one_outside() -> None:
    decision = decided(with_copies(copy("h9", 10), copy("h2", 20)))
    assert ordered(decision) == [(OperationKind.PAUSE, "h2")]
    assert twice(decision)


def test_a_later_copy_outside_is_a_persons_matter_and_nothing_is_done() -> None:
    decision = decided(with_copies(copy("h9", 20), copy("h2", 10)))
    assert ordered(decision) == []
    (sentence,) = twice(decision)
    assert "h9" in sentence
    assert "virsh destroy web" in sentence
    assert "being paused" not in sentence
    (record,) = [a.record for a in decision.actions if isinstance(a, PutVm)]
    assert (record.state, record.reason) == (VmState.NEEDS_PERSON, sentence)
    again = decided(with_copies(copy("h9", 20), copy("h2", 10), record=record))
    assert [a for a in again.actions if isinstance(a, PutVm)] == []
    assert twice(again)


def test_an_older_copy_outside_is_not_stopped_by_us_and_one_in_the_file_is() -> None:
    assert ordered(decided(with_copies(copy("h9", 10, 4), copy("h2", 20)))) == []
    assert twice(decided(with_copies(copy("h9", 10, 4), copy("h2", 20))))
    owned = vm_record("web", "h9", 5)
    assert ordered(decided(with_copies(copy("h9", 20), copy("h2", 10, 4), record=owned))) == [
        (OperationKind.STOP, "h2")
    ]


def test_a_copy_outside_that_is_held_stays_a_persons_matter() -> None:
    decision = decided(with_copies(copy("h9", 20, held=True), copy("h2", 10)))
    assert ordered(decision) == []
    assert twice(decision)


@pytest.mark.parametrize("why", ["silent", "proven off", "does not run"])
def test_what_runs_no_more_outside_is_no_second_copy(why: str) -> None:
    there = copy("h9", 10, at=T0 - 9 if why == "silent" else T0 - 0.1)
    if why == "does not run":
        there = beat("h9", T0 - 0.1, seen=(sighting("web", 5, Sighting.CRASHED),))
    members = [host_record("h1"), host_record("h2"), host_record("h3")]
    records = [*members, host_record("h9", HostState.FENCED, proof=off_proof("h9", T0 - 0.05))]
    decision = decided(with_copies(there, copy("h2", 20), records=records if why == "proven off" else members))
    assert ordered(decision) == []
    assert twice(decision) == []


def test_the_only_copy_outside_is_left_as_it_was() -> None:
    decision = decided(with_copies(copy("h9", 10), record=vm_record("web", "h9", 5)))
    assert (ordered(decision), twice(decision)) == ([], [])
    assert [a.record.state for a in decision.actions if isinstance(a, PutVm)] == [VmState.UNKNOWN]
