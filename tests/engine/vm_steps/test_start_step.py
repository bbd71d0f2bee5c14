"""A start on its host: once, at its number, refused for good or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable, StorageLeaseHeld, StoredContentError
from fangnetz.core.model import Leaving
from fangnetz.core.operations import (
    OperationState,
    StepKind,
    StepState,
)
from fangnetz.core.units import Generation, Instant, VmId
from fangnetz.engine.execute import Next
from fangnetz.ports import Domain
from tests.contract.subjects import C2, OP
from tests.engine.vm_steps.vm_host import Host, frozen_at, full_run_folder, lose_a_start, stop, xml
from tests.redis_server import wait_for


def test_an_ordered_vm_is_started_with_its_generation(host: Host) -> None:
    host.ordered()
    assert host.start().next is Next.GO_ON
    assert host.copies == [7]
    assert host.reports == 1
    sent_at = host.step().facts["start_sent_at"]
    assert isinstance(sent_at, float)
    (copy,) = [domain for domain in host.hypervisor.domains() if domain.vm == host.vm]
    assert copy.start_sent_at == pytest.approx(sent_at, abs=1e-5)


def test_the_same_order_again_and_at_once_makes_one_copy(host: Host) -> None:
    host.ordered()
    executors = [host.executor() for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda e: host.bench.do(e, host.key), executors))
    assert host.copies == [7]
    assert host.start().next is Next.GO_ON
    assert host.copies == [7]
    assert host.step().state is StepState.DONE


def test_a_copy_of_this_generation_that_is_there_already_is_the_answer(host: Host) -> None:
    host.ordered()
    host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    assert host.start().next is Next.GO_ON
    assert host.copies == [7]
    assert host.boot.released(host.vm) == 0


@pytest.mark.parametrize("there", [6, 8, None])
def test_a_copy_of_another_generation_is_left_alone_and_the_start_refused_for_good(
    host: Host, there: int | None
) -> None:
    host.ordered()
    if there is None:
        import libvirt

        other = libvirt.open("test:///default")
        other.createXML(xml(host.vm), 0)
    else:
        host.hypervisor.create(host.vm, xml(host.vm), Generation(there))
    assert host.start().next is Next.STOP
    assert (host.step().state, host.copies) == (StepState.REFUSED, [there])
    assert host.boot.released(host.vm) == 7


def test_a_promise_is_written_before_the_refusal_is_reported(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.ordered()
    said: list[str] = []
    real_release, real_settle = BootFilesOnDisk.release, type(host.bench.store).settle

    def release(self: BootFilesOnDisk, vm: VmId, generation: Generation, left_for: Generation) -> None:
        real_release(self, vm, generation, left_for)
        said.append("promised")

    def settle(*what: object, **more: object) -> object:
        said.append("reported")
        return real_settle(*what, **more)

    monkeypatch.setattr(BootFilesOnDisk, "release", release)
    monkeypatch.setattr(type(host.bench.store), "settle", settle)
    host.start(definition=lambda _vm: "<domain type='no-such'><name>x</name></domain>")
    assert said == ["promised", "reported"]
    assert host.step().state is StepState.REFUSED


def test_a_refusal_that_cannot_be_promised_is_not_reported(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.ordered()

    def full(*_what: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BootFilesOnDisk, "release", full)
    assert host.start(definition=lambda _vm: "<domain type='no-such'><name>x</name></domain>").next is Next.AGAIN
    assert (host.step().state, "No space" in host.step().sentence) == (StepState.READY, True)
    monkeypatch.undo()
    refused = "<domain type='no-such'><name>x</name></domain>"
    assert wait_for(lambda: host.start(definition=lambda _vm: refused).next is Next.STOP)
    assert (host.step().state, host.boot.released(host.vm)) == (StepState.REFUSED, 7)


def test_a_start_that_cannot_be_noted_is_told_as_not_sent_and_made_once_there_is_room(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.ordered()
    with monkeypatch.context() as without_room:
        full_run_folder(without_room)
        assert host.start().next is Next.AGAIN
    assert (host.step().state, host.copies, host.boot.unanswered_starts()) == (StepState.READY, [], ())
    assert "was not asked to start" in host.step().sentence
    assert "No space" in host.step().sentence
    assert wait_for(lambda: host.start().next is Next.GO_ON)
    assert host.copies == [7]


def test_what_was_released_is_never_started_again_whatever_the_store_says(host: Host) -> None:
    host.ordered(7)
    host.boot.release(host.vm, Generation(7))
    assert host.start().next is Next.STOP
    assert (host.step().state, host.copies) == (StepState.REFUSED, [])
    host.bench.store.end_operation(OP, OperationState.FAILED, "", host.bench.epoch)
    host.ordered(8, identity="op-2")
    assert host.start("op-2").next is Next.GO_ON
    assert host.copies == [8]


def test_a_refused_start_asks_for_a_new_plan_and_is_not_waited_for(host: Host) -> None:
    host.ordered()
    host.start(definition=lambda _vm: "<domain type='no-such'><name>x</name></domain>")
    found = host.bench.found()
    replan = found.step(f"replan/{host.vm}/1")
    assert replan is not None
    assert replan.kind is StepKind.PLAN
    assert host.bench.step(f"running/{host.vm}/1").state is StepState.SKIPPED
    assert (OP, (replan.key,)) in host.bench.dispatcher.sent
    assert host.step().facts["released"] == 7
    assert "start_refused" in host.bench.events()


@pytest.mark.parametrize("where", ["list", "create", "list after a refusal"])
def test_a_libvirt_that_does_not_answer_is_no_refusal(host: Host, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    host.ordered()
    asked = itertools.count()

    def domains() -> tuple[Domain, ...]:
        if where == "list" or (where == "list after a refusal" and next(asked) > 0):
            raise HypervisorUnreachable("libvirt hangs")
        return ()

    def create(*_what: object, **_more: object) -> None:
        raise HypervisorRefused("no") if where == "list after a refusal" else HypervisorUnreachable("libvirt hangs")

    with monkeypatch.context() as broken:
        broken.setattr(host.hypervisor, "domains", domains)
        broken.setattr(host.hypervisor, "create", create)
        assert host.start().next is Next.AGAIN
    assert (host.step().state, host.boot.released(host.vm)) == (StepState.READY, 0)


def test_libvirts_no_is_not_believed_while_such_a_domain_is_there(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.ordered()
    create = host.hypervisor.create

    def create_and_deny(
        vm: VmId, text: str, generation: Generation, still: Callable[[], object], *, start_sent_at: Instant
    ) -> None:
        create(vm, text, generation, still, start_sent_at=start_sent_at)
        raise HypervisorRefused("something after the start went wrong")

    with monkeypatch.context() as broken:
        broken.setattr(host.hypervisor, "create", create_and_deny)
        assert host.start().next is Next.AGAIN
    assert (host.step().state, host.boot.released(host.vm), host.copies) == (StepState.READY, 0, [7])


def test_a_held_storage_lease_is_a_refusal_of_its_own_kind(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.ordered()

    def held(*_what: object, **_more: object) -> None:
        raise StorageLeaseHeld("resource busy")

    monkeypatch.setattr(host.hypervisor, "create", held)
    host.start()
    assert host.step().state is StepState.REFUSED
    assert host.step().facts["refusal"] == "storage_lease_held"


@pytest.mark.parametrize("change", ["epoch", "generation", "closed", "taken over"])
def test_no_start_once_the_order_no_longer_holds(host: Host, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """It changes between the claim and libvirt's call: the last look is right before the effect."""
    host.ordered()
    bench = host.bench

    def domains() -> tuple[Domain, ...]:
        match change:
            case "epoch":
                bench.lead(C2)
            case "generation":
                bench.store.put_vm(replace(bench.record(host.vm), generation=Generation(8)), Generation(7), bench.epoch)
            case "closed":
                bench.store.end_operation(OP, OperationState.CANCELLED, "", bench.epoch)
            case "taken over":
                bench.raw.hset(bench.step_key(host.key), "token", "another's")
        return ()

    with monkeypatch.context() as later:
        later.setattr(host.hypervisor, "domains", domains)
        assert host.start().next is Next.STOP
    assert (host.copies, host.boot.released(host.vm)) == ([], 0)


def test_a_start_held_up_right_before_libvirts_call_does_not_happen(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.ordered()
    frozen_at("start.before_create", host, monkeypatch)
    assert host.start().next is Next.STOP
    assert (host.copies, host.step().state, host.boot.released(host.vm)) == ([], StepState.RUNNING, 0)


def test_an_order_for_another_boot_is_not_carried_out(host: Host, tmp_path: Path) -> None:
    host.ordered()
    host.boot = BootFilesOnDisk(tmp_path / "next boot")
    assert host.start().next is Next.STOP
    assert host.copies == []
    assert host.step().state is StepState.READY


def test_a_definition_that_cannot_be_read_is_no_refusal(host: Host) -> None:
    def unreadable(vm: VmId) -> str:
        raise StoredContentError(f"the ledger has no definition of {vm}")

    host.ordered()
    assert host.start(definition=unreadable).next is Next.AGAIN
    assert host.boot.released(host.vm) == 0


def test_a_damaged_promise_is_neither_a_start_nor_a_refusal(host: Host) -> None:
    host.ordered()
    host.boot.release(host.vm, Generation(3))
    (promise,) = host.run_dir.rglob(f"{host.vm}.json")
    promise.write_text("{")
    assert host.start().next is Next.AGAIN
    assert host.copies == []


def test_no_start_is_refused_for_good_while_an_earlier_one_may_still_come_out_of_libvirt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    import libvirt

    lose_a_start(host, monkeypatch, 7)
    libvirt.open("test:///default").createXML(xml(host.vm), 0)
    with pytest.raises(HypervisorUnreachable, match="never answered"):
        host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    host.ordered()
    assert host.start().next is Next.AGAIN
    assert host.boot.released(host.vm) == 0
    assert wait_for(lambda: host.start().next is Next.STOP)
    assert (host.step().state, host.boot.released(host.vm)) == (StepState.REFUSED, 7)


def test_a_host_that_goes_down_in_order_refuses_a_start_for_good_and_stops_what_runs(host: Host) -> None:
    host.ordered()
    host.boot.leave(Leaving.SHUTDOWN)
    assert host.start().next is Next.STOP
    assert (host.step().state, host.copies, host.boot.released(host.vm)) == (StepState.REFUSED, [], 7)
    host.boot.leave(Leaving.NO)
    host.bench.store.end_operation(OP, OperationState.FAILED, "", host.bench.epoch)
    host.ordered(8, identity="op-2")
    assert host.start("op-2").next is Next.GO_ON
    host.boot.leave(Leaving.REBOOT)
    assert stop(host, 8).next is Next.GO_ON
    assert (host.copies, host.boot.released(host.vm)) == ([], 8)
