"""Whatever is done to a VM on its host is done under its lock, and by what holds right before it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fangnetz.adapters import boot_files
from fangnetz.adapters.libvirt import hypervisor as libvirt_hypervisor
from fangnetz.adapters.libvirt.connection import Link
from fangnetz.core.operations import (
    Step,
    StepKind,
)
from fangnetz.core.units import Generation, VmId
from fangnetz.engine.execute import Next
from fangnetz.engine.steps import at_host
from tests.contract.subjects import C2
from tests.engine.vm_steps.vm_host import Host, stop, xml


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
