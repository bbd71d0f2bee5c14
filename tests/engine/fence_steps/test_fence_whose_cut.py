"""Whose cut it was: only what we cut is switched on again, and only exits that nobody asked for count."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.core.errors import StaleToken
from fangnetz.core.model import HostDoc, HostState, Power, ProofKind
from fangnetz.core.operations import OperationState
from fangnetz.core.units import HostId, Incarnation, Instant, Seconds
from fangnetz.engine import faults
from fangnetz.engine.execute import Next
from fangnetz.engine.steps.fence import FenceSteps
from tests.contract.subjects import OP
from tests.engine.bench import Bench
from tests.engine.fence_steps.fencing import (
    before_the_cut,
    cut_by_us,
    fence,
    intend,
    lost_host,
    proof,
)
from tests.redis_server import wait_for


def test_whose_cut_it_was_is_known_even_if_the_executor_dies_right_after_it(bench: Bench, tmp_path: Path) -> None:
    (ipmi,) = lost_host(bench)
    deafen = faults.listen(tmp_path, "test", "fence.sent:raise")
    try:
        assert fence(bench).next is Next.AGAIN
    finally:
        deafen()
    assert (ipmi.orders, "fence_sent_at" in bench.step("fence").facts) == ([Power.OFF], False)
    assert wait_for(lambda: fence(bench).next is Next.GO_ON)
    assert ipmi.orders == [Power.OFF], "it reads off: it is not cut twice"
    assert bench.do(bench.deciding(), "prove").next is Next.GO_ON
    assert cut_by_us(bench), "so it is switched on again as any host we cut"


def test_a_host_found_off_stays_one_that_we_did_not_cut(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    intend(bench, "op-earlier")
    ipmi.power = Power.OFF
    ipmi.mode = "dark"
    assert fence(bench).next is Next.AGAIN
    ipmi.mode = "ok"
    assert wait_for(lambda: fence(bench).next is Next.GO_ON)
    assert bench.do(bench.deciding(), "prove").next is Next.GO_ON
    assert (ipmi.orders, cut_by_us(bench)) == ([], False)


def test_another_operations_intent_makes_a_persons_switch_no_cut_of_ours_though_a_claim_was_lost(
    bench: Bench,
) -> None:
    (ipmi,) = lost_host(bench)
    intend(bench, "op-cancelled")
    bench.claim("fence", token="lost", lease=0.02)
    ipmi.power = Power.OFF
    assert wait_for(lambda: fence(bench).next is Next.GO_ON)
    assert bench.step("fence").attempt == 2
    assert bench.do(bench.deciding(), "prove").next is Next.GO_ON
    assert (ipmi.orders, bench.host("h1").cut_by) == ([], None)


def test_a_cut_that_came_too_late_to_be_sent_is_no_cut_of_ours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (ipmi,) = lost_host(bench)

    def too_late(_self: object, _attempt: object, _point: str) -> float:
        raise StaleToken("the bound of this attempt has passed")

    monkeypatch.setattr(FenceSteps, "_permitted_until", too_late)
    assert fence(bench).next is Next.STOP
    assert (ipmi.orders, bench.host("h1").cut_by) == ([], None)


def test_a_host_that_went_off_while_it_was_asked_was_not_read_back(bench: Bench) -> None:
    """Its last report crosses the first answer: OFF is proof at the second one only, and still nobody here cut it."""
    (ipmi,) = lost_host(bench, forced_by="ada")
    ipmi.power = Power.OFF
    before_the_cut(bench, ipmi, lambda: bench.report("h1"))
    assert fence(bench).next is Next.GO_ON
    found = proof(bench)
    assert found is not None
    assert (ipmi.orders, found.kind) == ([], ProofKind.ALREADY_OFF)


def test_a_cut_that_was_forbidden_at_the_last_moment_is_no_cut_of_ours(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    before_the_cut(bench, ipmi, lambda: (bench.report("h1"), bench.watch()))
    assert fence(bench).next is Next.STOP
    assert (ipmi.orders, bench.found().state, cut_by_us(bench)) == ([], OperationState.CANCELLED, False)


def test_a_cut_that_a_lost_claim_may_have_sent_stays_ours_though_the_next_one_is_forbidden(
    bench: Bench, tmp_path: Path
) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.slow_for = 3600
    deafen = faults.listen(tmp_path, "test", "fence.sent:raise")
    try:
        assert fence(bench).next is Next.AGAIN
    finally:
        deafen()
    before_the_cut(bench, ipmi, lambda: bench.watch(h1=60.0, h2=60.0, h3=60.0))
    assert wait_for(lambda: fence(bench).next is Next.STOP)
    assert (ipmi.orders, cut_by_us(bench)) == ([Power.OFF], True)


def test_what_an_earlier_operation_intended_says_nothing_where_a_proof_was_there_already(bench: Bench) -> None:
    bench.members()
    intend(bench, "op-earlier")
    bench.failover(proof=replace(bench.proof("h1"), kind=ProofKind.ALREADY_OFF))
    bench.skip_to("fence")
    assert fence(bench).next is Next.GO_ON
    assert not cut_by_us(bench)


def test_a_cut_that_took_effect_after_its_operation_had_given_up_leaves_the_host_off_and_says_so(bench: Bench) -> None:
    """A person was asked to make sure that it is off: nobody can tell any more whose off it was."""
    (ipmi,) = lost_host(bench)
    sent = ipmi.switch

    def cut_then_dark(wanted: Power, bound: Seconds, until: float = math.inf) -> str:
        answer = sent(wanted, bound, until)
        ipmi.mode = "dark"
        return answer

    ipmi.switch = cut_then_dark
    assert wait_for(lambda: fence(bench).next is Next.STOP)
    gave_up = bench.host("h1")
    assert gave_up is not None
    assert (gave_up.state, gave_up.cut_by, ipmi.orders) == (HostState.NEEDS_PERSON, OP, [Power.OFF])
    ipmi.mode = "ok"
    bench.failover("h1", identity="op-2")
    bench.skip_to("fence", "op-2")
    bench.lose("h1")
    assert bench.do(bench.fencing(), "fence", "op-2").next is Next.GO_ON
    assert bench.do(bench.deciding(), "prove", "op-2").next is Next.GO_ON
    record = bench.host("h1")
    assert record is not None
    assert (record.state, record.cut_by, ipmi.orders) == (HostState.FENCED, None, [Power.OFF])
    assert record.proof is not None
    assert record.reason.startswith(record.proof.sentence)
    assert OP in record.reason
    assert "stays off" in record.reason


@pytest.mark.parametrize("changed", [{"cut_by": None}, {"incarnation": Incarnation("i0")}])
def test_a_host_that_nobody_set_out_to_cut_in_this_boot_has_no_word_of_it_in_its_reason(
    bench: Bench, changed: dict[str, object]
) -> None:
    bench.members()
    intend(bench, "op-earlier")
    old = bench.host("h1")
    assert old is not None
    assert bench.store.put_host(replace(old, **changed), old, bench.epoch)
    bench.failover(proof=replace(bench.proof("h1"), kind=ProofKind.ALREADY_OFF))
    bench.skip_to("fence")
    assert fence(bench).next is Next.GO_ON
    assert bench.do(bench.deciding(), "prove").next is Next.GO_ON
    record = bench.host("h1")
    assert record is not None
    assert record.proof is not None
    assert (record.cut_by, record.reason) == (None, record.proof.sentence)


def exits_after_proof(bench: Bench) -> tuple[Instant, ...]:
    assert fence(bench).next is Next.GO_ON
    assert bench.do(bench.deciding(), "prove").next is Next.GO_ON
    return bench.host("h1").exits


def test_a_proof_counts_the_exit_of_a_lost_host_at_the_instant_it_was_suspected(bench: Bench) -> None:
    lost_host(bench)
    opened = bench.found(OP).opened_at
    assert exits_after_proof(bench) == (opened,)


def test_a_proof_that_is_written_once_more_counts_no_second_exit(bench: Bench, tmp_path: Path) -> None:
    lost_host(bench)
    assert fence(bench).next is Next.GO_ON
    deafen = faults.listen(tmp_path, "test", "prove.before_settle:raise")
    try:
        assert bench.do(bench.deciding(), "prove").next is Next.STOP
    finally:
        deafen()
    first = bench.host("h1").exits
    assert wait_for(lambda: bench.do(bench.deciding(), "prove").next is Next.GO_ON)
    assert bench.host("h1").exits == first
    assert len(first) == 1


def test_a_fence_that_a_person_asked_for_is_no_such_exit(bench: Bench) -> None:
    lost_host(bench, forced_by="ada")
    assert exits_after_proof(bench) == ()


def test_an_exit_in_maintenance_is_none(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.power = Power.OFF
    assert fence(bench).next is Next.GO_ON
    bench.ledger.write([HostDoc(id=HostId("h1"), maintenance=True)])
    assert bench.do(bench.deciding(), "prove").next is Next.GO_ON
    assert bench.host("h1").exits == ()
