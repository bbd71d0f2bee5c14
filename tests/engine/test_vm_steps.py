"""A host's own steps on libvirt's test driver and real boot files: one domain, a promise before every refusal."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters import boot_files
from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.adapters.libvirt import hypervisor as libvirt_hypervisor
from fangnetz.adapters.libvirt.connection import Link
from fangnetz.core.copies import is_to_pause
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable, StorageLeaseHeld, StoredContentError
from fangnetz.core.model import Answer, Leaving, Sighting, VmSighting
from fangnetz.core.operations import (
    ALL_OTHERS,
    OperationState,
    Order,
    Step,
    StepKind,
    StepState,
    vm_relocate_steps,
    vm_start_steps,
)
from fangnetz.core.units import Generation, HostId, Instant, Seconds, VmId
from fangnetz.engine import execute
from fangnetz.engine.execute import Done, Executor, Next
from fangnetz.engine.steps import at_host
from fangnetz.engine.steps.vm import VmSteps
from fangnetz.ports import Domain
from tests.contract.subjects import C2, OP
from tests.engine.bench import Bench
from tests.redis_server import wait_for

numbers = itertools.count(1)


def xml(vm: str) -> str:
    return f"<domain type='test'><name>{vm}</name><memory>4096</memory><os><type>hvm</type></os></domain>"


class Host:
    """h1's worker: real libvirt (its test driver), real files, the real store."""

    def __init__(self, bench: Bench, run_dir: Path) -> None:
        self.bench, self.run_dir = bench, run_dir
        self.vm = VmId(f"web{next(numbers)}")
        self.boot = BootFilesOnDisk(run_dir)
        self.hypervisor = LibvirtHypervisor("test:///default", self.boot)
        self.reports = 0
        self.key = f"start/{self.vm}/1"

    def executor(self, *, definition: Callable[[VmId], str] = xml) -> Executor:
        def report() -> None:
            self.reports += 1

        steps = VmSteps(
            journal=self.bench.store,
            hypervisor=self.hypervisor,
            boot=BootFilesOnDisk(self.run_dir),
            definition=definition,
            policy=self.bench.policy,
            report=report,
            look=lambda: self.bench.store.view(self.bench.hosts, None),
        )
        effects = {StepKind.START: steps.start, StepKind.STOP: steps.stop, StepKind.PAUSE: steps.pause}
        return self.bench.executor(effects, boot=self.boot.incarnation)

    def order(self, generation: int = 7, *, force: bool = False) -> Order:
        return Order(
            vm=self.vm,
            host=HostId("h1"),
            incarnation=self.boot.incarnation,
            generation=Generation(generation),
            life=self.bench.incarnation,
            deadline=Instant(self.bench.store.now() + 60),
            force=force,
        )

    def ordered(self, generation: int = 7, *, identity: str = OP) -> None:
        """The store has given the VM to this boot, and an operation starts it."""
        if self.vm in self.bench.store.view({}, None).vm_records:
            old = self.bench.record(self.vm)
            new = replace(old, generation=Generation(generation))
            assert self.bench.store.put_vm(new, old.generation, self.bench.epoch)
        else:
            self.bench.vm(self.vm, HostId("h1"), generation, boot=self.boot.incarnation)
        start, running = vm_start_steps(self.order(generation), attempt=1, after="x")
        close = Step(key="close", kind=StepKind.CLOSE, after=("*",))
        self.bench.open(replace(start, after=()), running, close, identity=identity, subject=identity)

    def start(self, identity: str = OP, **how: Callable[[VmId], str]) -> Done:
        return self.bench.do(self.executor(**how), self.key, identity)

    def step(self, identity: str = OP) -> Step:
        return self.bench.step(self.key, identity)

    @property
    def copies(self) -> list[Generation | None]:
        return [d.generation for d in self.hypervisor.domains() if d.vm == self.vm]


@pytest.fixture
def host(bench: Bench, tmp_path: Path) -> Iterator[Host]:
    made = Host(bench, tmp_path / "run")
    yield made
    made.hypervisor.destroy(made.vm)
    made.hypervisor.close()


# --- start -------------------------------------------------------------------------------------------------------


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
        return real_settle(*what, **more)  # type: ignore[arg-type]

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


def full_run_folder(monkeypatch: pytest.MonkeyPatch, *, of: str = "_draft") -> None:
    def full(*_what: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(boot_files, of, full)


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


@pytest.mark.parametrize("kind", [StepKind.START, StepKind.STOP, StepKind.PAUSE])
def test_a_vm_that_cannot_be_locked_is_left_alone(host: Host, monkeypatch: pytest.MonkeyPatch, kind: StepKind) -> None:
    host.ordered()
    if kind is not StepKind.START:
        host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    before = host.copies
    with monkeypatch.context() as without_room:
        without_room.setattr(boot_files.os, "open", lambda *_what: (_ for _ in ()).throw(OSError(28, "No space")))
        match kind:
            case StepKind.START:
                done = host.start()
            case StepKind.STOP:
                done = stop(host)
            case _:
                host.bench.open(Step(key="pause", kind=kind, order=host.order()), identity="op-2", subject="pause")
                done = host.bench.do(host.executor(), "pause", "op-2")
    assert (done.next, "No space" in done.sentence) == (Next.AGAIN, True)
    assert (host.copies, host.boot.released(host.vm)) == (before, 0)


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


def frozen_at(words: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand still at a point for longer than the lease just confirmed, as a stopped process does."""
    real = execute.point

    def point(name: str, subject: str) -> None:
        real(name, subject)
        if name == words:
            threading.Event().wait(host.bench.policy.step_lease_s + 0.1)

    monkeypatch.setattr(execute, "point", point)


def test_a_start_held_up_right_before_libvirts_call_does_not_happen(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.ordered()
    frozen_at("start.before_create", host, monkeypatch)
    assert host.start().next is Next.STOP
    assert (host.copies, host.step().state, host.boot.released(host.vm)) == ([], StepState.RUNNING, 0)


@pytest.mark.parametrize(("words", "force"), [("stop.before_destroy", True), ("stop.before_shutdown", False)])
def test_a_stop_held_up_right_before_libvirts_call_does_not_happen(
    host: Host, monkeypatch: pytest.MonkeyPatch, words: str, force: bool
) -> None:
    host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    frozen_at(words, host, monkeypatch)
    assert stop(host, force=force).next is Next.STOP
    assert (host.copies, host.boot.released(host.vm)) == ([7], 0)


@pytest.mark.parametrize("what", ["start", "ask", "stop"])
def test_what_changes_while_libvirt_is_still_asked_is_seen_before_the_effect(
    host: Host, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """libvirt's own questions come between our last look and its call, and may take a minute."""
    host.ordered()
    if what != "start":
        host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
    find = libvirt_hypervisor._find

    def slow(link: Link, vm: VmId) -> object:
        host.bench.lead(C2)
        return find(link, vm)

    with monkeypatch.context() as later:
        later.setattr(libvirt_hypervisor, "_find", slow)
        assert (host.start() if what == "start" else stop(host, force=what == "stop")).next is Next.STOP
    assert host.copies == ([] if what == "start" else [7])
    assert host.boot.released(host.vm) == 0


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


HOLD = """
import sys, time
from pathlib import Path
from fangnetz.adapters.boot_files import BootFilesOnDisk
with BootFilesOnDisk(Path(sys.argv[1])).lock(sys.argv[2], 5.0):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", [StepKind.START, StepKind.STOP, StepKind.PAUSE])
def test_while_another_process_holds_the_vm_nothing_is_done_and_nothing_refused(
    host: Host, monkeypatch: pytest.MonkeyPatch, kind: StepKind
) -> None:
    monkeypatch.setattr(at_host, "LOCK_BOUND_S", 0.3)
    host.ordered()
    other = subprocess.Popen([sys.executable, "-c", HOLD, host.run_dir, host.vm], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        if kind is StepKind.START:
            assert host.start().next is Next.AGAIN
            assert host.copies == []
        else:
            host.hypervisor.create(host.vm, xml(host.vm), Generation(7))
            if kind is StepKind.PAUSE:
                host.bench.open(Step(key="pause", kind=kind, order=host.order()), identity="op-2", subject="pause")
                assert host.bench.do(host.executor(), "pause", "op-2").next is Next.AGAIN
            else:
                assert stop(host).next is Next.AGAIN
            assert host.copies == [7]
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert host.boot.released(host.vm) == 0


# --- stop --------------------------------------------------------------------------------------------------------


def stop(host: Host, generation: int = 7, *, force: bool = False) -> Done:
    key = f"stop/{host.vm}"
    host.bench.open(
        Step(key=key, kind=StepKind.STOP, order=host.order(generation, force=force)),
        Step(key="later", kind=StepKind.CLOSE),
        identity="op-stop",
        subject=f"{host.vm} stop",
    )
    return host.bench.do(host.executor(), key, "op-stop")


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


def lose_a_start(host: Host, monkeypatch: pytest.MonkeyPatch, generation: int) -> None:
    """libvirt goes away while it is asked to start the VM: nobody knows whether it still will."""
    import libvirt

    host.hypervisor = LibvirtHypervisor("test:///default", host.boot, settle=Seconds(1.0))

    def go_away(*_what: object) -> None:
        raise HypervisorUnreachable("the connection to libvirt broke")

    with monkeypatch.context() as away:
        away.setattr(libvirt.virConnect, "createXML", go_away)
        with pytest.raises(HypervisorUnreachable):
            host.hypervisor.create(host.vm, xml(host.vm), Generation(generation))


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


# --- pause -------------------------------------------------------------------------------------------------------

PAUSE = "op-pause"


class Twice:
    """h1 runs the later started copy, h2 the earlier one, and h1 is ordered to pause its own."""

    def __init__(self, host: Host, *, started: float = 20.0) -> None:
        self.host, self.bench = host, host.bench
        self.key = f"pause/{host.vm}"
        self.started = started
        self.bench.boots[HostId("h1")] = host.boot.incarnation
        self.bench.vm(host.vm, HostId("h2"), 7)
        host.hypervisor.create(host.vm, xml(host.vm), Generation(7), start_sent_at=Instant(started))

    def order(self, generation: int = 7) -> None:
        step = Step(key=self.key, kind=StepKind.PAUSE, order=self.host.order(generation))
        close = Step(key="close", kind=StepKind.CLOSE, after=("*",))
        self.bench.open(step, close, identity=PAUSE, subject=f"{self.host.vm} pause")

    def report(self, host: str = "h2", *, state: Sighting = Sighting.RUNNING, age: float = 0.0) -> None:
        started = Instant(self.started if host == "h1" else 10.0)
        seen = VmSighting(vm=self.host.vm, state=state, generation=Generation(7), start_sent_at=started)
        self.bench.report(host, seen=(seen,), age=age)

    def report_both(self) -> None:
        self.report("h1")
        self.report("h2")

    def pause(self) -> Done:
        return self.bench.do(self.host.executor(), self.key, PAUSE)

    @property
    def state(self) -> Sighting:
        (copy,) = [domain for domain in self.host.hypervisor.domains() if domain.vm == self.host.vm]
        return copy.state

    @property
    def step(self) -> Step:
        return self.bench.step(self.key, PAUSE)


@pytest.fixture
def twice(host: Host) -> Twice:
    return Twice(host)


def test_the_later_copy_is_paused_and_not_released(twice: Twice) -> None:
    twice.order()
    twice.report_both()
    assert twice.pause().next is Next.GO_ON
    assert (twice.state, twice.step.state) == (Sighting.PAUSED, StepState.DONE)
    assert twice.host.boot.released(twice.host.vm) == 0
    assert "vm_paused" in twice.bench.events()
    assert twice.host.reports == 1


def test_a_copy_paused_already_is_the_answer(twice: Twice) -> None:
    twice.host.hypervisor.suspend(twice.host.vm, Generation(7))
    twice.order()
    assert twice.pause().next is Next.GO_ON
    assert (twice.state, twice.step.state) == (Sighting.PAUSED, StepState.DONE)


def test_what_was_said_before_the_order_pauses_nothing(twice: Twice) -> None:
    twice.report_both()
    twice.order()
    assert twice.pause().next is Next.AGAIN

    def tried_again() -> bool:
        twice.report("h1")
        twice.report("h2", age=1000.0)  # a report from now, with a list from before: its libvirt hangs
        return twice.pause().next is Next.AGAIN and twice.step.attempt > 1

    assert wait_for(tried_again)
    assert twice.state is Sighting.RUNNING
    assert wait_for(lambda: (twice.report_both(), twice.pause().next is Next.GO_ON)[1])
    assert twice.state is Sighting.PAUSED


@pytest.mark.parametrize("other", ["gone", "paused", "silent"])
def test_the_only_copy_is_never_paused(twice: Twice, other: str) -> None:
    twice.report_both()  # so it was when the order was written
    twice.order()
    twice.report("h1")
    if other == "gone":
        twice.bench.report("h2")
    elif other == "paused":
        twice.report("h2", state=Sighting.PAUSED)
    assert twice.pause().next is (Next.AGAIN if other == "silent" else Next.STOP)
    assert twice.state is Sighting.RUNNING
    assert twice.step.state is (StepState.READY if other == "silent" else StepState.FAILED)


def test_the_earlier_copy_is_not_paused(host: Host) -> None:
    twice = Twice(host, started=5.0)
    twice.order()
    twice.report_both()
    assert twice.pause().next is Next.STOP
    assert twice.state is Sighting.RUNNING


@pytest.mark.parametrize("generation", [6, 8])
def test_a_copy_of_another_generation_is_not_paused(twice: Twice, generation: int) -> None:
    twice.order(generation)
    twice.report_both()
    assert twice.pause().next is Next.STOP
    assert twice.state is Sighting.RUNNING


def test_nothing_is_paused_once_the_order_no_longer_holds(twice: Twice, monkeypatch: pytest.MonkeyPatch) -> None:
    twice.order()
    twice.report_both()

    def overthrown(*what: object) -> tuple[Answer, str]:
        twice.bench.lead(C2)
        return is_to_pause(*what)  # type: ignore[arg-type]

    monkeypatch.setattr("fangnetz.engine.steps.vm.is_to_pause", overthrown)
    assert twice.pause().next is Next.STOP
    assert twice.state is Sighting.RUNNING


def test_a_libvirt_that_does_not_answer_is_asked_to_pause_again(twice: Twice, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    twice.order()
    twice.report_both()
    with monkeypatch.context() as deaf:
        deaf.setattr(libvirt.virDomain, "suspend", lambda _domain: 0)  # says yes and does nothing
        assert twice.pause().next is Next.AGAIN
    assert (twice.state, twice.step.state) == (Sighting.RUNNING, StepState.READY)
    twice.report_both()
    assert wait_for(lambda: twice.pause().next is Next.GO_ON)
    assert twice.state is Sighting.PAUSED


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
