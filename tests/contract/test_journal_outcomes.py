"""Outcomes: written once, whole or not at all; what they add is never lost, what they give away never given twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fangnetz.core.errors import Conflict, StaleToken
from fangnetz.core.model import VmState
from fangnetz.core.operations import OperationState, Outcome, Step, StepKind, StepState, failover_steps, vm_start_steps
from fangnetz.core.units import Generation, HostId, Incarnation, OperationId, Seconds, VmId
from fangnetz.ports import Assign
from tests.contract.subjects import C2, DB, H2, H3, OP, WEB, Cluster

START = "start/web/1"
DONE = Outcome(state=StepState.DONE, sentence="done")


def assign(
    vm: VmId = WEB, *, expected: int = 7, to: HostId = H2, floor: int = 0, steps: tuple[str, ...] = ()
) -> Assign:
    return Assign(
        vm=vm,
        expected=Generation(expected),
        floor=Generation(floor),
        owner=to,
        incarnation=Incarnation("i1"),
        reason=f"{to} has room",
        steps=steps,
    )


def placements(cluster: Cluster) -> int:
    return cluster.store.view({}, None).placements


# --- one outcome -------------------------------------------------------------------------------------------------


def test_an_outcome_is_written_with_all_it_found_out(cluster: Cluster) -> None:
    cluster.open(Step(key="a", kind=StepKind.PLAN, facts={"before": 1, "kept": "x"}))
    claim = cluster.claim("a")
    facts = {"before": 2, "number": 1.5, "nothing": None, "yes": True}
    after = cluster.store.settle(claim, Outcome(state=StepState.FAILED, sentence="no ä", facts=facts))
    step = after.step("a")
    assert step == cluster.step("a")
    assert step is not None
    assert (step.state, step.sentence, step.lease_until) == (StepState.FAILED, "no ä", 0)
    assert step.facts == {"kept": "x", **facts}
    assert claim.now <= step.ended_at <= cluster.store.now()


def test_settling_again_with_the_same_token_changes_nothing(cluster: Cluster) -> None:
    cluster.vm()
    cluster.open()
    claim = cluster.claim("plan/1")
    pair = vm_start_steps(cluster.order(), attempt=1, after="plan/1")
    outcome = Outcome(state=StepState.DONE, sentence="first", adds=pair)
    cluster.store.settle(claim, outcome, [assign(steps=(START,))], 0)
    before = cluster.store.operation(OP), cluster.record()
    cluster.store.settle(claim, outcome, [assign(steps=(START,))], 0)
    cluster.store.settle(claim, Outcome(state=StepState.FAILED, sentence="second"))
    assert (cluster.store.operation(OP), cluster.record()) == before
    assert placements(cluster) == 1


def test_the_truth_is_welcome_after_the_lease_ran_out(cluster: Cluster) -> None:
    cluster.open()
    claim = cluster.claim("plan/1", lease=0.02)
    cluster.subject.pass_time(Seconds(0.04))
    cluster.store.settle(claim, DONE)
    assert cluster.step("plan/1").state is StepState.DONE


def test_the_truth_is_refused_once_somebody_else_has_claimed(cluster: Cluster) -> None:
    cluster.open()
    claim = cluster.claim("plan/1", lease=0.02)
    cluster.subject.pass_time(Seconds(0.04))
    cluster.claim("plan/1", token="t2")
    for late in (DONE, Outcome(state=StepState.READY, sentence="again")):
        with pytest.raises(StaleToken):
            cluster.store.settle(claim, late)
    step = cluster.step("plan/1")
    assert (step.state, step.token) == (StepState.RUNNING, "t2")


def test_a_step_nobody_knows_cannot_be_settled(cluster: Cluster) -> None:
    cluster.open()
    claim = cluster.claim("plan/1")
    unknown = replace(claim, step=replace(claim.step, key="no-such"))
    with pytest.raises(StaleToken):
        cluster.store.settle(unknown, DONE)
    assert cluster.store.operation(OP) == claim.operation


def test_a_step_that_is_carried_out_is_never_skipped(cluster: Cluster) -> None:
    cluster.open(*failover_steps())
    confirm = cluster.claim("confirm")
    cluster.claim("fence", token="t2")
    cluster.store.settle(confirm, Outcome(state=StepState.DONE, sentence="", skips=("fence", "prove")))
    assert cluster.step("fence").state is StepState.RUNNING
    assert cluster.step("prove").state is StepState.SKIPPED


# --- steps that are added ----------------------------------------------------------------------------------------


def test_steps_added_by_many_at_once_are_all_there(cluster: Cluster) -> None:
    first = [Step(key=f"a{n}", kind=StepKind.PLAN) for n in range(8)]
    cluster.open(*first)
    claims = [cluster.claim(s.key, token=s.key) for s in first]
    stores = [cluster.subject.another() for _ in claims]
    together = threading.Barrier(len(claims))

    def settle(number: int) -> None:
        adds = tuple(Step(key=f"b{number}/{m}", kind=StepKind.CLOSE, after=(f"a{number}",)) for m in range(3))
        together.wait()
        stores[number].settle(claims[number], Outcome(state=StepState.DONE, sentence="", adds=adds))

    with ThreadPoolExecutor(len(claims)) as pool:
        list(pool.map(settle, range(len(claims))))
    found = cluster.store.operation(OP)
    assert found is not None
    assert {s.key for s in found.steps} == {s.key for s in first} | {f"b{n}/{m}" for n in range(8) for m in range(3)}
    assert len(found.steps) == 8 + 24
    assert all(s.state is StepState.DONE for s in found.steps if s.kind is StepKind.PLAN)


def test_a_step_that_is_there_already_is_not_written_over(cluster: Cluster) -> None:
    cluster.open(Step(key="a", kind=StepKind.PLAN), Step(key="b", kind=StepKind.PLAN))
    held = cluster.claim("b", token="t2")
    with pytest.raises(Conflict):
        cluster.store.settle(
            cluster.claim("a"), Outcome(state=StepState.DONE, sentence="", adds=(Step(key="b", kind=StepKind.CLOSE),))
        )
    assert cluster.step("b") == held.step
    assert cluster.step("a").state is StepState.RUNNING


def test_nothing_is_added_to_an_operation_that_was_closed_meanwhile(cluster: Cluster) -> None:
    cluster.vm()
    cluster.open()
    claim = cluster.claim("plan/1")
    cluster.store.end_operation(OP, OperationState.CANCELLED, "enough", cluster.epoch)
    pair = vm_start_steps(cluster.order(), attempt=1, after="plan/1")
    with pytest.raises(StaleToken):
        cluster.store.settle(claim, Outcome(state=StepState.DONE, sentence="", adds=pair), [assign(steps=(START,))], 0)
    with pytest.raises(StaleToken):
        cluster.store.settle(claim, DONE, [assign()], 0)
    assert cluster.generation() == 7
    cluster.store.settle(claim, DONE)
    found = cluster.store.operation(OP)
    assert found is not None
    assert (found.state, found.sentence) == (OperationState.CANCELLED, "enough")
    assert cluster.step("plan/1").state is StepState.DONE, "a late outcome is still written down"


# --- VMs that are given away -------------------------------------------------------------------------------------


def test_a_plan_gives_its_vms_away_with_new_generations_and_numbers_their_orders(cluster: Cluster) -> None:
    cluster.vm(WEB, generation=7)
    cluster.vm(DB, generation=9)
    cluster.open()
    web = vm_start_steps(cluster.order(WEB), attempt=1, after="plan/1")
    db = vm_start_steps(cluster.order(DB, generation=9), attempt=1, after="plan/1")
    gives = [
        assign(WEB, steps=tuple(s.key for s in web)),
        assign(DB, expected=9, to=H3, steps=tuple(s.key for s in db)),
    ]
    cluster.store.settle(
        cluster.claim("plan/1"), Outcome(state=StepState.DONE, sentence="", adds=(*web, *db)), gives, 0
    )
    for vm, host, pair in ((WEB, H2, web), (DB, H3, db)):
        record = cluster.record(vm)
        assert (record.owner, record.owner_incarnation, record.state) == (host, "i1", VmState.STARTING)
        assert (record.operation, record.reason) == (OP, f"{host} has room")
        orders = [cluster.step(s.key).order for s in pair]
        assert {o.generation for o in orders if o} == {record.generation}
        assert record.generation > 9
    assert placements(cluster) == 1


@pytest.mark.parametrize("floor", [0, 5, 2**52])
def test_a_new_generation_exceeds_all_that_was_ever_reported_and_the_clock(cluster: Cluster, floor: int) -> None:
    cluster.vm(generation=7)
    cluster.open()
    before = cluster.store.now()
    cluster.store.settle(cluster.claim("plan/1"), DONE, [assign(floor=floor)], 0)
    assert cluster.generation() > max(7, floor)
    assert cluster.generation() >= int(before * 1_000_000)


def test_generations_never_come_back_when_the_store_forgets_them(cluster: Cluster) -> None:
    old = cluster.vm(generation=7)
    seen: list[int] = []
    for number in range(4):
        cluster.open(identity=f"op-{number}", subject=f"s{number}")
        claim = cluster.claim("plan/1", identity=f"op-{number}")
        cluster.store.settle(claim, DONE, [assign()], placements(cluster))
        seen.append(cluster.generation())
        cluster.subject.lose_vm(WEB, back_to=old)
    assert seen == sorted(set(seen))


def test_a_plan_is_written_whole_or_not_at_all(cluster: Cluster) -> None:
    cluster.vm(WEB, generation=7)
    cluster.vm(DB, generation=9)
    cluster.open()
    claim = cluster.claim("plan/1")
    pair = vm_start_steps(cluster.order(WEB), attempt=1, after="plan/1")
    outcome = Outcome(state=StepState.DONE, sentence="", adds=pair, skips=("close",), closes=OperationState.DONE)
    before = cluster.store.view({}, None)
    with pytest.raises(Conflict):
        cluster.store.settle(claim, outcome, [assign(WEB, steps=(pair[0].key,)), assign(DB, expected=8, to=H3)], 0)
    after = cluster.store.view({}, None)
    assert (after.vm_records, after.operations, after.placements) == (before.vm_records, before.operations, 0)
    cluster.store.settle(claim, outcome, [assign(WEB, steps=(pair[0].key,)), assign(DB, expected=9, to=H3)], 0)
    assert cluster.record(WEB).owner == H2


def test_a_plan_made_before_somebody_else_placed_a_vm_is_not_written(cluster: Cluster) -> None:
    cluster.vm(WEB, generation=7)
    cluster.vm(DB, generation=9)
    cluster.open(identity="op-1", subject=WEB)
    cluster.open(identity="op-2", subject=DB)
    cluster.store.settle(cluster.claim("plan/1", identity="op-1"), DONE, [assign(WEB)], 0)
    late = cluster.claim("plan/1", identity="op-2")
    with pytest.raises(Conflict):
        cluster.store.settle(late, DONE, [assign(DB, expected=9)], 0)
    assert cluster.generation(DB) == 9
    cluster.store.settle(late, DONE, [assign(DB, expected=9)], placements(cluster))
    assert cluster.generation(DB) > 9


def test_of_many_plans_for_one_vm_one_is_written(cluster: Cluster) -> None:
    cluster.vm(WEB, generation=7)
    claims = []
    for n in range(6):
        cluster.open(identity=f"op-{n}", subject=f"s{n}")
        claims.append(cluster.claim("plan/1", identity=f"op-{n}", token=f"t{n}"))
    stores = [cluster.subject.another() for _ in claims]

    def settle(n: int) -> bool:
        try:
            stores[n].settle(claims[n], DONE, [assign(to=HostId(f"h{n}"))], 0)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(settle, range(6)))
    assert done.count(True) == 1
    assert cluster.record().owner == f"h{done.index(True)}"


def test_whoever_is_no_longer_in_charge_gives_no_vm_away(cluster: Cluster) -> None:
    cluster.vm()
    cluster.open()
    claim = cluster.claim("plan/1")
    cluster.lead(C2)
    with pytest.raises(StaleToken):
        cluster.store.settle(claim, DONE, [assign()], 0)
    assert cluster.generation() == 7


@pytest.mark.parametrize("expected", [0, 7])
def test_a_vm_that_was_forgotten_meanwhile_is_not_given_away(cluster: Cluster, expected: int) -> None:
    cluster.open()
    with pytest.raises(Conflict):
        cluster.store.settle(cluster.claim("plan/1"), DONE, [assign(expected=expected)], 0)
    assert cluster.step("plan/1").state is StepState.RUNNING


# --- closing -----------------------------------------------------------------------------------------------------


def test_a_closing_outcome_ends_the_operation_and_frees_its_place(cluster: Cluster) -> None:
    cluster.open()
    closing = Outcome(state=StepState.DONE, sentence="one of one runs", closes=OperationState.NEEDS_PERSON)
    after = cluster.store.settle(cluster.claim("close"), closing)
    assert (after.state, after.sentence) == (OperationState.NEEDS_PERSON, "one of one runs")
    assert after.closed_at == cluster.step("close").ended_at
    assert cluster.store.view({}, None).operations == {}
    assert [op.id for op in cluster.store.operations(5)] == [OP]
    cluster.open(identity="op-2")


def test_the_first_end_of_an_operation_stands(cluster: Cluster) -> None:
    cluster.open()
    claim = cluster.claim("close")
    cluster.store.end_operation(OP, OperationState.NEEDS_PERSON, "the proof is void", cluster.epoch)
    cluster.store.end_operation(OP, OperationState.DONE, "second", cluster.epoch)
    cluster.open(identity="op-2")
    cluster.store.settle(claim, Outcome(state=StepState.DONE, sentence="well", closes=OperationState.DONE))
    found = cluster.store.operation(OP)
    assert found is not None
    assert (found.state, found.sentence) == (OperationState.NEEDS_PERSON, "the proof is void")
    assert list(cluster.store.view({}, None).operations) == ["op-2"], "the other operation keeps its place"


# --- giving up ---------------------------------------------------------------------------------------------------

SOON = 0.4
"""Seconds; long enough that the lines before it are done, however busy the machine is."""


def short(cluster: Cluster) -> tuple[str, str]:
    """An operation with a start whose deadline passes soon, and what follows it."""
    cluster.vm()
    start, running = vm_start_steps(cluster.order(for_s=SOON), attempt=1, after="plan/1")
    cluster.open(replace(start, after=()), running)
    return start.key, running.key


def give_up(cluster: Cluster, key: str, *skips: str) -> bool:
    found = cluster.store.operation(OP)
    assert found is not None
    step = found.step(key)
    assert step is not None
    return cluster.store.give_up(found, step, skips, "no answer")


def test_an_order_nobody_answered_is_given_up_with_what_follows_it(cluster: Cluster) -> None:
    start, running = short(cluster)
    assert not give_up(cluster, start, running), "its deadline has not passed"
    cluster.subject.pass_time(Seconds(SOON + 0.02))
    assert give_up(cluster, start, running)
    assert (cluster.step(start).state, cluster.step(start).sentence) == (StepState.FAILED, "no answer")
    assert cluster.step(running).state is StepState.SKIPPED
    assert not give_up(cluster, start, running), "once"
    assert cluster.generation() == 7, "its ownership stays"


def test_a_step_somebody_holds_is_not_given_up(cluster: Cluster) -> None:
    start, running = short(cluster)
    claim = cluster.claim(start, lease=3 * SOON)
    cluster.subject.pass_time(Seconds(SOON + 0.02))
    assert not give_up(cluster, start, running)
    assert cluster.step(start) == claim.step
    cluster.subject.pass_time(Seconds(2 * SOON))
    assert give_up(cluster, start, running)


def test_a_settled_step_is_not_given_up(cluster: Cluster) -> None:
    start, running = short(cluster)
    cluster.store.settle(cluster.claim(start), DONE)
    cluster.subject.pass_time(Seconds(SOON + 0.02))
    assert not give_up(cluster, start, running)
    assert cluster.step(start).state is StepState.DONE


def test_a_lost_executor_cannot_settle_what_was_given_up(cluster: Cluster) -> None:
    start, running = short(cluster)
    claim = cluster.claim(start, lease=0.02)
    cluster.subject.pass_time(Seconds(SOON + 0.02))
    assert give_up(cluster, start, running)
    cluster.store.settle(claim, DONE)
    assert cluster.step(start).state is StepState.FAILED


def test_whoever_is_no_longer_in_charge_gives_nothing_up(cluster: Cluster) -> None:
    start, running = short(cluster)
    cluster.subject.pass_time(Seconds(SOON + 0.02))
    cluster.lead(C2)
    assert not give_up(cluster, start, running)
    assert cluster.step(start).state is StepState.READY


# --- messages ----------------------------------------------------------------------------------------------------


def test_the_journal_knows_when_a_step_was_sent(cluster: Cluster) -> None:
    cluster.open()
    before = cluster.store.now()
    cluster.store.mark_dispatched(OP, ["plan/1"])
    assert before <= cluster.step("plan/1").dispatched_at <= cluster.store.now()
    assert cluster.step("close").dispatched_at == 0


def test_an_operation_nobody_opened_is_not_there(cluster: Cluster) -> None:
    assert cluster.store.operation(OperationId("no-such")) is None


def test_what_was_sent_after_its_operation_was_forgotten_leaves_no_trace(cluster: Cluster) -> None:
    cluster.store.mark_dispatched(OP, ["plan/1"])
    cluster.open()
    step = cluster.store.operation(OP)
    assert step is not None, "a line with one field only would have made it unreadable"


def test_an_operation_of_the_same_id_is_opened_once_ever(cluster: Cluster) -> None:
    opened = cluster.open()
    cluster.store.end_operation(OP, OperationState.DONE, "done", cluster.epoch)
    assert not cluster.store.open_operation(opened)
    found = cluster.store.operation(OP)
    assert found is not None
    assert found.state is OperationState.DONE
