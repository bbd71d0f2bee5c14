"""A VM that is stopped for its move: when it may be, where it starts then, and that nobody else's VM is given away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.actions import EndOperation, OpenOperation, PutHostDoc, SettleWish
from fangnetz.core.evacuation import plan_evacuation
from fangnetz.core.model import (
    NO_RULES,
    ClusterView,
    HostDoc,
    HostState,
    Rules,
    Sighting,
    VmSighting,
    VmState,
    VmWish,
    WishKind,
)
from fangnetz.core.operations import (
    Operation,
    OperationKind,
    OperationState,
    Order,
    Step,
    StepKind,
    StepState,
    migrate_steps,
    vm_relocate_steps,
)
from fangnetz.core.policy import Fallback, Policy
from fangnetz.core.relocation import not_listed_yet, plan_restart, verdict_of_relocation
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, OperationId, Seconds, VmId
from tests.core.world import (
    T0,
    beat,
    decided,
    host_record,
    off_proof,
    spec,
    verdicts_of,
    view,
    vm_doc,
    vm_record,
    watched,
    wish,
)  # fmt: skip

WEB, H1, H2, H3 = VmId("web"), HostId("h1"), HostId("h2"), HostId("h3")
RUNS = (VmSighting(vm=WEB, state=Sighting.RUNNING, generation=Generation(7)),)


def seen(
    *, at: tuple[VmSighting, ...] = (), released: int = 7, state: VmState = VmState.MOVING, owner: str = "h1",
    live: bool = False, wished: VmWish = VmWish.RUNNING, failures: int = 0, rules: Rules = NO_RULES, **more: Any,
) -> ClusterView:  # fmt: skip
    """h1 owns web at generation 7, has released it and does not show it; h2 and h3 have room, h3 more of it."""
    beats = [
        beat("h1", T0 - 0.1, seen=at, releases={"web": released} if released else {}),
        beat("h2", T0 - 0.1),
        beat("h3", T0 - 0.1),
    ]
    doc = vm_doc("web", wish=wished)
    doc = replace(doc, spec=replace(doc.spec, live=live, rules=rules))
    record = vm_record("web", owner, 7, state=state, failures=failures)
    hosts = [spec("h1"), replace(spec("h2"), memory_mib=8192), replace(spec("h3"), memory_mib=16384)]
    return view(T0, hosts=hosts, beats=beats, vms=[(doc, record)], **more)


def running(**more: Any) -> ClusterView:
    return seen(at=RUNS, released=0, state=VmState.RUNNING, **more)


def order(host: HostId, generation: int = 7) -> Order:
    return Order(
        vm=WEB, host=host, incarnation=Incarnation("i1"), generation=Generation(generation),
        life=view(T0).life.incarnation, deadline=Instant(T0 + 60),
    )  # fmt: skip


def relocation(*more: Step, stop: StepState = StepState.DONE, target: HostId | None = H2) -> Operation:
    first, close = migrate_steps()
    prepare, stopping, plan = vm_relocate_steps(WEB, order(H1), order(H2), after=first.key)
    stopping = replace(stopping, state=stop, ended_at=Instant(T0 - 1))
    return Operation(
        id=OperationId("op"), kind=OperationKind.RELOCATE, subject="web", epoch=Epoch(7), opened_at=Instant(T0 - 5),
        reason="ada asked", steps=(first, prepare, stopping, plan, *more, close), target=target,
    )  # fmt: skip


def refused(host: HostId, number: int) -> Step:
    return Step(
        key=f"start/web/{number}", kind=StepKind.START, state=StepState.REFUSED, order=order(host), sentence="no"
    )


def restart(look: ClusterView, operation: Operation) -> tuple[str | None, str]:
    """Return the host that is given the VM, and why it is none."""
    plan = plan_restart(operation, look, watched(look), verdicts_of(look), Policy())
    to = plan.assignments[0].host if plan.assignments else None
    return to, plan.unassigned[0].reason if plan.unassigned else ""


# --- where it starts ---------------------------------------------------------------------------------------------


def test_it_starts_where_it_was_to_go_whatever_it_prefers() -> None:
    assert restart(seen(), relocation())[0] == H2
    assert restart(seen(rules=Rules(preferred=((H3, 5),))), relocation())[0] == H2


def test_it_starts_on_another_host_if_the_first_is_gone_and_where_it_was_if_there_is_none() -> None:
    gone = [host_record("h1"), host_record("h2", HostState.MAINTENANCE), host_record("h3")]
    assert restart(seen(records=gone), relocation())[0] == H3
    both = [*gone[:2], host_record("h3", HostState.MAINTENANCE)]
    assert restart(seen(records=both), relocation())[0] == H1


def test_it_goes_back_rather_than_where_it_is_not_allowed() -> None:
    gone = [host_record("h1"), host_record("h2", HostState.MAINTENANCE), host_record("h3")]
    assert restart(seen(records=gone, rules=Rules(allowed=(H1, H2))), relocation())[0] == H1


def test_one_that_every_other_host_refuses_goes_back_also_to_a_host_that_is_emptied() -> None:
    records = [host_record("h1", HostState.EVACUATING), host_record("h2"), host_record("h3")]
    docs = [HostDoc(id=H1, evacuate=True)]
    look = seen(records=records, docs=docs)
    assert restart(look, relocation())[0] == H2
    look = replace(look, vm_records={WEB: replace(look.vm_records[WEB], owner=H3)})
    look = replace(look, heartbeats={**look.heartbeats, H3: beat("h3", T0 - 0.1, releases={"web": 7})})
    assert restart(look, relocation(refused(H2, 1), refused(H3, 2)))[0] == H1


def test_one_of_a_group_follows_the_other_that_had_to_go_back() -> None:
    """h2 refused cache, and it starts again on h1: its relocation is open still, and h2 is not where it goes."""
    look = seen(rules=Rules(together=(VmId("cache"),)))
    back = [replace(order(host), vm=VmId("cache")) for host in (H2, H1)]
    starts = (
        Step(key="start/cache/1", kind=StepKind.START, state=StepState.REFUSED, order=back[0]),
        Step(key="start/cache/2", kind=StepKind.START, order=back[1]),
    )
    other = replace(relocation(*starts), id=OperationId("op-cache"), subject="cache")
    cache = vm_record("cache", "h1", 9, state=VmState.STARTING, operation="op-cache")
    look = replace(
        look,
        vms={**look.vms, VmId("cache"): vm_doc("cache")},
        vm_records={**look.vm_records, VmId("cache"): cache},
        operations={other.id: other},
    )
    assert restart(look, relocation())[0] == H1
    on_its_way = replace(other, steps=relocation().steps)
    assert restart(replace(look, operations={other.id: on_its_way}), relocation())[0] == H2


# --- what is not given away --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in StepState if state is not StepState.DONE])
def test_nothing_starts_before_the_stop_is_confirmed(state: StepState) -> None:
    assert restart(seen(), relocation(stop=state)) == (None, "")


def test_a_copy_that_its_host_still_shows_is_waited_for() -> None:
    look = seen(at=RUNS)
    to, _ = restart(look, relocation())
    assert to in (None, H1), "never on another host"
    assert not_listed_yet(relocation(), look, Policy()) is False, "it has listed its VMs since, and there it is"
    old = replace(look.heartbeats[H1], inventory_age_s=Seconds(2.0))
    assert not_listed_yet(relocation(), replace(look, heartbeats={**look.heartbeats, H1: old}), Policy())


def test_a_vm_that_a_failover_gave_away_meanwhile_is_left_to_it() -> None:
    look = seen()
    moved_on = replace(look.vm_records[WEB], owner=H3, generation=Generation(9), state=VmState.STARTING)
    assert restart(replace(look, vm_records={WEB: moved_on}), relocation()) == (None, "")


def test_one_that_is_not_wished_to_run_any_more_is_started_nowhere() -> None:
    assert restart(seen(wished=VmWish.STOPPED), relocation()) == (None, "")


@given(
    stop=st.sampled_from(StepState), released=st.integers(0, 8), shown=st.booleans(), generation=st.integers(6, 8),
    off=st.booleans(), wished=st.sampled_from(VmWish), emptied=st.booleans(),
)  # fmt: skip
def test_another_host_is_given_it_only_once_it_was_let_go(
    stop: StepState, released: int, shown: bool, generation: int, off: bool, wished: VmWish, emptied: bool
) -> None:
    proof = off_proof("h1", T0 - 2) if off else None
    records = [replace(host_record("h1"), proof=proof), host_record("h2"), host_record("h3")]
    docs = [HostDoc(id=H1, evacuate=emptied)]
    look = seen(at=RUNS if shown else (), released=released, wished=wished, records=records, docs=docs)
    record = replace(look.vm_records[WEB], generation=Generation(generation))
    to, _ = restart(replace(look, vm_records={WEB: record}), relocation(stop=stop))
    if to is not None:
        assert (stop, generation, wished) == (StepState.DONE, 7, VmWish.RUNNING)
    if to not in (None, H1):
        assert off or not shown


# --- wishes ------------------------------------------------------------------------------------------------------


def answer(look: ClusterView, kind: WishKind, to: str = "", subject: str = "web") -> tuple[SettleWish, list[Operation]]:
    asked = replace(wish(kind, subject, at=T0), to=HostId(to) if to else None)
    actions = decided(replace(look, wishes=(asked,))).actions
    (settled,) = [action for action in actions if isinstance(action, SettleWish)]
    return settled, [action.operation for action in actions if isinstance(action, OpenOperation)]


def test_one_that_cannot_move_while_it_runs_is_refused_with_what_does_it() -> None:
    settled, opened = answer(running(), WishKind.VM_MIGRATE, "h2")
    assert (settled.granted, opened) == (False, [])
    assert "`fangnetz vm relocate web`" in settled.sentence


@pytest.mark.parametrize("live", [True, False])
def test_any_vm_is_relocated(live: bool) -> None:
    settled, (opened,) = answer(running(live=live), WishKind.VM_RELOCATE, "h2")
    assert (settled.granted, opened.kind, opened.target) == (True, OperationKind.RELOCATE, H2)
    assert settled.operation == opened.id
    assert "is stopped, moves to h2" in settled.sentence


@pytest.mark.parametrize("kind", [WishKind.VM_MIGRATE, WishKind.VM_RELOCATE])
def test_of_one_that_is_stopped_the_record_moves_whatever_was_asked(kind: WishKind) -> None:
    look = seen(state=VmState.STOPPED, wished=VmWish.STOPPED, released=0)
    settled, (opened,) = answer(look, kind, "h2")
    assert (settled.granted, opened.kind, opened.target) == (True, OperationKind.RELOCATE, H2)
    assert settled.operation == opened.id
    released = seen(state=VmState.STOPPED, wished=VmWish.STOPPED)
    assert restart(released, opened)[0] == H2
    assert restart(look, opened)[0] is None, "its host has not let it go"


def test_the_record_of_one_whose_host_is_silent_stays() -> None:
    look = seen(state=VmState.STOPPED, wished=VmWish.STOPPED, released=0)
    silent = replace(look, heartbeats={**look.heartbeats, H1: beat("h1", T0 - 30)})
    settled, opened = answer(silent, WishKind.VM_MIGRATE, "h2")
    assert (settled.granted, opened) == (False, [])
    assert "has not released it" in settled.sentence


@pytest.mark.parametrize(
    ("steps", "granted"),
    [
        (StepState.READY, True),
        (StepState.RUNNING, False),
        (StepState.DONE, False),
    ],
)
def test_it_is_cancelled_only_before_it_is_stopped(steps: StepState, granted: bool) -> None:
    under_way = relocation(stop=steps)
    tried = tuple(replace(s, attempt=int(s.state is not StepState.READY)) for s in under_way.steps)
    look = running(operations=[replace(under_way, steps=tried)])
    asked = replace(wish(WishKind.OPERATION_CANCEL, "op", at=T0))
    actions = decided(replace(look, wishes=(asked,))).actions
    (settled,) = [action for action in actions if isinstance(action, SettleWish)]
    assert settled.granted is granted
    assert bool([action for action in actions if isinstance(action, EndOperation)]) is granted


# --- evacuation --------------------------------------------------------------------------------------------------


def emptying(look: ClusterView, policy: Policy) -> tuple[list[bool], list[str]]:
    found = plan_evacuation(H1, look, watched(look), verdicts_of(look), policy)
    return [move.live for move in found.moves], [one.because for one in found.stays]


def test_a_host_is_emptied_of_such_a_vm_by_policy() -> None:
    assert emptying(running(), Policy()) == ([False], [])
    assert emptying(running(live=True), Policy()) == ([True], [])
    moves, (why,) = emptying(running(), Policy(unmovable=Fallback.STAY))
    assert (moves, "unmovable is stay" in why) == ([], True)


def test_one_whose_live_migration_failed_is_stopped_only_by_policy_and_not_for_ever() -> None:
    look = running(live=True)
    failed = replace(look, vm_records={WEB: replace(look.vm_records[WEB], stuck_at=Instant(T0 - 100))})
    long_ago = replace(look, vm_records={WEB: replace(look.vm_records[WEB], stuck_at=Instant(T0 - 3601))})
    relocates = Policy(evacuate_fallback=Fallback.RELOCATE)
    assert [emptying(each, relocates)[0] for each in (look, failed, long_ago)] == [[True], [False], [True]]
    assert emptying(failed, Policy()) == ([True], [])
    ended = replace(failed.vm_records[WEB], failures=1)
    _, (why,) = emptying(replace(failed, vm_records={WEB: ended}), relocates)
    assert "its live migration failed" in why


def test_one_that_came_back_lately_is_not_stopped_again() -> None:
    moves, (why,) = emptying(running(failures=1), Policy())
    assert (moves, "`fangnetz vm relocate web`" in why) == ([], True)


def test_the_tick_opens_it() -> None:
    records = [host_record("h1", HostState.EVACUATING), host_record("h2"), host_record("h3")]
    look = running(records=records, docs=[HostDoc(id=H1, evacuate=True, reason="ada", incarnation=Incarnation("i1"))])
    (opened,) = [action.operation for action in decided(look).actions if isinstance(action, OpenOperation)]
    assert (opened.kind, opened.target) == (OperationKind.RELOCATE, H3)


def test_a_host_is_in_maintenance_only_once_what_it_stopped_runs_elsewhere() -> None:
    records = [host_record("h1", HostState.EVACUATING), host_record("h2"), host_record("h3")]
    docs = [HostDoc(id=H1, evacuate=True, reason="ada", incarnation=Incarnation("i1"))]
    for operations, empty in (([relocation()], False), ([], True)):
        look = seen(owner="h2", state=VmState.STARTING, records=records, docs=docs, operations=operations)
        written = [action.doc for action in decided(look).actions if isinstance(action, PutHostDoc)]
        assert [doc.id for doc in written if doc.maintenance] == [H1] * empty


def test_no_rule_has_it_stopped() -> None:
    """It would go back to h2, or away from where it may not be: nobody asked for it to be stopped."""
    for rules, told in ((Rules(preferred=((H2, 5),), failback=True), False), (Rules(allowed=(H2, H3)), True)):
        assert [op.operation.kind for op in opens(running(live=True, rules=rules))] == [OperationKind.MIGRATE]
        look = running(rules=rules)
        assert opens(look) == []
        alarms = [alarm.sentence for alarm in decided(look).alarms if alarm.kind == "rule_waits"]
        assert bool([one for one in alarms if "`fangnetz vm relocate web`" in one]) is told


def opens(look: ClusterView) -> list[OpenOperation]:
    return [action for action in decided(look).actions if isinstance(action, OpenOperation)]


# --- how it ended ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "state"), [(H2, OperationState.DONE), (H1, OperationState.FAILED)])
def test_one_that_runs_where_it_was_has_not_been_relocated(host: HostId, state: OperationState) -> None:
    ran = Step(key="running/web/1", kind=StepKind.SEE_RUNNING, state=StepState.DONE, order=order(host), sentence="runs")
    assert verdict_of_relocation(relocation(ran))[0] is state
