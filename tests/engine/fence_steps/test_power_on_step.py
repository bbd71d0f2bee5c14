"""A host that we cut is switched on again, once, and by nobody who has lost the right to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest

from fangnetz.core.model import HostState, Power
from fangnetz.core.operations import OperationState, StepState
from fangnetz.core.units import Instant, Seconds
from fangnetz.engine.execute import Next
from tests.contract.subjects import C2, OP
from tests.engine.bench import CUT, Bench
from tests.engine.fence_steps.fencing import (
    before_the_cut,
    held_up,
    lost_host,
    return_of,
)
from tests.redis_server import wait_for


def test_a_host_we_cut_is_switched_on_again_and_read_on(bench: Bench) -> None:
    ipmi = return_of(bench)
    ipmi.slow_for = 0.3
    assert bench.do(bench.fencing(), "power_on").next is Next.GO_ON
    assert (ipmi.orders, ipmi.power) == ([Power.ON], Power.ON)
    record = bench.host("h1")
    assert record is not None
    assert (record.state, record.cut_by) == (HostState.FENCED, None)
    assert record.proof is not None, "its old boot stays proven off"


@pytest.mark.parametrize("changed", [{"cut_by": None}, {"cut_by": "op-another"}, {"state": HostState.ONLINE}])
def test_a_host_that_is_not_off_by_our_cut_is_left_alone(bench: Bench, changed: dict[str, object]) -> None:
    ipmi = return_of(bench, **changed)
    assert bench.do(bench.fencing(), "power_on").next is Next.GO_ON
    assert (ipmi.orders, ipmi.questions) == ([], 0)


def test_no_power_on_while_a_lost_executor_could_still_cut(bench: Bench) -> None:
    ipmi = return_of(bench, cut_possible_until=Instant(bench.store.now() + 30))
    done = bench.do(bench.fencing(), "power_on")
    assert done.next is Next.AGAIN
    assert done.wait_s > 10
    assert ipmi.orders == []


def overthrow(bench: Bench) -> None:
    bench.lead(C2)


def claimed_by_another(bench: Bench) -> None:
    bench.raw.hset(bench.step_key("power_on"), "token", "another's")


def closed(bench: Bench) -> None:
    bench.store.end_operation(OP, OperationState.CANCELLED, "enough", bench.epoch)


@pytest.mark.parametrize("change", [overthrow, claimed_by_another, closed])
def test_no_power_on_once_the_step_is_not_ours_any_more(bench: Bench, change: Callable[[Bench], None]) -> None:
    ipmi = return_of(bench)
    before_the_cut(bench, ipmi, lambda: change(bench))
    assert bench.do(bench.fencing(), "power_on").next is Next.STOP
    record = bench.host("h1")
    assert record is not None
    assert (ipmi.orders, record.cut_by) == ([], CUT), "whoever has it now may still switch it on"


def test_a_power_on_held_up_after_its_last_look_is_not_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ipmi = return_of(bench)
    held_up(monkeypatch, "power_on.before_switch", bench.policy.step_lease_s + 0.1)
    assert bench.do(bench.fencing(), "power_on").next is Next.STOP
    assert (ipmi.orders, bench.step("power_on").state) == ([], StepState.RUNNING)


def test_no_power_on_after_the_bound_of_its_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ipmi = return_of(bench)
    held_up(monkeypatch, "before_renew", bench.policy.fence_bound_s + 0.1)
    assert bench.do(bench.fencing(), "power_on").next is Next.STOP
    assert ipmi.orders == []


@pytest.mark.parametrize("key", ["fence", "power_on"])
def test_a_device_is_told_until_when_its_order_may_be_sent(bench: Bench, key: str) -> None:
    """Whoever stands still within the device's own call is past every look."""
    ipmi = lost_host(bench)[0] if key == "fence" else return_of(bench)
    switch, permitted = ipmi.switch, []

    def told(wanted: Power, bound: Seconds, until: float = math.inf) -> str:
        permitted.append(until - time.monotonic())
        return switch(wanted, bound, until)

    ipmi.switch = told
    assert bench.do(bench.fencing(), key).next is Next.GO_ON
    assert [0 < left <= bench.policy.step_lease_s for left in permitted] == [True]


def test_a_host_that_does_not_come_on_ends_in_a_named_state(bench: Bench) -> None:
    ipmi = return_of(bench)
    ipmi.refuses_off = True
    assert bench.do(bench.fencing(), "power_on").next is Next.AGAIN
    assert wait_for(lambda: bench.do(bench.fencing(), "power_on").next is Next.STOP)
    assert bench.found().state is OperationState.FAILED
    assert "missing right" in bench.found().sentence
