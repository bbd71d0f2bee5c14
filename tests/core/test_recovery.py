"""The plan: every VM of the operation gets a host or a reason, and every host passes through the one door."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from fangnetz.core.detector import Watch
from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostDoc,
    HostState,
    HypervisorHealth,
    Rules,
    Sighting,
    VmDoc,
    VmRecord,
    VmState,
    VmWish,
)
from fangnetz.core.operations import (
    Operation,
    OperationKind,
    Step,
    StepState,
    failover_steps,
    start_steps,
    vm_start_steps,
)
from fangnetz.core.policy import Policy, StartOn
from fangnetz.core.recovery import LEASE_HELD, RecoveryPlan, plan_recovery, subjects
from fangnetz.core.rooms import rooms
from fangnetz.core.units import Epoch, HostId, Incarnation, Instant, OperationId, VmId
from tests.core.world import (
    T0,
    beat,
    host_record,
    off_proof,
    sighting,
    start_order,
    verdicts_of,
    view,
    vm_doc,
    vm_record,
    watched,
)

POLICY = Policy()
GONE = host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 5))
ALIVE = (beat("h2", T0), beat("h3", T0))


def operation(kind: OperationKind = OperationKind.FAILOVER, subject: str = "h1", *steps: Step) -> Operation:
    base = failover_steps() if kind is OperationKind.FAILOVER else start_steps()
    return Operation(
        id=OperationId("op"),
        kind=kind,
        subject=subject,
        epoch=Epoch(7),
        opened_at=Instant(T0 - 5),
        reason="a test",
        steps=(*base, *steps),
        incarnation=Incarnation("i1"),
    )


def refused(vm: str, host: str, generation: int, attempt: int = 1, **facts: str) -> Step:
    start, _ = vm_start_steps(start_order(vm, host, generation), attempt=attempt, after="plan/1")
    return replace(start, state=StepState.REFUSED, sentence="it said no", facts=facts)


def seen_with(
    vms: Iterable[tuple[VmDoc, VmRecord | None]], beats: Iterable[Heartbeat] = ALIVE, **more: object
) -> ClusterView:
    records = [GONE, host_record("h2"), host_record("h3")]
    return view(T0, beats=[beat("h1", T0 - 20), *beats], records=records, vms=vms, **more)  # type: ignore[arg-type]


def plan(op: Operation, seen: ClusterView, watch: Watch | None = None) -> RecoveryPlan:
    return plan_recovery(op, seen, watch or watched(seen), verdicts_of(seen), POLICY)


def where(result: RecoveryPlan) -> dict[str, str]:
    return {a.vm: a.host for a in result.assignments}


OWNED = [(vm_doc("web"), vm_record("web", "h1", 5)), (vm_doc("db"), vm_record("db", "h1", 6))]


def test_the_vms_of_a_host_proven_off_are_spread_over_the_others() -> None:
    assert sorted(where(plan(operation(), seen_with(OWNED))).values()) == ["h2", "h3"]


def test_an_assignment_names_the_boot_and_the_evidence() -> None:
    for given_to in plan(operation(), seen_with(OWNED)).assignments:
        assert given_to.incarnation == "i1"
        assert "h1 is off" in given_to.because


def test_without_the_proof_nothing_is_assigned_and_all_are_lost() -> None:
    seen = seen_with(OWNED)
    seen = replace(seen, host_records={**seen.host_records, HostId("h1"): host_record("h1", HostState.FENCING)})
    result = plan(operation(), seen)
    assert result.assignments == ()
    assert {u.state for u in result.unassigned} == {VmState.LOST}


def test_only_vms_of_that_boot_that_are_wished_to_run_are_its_matter() -> None:
    vms = [
        (vm_doc("mine"), vm_record("mine", "h1")),
        (vm_doc("off", wish=VmWish.STOPPED), vm_record("off", "h1")),
        (vm_doc("free", wish=VmWish.IGNORED), vm_record("free", "h1")),
        (vm_doc("older"), vm_record("older", "h1", boot="i0")),
        (vm_doc("else"), vm_record("else", "h2")),
        (vm_doc("failed"), vm_record("failed", "h1", state=VmState.FAILED)),
        (vm_doc("stopped"), vm_record("stopped", "h1", state=VmState.STOPPED)),
    ]
    assert subjects(operation(), seen_with(vms)) == ("mine",)


def test_a_vm_that_fits_nowhere_waits_with_every_reason() -> None:
    (left,) = plan(operation(), seen_with([(vm_doc("huge", memory=9000), vm_record("huge", "h1"))])).unassigned
    assert left.state is VmState.WAITING
    assert "h2 has" in left.reason
    assert "h3 has" in left.reason


def test_an_unanswered_start_stays_with_its_host() -> None:
    start, running = vm_start_steps(start_order("web", "h2", 9), attempt=1, after="plan/1")
    claimed = replace(start, state=StepState.RUNNING)
    mine = [(vm_doc("web"), vm_record("web", "h2", 9, state=VmState.STARTING))]
    for step in (claimed, start, replace(start, state=StepState.FAILED)):
        assert subjects(operation(OperationKind.FAILOVER, "h1", step, running), seen_with(mine)) == ()


MINE = [(vm_doc("web"), vm_record("web", "h2", 9, state=VmState.STARTING))]


def test_a_typed_refusal_of_the_owners_boot_frees_the_vm_for_it_follows_the_promise() -> None:
    op = operation(OperationKind.FAILOVER, "h1", refused("web", "h2", 9))
    assert where(plan(op, seen_with(MINE))) == {"web": "h3"}


def test_a_refusal_beside_a_copy_that_is_seen_frees_nothing() -> None:
    op = operation(OperationKind.FAILOVER, "h1", refused("web", "h2", 9))
    assert where(plan(op, seen_with(MINE, (beat("h2", T0, runs={"web": 8}), beat("h3", T0))))) == {}


def test_a_refusal_by_another_boot_than_the_owner_is_no_promise() -> None:
    op = operation(OperationKind.FAILOVER, "h1", refused("web", "h2", 9))
    other = [(vm_doc("web"), vm_record("web", "h2", 9, boot="i2", state=VmState.STARTING))]
    hung = (beat("h2", T0, boot="i3", hypervisor=HypervisorHealth.HUNG), beat("h3", T0))
    assert where(plan(op, seen_with(other, hung))) == {}
    assert where(plan(op, seen_with(other, (beat("h2", T0, boot="i2"), beat("h3", T0))))) == {}


def test_a_refusal_of_an_older_number_changes_nothing() -> None:
    op = operation(OperationKind.FAILOVER, "h1", refused("web", "h2", 8))
    assert subjects(op, seen_with([(vm_doc("web"), vm_record("web", "h2", 9))])) == ()


def all_refused(**facts: str) -> RecoveryPlan:
    op = operation(OperationKind.FAILOVER, "h1", refused("web", "h2", 8), refused("web", "h3", 9, 2, **facts))
    promised = (beat("h2", T0), beat("h3", T0, releases={"web": 9}))
    return plan(op, seen_with([(vm_doc("web"), vm_record("web", "h3", 9))], promised))


def test_refused_by_every_host_it_is_failed_with_the_last_sentence() -> None:
    (left,) = all_refused().unassigned
    assert left.state is VmState.FAILED
    assert "it said no" in left.reason


def test_refused_for_a_held_storage_lease_a_person_must_look() -> None:
    (left,) = all_refused(refusal=LEASE_HELD).unassigned
    assert left.state is VmState.NEEDS_PERSON
    assert "vm start web" in left.reason


def test_a_bound_on_attempts() -> None:
    tries = [refused("web", "h2", n, n) for n in range(1, POLICY.start_attempts_max + 1)]
    op = operation(OperationKind.FAILOVER, "h1", *tries)
    mine = [(vm_doc("web"), vm_record("web", "h2", POLICY.start_attempts_max))]
    assert [u.state for u in plan(op, seen_with(mine)).unassigned] == [VmState.FAILED]


def test_a_host_unheard_in_this_life_holds_the_whole_plan() -> None:
    seen = seen_with(OWNED, (beat("h2", T0),), life_since=T0 - 300)
    result = plan(operation(), seen)
    assert result.assignments == ()
    assert all("h3" in u.reason for u in result.unassigned)


def test_a_start_operation_places_its_own_vm_only() -> None:
    vms = [(vm_doc("web"), vm_record("web", None)), (vm_doc("db"), vm_record("db", None))]
    assert list(where(plan(operation(OperationKind.START, "web"), seen_with(vms)))) == ["web"]


# --- rooms -------------------------------------------------------------------------------------------------------


def open_hosts(seen: ClusterView) -> list[str]:
    return [r.spec.id for r in rooms(seen, verdicts_of(seen))]


@pytest.mark.parametrize("state", [s for s in HostState if s is not HostState.ONLINE])
def test_only_an_online_host_takes_vms(state: HostState) -> None:
    records = [host_record("h1", state), host_record("h2")]
    assert open_hosts(view(T0, beats=[beat("h1", T0), beat("h2", T0)], records=records)) == ["h2"]


@pytest.mark.parametrize(
    "said",
    [
        beat("h1", T0 - 1.6),
        beat("h1", T0, boot="i2"),
        beat("h1", T0, hypervisor=HypervisorHealth.HUNG),
        beat("h1", T0 - 9999),
    ],
    ids=["overdue", "rebooted", "libvirt hung", "of a former life"],
)
def test_a_host_whose_evidence_is_not_wholly_good_takes_none(said: Heartbeat) -> None:
    assert open_hosts(view(T0, beats=[said, beat("h2", T0)])) == ["h2"]


def test_a_host_never_accepted_as_the_boot_that_reports_takes_none() -> None:
    records = [host_record("h1", boot=""), host_record("h2")]
    assert open_hosts(view(T0, beats=[beat("h1", T0), beat("h2", T0)], records=records)) == ["h2"]


def test_maintenance_takes_none() -> None:
    docs = [HostDoc(id=HostId("h1"), maintenance=True)]
    assert open_hosts(view(T0, beats=[beat("h1", T0), beat("h2", T0)], docs=docs)) == ["h2"]


def test_room_is_what_the_records_promise_and_not_what_runs() -> None:
    vms = [(vm_doc(state, memory=100), vm_record(state, "h1", state=state)) for state in VmState]
    seen = view(T0, beats=[beat("h1", T0)], vms=vms)
    (room,) = rooms(seen, verdicts_of(seen))
    assert room.memory_used_mib == 700  # all that may run there: not waiting, stopped, failed or unmanaged ones


# --- a copy held as the later of two -----------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [True, False], ids=["held", "paused by others"])
@pytest.mark.parametrize("at", [0.1, 9], ids=["fresh", "silent"])
def test_a_vm_with_a_paused_copy_goes_nowhere_not_even_where_that_copy_is(mark: bool, at: float) -> None:
    """h1 ran the earlier copy and is proven off; h2 has the later one, which does not know what h1 wrote."""
    stale = beat("h2", T0 - at, seen=(replace(sighting("web", 5, Sighting.PAUSED), held=mark),))
    record = vm_record("web", "h1", 5, state=VmState.NEEDS_PERSON)
    seen = view(T0, beats=[beat("h1", T0 - 30), stale, beat("h3", T0 - 0.1)],
                records=[GONE, host_record("h2"), host_record("h3")], vms=[(vm_doc("web"), record)])  # fmt: skip
    w = watched(seen)
    plan = plan_recovery(operation(), seen, w, verdicts_of(seen), POLICY)
    assert plan.assignments == ()
    (left,) = plan.unassigned
    if mark:
        assert left.state is VmState.NEEDS_PERSON
        assert "fangnetz vm stop web" in left.reason


@pytest.mark.parametrize("refusals", [1, 5])
def test_a_held_copy_outranks_what_its_host_refused(refusals: int) -> None:
    """As an older controller left it: h2 owns it by a start that it refused, and the copy is there still."""
    order = start_order("web", "h2", 9)
    tries = [vm_start_steps(order, attempt=n, after="plan/1")[0] for n in range(1, refusals + 1)]
    refused = [replace(step, state=StepState.REFUSED, facts={"released": 9}) for step in tries]
    stale = beat("h2", T0, seen=(replace(sighting("web", 5, Sighting.PAUSED), held=True),), releases={"web": 9})
    record = vm_record("web", "h2", 9, state=VmState.STARTING)
    seen = view(T0, beats=[stale, beat("h3", T0)], records=[GONE, host_record("h2"), host_record("h3")],
                vms=[(vm_doc("web"), record)])  # fmt: skip
    w = watched(seen)
    plan = plan_recovery(operation(OperationKind.FAILOVER, "h1", *refused), seen, w, verdicts_of(seen), POLICY)
    assert [left.state for left in plan.unassigned] == [VmState.NEEDS_PERSON]


# --- start_on ----------------------------------------------------------------------------------------------------


def stopped_on_h2(**more: object) -> ClusterView:
    """web was stopped on h2, which has let it go; h3 has more room."""
    beats = (beat("h2", T0, runs={"db": 1}, releases={"web": 3}), beat("h3", T0))
    vms = [
        (vm_doc("web"), vm_record("web", "h2", 3, state=VmState.WAITING)),
        (vm_doc("db", memory=2048), vm_record("db", "h2")),
    ]
    return seen_with(vms, beats, **more)


def starts_on(seen: ClusterView, policy: Policy) -> list[str]:
    plan = plan_recovery(operation(OperationKind.START, "web"), seen, watched(seen), verdicts_of(seen), policy)
    return [chosen.host for chosen in plan.assignments]


@pytest.mark.parametrize(("start_on", "host"), [(StartOn.RECORDED, "h2"), (StartOn.BEST, "h3")])
def test_a_vm_that_was_let_go_starts_where_the_policy_says(start_on: StartOn, host: str) -> None:
    assert starts_on(stopped_on_h2(), Policy(start_on=start_on)) == [host]


@pytest.mark.parametrize("start_on", list(StartOn))
def test_a_rule_outranks_where_a_vm_starts_by_policy(start_on: StartOn) -> None:
    seen = stopped_on_h2()
    for preferred in ("h2", "h3"):
        doc = seen.vms[VmId("web")]
        ruled = replace(doc, spec=replace(doc.spec, rules=Rules(preferred=((HostId(preferred), 2),))))
        assert starts_on(replace(seen, vms={**seen.vms, VmId("web"): ruled}), Policy(start_on=start_on)) == [preferred]


def test_a_vm_its_host_has_not_let_go_starts_there_whatever_ranks_best() -> None:
    seen = stopped_on_h2()
    silent = replace(seen.heartbeats[HostId("h2")], releases=())
    kept = replace(seen, heartbeats={**seen.heartbeats, HostId("h2"): silent})
    assert starts_on(kept, Policy(start_on=StartOn.BEST)) == ["h2"]


def test_the_host_an_operation_was_opened_for_is_the_one_it_starts_on() -> None:
    seen = stopped_on_h2()
    opened = replace(operation(OperationKind.START, "web"), target=HostId("h2"))
    plan = plan_recovery(opened, seen, watched(seen), verdicts_of(seen), Policy(start_on=StartOn.BEST))
    assert [chosen.host for chosen in plan.assignments] == ["h2"]
