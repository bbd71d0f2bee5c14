"""What a verdict on a host leads to: a question, a memory, a failover, a braked alarm, a return, a void proof."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangnetz.core.actions import (
    AskPower,
    Decision,
    EndOperation,
    OpenOperation,
    PutHost,
    PutVm,
    Remember,
)
from fangnetz.core.decide import decide
from fangnetz.core.detector import look
from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostState,
    HypervisorHealth,
    Power,
    PowerReading,
    Sighting,
    VmState,
)
from fangnetz.core.operations import Operation, OperationKind, StepState, failover_steps, return_steps
from fangnetz.core.policy import AfterFence, Policy, ReturnPolicy
from fangnetz.core.units import ControllerId, Epoch, HostId, Incarnation, Instant, OperationId, Seconds
from tests.core.world import (
    T0,
    beat,
    binding,
    decided,
    host_record,
    off_proof,
    probe_round,
    reading,
    sighting,
    view,
    vm_doc,
    vm_record,
    watched,
)

H1 = HostId("h1")
POLICY = Policy()
OTHERS = (beat("h2", T0 - 0.1), beat("h3", T0 - 0.1))
BOUND = [binding(h) for h in ("h1", "h2", "h3")]


def silent(age: float, *, answers: bool = False, **more: object) -> ClusterView:
    """h1 has been silent for `age`; the others report; probes of h1 are answered or not."""
    probes = tuple(probe_round(T0 - n, {"h1": answers, "h2": True, "h3": True}) for n in (1.1, 0.1))
    given_ = {"bindings": BOUND, "probes": probes, **more}
    return view(T0, beats=[beat("h1", T0 - age), *OTHERS], **given_)  # type: ignore[arg-type]


def opened(decision: Decision, kind: OperationKind = OperationKind.FAILOVER) -> list[Operation]:
    return [a.operation for a in decision.actions if isinstance(a, OpenOperation) and a.operation.kind is kind]


def asked(decision: Decision) -> list[HostId]:
    return [a.host for a in decision.actions if isinstance(a, AskPower)]


def put(decision: Decision) -> HostRecord | None:
    return next((a.record for a in decision.actions if isinstance(a, PutHost) and a.record.id == H1), None)


def alarms(decision: Decision) -> set[tuple[str, str]]:
    return {(a.kind, a.subject) for a in decision.alarms}


def failover(host: str = "h1", *, boot: str = "i1", **done: StepState) -> Operation:
    steps = tuple(replace(s, state=done.get(s.key.partition("/")[0], s.state)) for s in failover_steps())
    return Operation(
        id=OperationId("op-1"), kind=OperationKind.FAILOVER, subject=host, epoch=Epoch(7),
        opened_at=Instant(T0 - 2), reason="it was lost", steps=steps, incarnation=Incarnation(boot),
    )  # fmt: skip


# --- ask early ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "ask"), [(1.4, False), (1.6, True), (3.5, True)])
def test_the_device_is_asked_as_soon_as_one_report_is_overdue(age: float, ask: bool) -> None:
    assert (asked(decided(silent(age))) == [H1]) == ask


def test_it_is_asked_again_but_not_all_the_time() -> None:
    def with_last(ago: float, age: float) -> list[HostId]:
        return asked(decided(silent(age, answers=True, readings=[reading("h1", Power.UNKNOWN, T0 - ago)])))

    assert with_last(0.5, 2.0) == []
    assert with_last(1.0, 2.0) == [H1]
    assert with_last(9.0, 600.0) == []
    assert with_last(10.0, 600.0) == [H1]


def test_a_host_proven_off_is_asked_no_more() -> None:
    fenced = host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 5))
    records = [fenced, host_record("h2"), host_record("h3")]
    assert asked(decided(silent(60, records=records))) == []


def test_a_living_hosts_fence_path_is_read_until_it_is_bound_and_then_hourly() -> None:
    living = view(T0, beats=[beat("h1", T0 - 0.1), *OTHERS], bindings=BOUND[1:])
    assert asked(decided(living)) == [H1]
    assert asked(decided(replace(living, bindings={(H1, b.device): b for b in BOUND[:1]}))) == [
        HostId("h2"), HostId("h3")
    ]  # fmt: skip
    for bound, again in ((binding("h1", boot="i0"), True), (binding("h1", seen_on=T0 - 3601), True),
                         (binding("h1", matches=None), True), (binding("h1", seen_on=T0 - 3599), False)):  # fmt: skip
        assert (H1 in asked(decided(view(T0, beats=living.heartbeats.values(), bindings=[bound, *BOUND[1:]])))) == again


# --- failover ----------------------------------------------------------------------------------------------------

OFF = reading("h1", Power.OFF, T0 - 0.3)


def test_off_and_bound_opens_the_failover_with_its_proof_inside_the_window() -> None:
    (operation,) = opened(decided(silent(1.7, readings=[OFF])))
    assert operation.proof is not None
    assert operation.proof.evidence == (OFF,)
    assert operation.incarnation == "i1"
    assert operation.last_heard_at == T0 - 1.7


@pytest.mark.parametrize(
    "said",
    [
        replace(OFF, power=Power.UNKNOWN),
        replace(OFF, power=Power.ON),
        replace(OFF, guid="guid-of-h2"),
        reading("h1", Power.OFF, T0 - 1.75, took=1.0),
    ],
    ids=["unknown", "on", "swapped guid", "asked before the last report"],
)
def test_anything_less_waits_for_the_window(said: PowerReading) -> None:
    assert opened(decided(silent(1.7, readings=[said]))) == []


def test_off_of_a_plug_never_seen_on_waits_for_the_window() -> None:
    assert opened(decided(silent(1.7, readings=[OFF], bindings=BOUND[1:]))) == []


def test_off_of_a_host_that_answered_a_probe_after_it_is_no_proof_but_an_alarm() -> None:
    decision = decided(silent(1.7, answers=True, readings=[OFF]))
    assert opened(decision) == []
    assert ("off_contradicted", "h1") in alarms(decision)
    before = replace(OFF, asked_at=Instant(T0 - 0.05), answered_at=Instant(T0))
    assert len(opened(decided(silent(1.7, answers=True, readings=[before])))) == 1


def test_off_is_proof_although_everybody_is_silent() -> None:
    """The brake holds back cuts, never read-only proof."""
    beats = [beat(h, T0 - 9) for h in ("h1", "h2", "h3")]
    decision = decided(view(T0, beats=beats, readings=[OFF], bindings=BOUND))
    assert [o.subject for o in opened(decision)] == ["h1"]


def test_off_is_proof_in_maintenance_too() -> None:
    seen = silent(5, readings=[OFF], docs=[HostDoc(id=H1, maintenance=True)])
    assert len(opened(decided(seen))) == 1


def test_a_lost_host_is_fenced_without_a_reading() -> None:
    (operation,) = opened(decided(silent(3.5)))
    assert operation.proof is None
    record = put(decided(silent(3.5)))
    assert record is not None
    assert record.state is HostState.FENCING


def test_a_host_whose_kernel_answers_is_not_fenced() -> None:
    assert opened(decided(silent(300, answers=True))) == []


def test_a_lost_host_in_maintenance_is_not_fenced_and_there_is_an_alarm() -> None:
    decision = decided(silent(300, docs=[HostDoc(id=H1, maintenance=True)]))
    assert opened(decision) == []
    assert ("braked_maintenance", "h1") in alarms(decision)


def test_a_controller_on_the_lost_host_says_that_another_one_must_cut_it() -> None:
    seen = silent(300)
    there = replace(seen.hosts[H1], controllers=(ControllerId("c1"),))
    decision = decided(replace(seen, hosts={**seen.hosts, H1: there}))
    assert opened(decision) == []
    assert ("braked_own_host", "h1") in alarms(decision)


def test_a_brake_is_a_named_alarm_and_changes_nothing() -> None:
    beats = [beat("h1", T0 - 9), beat("h2", T0 - 9), beat("h3", T0 - 0.1)]
    probes = tuple(probe_round(T0 - n, {"h1": False, "h2": False, "h3": True}) for n in (1.1, 0.1))
    decision = decided(view(T0, beats=beats, bindings=BOUND, probes=probes))
    assert opened(decision) == []
    assert {("braked_mass_failure", "h1"), ("braked_mass_failure", "h2")} <= alarms(decision)


def test_without_the_control_lease_nothing_is_done_but_seen() -> None:
    decision = decided(silent(3.5, lease=False))
    assert decision.actions == ()
    assert len(decision.verdicts) == 3


def test_one_failover_at_a_time() -> None:
    assert opened(decided(silent(3.5, operations=[failover()]))) == []


def test_after_all_levels_failed_it_is_tried_again_only_if_its_devices_answer_since() -> None:
    person = host_record("h1", HostState.NEEDS_PERSON, since=T0 - 30)
    records = [person, host_record("h2"), host_record("h3")]
    dark = silent(90, records=records, readings=[reading("h1", Power.UNKNOWN, T0 - 1)])
    old = silent(90, records=records, readings=[reading("h1", Power.ON, T0 - 31)])
    back = silent(90, records=records, readings=[reading("h1", Power.ON, T0 - 1)])
    assert [len(opened(decided(seen))) for seen in (dark, old, back)] == [0, 0, 1]


# --- reboot ------------------------------------------------------------------------------------------------------


def rebooted(health: HypervisorHealth = HypervisorHealth.OK, **runs: int) -> ClusterView:
    vms = [(vm_doc("web"), vm_record("web", "h1", 5))]
    now = beat("h1", T0 - 0.1, boot="i2", runs=dict(runs), hypervisor=health)
    return view(T0, beats=[now, *OTHERS], bindings=BOUND, vms=vms)


def test_a_quick_reboot_opens_one_failover_for_its_earlier_boot_and_nothing_beside_it() -> None:
    decision = decided(rebooted())
    assert [(o.subject, o.incarnation) for o in opened(decision)] == [("h1", "i1")]
    assert opened(decision, OperationKind.START) == []


@pytest.mark.parametrize("state", [Sighting.RUNNING, Sighting.PAUSED, Sighting.INCOMING])
@pytest.mark.parametrize("age", [0.1, 9], ids=["fresh", "silent"])
@pytest.mark.parametrize("mark", [True, False])
def test_a_reboot_opens_nothing_for_a_vm_that_is_seen_elsewhere(state: Sighting, age: float, mark: bool) -> None:
    """No plan could move it, and each tick would open another failover. Once that host is off, one does."""
    seen = rebooted()
    there = replace(sighting("web", 5, state), held=mark and state is Sighting.PAUSED)
    elsewhere = replace(seen, heartbeats={**seen.heartbeats, HostId("h2"): beat("h2", T0 - age, seen=(there,))})
    assert opened(decided(elsewhere)) == []
    off = host_record("h2", HostState.FENCED, proof=off_proof("h2", T0 - 0.05))
    assert len(opened(decided(replace(elsewhere, host_records={**elsewhere.host_records, off.id: off})))) == 1


def test_a_reboot_whose_libvirt_does_not_answer_yet_waits() -> None:
    assert opened(decided(rebooted(HypervisorHealth.DOWN))) == []


def test_a_new_boot_that_runs_the_vm_is_no_loss_of_it() -> None:
    assert opened(decided(rebooted(web=5))) == []


# --- proofs do not outlive signs of life -------------------------------------------------------------------------


def void_view(heard_at: float, **more: object) -> ClusterView:
    proof = off_proof("h1", T0 - 5, evidence=(reading("h1", Power.OFF, T0 - 6),))
    records = [host_record("h1", HostState.FENCED, proof=proof), host_record("h2"), host_record("h3")]
    return view(T0, beats=[beat("h1", heard_at), *OTHERS], records=records, bindings=BOUND, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("heard_at", [T0 - 0.1, T0 - 4.9, T0 - 5.5])
def test_the_old_boot_speaking_voids_the_proof_with_the_highest_alarm(heard_at: float) -> None:
    decision = decided(void_view(heard_at))
    record = put(decision)
    assert record is not None
    assert record.proof is not None
    assert record.proof.void
    assert record.state is HostState.NEEDS_PERSON
    assert any(a.kind == "proof_void" and a.highest for a in decision.alarms)


def test_its_last_words_before_the_reading_do_not() -> None:
    decision = decided(void_view(T0 - 6.5))
    assert ("proof_void", "h1") not in alarms(decision)


def test_what_was_under_way_on_a_void_proof_is_stopped() -> None:
    ended = [a for a in decided(void_view(T0 - 0.1, operations=[failover()])).actions if isinstance(a, EndOperation)]
    assert [a.id for a in ended] == ["op-1"]


def test_a_new_boot_speaking_does_not_void_the_proof_of_the_old_one() -> None:
    seen = void_view(T0 - 9)
    seen = replace(seen, heartbeats={**seen.heartbeats, H1: beat("h1", T0 - 0.1, boot="i2")})
    record = put(decided(seen))
    assert record is not None
    assert record.state is HostState.RETURNING
    assert record.proof is not None
    assert not record.proof.void


# --- return ------------------------------------------------------------------------------------------------------


def returning(
    said: Heartbeat | None = None, policy: Policy = POLICY, record: HostRecord | None = None, **more: object
) -> HostRecord | None:
    back = record or host_record("h1", HostState.RETURNING, proof=off_proof("h1", T0 - 60))
    beats = [said or beat("h1", T0 - 0.1, boot="i2"), *OTHERS]
    records = [back, host_record("h2"), host_record("h3")]
    return put(decided(view(T0, beats=beats, records=records, bindings=BOUND, **more), policy=policy))  # type: ignore[arg-type]


def state_of(record: HostRecord | None) -> HostState | None:
    return record.state if record else None


@pytest.mark.parametrize("state", [HostState.FENCED, HostState.RETURNING])
def test_the_last_report_of_a_boot_that_was_cut_is_no_return(state: HostState) -> None:
    """It is still fresh when the plug reads OFF: the host reported until its power went."""
    cut = host_record("h1", state, proof=off_proof("h1", T0 - 0.2), cut_by="op-cut")
    last = beat("h1", T0 - 0.6)
    assert returning(last, record=cut) is None
    assert state_of(returning(beat("h1", T0 - 0.1), record=cut)) is HostState.NEEDS_PERSON, "heard after it: void"


def test_a_clean_new_boot_rejoins() -> None:
    record = returning()
    assert state_of(record) is HostState.ONLINE
    assert record is not None
    assert record.incarnation == "i2"


def test_it_waits_for_a_person_where_policy_says_so() -> None:
    record = returning(policy=replace(POLICY, return_=ReturnPolicy.MANUAL))
    assert state_of(record) is HostState.RETURNING
    assert record is not None
    assert "host activate" in record.reason


def test_it_does_not_rejoin_with_a_sick_libvirt() -> None:
    assert state_of(returning(beat("h1", T0 - 0.1, boot="i2", hypervisor=HypervisorHealth.HUNG))) is HostState.RETURNING


def test_it_does_not_rejoin_while_a_lost_executor_could_still_cut_it() -> None:
    record = host_record("h1", HostState.RETURNING, cut_possible_until=T0 + 1)
    assert state_of(returning(record=record)) is HostState.RETURNING
    assert state_of(returning(record=replace(record, cut_possible_until=Instant(T0)))) is HostState.ONLINE


def test_it_does_not_rejoin_while_an_operation_works_on_its_power() -> None:
    done = {"confirm": StepState.DONE, "prove": StepState.DONE}
    assert state_of(returning(operations=[failover(**done, fence=StepState.RUNNING)])) is not HostState.ONLINE


def test_it_does_not_rejoin_while_it_is_still_being_switched_on() -> None:
    (step, *rest) = return_steps()
    switching = replace(failover(), kind=OperationKind.RETURN, steps=(replace(step, state=StepState.RUNNING), *rest))
    assert state_of(returning(operations=[switching])) is HostState.RETURNING


def test_it_does_not_rejoin_with_a_copy_that_belongs_to_another() -> None:
    vms = [(vm_doc("web"), vm_record("web", "h2", 6))]
    said = beat("h1", T0 - 0.1, boot="i2", seen=(sighting("web", 5),))
    assert state_of(returning(said, vms=vms)) is HostState.RETURNING


@pytest.mark.parametrize(
    ("changes", "on"),
    [
        ({}, True),
        ({"cut_by": None}, False),
        ({"cut_possible_until": Instant(T0 + 1)}, False),
        ({"state": HostState.NEEDS_PERSON}, False),
    ],
    ids=["cut by us", "not ours", "a cut may be on its way", "not fenced"],
)
def test_only_what_we_cut_is_switched_on_again(changes: dict[str, object], on: bool) -> None:
    fenced = host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 30), cut_by="op-cut")
    records = [replace(fenced, **changes), host_record("h2"), host_record("h3")]  # type: ignore[arg-type]
    seen = silent(60, records=records)
    returns = opened(decided(seen), OperationKind.RETURN)
    assert [operation.incident for operation in returns] == (["op-cut"] if on else []), "it says whose cut it undoes"
    stay = replace(POLICY, after_fence=AfterFence.STAY_OFF)
    assert opened(decided(seen, policy=stay), OperationKind.RETURN) == []


# --- memory ------------------------------------------------------------------------------------------------------


def remembered(said: PowerReading, now: Heartbeat, *bound: object) -> list[Remember]:
    seen = view(T0, beats=[now, *OTHERS], readings=[said], bindings=[*BOUND[1:], *bound])  # type: ignore[list-item]
    return [a for a in decided(seen).actions if isinstance(a, Remember)]


def test_a_plug_seen_on_is_remembered_once_per_boot() -> None:
    on = reading("h1", Power.ON, T0 - 0.5, boot="i1")
    (made,) = remembered(on, beat("h1", T0 - 0.1))
    assert made.binding.incarnation == "i1"
    assert remembered(on, beat("h1", T0 - 0.1), replace(made.binding, seen_on_at=Instant(T0 - 60))) == []
    assert len(remembered(on, beat("h1", T0 - 0.1), replace(made.binding, incarnation=Incarnation("i0")))) == 1


def test_a_swapped_device_is_remembered_as_a_mismatch_and_alarmed() -> None:
    on = reading("h1", Power.ON, T0 - 0.5, boot="i1", guid="guid-of-h2")
    (made,) = remembered(on, beat("h1", T0 - 0.1), binding("h1"))
    assert made.binding.guid_matches is False
    seen = view(T0, beats=[beat("h1", T0 - 0.1), *OTHERS], bindings=[made.binding, *BOUND[1:]])
    assert ("not_protected", "h1") in alarms(decided(seen))


# --- alarms of the evidence table --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", [HostState.SUSPECT, HostState.UNKNOWN, HostState.DEGRADED, HostState.LOST, HostState.NEEDS_PERSON]
)
def test_a_state_in_which_nothing_happens_is_alarmed(state: HostState) -> None:
    records = [host_record("h1", state), host_record("h2"), host_record("h3")]
    assert "h1" in {subject for _, subject in alarms(decided(silent(300, answers=True, records=records)))}


# --- next due ----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 8), min_size=3, max_size=3))
def test_the_next_due_instant_is_never_later_than_the_first_threshold_that_silence_crosses(ages: list[float]) -> None:
    seen = view(T0, beats=[beat(f"h{n}", T0 - age) for n, age in enumerate(ages, start=1)], bindings=BOUND)
    due = decided(seen).next_due
    crossings = [t - age for age in ages for t in (POLICY.overdue_s, POLICY.window_s) if age < t]
    if crossings:
        assert due is not None
        assert T0 < due <= T0 + min(crossings) + 0.02
    else:
        assert due is None


# --- decide never trips over its own tables ----------------------------------------------------------------------

instants = st.floats(-400, 0).map(lambda s: T0 + s)
boots = st.sampled_from(["i1", "i2"])


@st.composite
def any_view(draw: st.DrawFn) -> ClusterView:
    hosts = ("h1", "h2", "h3")
    records = [
        host_record(
            h, draw(st.sampled_from(HostState)), boot=draw(st.sampled_from(["", "i1", "i2"])),
            proof=draw(st.none() | st.builds(
                lambda at, boot, void, h=h: off_proof(h, at, boot=boot, void=void), instants, boots, st.booleans())),
            cut_by=draw(st.sampled_from([None, "op-cut"])),
        )
        for h in hosts if draw(st.booleans())
    ]  # fmt: skip
    beats = [
        beat(h, draw(instants | st.just(T0 - 0.2)), boot=draw(boots),
             hypervisor=draw(st.sampled_from(HypervisorHealth)),
             runs={"web": draw(st.integers(1, 3))} if draw(st.booleans()) else {},
             releases={"web": draw(st.integers(1, 3))} if draw(st.booleans()) else {})
        for h in hosts if draw(st.booleans())
    ]  # fmt: skip
    readings = [
        reading(h, draw(st.sampled_from(Power)), draw(instants), boot=draw(boots)) for h in hosts if draw(st.booleans())
    ]
    record = vm_record(
        "web", draw(st.sampled_from([None, *hosts])), draw(st.integers(1, 3)), state=draw(st.sampled_from(VmState))
    )
    return view(
        T0,
        beats=beats,
        records=records,
        readings=readings,
        bindings=[binding(h, boot=draw(boots)) for h in hosts if draw(st.booleans())],
        probes=tuple(
            probe_round(T0 - n, {h: draw(st.sampled_from([True, False, None])) for h in hosts}) for n in (1.1, 0.1)
        ),
        vms=[(vm_doc("web"), draw(st.sampled_from([record, None])))],
        docs=[HostDoc(id=HostId(h), maintenance=draw(st.booleans())) for h in hosts if draw(st.booleans())],
        operations=[failover(draw(st.sampled_from(hosts)), boot=draw(boots))] if draw(st.booleans()) else [],
        life_since=draw(st.sampled_from([T0 - 3600, T0 - 100])),
    )


@settings(max_examples=800, deadline=None)
@given(any_view(), st.booleans())
def test_any_view_is_decided_and_no_record_is_ever_written_twice(seen: ClusterView, young: bool) -> None:
    watch = look(None, seen, POLICY) if young else watched(seen)
    decision = decide(seen, watch, POLICY)
    hosts = [a.record.id for a in decision.actions if isinstance(a, PutHost)]
    assert len(hosts) == len(set(hosts))
    operations = [(a.operation.kind, a.operation.subject) for a in decision.actions if isinstance(a, OpenOperation)]
    assert len(operations) == len(set(operations))
    for action in decision.actions:
        if isinstance(action, OpenOperation) and action.operation.kind is OperationKind.FAILOVER:
            judged = next(v for v in decision.verdicts if v.host == action.operation.subject)
            assert not judged.fresh or judged.incarnation != action.operation.incarnation
            if young and action.operation.proof is None:
                assert judged.fresh  # a reboot: a first look never calls anything lost
        if isinstance(action, PutVm):
            assert action.record.reason


def test_a_silent_hosts_question_pauses_no_longer_than_its_bound() -> None:
    late = silent(9999, answers=True, readings=[reading("h1", Power.ON, T0 - 10.0)])
    assert asked(decided(late)) == [H1]
    assert Seconds(10.0) >= POLICY.tick_s


def test_a_guid_that_two_hosts_carry_binds_neither() -> None:
    same = replace(binding("h2"), guid=binding("h1").guid)
    on = reading("h1", Power.ON, T0 - 0.5, boot="i1", guid=binding("h1").guid)
    seen = view(
        T0,
        beats=[beat("h1", T0 - 0.1), beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)],
        bindings=[binding("h1"), same, binding("h3")],
        readings=[on],
        records=[host_record(h) for h in ("h1", "h2", "h3")],
    )
    made = [a.binding for a in decided(seen).actions if isinstance(a, Remember)]
    assert [(b.host, b.guid_matches) for b in made] == [("h1", None)]


def test_hosts_that_wait_for_a_person_since_long_brake_no_other_cut() -> None:
    hosts = [f"h{n}" for n in range(1, 11)]
    probes = tuple(probe_round(T0 - n, {h: int(h[1:]) > 4 for h in hosts}) for n in (1.1, 0.1))
    beats = [beat(h, T0 - (900 if int(h[1:]) <= 3 else 5 if h == "h4" else 0.1)) for h in hosts]

    def opened(since: float) -> list[str]:
        records = [
            host_record(h, HostState.NEEDS_PERSON, since=since) if int(h[1:]) <= 3 else host_record(h) for h in hosts
        ]
        seen = view(T0, hosts=hosts, beats=beats, probes=probes, bindings=[binding(h) for h in hosts], records=records)
        return [a.operation.subject for a in decided(seen).actions if isinstance(a, OpenOperation)]

    assert opened(T0 - 600) == ["h4"]
    assert opened(T0 - 10) == []
