"""The journal's rules: a settled step never changes, no step is lost on its way, joins wait for all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangnetz.core.errors import IllegalTransition
from fangnetz.core.operations import (
    ALL_OTHERS,
    SETTLED,
    STEP_TABLE,
    Operation,
    OperationKind,
    OperationState,
    Outcome,
    Step,
    StepKind,
    StepState,
    chain_from,
    failover_steps,
    handed_on,
    queue_of,
    ready_steps,
    return_steps,
    settle,
    start_steps,
    stop_steps,
    vm_start_steps,
)
from fangnetz.core.units import Epoch, Instant, OperationId, Seconds
from tests.core.world import T0, start_order

NOW = Instant(T0)


def operation(*steps: Step) -> Operation:
    return Operation(
        id=OperationId("op"),
        kind=OperationKind.FAILOVER,
        subject="h1",
        epoch=Epoch(1),
        opened_at=NOW,
        reason="",
        steps=steps,
    )


def claimed(op: Operation, key: str) -> Operation:
    steps = tuple(replace(s, state=StepState.RUNNING) if s.key == key else s for s in op.steps)
    return replace(op, steps=steps)


def done(op: Operation, key: str, *adds: Step, skips: tuple[str, ...] = ()) -> Operation:
    return settle(claimed(op, key), key, Outcome(state=StepState.DONE, sentence="ok", adds=adds, skips=skips), NOW)


def keys(op: Operation) -> list[str]:
    return [s.key for s in ready_steps(op)]


# --- the table ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", sorted(SETTLED))
@pytest.mark.parametrize("after", list(StepState))
def test_a_settled_step_never_changes_again(before: StepState, after: StepState) -> None:
    assert not STEP_TABLE.get((before, after), False)
    op = operation(Step(key="a", kind=StepKind.PLAN, state=before))
    with pytest.raises(IllegalTransition):
        settle(op, "a", Outcome(state=after, sentence=""), NOW)


@pytest.mark.parametrize("after", [StepState.DONE, StepState.REFUSED, StepState.FAILED])
def test_only_a_claimed_step_can_end(after: StepState) -> None:
    with pytest.raises(IllegalTransition):
        settle(operation(Step(key="a", kind=StepKind.PLAN)), "a", Outcome(state=after, sentence=""), NOW)


def test_an_unknown_step_is_our_fault() -> None:
    with pytest.raises(IllegalTransition):
        settle(operation(), "a", Outcome(state=StepState.DONE, sentence=""), NOW)


def test_a_step_cannot_be_added_twice() -> None:
    with pytest.raises(IllegalTransition):
        done(operation(*failover_steps()), "confirm", Step(key="plan/1", kind=StepKind.PLAN))


def test_a_step_given_back_is_ready_later_and_keeps_what_it_found_out() -> None:
    op = claimed(operation(Step(key="a", kind=StepKind.FENCE, facts={"asked": 1})), "a")
    retry = Outcome(state=StepState.READY, sentence="later", facts={"answer": "none"}, retry_after_s=Seconds(10.0))
    step = settle(op, "a", retry, NOW).step("a")
    assert step is not None
    assert (step.state, step.not_before, step.ended_at, step.lease_until) == (StepState.READY, T0 + 10, 0, 0)
    assert step.facts == {"asked": 1, "answer": "none"}


def test_a_claimed_step_is_never_skipped_for_its_effect_may_be_under_way() -> None:
    start, running = vm_start_steps(start_order("web", "h2", 5), attempt=1, after="plan/1")
    op = claimed(operation(*failover_steps(), start, running), start.key)
    after = settle(claimed(op, "confirm"), "confirm", Outcome(
        state=StepState.FAILED, sentence="no", skips=(start.key, running.key)), NOW)  # fmt: skip
    states = {s.key: s.state for s in after.steps}
    assert states[start.key] is StepState.RUNNING
    assert states[running.key] is StepState.SKIPPED


def test_an_operation_closed_from_outside_stays_closed_and_still_takes_late_outcomes_down() -> None:
    ended = replace(
        claimed(operation(*start_steps()), "close"),
        state=OperationState.NEEDS_PERSON, closed_at=Instant(T0 - 9), sentence="the proof is void",
    )  # fmt: skip
    late = settle(ended, "close", Outcome(state=StepState.DONE, sentence="ok", closes=OperationState.DONE), NOW)
    assert (late.state, late.closed_at, late.sentence) == (OperationState.NEEDS_PERSON, T0 - 9, "the proof is void")
    step = late.step("close")
    assert step is not None
    assert step.state is StepState.DONE
    assert ready_steps(late) == ()


# --- order -------------------------------------------------------------------------------------------------------


def test_a_failover_goes_one_by_one_and_the_join_comes_last() -> None:
    op = operation(*failover_steps())
    for key in ("confirm", "fence", "prove", "plan/1", "close"):
        assert keys(op) == [key]
        op = done(op, key)
    assert keys(op) == []


@pytest.mark.parametrize("end", [StepState.REFUSED, StepState.FAILED])
def test_what_waits_for_a_step_that_was_refused_or_failed_never_runs(end: StepState) -> None:
    op = operation(Step(key="a", kind=StepKind.CONFIRM, state=end), Step(key="b", kind=StepKind.FENCE, after=("a",)))
    assert keys(op) == []


def test_a_join_waits_for_every_other_step_whatever_its_end() -> None:
    others = [Step(key=s, kind=StepKind.PLAN, state=s) for s in StepState]
    join = Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,))
    assert "close" not in keys(operation(*others, join))
    settled = [s for s in others if s.settled]
    assert keys(operation(*settled, join)) == ["close"]
    for loose in others:
        if not loose.settled:
            assert "close" not in keys(operation(*settled, loose, join))


def test_nothing_of_a_closed_operation_is_ready() -> None:
    for state in OperationState:
        op = replace(operation(*failover_steps()), state=state)
        assert bool(ready_steps(op)) == (state is OperationState.OPEN)


def test_each_step_travels_on_its_queue() -> None:
    order = start_order("web", "h2", 5)
    start, running = vm_start_steps(order, attempt=1, after="plan/1")
    assert queue_of(start) == queue_of(stop_steps(order)[0]) == "host.h2"
    assert queue_of(running) == queue_of(failover_steps()[0]) == "work"
    assert queue_of(failover_steps()[1]) == queue_of(return_steps()[0]) == "fence"
    with pytest.raises(IllegalTransition):
        queue_of(Step(key="a", kind=StepKind.START))


# --- no step is lost between a chain and what is handed on -------------------------------------------------------


class Courier:
    """Delivers chains as Celery would: one after the other, each step claimed when its turn comes and it is ready."""

    def __init__(self, op: Operation, pick: st.DataObject) -> None:
        self.op, self.pick = op, pick
        self.chains: list[list[str]] = [list(chain_from(op, step.key)) for step in ready_steps(op)]
        self.ran: list[str] = []
        self.handed: list[str] = []

    def deliver(self) -> None:
        chain = self.chains[self.pick.draw(st.integers(0, len(self.chains) - 1))]
        key = chain.pop(0)
        if not chain:
            self.chains = [c for c in self.chains if c]
        step = self.op.step(key)
        assert step is not None
        if step.settled or step not in ready_steps(self.op):
            return  # a second delivery, or one whose predecessor was not done: harmless
        self.ran.append(key)
        outcome = self.outcome(step)
        self.op = settle(claimed(self.op, key), key, outcome, NOW)
        added = [s.key for s in outcome.adds]
        for new in handed_on(self.op, key, added):
            self.chains.append(list(new))
            self.handed.extend(new)

    def outcome(self, step: Step) -> Outcome:
        vms = self.pick.draw(st.integers(0, 3)) if step.kind is StepKind.PLAN else 0
        adds = tuple(
            s
            for n in range(vms)
            for s in vm_start_steps(start_order(f"vm{n}", "h2", 5), attempt=len(self.ran), after=step.key)
        )
        refusable = step.kind is StepKind.START and len(self.ran) < 25
        if refusable and self.pick.draw(st.booleans()):
            running = step.key.replace("start/", "running/")
            again = Step(key=f"plan/{len(self.ran) + 1}", kind=StepKind.PLAN)
            return Outcome(state=StepState.REFUSED, sentence="no", adds=(again,), skips=(running,))
        return Outcome(state=StepState.DONE, sentence="ok", adds=adds)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([failover_steps(), start_steps(), return_steps()]))
def test_chains_and_what_is_handed_on_carry_every_step_to_its_end_without_a_sweep(
    data: st.DataObject, steps: tuple[Step, ...]
) -> None:
    courier = Courier(operation(*steps), data)
    for _ in range(400):
        if not courier.chains:
            break
        in_flight = {key for chain in courier.chains for key in chain}
        assert {s.key for s in ready_steps(courier.op)} <= in_flight
        courier.deliver()
    assert all(step.settled for step in courier.op.steps)
    assert len(courier.ran) == len(set(courier.ran))
    assert courier.ran[-1] == "close"


def test_what_a_chain_carries_already_is_not_handed_on_a_second_time() -> None:
    op = operation(*failover_steps())
    assert chain_from(op, "confirm") == ("confirm", "fence", "prove", "plan/1")
    op = done(op, "confirm")
    assert handed_on(op, "confirm", ()) == ()


def test_a_single_start_added_by_the_plan_is_handed_on_for_no_chain_knew_it() -> None:
    op = operation(*start_steps())
    adds = vm_start_steps(start_order("web", "h2", 5), attempt=1, after="plan/1")
    op = done(op, "plan/1", *adds)
    assert handed_on(op, "plan/1", [s.key for s in adds]) == (("start/web/1", "running/web/1"),)


def test_the_last_settled_step_hands_on_the_join() -> None:
    op = done(operation(*return_steps()), "power_on")
    assert handed_on(op, "power_on", ()) == (("close",),)
