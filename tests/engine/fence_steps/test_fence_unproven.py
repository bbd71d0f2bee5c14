"""What is no proof, and what then: the next level, another round, a person."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fangnetz.core.model import HostState, Power
from fangnetz.core.operations import OperationState, StepState
from fangnetz.core.units import HostId, Seconds
from fangnetz.engine.execute import Next
from fangnetz.ports import PowerAnswer
from tests.core.world import spec
from tests.engine.bench import Bench
from tests.engine.fence_steps.fencing import (
    before_the_cut,
    fence,
    lost_host,
    proof,
)
from tests.redis_server import wait_for


@pytest.mark.parametrize(
    ("trouble", "orders"),
    [("dark", 0), ("refuses", 0), ("refuses_off", 1), ("stays on", 1), ("other GUID", 0), ("unbound", 0)],
)
def test_nothing_but_a_reading_off_of_the_hosts_own_plug_is_proof(bench: Bench, trouble: str, orders: int) -> None:
    (ipmi,) = lost_host(bench, bound=trouble != "unbound")
    match trouble:
        case "dark" | "refuses":
            ipmi.mode = trouble
        case "refuses_off":
            ipmi.refuses_off = True
        case "stays on":
            ipmi.slow_for = 3600
        case "other GUID":
            ipmi.guid = "somebody-elses"
    done = fence(bench)
    step = bench.step("fence")
    assert (done.next, step.state) == (Next.AGAIN, StepState.READY)
    assert proof(bench) is None
    assert ipmi.orders == [Power.OFF] * orders
    assert step.not_before > bench.store.now()
    assert bench.host("h1").state is HostState.ONLINE


def test_a_plug_that_says_off_while_its_host_goes_on_speaking_is_no_proof(bench: Bench) -> None:
    (ipmi,) = lost_host(bench, forced_by="ada")
    ipmi.mode = "lies"
    asked = ipmi.status

    def status(bound: Seconds) -> PowerAnswer:
        answer = asked(bound)
        bench.report("h1")
        return answer

    ipmi.status = status
    assert fence(bench).next is Next.AGAIN
    assert (ipmi.orders, ipmi.power, proof(bench)) == ([Power.OFF], Power.ON, None)


@pytest.mark.parametrize("power", [Power.ON, Power.OFF])
@pytest.mark.parametrize("binding", ["none", "not tested", "mismatch", "another boot"])
def test_a_plug_not_known_to_be_this_hosts_is_neither_cut_nor_believed(
    bench: Bench, binding: str, power: Power
) -> None:
    (ipmi,) = lost_host(bench, bound=False)
    ipmi.power = power
    if binding != "none":
        if binding == "another boot":
            bench.boots[HostId("h1")] = "i0"
        matches = {"not tested": None, "mismatch": False}.get(binding, True)
        bench.bind("h1", guid=ipmi.guid, matches=matches)
        bench.boots[HostId("h1")] = "i1"
    assert fence(bench).next is Next.AGAIN
    assert (ipmi.orders, proof(bench)) == ([], None)


def test_an_error_on_one_device_of_a_level_is_no_proof_of_the_level_and_cuts_none_of_it(bench: Bench) -> None:
    a, b = lost_host(bench, ("a", "b"))
    b.mode = "dark"
    assert fence(bench).next is Next.AGAIN
    assert (a.orders, b.orders, proof(bench)) == ([], [], None)


def test_a_device_that_goes_dark_after_the_first_cut_of_its_level_is_no_proof(bench: Bench) -> None:
    a, b = lost_host(bench, ("a", "b"))
    before_the_cut(bench, b, lambda: setattr(b, "mode", "dark"))
    assert fence(bench).next is Next.AGAIN
    assert (a.orders, a.power, proof(bench)) == ([Power.OFF], Power.OFF, None)
    assert b.name in bench.step("fence").sentence
    b.mode = "ok"
    assert wait_for(lambda: (bench.lose("h1"), fence(bench).next is Next.GO_ON)[1])
    assert (b.power, bench.step("fence").attempt) == (Power.OFF, 2)


@contextlib.contextmanager
def still_lost(bench: Bench, host: str) -> Iterator[None]:
    """Go on looking, as a tick does: on a busy machine a step may outlast what was seen before it began."""
    end = threading.Event()

    def look() -> None:
        while not end.wait(0.3):
            bench.lose(host)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("trouble", ["dark", "refuses", "unbound", "stays on", "refuses_off"])
def test_when_a_level_fails_the_next_one_decides(bench: Bench, trouble: str) -> None:
    first, second = lost_host(bench, ("first",), ("second",), bound=False)
    bench.bind("h1", "second", guid=second.guid)
    if trouble != "unbound":
        bench.bind("h1", "first", guid=first.guid)
    bench.lose("h1")
    match trouble:
        case "dark" | "refuses":
            first.mode = trouble
        case "stays on":
            first.slow_for = 3600
        case "refuses_off":
            first.refuses_off = True
    second.slow_for = 0.3
    with still_lost(bench, "h1"):
        assert fence(bench).next is Next.GO_ON
    found = proof(bench)
    assert found is not None
    assert [r.device for r in found.evidence] == ["second"]


def test_after_so_many_rounds_a_person_is_asked(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.mode = "dark"
    assert fence(bench).next is Next.AGAIN
    assert wait_for(lambda: fence(bench).next is Next.STOP)
    record, found = bench.host("h1"), bench.found()
    assert record is not None
    assert record.state is HostState.NEEDS_PERSON
    assert found.state is OperationState.NEEDS_PERSON
    for said in (record.reason, found.sentence):
        assert "confirm-off h1" in said
        assert "ipmi" in said
    assert (ipmi.orders, record.proof) == ([], None)


def test_a_host_without_a_fence_device_needs_a_person(bench: Bench) -> None:
    bench.hosts[HostId("h1")] = replace(spec("h1"), fencing=())
    bench.members()
    bench.lose("h1")
    bench.failover()
    bench.skip_to("fence")
    assert fence(bench).next is Next.AGAIN
    assert wait_for(lambda: fence(bench).next is Next.STOP)
    assert bench.found().state is OperationState.NEEDS_PERSON
