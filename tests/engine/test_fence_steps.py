"""Fencing: proof is what is read back from a plug known to be this host's; no cut on anything less than open gates."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.core.errors import StaleToken
from fangnetz.core.model import HostDoc, HostState, OffProof, PauseDoc, Power, ProofKind
from fangnetz.core.operations import OperationState, StepState
from fangnetz.core.units import ControllerId, DeviceName, HostId, Incarnation, Instant, OperationId, Seconds
from fangnetz.engine import execute, faults
from fangnetz.engine.execute import Done, Next
from fangnetz.engine.steps.failover import PROOF
from fangnetz.engine.steps.fence import FenceSteps
from fangnetz.ports import PowerAnswer
from tests.contract.fence_devices import ScriptedDevice
from tests.contract.subjects import C1, C2, OP
from tests.core.world import spec
from tests.engine.bench import CUT, Bench
from tests.redis_server import wait_for


def lost_host(bench: Bench, *levels: tuple[str, ...], bound: bool = True, forced_by: str = "") -> list[ScriptedDevice]:
    """h1 is lost and about to be fenced. Return its devices."""
    wanted = levels or (("ipmi",),)
    bench.hosts[HostId("h1")] = spec("h1", levels=wanted)
    bench.members()
    made = [ScriptedDevice(name=DeviceName(d), guid=f"guid-of-{d}") for level in wanted for d in dict.fromkeys(level)]
    for device in made:
        bench.devices[device.name] = device
        if bound:
            bench.bind("h1", device.name, guid=device.guid)
    bench.lose("h1")
    bench.failover("h1", forced_by=forced_by)
    bench.skip_to("fence")
    bench.lose("h1")
    return made


def fence(bench: Bench) -> Done:
    return bench.do(bench.fencing(), "fence")


def proof(bench: Bench) -> OffProof | None:
    text = bench.step("fence").facts.get("proof")
    return PROOF.validate_json(text) if isinstance(text, str) else None


def before_the_cut(bench: Bench, device: ScriptedDevice, change: Callable[[], object]) -> None:
    """Let something happen after the last question and before the order."""
    asked = device.status

    def status(bound: Seconds) -> PowerAnswer:
        answer = asked(bound)
        device.status = asked  # type: ignore[method-assign]
        change()
        return answer

    device.status = status  # type: ignore[method-assign]


# --- the way it should go ----------------------------------------------------------------------------------------


def test_a_lost_host_is_switched_off_and_read_back(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    assert fence(bench).next is Next.GO_ON
    assert (ipmi.orders, ipmi.power) == ([Power.OFF], Power.OFF)
    found = proof(bench)
    assert found is not None
    assert (found.host, found.incarnation, found.kind) == ("h1", "i1", ProofKind.READ_BACK_OFF)
    (read,) = found.evidence
    assert (read.device, read.power, read.guid, read.raw) == ("ipmi", Power.OFF, ipmi.guid, "plug is off")
    facts = bench.step("fence").facts
    assert facts["fence_sent_at"] <= read.asked_at <= read.answered_at <= facts["fence_proven_at"]
    assert facts["answer/ipmi"] == "accepted"
    assert facts["read/ipmi"] == "off: plug is off"
    assert "fence_sent" in bench.events()


def test_a_bound_plug_that_is_off_already_is_proof_without_an_order(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.power = Power.OFF
    assert fence(bench).next is Next.GO_ON
    found = proof(bench)
    assert found is not None
    assert (ipmi.orders, found.kind) == ([], ProofKind.ALREADY_OFF)
    assert "fence_sent_at" not in bench.step("fence").facts


def test_a_slow_plug_is_waited_for(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.slow_for = 0.7
    assert fence(bench).next is Next.GO_ON
    assert (ipmi.orders, ipmi.power) == ([Power.OFF], Power.OFF)


def test_all_devices_of_a_level_must_be_off(bench: Bench) -> None:
    devices = lost_host(bench, ("a", "b"))
    assert fence(bench).next is Next.GO_ON
    assert [d.power for d in devices] == [Power.OFF, Power.OFF]
    found = proof(bench)
    assert found is not None
    assert {r.device for r in found.evidence} == {"a", "b"}


def test_only_what_is_on_is_switched(bench: Bench) -> None:
    a, b = lost_host(bench, ("a", "b"))
    a.power = Power.OFF
    assert fence(bench).next is Next.GO_ON
    assert (a.orders, b.orders) == ([], [Power.OFF])


def test_a_proof_that_was_there_and_was_withdrawn_is_not_used(bench: Bench) -> None:
    bench.members()
    bench.failover(proof=bench.proof("h1"))
    bench.ledger.write([replace(bench.proof("h1"), void=True)])
    bench.skip_to("fence")
    ipmi = bench.devices[DeviceName("ipmi")] = ScriptedDevice(name=DeviceName("ipmi"), guid="guid-of-h1")
    assert fence(bench).next is not Next.GO_ON
    assert (proof(bench), ipmi.orders) == (None, [])


def test_a_proof_that_was_there_already_is_used(bench: Bench) -> None:
    bench.members()
    bench.failover(proof=bench.proof("h1"))
    bench.skip_to("fence")
    assert fence(bench).next is Next.GO_ON
    assert proof(bench) == bench.found().proof


def test_a_person_may_have_a_living_host_fenced(bench: Bench) -> None:
    (ipmi,) = lost_host(bench, forced_by="ada")
    bench.report()
    bench.watch()
    assert fence(bench).next is Next.GO_ON
    assert ipmi.orders == [Power.OFF]


# --- no proof ----------------------------------------------------------------------------------------------------


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
    assert bench.host("h1").state is HostState.ONLINE  # type: ignore[union-attr]


def test_a_plug_that_says_off_while_its_host_goes_on_speaking_is_no_proof(bench: Bench) -> None:
    (ipmi,) = lost_host(bench, forced_by="ada")
    ipmi.mode = "lies"
    asked = ipmi.status

    def status(bound: Seconds) -> PowerAnswer:
        answer = asked(bound)
        bench.report("h1")
        return answer

    ipmi.status = status  # type: ignore[method-assign]
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


# --- the gates, read again right before the cut ------------------------------------------------------------------


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


def held_up(monkeypatch: pytest.MonkeyPatch, at: str, seconds: float) -> None:
    """Let the executor's own thread stand still at a point or a stage, as a stopped process does."""
    thread = threading.current_thread()

    def wait(name: str) -> None:
        if name == at and threading.current_thread() is thread:
            threading.Event().wait(seconds)

    monkeypatch.setattr(execute, "point", lambda name, _subject: wait(name))
    monkeypatch.setattr(execute, "step_point", lambda _kind, stage, _subject: wait(stage))


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
    assert (found.state, bench.host("h1").state) == (OperationState.CANCELLED, HostState.ONLINE)  # type: ignore[union-attr]
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


def intend(bench: Bench, operation: str) -> None:
    """Leave in h1's record that an operation was about to cut it."""
    old = bench.host("h1")
    assert old is not None
    assert bench.store.put_host(replace(old, cut_by=OperationId(operation)), old, bench.epoch)


def cut_by_us(bench: Bench) -> bool:
    """Whether h1's record names the operation under test as the one that cut it."""
    record = bench.host("h1")
    assert record is not None
    return record.cut_by == OP


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

    ipmi.switch = cut_then_dark  # type: ignore[method-assign]
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


def test_a_host_in_maintenance_is_not_cut(bench: Bench) -> None:
    from fangnetz.core.model import HostDoc

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


def test_a_sign_of_life_after_the_reading_makes_it_no_proof(bench: Bench) -> None:
    (ipmi,) = lost_host(bench, forced_by="ada")
    ipmi.power = Power.OFF
    asked = ipmi.status

    def status(bound: Seconds) -> PowerAnswer:
        answer = asked(bound)
        bench.report("h1")
        return answer

    ipmi.status = status  # type: ignore[method-assign]
    assert fence(bench).next is Next.AGAIN
    assert proof(bench) is None


# --- on again ----------------------------------------------------------------------------------------------------


def return_of(bench: Bench, **changed: object) -> ScriptedDevice:
    from fangnetz.core.operations import OperationKind, return_steps

    bench.members()
    bench.fenced("h1")
    old = bench.host("h1")
    assert old is not None
    assert bench.store.put_host(replace(old, **changed), old, bench.epoch)
    ipmi = ScriptedDevice(name=DeviceName("ipmi"), power=Power.OFF)
    bench.devices[ipmi.name] = ipmi
    made = replace(bench.operation(*return_steps(), kind=OperationKind.RETURN, subject="h1"), incident=CUT)
    assert bench.store.open_operation(made)
    return ipmi


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

    ipmi.switch = told  # type: ignore[method-assign]
    assert bench.do(bench.fencing(), key).next is Next.GO_ON
    assert [0 < left <= bench.policy.step_lease_s for left in permitted] == [True]


def test_a_host_that_does_not_come_on_ends_in_a_named_state(bench: Bench) -> None:
    ipmi = return_of(bench)
    ipmi.refuses_off = True
    assert bench.do(bench.fencing(), "power_on").next is Next.AGAIN
    assert wait_for(lambda: bench.do(bench.fencing(), "power_on").next is Next.STOP)
    assert bench.found().state is OperationState.FAILED
    assert "missing right" in bench.found().sentence


# --- while the cluster is paused ---------------------------------------------------------------------------------


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


# --- what counts as an exit that nobody asked for ----------------------------------------------------------------


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
