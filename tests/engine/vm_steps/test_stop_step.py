"""A stop on its host: gone first, released then, and reported after that."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.core.errors import HypervisorUnreachable
from fangnetz.core.operations import (
    ALL_OTHERS,
    Step,
    StepKind,
    StepState,
    vm_relocate_steps,
)
from fangnetz.core.units import Generation, Seconds, VmId
from fangnetz.engine.execute import Next
from fangnetz.ports import Domain
from tests.contract.subjects import C2
from tests.engine.vm_steps.vm_host import Host, frozen_at, full_run_folder, lose_a_start, stop, xml
from tests.redis_server import wait_for


def test_a_stop_that_cannot_be_promised_is_not_reported_before_it_can(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    with monkeypatch.context() as without_room:
        full_run_folder(without_room)
        assert stop(host, force=True).next is Next.AGAIN
    key = f"stop/{host.vm}"
    assert (host.copies, host.boot.released(host.vm), host.reports) == ([], 0, 0)
    step = host.bench.step(key, "op-stop")
    assert (step.state, "No space" in step.sentence) == (StepState.READY, True)
    assert wait_for(lambda: host.bench.do(host.executor(), key, "op-stop").next is Next.GO_ON)
    assert host.boot.released(host.vm) == 7


def test_a_stop_over_a_damaged_promise_is_asked_for_again(host: Host) -> None:
    host.boot.release(host.vm, Generation(3))
    (promise,) = host.run_dir.rglob(f"{host.vm}.json")
    promise.write_text("{")
    assert stop(host, force=True).next is Next.AGAIN
    assert host.bench.step(f"stop/{host.vm}", "op-stop").state is StepState.READY


@pytest.mark.parametrize(("words", "force"), [("stop.before_destroy", True), ("stop.before_shutdown", False)])
def test_a_stop_held_up_right_before_libvirts_call_does_not_happen(
    host: Host, monkeypatch: pytest.MonkeyPatch, words: str, force: bool
) -> None:
    host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    frozen_at(words, host, monkeypatch)
    assert stop(host, force=force).next is Next.STOP
    assert (host.copies, host.boot.released(host.vm)) == ([7], 0)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("there", [7, None, "nothing"])
def test_a_stopped_copy_is_gone_and_released_at_its_generation(
    host: Host, there: int | str | None, force: bool
) -> None:
    if there == 7:
        host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    elif there is None:
        import libvirt

        libvirt.open("test:///default").createXML(xml(host.vm), 0)
    assert stop(host, force=force).next is Next.GO_ON
    assert (host.copies, host.boot.released(host.vm)) == ([], 7)
    assert host.bench.step(f"stop/{host.vm}", "op-stop").facts["released"] == 7


def test_what_waits_for_a_stop_that_does_not_happen_is_skipped(host: Host) -> None:
    """Another generation runs there: it is left alone, and a relocation has nothing to give away."""
    host.hypervisor.create(host.vm, xml(host.vm), Generation(9))
    key = f"stop/{host.vm}/1"
    steps = vm_relocate_steps(host.vm, host.order(7), None, after="first")
    first = Step(key="first", kind=StepKind.CLOSE, state=StepState.DONE)
    close = Step(key="close", kind=StepKind.CLOSE, after=(ALL_OTHERS,))
    host.bench.open(first, *steps, close, identity="op-stop", subject=f"{host.vm} stop")
    assert host.bench.do(host.executor(), key, "op-stop").next is Next.STOP
    assert (host.copies, host.boot.released(host.vm)) == ([9], 0)
    assert [host.bench.step(name, "op-stop").state for name in (key, "plan/2", "close")] == [
        StepState.FAILED, StepState.SKIPPED, StepState.READY
    ]  # fmt: skip


@pytest.mark.parametrize("when", ["before the guest is asked", "while the guest is waited for", "right before the cut"])
def test_no_stop_once_the_order_no_longer_holds(host: Host, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    host.bench.policy = replace(host.bench.policy, stop_bound_s=1.0)
    asked: list[str] = []
    looks = itertools.count()
    domains = host.hypervisor.domains

    def overthrow() -> None:
        host.bench.lead(C2)

    def look() -> tuple[Domain, ...]:
        if {"before the guest is asked": 0, "right before the cut": 1}.get(when) == next(looks):
            overthrow()
        return domains()

    def deaf(_vm: VmId, still: Callable[[], None]) -> None:
        still()
        asked.append("shutdown")
        if when == "while the guest is waited for":
            overthrow()

    def destroy(_vm: VmId, still: Callable[[], None]) -> None:
        still()
        asked.append("destroy")

    with monkeypatch.context() as later:
        later.setattr(host.hypervisor, "domains", look)
        later.setattr(host.hypervisor, "shutdown", deaf)
        later.setattr(host.hypervisor, "destroy", destroy)
        assert stop(host, force=when == "right before the cut").next is Next.STOP
    assert asked == (["shutdown"] if when == "while the guest is waited for" else [])
    assert (host.copies, host.boot.released(host.vm)) == ([7], 0)


@pytest.mark.parametrize("there", [6, 8])
def test_a_copy_of_another_generation_is_not_stopped_and_nothing_is_promised(host: Host, there: int) -> None:
    host.hypervisor.create(host.vm, xml(host.vm), Generation(there))
    assert stop(host, force=True).next is Next.STOP
    assert (host.copies, host.boot.released(host.vm)) == ([there], 0)


def test_nothing_is_released_before_the_copy_is_known_to_be_gone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    with monkeypatch.context() as deaf:
        deaf.setattr(host.hypervisor, "destroy", lambda _vm, _still: None)
        assert stop(host, force=True).next is Next.AGAIN
    assert (host.copies, host.boot.released(host.vm)) == ([7], 0)


def test_a_libvirt_that_hangs_while_stopping_promises_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.hypervisor.create(host.vm, xml(host.vm), Generation(7))

    def hang(_vm: VmId, _still: Callable[[], None]) -> None:
        raise HypervisorUnreachable("libvirt hangs")

    with monkeypatch.context() as hung:
        hung.setattr(host.hypervisor, "destroy", hang)
        assert stop(host, force=True).next is Next.AGAIN
    assert host.boot.released(host.vm) == 0


def test_nothing_is_released_while_a_start_may_still_come_out_of_libvirt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_a_start(host, monkeypatch, 7)
    assert stop(host).next is Next.AGAIN
    assert host.boot.released(host.vm) == 0
    assert wait_for(lambda: host.bench.do(host.executor(), f"stop/{host.vm}", "op-stop").next is Next.GO_ON)
    assert host.boot.released(host.vm) == 7


def test_a_worker_started_anew_releases_nothing_while_its_predecessors_start_may_still_come_out_of_libvirt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_a_start(host, monkeypatch, 7)
    host.boot = BootFilesOnDisk(host.run_dir)
    host.hypervisor = LibvirtHypervisor("test:///default", host.boot, settle_inherited=Seconds(1.0))
    assert stop(host).next is Next.AGAIN
    assert host.boot.released(host.vm) == 0
    assert wait_for(lambda: host.bench.do(host.executor(), f"stop/{host.vm}", "op-stop").next is Next.GO_ON)
    assert host.boot.released(host.vm) == 7


def test_a_guest_that_does_not_obey_is_switched_off_after_its_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    host.bench.policy = replace(host.bench.policy, stop_bound_s=1.0)
    monkeypatch.setattr(host.hypervisor, "shutdown", lambda _vm, _still: None)
    assert stop(host).next is Next.GO_ON
    assert (host.copies, host.boot.released(host.vm)) == ([], 7)


def test_a_stop_racing_a_late_start_of_the_same_generation_leaves_nothing_running(host: Host) -> None:
    host.ordered()
    both = threading.Barrier(2)
    starter = host.executor()

    def start() -> None:
        both.wait()
        host.bench.do(starter, host.key)

    thread = threading.Thread(target=start)
    thread.start()
    both.wait()
    stop(host, force=True)
    thread.join()
    if host.copies:
        pytest.fail("it was released and then started")
    assert host.boot.released(host.vm) == 7
