"""One host with its libvirt, boot files and steps, and ways to have it fail: shared by the tests of this folder."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters import boot_files
from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.core.errors import HypervisorUnreachable
from fangnetz.core.operations import (
    Order,
    Step,
    StepKind,
    vm_start_steps,
)
from fangnetz.core.units import Generation, HostId, Instant, Seconds, VmId
from fangnetz.engine import execute
from fangnetz.engine.execute import Done, Executor
from fangnetz.engine.steps.vm import VmSteps
from tests.contract.subjects import OP
from tests.engine.bench import Bench

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


def full_run_folder(monkeypatch: pytest.MonkeyPatch, *, of: str = "_draft") -> None:
    def full(*_what: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(boot_files, of, full)


def frozen_at(words: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand still at a point for longer than the lease just confirmed, as a stopped process does."""
    real = execute.point

    def point(name: str, subject: str) -> None:
        real(name, subject)
        if name == words:
            threading.Event().wait(host.bench.policy.step_lease_s + 0.1)

    monkeypatch.setattr(execute, "point", point)


def stop(host: Host, generation: int = 7, *, force: bool = False) -> Done:
    key = f"stop/{host.vm}"
    host.bench.open(
        Step(key=key, kind=StepKind.STOP, order=host.order(generation, force=force)),
        Step(key="later", kind=StepKind.CLOSE),
        identity="op-stop",
        subject=f"{host.vm} stop",
    )
    return host.bench.do(host.executor(), key, "op-stop")


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
