"""A hypervisor: what it lists, what it refuses, what it does not know, and what is asked right before each effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fangnetz.core.convergence import Advice
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable, StaleToken
from fangnetz.core.model import Destination, Sighting
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, Seconds, VmId
from fangnetz.ports import Consumed, Departure, Domain, Hypervisor, Migration
from tests.adapters.conftest import libvirtd, wait_for
from tests.contract.hypervisors import HypervisorSubject, RealLibvirt, SimLibvirt

__all__ = ["libvirtd"]
RUNNING, PAUSED = Sighting.RUNNING, Sighting.PAUSED
SENT_AT = Instant(1_700_000_000.25)
G7 = Generation(7)
NOBODY = VmId("never-seen")


@pytest.fixture(params=["test driver", pytest.param("libvirtd", marks=pytest.mark.lab), "twin"])
def subject(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HypervisorSubject]:
    if request.param == "twin":
        yield SimLibvirt()
        return
    if request.param == "test driver":
        uri, kind = "test:///default", "test"
    else:
        uri, kind = request.getfixturevalue("libvirtd").uri, "qemu"
    made = RealLibvirt(uri, kind, tmp_path / "run", monkeypatch)
    yield made
    made.close()


@pytest.fixture
def vm(subject: HypervisorSubject) -> VmId:
    return subject.new_vm()


def seen(hypervisor: Hypervisor, vm: VmId) -> Domain | None:
    return next((domain for domain in hypervisor.domains() if domain.vm == vm), None)


def state(subject: HypervisorSubject, vm: VmId) -> tuple[Sighting, Generation | None] | None:
    domain = seen(subject.hypervisor, vm)
    return None if domain is None else (domain.state, domain.generation)


def start(subject: HypervisorSubject, vm: VmId, generation: Generation = G7, **more: Any) -> None:
    subject.hypervisor.create(vm, subject.xml(vm), generation, **more)


def gone_stale() -> None:
    raise StaleToken("no longer in charge")


# --- what it lists -----------------------------------------------------------------------------------------------


def test_a_started_vm_is_listed_with_generation_and_instant_by_every_worker(
    subject: HypervisorSubject, vm: VmId
) -> None:
    start(subject, vm, start_sent_at=SENT_AT)
    for hypervisor in (subject.hypervisor, subject.hypervisor, subject.another()):
        domain = seen(hypervisor, vm)
        assert domain is not None
        assert (domain.state, domain.generation, domain.start_sent_at, domain.held) == (RUNNING, 7, SENT_AT, False)


def test_what_others_started_has_neither(subject: HypervisorSubject) -> None:
    domain = seen(subject.hypervisor, subject.foreign())
    assert domain is not None
    assert (domain.state, domain.generation, domain.start_sent_at, domain.held) == (RUNNING, None, None, False)


def test_an_ended_vm_is_not_listed_and_shows_its_next_generation(subject: HypervisorSubject, vm: VmId) -> None:
    for generation in (1, 2):
        start(subject, vm, Generation(generation))
        assert state(subject, vm) == (RUNNING, generation)
        subject.hypervisor.destroy(vm)
        assert state(subject, vm) is None


# --- what its VMs use ----------------------------------------------------------------------------------------------


def used(hypervisor: Hypervisor, vm: VmId) -> Consumed | None:
    return next((consumed for consumed in hypervisor.consumed() if consumed.vm == vm), None)


def test_cpu_time_and_memory_are_told_of_what_runs_whoever_started_it(subject: HypervisorSubject, vm: VmId) -> None:
    start(subject, vm)
    for one in (vm, subject.foreign()):
        before = used(subject.hypervisor, one)
        assert before is not None
        assert before.cpu_s >= 0
        assert before.memory_mib is not None
        assert before.memory_mib > 0
        subject.settle()
        after = used(subject.another(), one)
        assert after is not None
        assert after.cpu_s >= before.cpu_s


def test_nothing_is_told_of_what_is_paused_or_has_ended(subject: HypervisorSubject, vm: VmId) -> None:
    start(subject, vm)
    subject.pause(vm)
    assert used(subject.hypervisor, vm) is None
    subject.resume(vm)
    assert used(subject.hypervisor, vm) is not None
    subject.hypervisor.destroy(vm)
    assert used(subject.hypervisor, vm) is None


def test_a_hypervisor_that_is_away_tells_nothing_instead_of_zeroes(subject: HypervisorSubject, vm: VmId) -> None:
    start(subject, vm)
    with pytest.raises(HypervisorUnreachable):
        subject.away().consumed()


# --- starts ------------------------------------------------------------------------------------------------------


def test_a_second_start_of_a_generation_is_neither_made_nor_refused_and_another_one_is_refused(
    subject: HypervisorSubject, vm: VmId
) -> None:
    start(subject, vm)
    with pytest.raises(HypervisorUnreachable):
        start(subject, vm)
    for generation in (6, 8):
        with pytest.raises(HypervisorRefused):
            start(subject, vm, Generation(generation))
    assert state(subject, vm) == (RUNNING, 7)


def test_what_others_started_is_not_started_again(subject: HypervisorSubject) -> None:
    vm = subject.foreign()
    with pytest.raises(HypervisorRefused):
        start(subject, vm)
    assert state(subject, vm) == (RUNNING, None)


def test_a_refusal_leaves_nothing_behind(subject: HypervisorSubject, vm: VmId) -> None:
    with pytest.raises(HypervisorRefused):
        subject.hypervisor.create(vm, subject.refused_xml(vm), G7)
    assert state(subject, vm) is None
    subject.hypervisor.settled(vm)
    start(subject, vm, Generation(8))
    assert state(subject, vm) == (RUNNING, 8)


def test_what_forbids_a_start_at_the_last_moment_prevents_it(subject: HypervisorSubject, vm: VmId) -> None:
    with pytest.raises(StaleToken):
        start(subject, vm, still=gone_stale)
    assert state(subject, vm) is None
    subject.another().settled(vm)
    start(subject, vm)


def test_a_start_is_permitted_only_once_all_else_was_asked(subject: HypervisorSubject, vm: VmId) -> None:
    start(subject, vm)
    asked: list[int] = []
    for generation in (7, 8):
        with pytest.raises((HypervisorUnreachable, HypervisorRefused)):
            start(subject, vm, Generation(generation), still=lambda: asked.append(1))
    assert asked == []


# --- starts without an answer ------------------------------------------------------------------------------------


def test_a_start_without_an_answer_may_come_until_it_is_settled(subject: HypervisorSubject, vm: VmId) -> None:
    with subject.losing_starts(), pytest.raises(HypervisorUnreachable):
        start(subject, vm)
    hypervisor, began = subject.hypervisor, subject.monotonic()
    calls: tuple[Callable[[], None], ...] = (
        lambda: hypervisor.settled(vm),
        lambda: hypervisor.destroy(vm),
        lambda: start(subject, vm, Generation(8)),
    )
    for call in calls:
        with pytest.raises(HypervisorUnreachable):
            call()
    assert vm in hypervisor.unanswered_since(began)
    hypervisor.settled(subject.new_vm())
    subject.settle()
    hypervisor.destroy(vm)
    hypervisor.settled(vm)
    start(subject, vm, Generation(8))
    assert state(subject, vm) == (RUNNING, 8)


def test_the_next_worker_waits_longer_for_a_start_that_an_earlier_one_lost(
    subject: HypervisorSubject, vm: VmId
) -> None:
    with subject.losing_starts(), pytest.raises(HypervisorUnreachable):
        start(subject, vm)
    other = subject.another()
    assert vm in other.unanswered_since(subject.monotonic())
    with pytest.raises(HypervisorUnreachable):
        other.settled(vm)
    subject.settle()
    with pytest.raises(HypervisorUnreachable):
        other.settled(vm)
    subject.settle_inherited()
    for _ in range(2):
        other.settle()
    assert subject.another().unanswered_since(subject.monotonic()) == frozenset()


def test_a_start_whose_end_is_known_is_told_until_an_inventory_is_newer(subject: HypervisorSubject, vm: VmId) -> None:
    before = subject.monotonic()
    start(subject, vm)
    assert subject.hypervisor.unanswered_since(before) == {vm}
    subject.settle()
    assert subject.hypervisor.unanswered_since(subject.monotonic()) == frozenset()


def test_with_nothing_unanswered_settling_is_quiet(subject: HypervisorSubject, vm: VmId) -> None:
    subject.hypervisor.settle()
    subject.hypervisor.settled(vm)
    assert subject.hypervisor.unanswered_since(subject.monotonic()) == frozenset()


def test_a_hypervisor_that_is_not_there_is_no_answer_to_anything_and_was_sent_nothing(
    subject: HypervisorSubject, vm: VmId
) -> None:
    away = subject.away()
    calls: tuple[Callable[[], object], ...] = (
        away.domains,
        lambda: away.create(vm, subject.xml(vm), G7),
        lambda: away.shutdown(vm),
        lambda: away.destroy(vm),
        lambda: away.suspend(vm, G7),
        lambda: away.settled(vm),
    )
    for call in calls:
        with pytest.raises(HypervisorUnreachable):
            call()
    away.settle()
    assert away.unanswered_since(subject.monotonic()) == frozenset()


# --- stops -------------------------------------------------------------------------------------------------------


def test_ending_what_is_not_there_is_success_and_needs_no_permission(subject: HypervisorSubject) -> None:
    subject.hypervisor.destroy(NOBODY, gone_stale)
    subject.hypervisor.shutdown(NOBODY, gone_stale)


def test_a_guest_that_is_asked_switches_off_in_time(
    subject: HypervisorSubject, vm: VmId, request: pytest.FixtureRequest
) -> None:
    if "libvirtd" in request.node.callspec.id:
        pytest.skip("a guest without a system hears nobody")
    start(subject, vm)
    subject.hypervisor.shutdown(vm)
    assert wait_for(lambda: state(subject, vm) is None)


def test_a_paused_guest_hears_nothing_and_can_be_ended(
    subject: HypervisorSubject, vm: VmId, request: pytest.FixtureRequest
) -> None:
    if "test driver" in request.node.callspec.id:
        pytest.skip("its guests obey even while they are paused")
    start(subject, vm)
    subject.pause(vm)
    subject.hypervisor.shutdown(vm)
    subject.settle()
    assert state(subject, vm) == (PAUSED, 7)
    subject.hypervisor.destroy(vm)
    assert state(subject, vm) is None


@pytest.mark.parametrize("verb", ["shutdown", "destroy"])
def test_what_forbids_a_stop_at_the_last_moment_prevents_it(subject: HypervisorSubject, vm: VmId, verb: str) -> None:
    start(subject, vm)
    with pytest.raises(StaleToken):
        getattr(subject.hypervisor, verb)(vm, gone_stale)
    subject.settle()
    assert state(subject, vm) == (RUNNING, 7)


# --- pauses ------------------------------------------------------------------------------------------------------


def held(subject: HypervisorSubject, vm: VmId) -> bool:
    domain = seen(subject.another(), vm)
    assert domain is not None
    return domain.held


def test_a_copy_we_paused_says_so_to_every_worker_and_one_paused_by_others_does_not(
    subject: HypervisorSubject, vm: VmId
) -> None:
    start(subject, vm, start_sent_at=SENT_AT)
    subject.pause(vm)
    assert (state(subject, vm), held(subject, vm)) == ((PAUSED, 7), False)
    subject.resume(vm)
    subject.hypervisor.suspend(vm, G7)
    assert (state(subject, vm), held(subject, vm)) == ((PAUSED, 7), True)
    domain = seen(subject.hypervisor, vm)
    assert domain is not None
    assert domain.start_sent_at == SENT_AT
    subject.resume(vm)  # a person decided: it runs
    assert (state(subject, vm), held(subject, vm)) == ((RUNNING, 7), False)


def test_a_copy_that_others_paused_is_marked_without_being_paused_again(subject: HypervisorSubject, vm: VmId) -> None:
    start(subject, vm)
    subject.pause(vm)
    subject.hypervisor.suspend(vm, G7, gone_stale)
    assert held(subject, vm)


def test_a_copy_is_paused_once(subject: HypervisorSubject, vm: VmId) -> None:
    start(subject, vm)
    asked: list[int] = []
    for _ in range(2):
        subject.hypervisor.suspend(vm, G7, lambda: asked.append(1))
        assert state(subject, vm) == (PAUSED, 7)
    assert asked == [1]


def test_what_forbids_a_pause_at_the_last_moment_prevents_it_and_leaves_no_mark(
    subject: HypervisorSubject, vm: VmId
) -> None:
    start(subject, vm)
    with pytest.raises(StaleToken):
        subject.hypervisor.suspend(vm, G7, gone_stale)
    assert state(subject, vm) == (RUNNING, 7)
    subject.pause(vm)
    assert not held(subject, vm)


@pytest.mark.parametrize("generation", [6, 8])
def test_no_other_copy_is_paused(subject: HypervisorSubject, vm: VmId, generation: int) -> None:
    start(subject, vm)
    foreign = subject.foreign()
    for name, asked in ((vm, generation), (foreign, 7), (NOBODY, 7)):
        with pytest.raises(HypervisorRefused):
            subject.hypervisor.suspend(name, Generation(asked))
    assert state(subject, vm) == (RUNNING, 7)
    assert state(subject, foreign) == (RUNNING, None)


# --- moves -------------------------------------------------------------------------------------------------------


def test_a_host_without_the_vm_can_receive_it_and_one_with_it_cannot(subject: HypervisorSubject, vm: VmId) -> None:
    subject.hypervisor.receivable(vm, subject.xml(vm))
    start(subject, vm)
    with pytest.raises(HypervisorRefused):
        subject.hypervisor.receivable(vm, subject.xml(vm))


def test_what_runs_already_is_let_run_and_needs_no_permission(subject: HypervisorSubject, vm: VmId) -> None:
    start(subject, vm)
    subject.hypervisor.resume(vm, G7, gone_stale)
    assert state(subject, vm) == (RUNNING, 7)


def test_no_other_copy_is_let_run(subject: HypervisorSubject, vm: VmId) -> None:
    with pytest.raises(HypervisorRefused):
        subject.hypervisor.resume(vm, G7)
    start(subject, vm)
    with pytest.raises(HypervisorRefused):
        subject.hypervisor.resume(vm, Generation(8))


def test_a_vm_that_is_not_here_has_not_left_by_a_move_and_nothing_is_sent(subject: HypervisorSubject, vm: VmId) -> None:
    to = Destination(host=HostId("elsewhere"), incarnation=Incarnation("b"), generation=Generation(9))
    migration = Migration(vm=vm, generation=G7, to=to, downtime_s=Seconds(0.3), bound_s=Seconds(60.0))
    departed = subject.hypervisor.migrate(migration, gone_stale, lambda _progress: Advice())
    assert departed.how is Departure.ENDED


def test_what_forbids_a_move_at_the_last_moment_prevents_it(subject: HypervisorSubject, vm: VmId) -> None:
    start(subject, vm)
    to = Destination(host=HostId("elsewhere"), incarnation=Incarnation("b"), generation=Generation(9))
    migration = Migration(vm=vm, generation=G7, to=to, downtime_s=Seconds(0.3), bound_s=Seconds(60.0))
    with pytest.raises(StaleToken):
        subject.hypervisor.migrate(migration, gone_stale, lambda _progress: Advice())
    assert state(subject, vm) == (RUNNING, 7)
