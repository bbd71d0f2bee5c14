"""The gates are read again right before the cut: what forbids it then, a pause among it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.model import HostDoc, HostState, PauseDoc, Power
from fangnetz.core.operations import OperationState, StepState
from fangnetz.core.units import ControllerId, HostId, Instant
from fangnetz.engine.execute import Next
from tests.contract.subjects import C1, C2, OP
from tests.engine.bench import Bench
from tests.engine.fence_steps.fencing import (
    before_the_cut,
    fence,
    held_up,
    lost_host,
    proof,
)
from tests.redis_server import wait_for


def test_no_cut_when_the_host_speaks_again_between_question_and_order(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    before_the_cut(bench, ipmi, lambda: (bench.report("h1"), bench.watch()))
    assert fence(bench).next is Next.STOP
    assert (ipmi.orders, bench.found().state) == ([], OperationState.CANCELLED)


def test_no_cut_when_the_host_boots_anew_even_if_a_person_asked(bench: Bench) -> None:
    (ipmi,) = lost_host(bench, forced_by="ada")
    before_the_cut(bench, ipmi, lambda: (bench.reboot("h1"), bench.watch()))
    assert fence(bench).next is Next.STOP
    assert (ipmi.orders, bench.found().state) == ([], OperationState.CANCELLED)


def test_no_cut_when_the_other_hosts_fall_silent_too(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    before_the_cut(bench, ipmi, lambda: bench.watch(h1=60.0, h2=60.0, h3=60.0))
    assert fence(bench).next is Next.STOP
    assert ipmi.orders == []


def test_no_cut_when_nobody_watches_any_more(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    before_the_cut(bench, ipmi, lambda: bench.raw.delete("fn:{test}:watch:c1"))
    assert fence(bench).next is Next.STOP
    assert ipmi.orders == []


def test_no_cut_once_another_controller_is_in_charge(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)

    def overthrow() -> None:
        bench.raw.rename("fn:{test}:watch:c1", "fn:{test}:watch:c2")  # it has watched as long, and calls h1 lost too
        bench.lead(C2)

    before_the_cut(bench, ipmi, overthrow)
    assert fence(bench).next is Next.STOP
    assert ipmi.orders == []


def test_no_cut_once_somebody_else_has_claimed_the_step(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    before_the_cut(bench, ipmi, lambda: bench.raw.hset(bench.step_key("fence"), "token", "another's"))
    assert fence(bench).next is Next.STOP
    assert ipmi.orders == []


def test_no_cut_once_the_operation_is_closed(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    before_the_cut(bench, ipmi, lambda: bench.store.end_operation(OP, OperationState.CANCELLED, "enough", bench.epoch))
    assert fence(bench).next is Next.STOP
    assert ipmi.orders == []


def test_a_cut_held_up_after_its_last_look_is_not_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (ipmi,) = lost_host(bench)
    held_up(monkeypatch, "fence.before_cut", bench.policy.step_lease_s + 0.1)
    assert fence(bench).next is Next.STOP
    assert (ipmi.orders, bench.step("fence").state) == ([], StepState.RUNNING)


def test_no_cut_after_the_bound_by_which_others_reckon_it_cannot_come_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ipmi,) = lost_host(bench)
    held_up(monkeypatch, "before_renew", bench.policy.fence_bound_s + 0.1)
    assert fence(bench).next is Next.STOP
    assert ipmi.orders == []


def test_a_host_that_came_back_as_a_new_boot_while_its_plug_was_dark_needs_no_fence(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.mode = "dark"
    assert fence(bench).next is Next.AGAIN
    bench.reboot("h1")
    bench.watch()
    assert wait_for(lambda: fence(bench).next is Next.GO_ON)
    assert (bench.step("fence").state, bench.step("prove").state) == (StepState.DONE, StepState.SKIPPED)
    assert "booted anew" in bench.step("fence").sentence
    assert (ipmi.orders, proof(bench), bench.found().state) == ([], None, OperationState.OPEN)


def test_a_host_that_speaks_again_while_its_plug_is_dark_is_not_left_to_a_person(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.mode = "dark"
    bench.report("h1")
    bench.watch()
    assert fence(bench).next is Next.STOP
    found = bench.found()
    assert (found.state, bench.host("h1").state) == (OperationState.CANCELLED, HostState.ONLINE)
    assert "no longer lost" in found.sentence
    assert "ipmi" in found.sentence


def test_nothing_is_cut_on_a_persons_word_of_an_hour_ago(bench: Bench) -> None:
    (ipmi,) = lost_host(bench, forced_by="ada")
    bench.store.end_operation(OP, OperationState.CANCELLED, "", bench.epoch)
    asked_at = Instant(bench.store.now() - 3600)
    bench.failover("h1", identity="op-2", forced_by="ada", suspected_at=asked_at)
    bench.skip_to("fence", "op-2")
    bench.report()
    bench.watch()
    assert bench.do(bench.fencing(), "fence", "op-2").next is Next.STOP
    assert (ipmi.orders, bench.found("op-2").state) == ([], OperationState.CANCELLED)


def test_a_host_in_maintenance_is_not_cut(bench: Bench) -> None:

    (ipmi,) = lost_host(bench)
    before_the_cut(bench, ipmi, lambda: bench.ledger.write([HostDoc(id=HostId("h1"), maintenance=True)]))
    assert fence(bench).next is Next.STOP
    assert ipmi.orders == []


@pytest.mark.parametrize(("there", "cut"), [(C1, False), (C2, True)])
def test_right_before_the_cut_it_counts_where_the_holder_of_the_lease_runs(
    bench: Bench, there: ControllerId, cut: bool
) -> None:
    (ipmi,) = lost_host(bench)
    host = HostId("h1")
    here = replace(bench.hosts[host], controllers=(there,))
    before_the_cut(bench, ipmi, lambda: bench.hosts.update({host: here}))
    assert fence(bench).next is (Next.GO_ON if cut else Next.STOP)
    assert ipmi.orders == ([Power.OFF] if cut else [])


def pause(bench: Bench) -> None:
    bench.ledger.write([PauseDoc(on=True, by="ada", since=bench.store.now())])


def test_a_pause_that_begins_after_the_last_question_prevents_the_cut_and_its_intent(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    before_the_cut(bench, ipmi, lambda: pause(bench))
    assert fence(bench).next is Next.STOP
    assert (ipmi.orders, bench.host("h1").cut_by) == ([], None)
    step = bench.step("fence")
    assert step.state is StepState.READY
    assert "the cluster is paused" in step.sentence
    assert fence(bench).next is Next.STOP, "and it is not taken up before the pause ends"
    assert ipmi.orders == []


def test_a_fence_that_has_begun_is_brought_to_its_end_in_a_pause(bench: Bench) -> None:
    left, right = lost_host(bench, ("left", "right"))
    switch = left.switch

    def switch_and_pause(*words: object, **more: object) -> str:
        said = switch(*words, **more)
        pause(bench)
        return said

    left.switch = switch_and_pause
    assert fence(bench).next is Next.GO_ON
    assert len(left.orders) == len(right.orders) == 1
    assert proof(bench) is not None
    assert bench.do(bench.deciding(), "prove").next is Next.GO_ON
    assert bench.host("h1").state is HostState.FENCED
    assert bench.do(bench.deciding(), "plan/1").next is Next.STOP
