"""What files remember when the store is empty or rolled back: proofs and last boots, and what each of them is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core import invariants
from fangnetz.core.actions import Decision, EndOperation, OpenOperation, PutHost, PutHostDoc, RememberProof
from fangnetz.core.detector import known_incarnation
from fangnetz.core.fencing import holds, remembered_proof
from fangnetz.core.model import ClusterView, HostDoc, HostState, OffProof, Power, ProofKind, VmState, WishKind
from fangnetz.core.operations import Operation, OperationKind, OperationState, Step, StepKind, StepState, failover_steps
from fangnetz.core.ownership import Granted, Withheld, may_own, owner_let_go
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import unheard_in_this_life
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, MiB, OperationId, VmId
from tests.core.moving_world import World
from tests.core.test_stories import begin_new_life, failovers, owner, steady
from tests.core.world import (
    T0,
    beat,
    binding,
    decided,
    host_record,
    off_proof,
    probe_round,
    reading,
    start_order,
    view,
    vm_doc,
    vm_record,
    watched,
    wish,
)

H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
VM = VmId("web")
BOUND = [binding(h) for h in ("h1", "h2", "h3")]
LIFE_BEGAN = T0 - 200


def doc(boot: str = "i1") -> HostDoc:
    return HostDoc(id=H1, incarnation=Incarnation(boot))


def wiped(*, proof: OffProof | None, remembered: HostDoc | None = None, **more: object) -> ClusterView:
    """A new life of the store; h1 is not heard in it, h2 and h3 are."""
    base: dict[str, object] = {
        "records": [host_record("h2"), host_record("h3")],
        "beats": [beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)],
        "docs": [remembered or doc()],
        "bindings": BOUND,
        "proofs": [] if proof is None else [proof],
        "life_since": LIFE_BEGAN,
    }
    return view(T0, **{**base, **more})  # type: ignore[arg-type]


def held(seen: ClusterView) -> tuple[str, ...]:
    return unheard_in_this_life(seen, watched(seen), Policy())


# --- a remembered proof ------------------------------------------------------------------------------------------

EARLIER = off_proof("h1", LIFE_BEGAN - 50)
NONE = {
    "none is remembered": wiped(proof=None),
    "it is void": wiped(proof=replace(EARLIER, void=True)),
    "it is of an earlier boot than the last member": wiped(proof=EARLIER, remembered=doc("i2")),
}
WORTHLESS = {
    **NONE,
    "no member is remembered": wiped(proof=EARLIER, remembered=HostDoc(id=H1)),
    "that boot was heard in this life": wiped(proof=EARLIER, beats=[beat("h1", T0 - 100), beat("h2", T0 - 0.1)]),
    "that boot was heard, and the former store's clock was ahead": wiped(
        proof=off_proof("h1", T0 + 5000), beats=[beat("h1", T0 - 100), beat("h2", T0 - 0.1)]
    ),
    "that boot was heard after it in the same life": wiped(
        proof=off_proof("h1", T0 - 100), beats=[beat("h1", T0 - 50), beat("h2", T0 - 0.1)]
    ),
}


def test_a_proof_outlives_the_store() -> None:
    seen = wiped(proof=EARLIER)
    assert remembered_proof(seen, H1) == EARLIER
    assert held(seen) == ()
    (record,) = [a.record for a in decided(seen).actions if isinstance(a, PutHost) and a.record.id == H1]
    assert (record.state, record.incarnation, record.cut_by) == (HostState.FENCED, "i1", None)
    assert record.proof is not None
    assert (record.proof.proven_at, record.proof.evidence) == (T0, ()), "its instants were another clock's"


@pytest.mark.parametrize("why", list(WORTHLESS))
def test_a_remembered_proof_is_worthless_when(why: str) -> None:
    seen = WORTHLESS[why]
    assert remembered_proof(seen, H1) is None
    assert not any(
        isinstance(a, PutHost) and a.record.id == H1 and a.record.state is HostState.FENCED
        for a in decided(seen).actions
    )


@pytest.mark.parametrize("why", list(NONE))
def test_a_silent_host_without_a_proof_that_holds_keeps_every_start_back(why: str) -> None:
    assert held(NONE[why]) == ("h1",)


def test_a_proof_of_this_life_stands_beside_the_report_that_came_before_it() -> None:
    seen = wiped(proof=off_proof("h1", T0 - 50), beats=[beat("h1", T0 - 100), beat("h2", T0 - 0.1)])
    assert remembered_proof(seen, H1) is not None


def test_a_boot_that_speaks_after_its_proof_withdraws_it_from_the_files_for_good() -> None:
    seen = wiped(proof=EARLIER, beats=[beat(h, T0 - 0.1) for h in ("h1", "h2", "h3")])
    decision = decided(seen)
    assert [a.proof.void for a in decision.actions if isinstance(a, RememberProof)] == [True]
    assert [a.highest for a in decision.alarms if a.kind == "proof_void"] == [True]


def test_a_voided_proof_is_written_to_files_before_the_record() -> None:
    proof = off_proof("h1", T0 - 50)
    seen = wiped(
        proof=proof,
        beats=[beat(h, T0 - 0.1) for h in ("h1", "h2", "h3")],
        records=[host_record("h1", HostState.FENCED, proof=proof), host_record("h2"), host_record("h3")],
    )
    kinds = [type(a) for a in decided(seen).actions if isinstance(a, (RememberProof, PutHost))]
    assert kinds[:2] == [RememberProof, PutHost]


# --- a proof that was withdrawn, in a store that was rolled back ---------------------------------------------------


def rolled_back(**more: object) -> ClusterView:
    """The record says that h1 is fenced; the files say that its boot spoke after that very proof."""
    records = [host_record("h1", HostState.FENCED, proof=EARLIER), host_record("h2"), host_record("h3")]
    vms = [(vm_doc("web"), vm_record("web", "h1", 5))]
    return wiped(**{"proof": replace(EARLIER, void=True), "records": records, "vms": vms, **more})  # type: ignore[arg-type]


def test_a_rollback_does_not_bring_back_a_proof_that_was_withdrawn() -> None:
    seen = rolled_back()
    assert not holds(seen, EARLIER, Incarnation("i1"))
    assert holds(wiped(proof=None), EARLIER, Incarnation("i1"))
    assert holds(wiped(proof=replace(EARLIER, incarnation=Incarnation("i0"), void=True)), EARLIER, Incarnation("i1"))
    assert held(seen) == ("h1",)
    assert isinstance(owner_let_go(seen, seen.vm_records[VM]), Withheld)


def test_what_rests_on_a_withdrawn_proof_ends_and_the_record_is_told() -> None:
    start = Operation(
        id=OperationId("op"), kind=OperationKind.START, subject="web", epoch=Epoch(7), opened_at=Instant(T0), reason="",
        steps=(_start_step("h2"),),
    )  # fmt: skip
    decision = decided(rolled_back(operations=[start]))
    (record,) = [a.record for a in decision.actions if isinstance(a, PutHost) and a.record.id == H1]
    assert record.state is HostState.NEEDS_PERSON
    assert record.proof == replace(EARLIER, void=True)
    ended = [(a.id, a.state) for a in decision.actions if isinstance(a, EndOperation)]
    assert ended == [("op", OperationState.NEEDS_PERSON)]
    assert [a.highest for a in decision.alarms if a.kind == "proof_void"] == [True]
    assert not [a for a in decision.actions if isinstance(a, RememberProof)], "the files say it already"


@pytest.mark.parametrize("power", [Power.OFF, Power.ON])
def test_no_device_is_believed_about_a_boot_that_spoke_after_its_proof(power: Power) -> None:
    seen = rolled_back(readings=[reading("h1", power, T0 - 1)])
    told = replace(seen, host_records={h: r for h, r in seen.host_records.items() if h != H1})
    for look in (seen, told):
        assert not [a for a in decided(look).actions if isinstance(a, OpenOperation)]


def test_a_person_s_word_is_in_the_files_before_anything_rests_on_it() -> None:
    acts = decided(rolled_back(wishes=(wish(WishKind.HOST_CONFIRM_OFF, "h1"),))).actions
    kinds = [type(a) for a in acts if isinstance(a, (RememberProof, OpenOperation))]
    assert kinds == [RememberProof, OpenOperation]


def test_a_person_s_later_word_replaces_the_withdrawn_proof() -> None:
    world = steady(vms={"web": "h1"})
    world.each_tick = None  # a lying device does break one writer
    world.machines[H1].device = "lies_off"
    world.machines[H1].reports = False
    world.cut("h1")
    world.run(10)
    world.machines[H1].reports = True
    world.heal("h1")
    world.run(5)
    assert world.view.proofs[H1].void
    world.power_off("h1")
    world.run(60)
    world.wish(WishKind.HOST_CONFIRM_OFF, "h1")
    world.run(10)
    assert world.settled[-1].granted, world.settled[-1].sentence
    assert not world.view.proofs[H1].void
    assert state(world, H1) is HostState.FENCED


def test_a_failover_that_is_about_to_write_its_proof_down_is_not_overtaken() -> None:
    proof = replace(off_proof("h1", T0 - 1), kind=ProofKind.ALREADY_OFF)
    failover = Operation(
        id=OperationId("fo"), kind=OperationKind.FAILOVER, subject="h1", epoch=Epoch(7), opened_at=Instant(T0 - 8),
        reason="", incarnation=Incarnation("i1"), steps=failover_steps(),
    )  # fmt: skip
    records = [host_record("h1", HostState.FENCING, cut_by="fo"), host_record("h2"), host_record("h3")]
    heard = [beat("h1", T0 - 9), beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)]
    seen = wiped(proof=proof, records=records, beats=heard, operations=[failover])
    assert H1 not in {a.record.id for a in decided(seen).actions if isinstance(a, PutHost)}
    alone = wiped(proof=proof, records=records, beats=heard)
    assert [a.record.state for a in decided(alone).actions if isinstance(a, PutHost) and a.record.id == H1] == [
        HostState.FENCED
    ]


# --- files that are still on their way -----------------------------------------------------------------------------

YOUNG = T0 - 20
JUST_BEFORE = off_proof("h1", YOUNG - 50)
ON_THEIR_WAY = {
    "files say so": wiped(proof=JUST_BEFORE, life_since=YOUNG),
    "the record says so": wiped(
        proof=None,
        life_since=YOUNG,
        records=[host_record("h1", HostState.FENCED, proof=JUST_BEFORE), host_record("h2"), host_record("h3")],
    ),
}


@pytest.mark.parametrize("who", list(ON_THEIR_WAY))
def test_a_proof_of_an_earlier_life_lifts_no_hold_while_newer_files_may_be_on_their_way(who: str) -> None:
    young = ON_THEIR_WAY[who]
    assert held(young) == ("h1",)
    silent = tuple(probe_round(T0 - 0.2 - n, {"h1": False, "h2": True, "h3": True}) for n in (2, 1, 0))
    acts = decided(replace(young, probes=silent)).actions
    put = [a.record.state for a in acts if isinstance(a, PutHost) and a.record.id == H1]
    assert HostState.FENCED not in put or H1 in young.host_records
    assert not [a for a in acts if isinstance(a, OpenOperation)], "a proof there is: nothing is to be cut"
    later = replace(young, now=Instant(YOUNG + Policy().startup_grace_s + 1))
    assert held(later) == ()


@pytest.mark.parametrize("who", list(ON_THEIR_WAY))
def test_a_device_that_reads_off_needs_no_files(who: str) -> None:
    young = ON_THEIR_WAY[who]
    assert [a for a in decided(young).actions if type(a).__name__ == "AskPower" and a.host == H1]
    assert held(replace(young, readings={H1: (reading("h1", Power.ON, T0 - 1),)})) == ("h1",)
    assert held(replace(young, readings={H1: (reading("h1", Power.OFF, YOUNG - 1),)})) == ("h1",)
    assert held(replace(young, readings={H1: (reading("h1", Power.OFF, T0 - 1),)})) == ()


# --- the last boot that was a member -----------------------------------------------------------------------------


def test_files_name_the_last_boot_before_a_record_that_was_rolled_back() -> None:
    old = host_record("h1", HostState.FENCED, boot="i1", proof=off_proof("h1", LIFE_BEGAN - 500))
    seen = wiped(proof=None, remembered=doc("i2"), records=[old, host_record("h2"), host_record("h3")])
    assert known_incarnation(seen, H1) == "i2"
    assert held(seen) == ("h1",), "the proof is about a boot that has been gone for long"


def test_a_host_is_not_taken_for_fenced_because_an_older_boot_of_it_is_proven_off() -> None:
    old = host_record("h1", HostState.FENCED, boot="i1", proof=off_proof("h1", LIFE_BEGAN - 500))
    seen = wiped(proof=None, remembered=doc("i2"), records=[old, host_record("h2"), host_record("h3")])
    (record,) = [a.record for a in decided(seen).actions if isinstance(a, PutHost) and a.record.id == H1]
    assert record.state is not HostState.FENCED
    stays = wiped(proof=None, remembered=doc("i1"), records=[old, host_record("h2"), host_record("h3")])
    assert not [a for a in decided(stays).actions if isinstance(a, PutHost) and a.record.id == H1]


def test_a_new_boot_is_in_the_files_before_it_is_a_member() -> None:
    back = beat("h1", T0 - 0.1, boot="i2")
    records = [host_record("h1", HostState.RETURNING, boot="i1"), host_record("h2"), host_record("h3")]
    seen = wiped(proof=None, beats=[back, beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)], records=records)
    told = [
        (type(a).__name__, (a.doc if isinstance(a, PutHostDoc) else a.record).incarnation)
        for a in decided(seen).actions
        if (isinstance(a, PutHostDoc) and a.doc.id == H1) or (isinstance(a, PutHost) and a.record.id == H1)
    ]
    assert told == [("PutHostDoc", "i2"), ("PutHost", "i2")]


def test_a_fenced_host_whose_last_boot_was_never_proven_off_is_judged_anew() -> None:
    world = steady(vms={"web": "h1"})
    world.each_tick = lambda w, _: invariants.must_hold(invariants.one_writer(w.truth))  # numbers do go back here
    world.cut("h1")
    world.until(lambda: owner(world) != "h1", within=20)
    before = world.view
    world.heal("h1")
    world.until(lambda: world.view.host_records[H1].state is HostState.ONLINE, within=60)
    assert world.view.host_docs[H1].incarnation == "h1-boot2"
    world.run(10)
    first = owner(world)
    assert first is not None
    small = {h: replace(s, memory_mib=MiB(100)) for h, s in world.view.hosts.items() if h != H1}
    world.view = replace(world.view, hosts={**world.view.hosts, **small})
    world.power_off(first)
    world.until(lambda: VM in world.machines[H1].runs, within=30)
    # Now the store is rolled back to when h1 was fenced, and h1 is cut off with its device dark.
    world.cut("h1")
    world.machines[H1].device = "dark"
    files = {"host_docs": world.view.host_docs, "bindings": world.view.bindings, "proofs": world.view.proofs}
    world.view = replace(before, **files, now=world.view.now)  # type: ignore[arg-type]
    begin_new_life(world)
    world.view = replace(world.view, host_records=before.host_records, vm_records=before.vm_records)
    world.run(200)  # one writer holds at every tick
    assert world.view.host_records[H1].state is HostState.NEEDS_PERSON
    assert "confirm-off h1" in "".join(a.sentence for a in world.alarms if a.kind == "hold" and a.subject == "h1")


# --- a start in hand ---------------------------------------------------------------------------------------------


def in_hand(owner_of_web: str | None, host: str, *, settled: StepState | None = None) -> ClusterView:
    operation = Operation(
        id=OperationId("op"), kind=OperationKind.START, subject="web", epoch=Epoch(7), opened_at=Instant(T0), reason="",
        steps=(replace(_start_step(host), state=settled or StepState.RUNNING),),
    )  # fmt: skip
    said = [beat(h, T0 - 0.1, orders=("op/start/web/1",) if h == host else ()) for h in ("h1", "h2", "h3")]
    record = vm_record("web", owner_of_web, 5)
    released = replace(said[0], releases=beat("h1", T0, releases={"web": 5}).releases)
    operations = [] if settled is None else [operation]
    return view(T0, beats=[released, *said[1:]], vms=[(vm_doc("web"), record)], operations=operations)


def _start_step(host: str) -> Step:
    return Step(key="start/web/1", kind=StepKind.START, order=start_order("web", host, 6))


@pytest.mark.parametrize("owner_of_web", ["h1", None], ids=["owned", "not owned"])
@pytest.mark.parametrize("host", ["h1", "h3"])
def test_a_start_in_hand_that_nobody_remembers_keeps_the_vm_from_every_other_host(
    owner_of_web: str | None, host: str
) -> None:
    seen = in_hand(owner_of_web, host)
    record = seen.vm_records[VM]
    assert isinstance(may_own(seen, record, H2, Incarnation("i1"), ()), Withheld)
    assert isinstance(owner_let_go(seen, record), Withheld)


def test_not_even_its_owner_starts_a_vm_that_another_host_is_starting() -> None:
    seen = in_hand("h1", "h3")
    assert isinstance(may_own(seen, seen.vm_records[VM], H1, Incarnation("i1"), ()), Withheld)


def test_a_start_that_the_journal_knows_to_have_ended_keeps_it_from_nobody() -> None:
    seen = in_hand("h1", "h1", settled=StepState.REFUSED)
    assert isinstance(may_own(seen, seen.vm_records[VM], H2, Incarnation("i1"), ()), Granted)


# --- stories -----------------------------------------------------------------------------------------------------


def test_after_a_wipe_a_host_proven_off_before_it_holds_nobody_back_though_its_device_is_dark() -> None:
    world = steady(vms={"web": "h1", "db": "h2"})
    world.cut("h1")
    world.until(lambda: moved(world), within=20)
    world.power_off("h1")
    world.machines[H1].device = "dark"
    world.run(1)
    begin_new_life(world)
    world.run(10)
    assert "hold" in {a.kind for a in world.alarms}, "newer files may be on their way"
    world.run(world.policy.startup_grace_s)
    assert world.view.host_records[H1].state is HostState.FENCED
    assert "hold" not in {a.kind for a in world.alarms}
    assert owner(world, "db") == "h2"
    world.power_off("h2")
    world.until(lambda: owner(world, "db") == "h3", within=90)
    assert all(machine.boots == 1 for machine in world.machines.values()), "nobody was switched on again"


def test_after_a_wipe_a_dark_and_silent_host_alone_needs_a_person_in_bounded_time() -> None:
    world = steady(vms={"web": "h1", "db": "h2"})
    world.cut("h1")
    world.machines[H1].device = "dark"
    begin_new_life(world)
    bound = world.policy.startup_grace_s + world.policy.window_s + 10
    world.until(lambda: state(world, H1) is HostState.NEEDS_PERSON, within=bound)
    assert owner(world, "db") == "h2"
    assert {state(world, h) for h in (H2, H3)} == {HostState.ONLINE}
    assert all("confirm-off h1" in a.sentence for a in world.alarms if a.kind == "hold")
    world.power_off("h1")
    world.run(5)
    world.wish(WishKind.HOST_CONFIRM_OFF, "h1")
    world.until(lambda: moved(world), within=10)
    assert not {"hold", "needs_person"} & {a.kind for a in world.alarms}


def moved(world: World) -> bool:
    record = world.view.vm_records.get(VM)
    return record is not None and record.owner in (H2, H3)


def state(world: World, host: HostId) -> HostState | None:
    record = world.view.host_records.get(host)
    return record.state if record is not None else None


def test_after_a_wipe_a_silent_host_whose_device_reads_on_is_fenced_and_recovered_as_ever() -> None:
    world = steady(vms={"web": "h1", "db": "h2"})
    world.cut("h1")
    begin_new_life(world)
    world.until(lambda: moved(world), within=world.policy.startup_grace_s + 30)
    assert failovers(world) == ["h1"]
    assert not world.machines[H1].powered or world.machines[H1].boots == 2


def test_after_a_wipe_a_silent_host_whose_bound_device_reads_off_is_proven_by_memory_and_device() -> None:
    world = steady(vms={"web": "h1", "db": "h2"})
    world.power_off("h1")
    begin_new_life(world)
    world.until(lambda: moved(world), within=30)
    assert failovers(world) == ["h1"]
    (operation,) = world.opened[:1]
    assert operation.proof is not None


def test_a_voided_proof_does_not_come_back_with_a_wipe() -> None:
    world = steady(vms={"web": "h1"})
    world.each_tick = None  # a lying device does break one writer
    world.machines[H1].device = "lies_off"
    world.machines[H1].reports = False
    world.cut("h1")
    world.run(10)
    assert state(world, H1) is HostState.FENCED
    world.machines[H1].reports = True
    world.heal("h1")
    world.run(5)
    assert world.view.proofs[H1].void
    world.machines[H1].device = "dark"
    world.cut("h1")
    begin_new_life(world)
    world.run(30)
    assert state(world, H1) is not HostState.FENCED
    assert "hold" in {a.kind for a in world.alarms}


def test_generations_given_before_a_rollback_are_not_given_again_after_an_adoption() -> None:
    seen = view(
        T0,
        beats=[beat("h1", T0 - 0.1, runs={"web": 9}), beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)],
        vms=[(vm_doc("web"), vm_record("web", "h2", 5))],
        bindings=BOUND,
    )
    decision: Decision = decided(seen)
    records = [a.record for a in decision.actions if type(a).__name__ == "PutVm"]  # adopted where it runs
    assert [(r.owner, r.generation, r.state) for r in records] == [("h1", Generation(9), VmState.RUNNING)]
    assert not any(isinstance(a, OpenOperation) for a in decision.actions)
