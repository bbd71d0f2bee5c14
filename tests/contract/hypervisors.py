"""What the suite of hypervisors needs of an implementation: other hands on its domains, and answers that get lost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, cast

import libvirt
import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.core.errors import HypervisorUnreachable
from fangnetz.core.model import Sighting
from fangnetz.core.units import Generation, HostId, Instant, Seconds, VmId
from fangnetz.ports import Hypervisor
from fangnetz.sim.files import SimBootFiles
from fangnetz.sim.libvirtd import Libvirtd, SimHypervisor, Times
from fangnetz.sim.loads import Load
from fangnetz.sim.network import Network
from fangnetz.sim.process import Wait
from fangnetz.sim.unanswered import SETTLE_INHERITED_S, SETTLE_S
from tests.contract.simulated import Driven, Driver

_numbers = itertools.count(1)


class HypervisorSubject(Protocol):
    """The hypervisor of one host and boot, as a worker has it."""

    hypervisor: Hypervisor

    def another(self) -> Hypervisor:
        """Return another worker's, of the same boot."""
        ...

    def new_vm(self) -> VmId:
        """Return a name that no test has used."""
        ...

    def xml(self, vm: VmId) -> str: ...

    def refused_xml(self, vm: VmId) -> str:
        """Return a definition that the hypervisor says no to when it is asked to start it now."""
        ...

    def foreign(self) -> VmId:
        """Return a domain that runs and that somebody else has started."""
        ...

    def pause(self, vm: VmId) -> None:
        """Pause it by other hands."""
        ...

    def resume(self, vm: VmId) -> None: ...

    def away(self) -> Hypervisor:
        """Return a worker's of the same boot whose hypervisor is not there from now on."""
        ...

    def losing_starts(self) -> AbstractContextManager[None]:
        """While this is held, starts are sent and never answered, and nothing comes of them."""
        ...

    def monotonic(self) -> float: ...

    def settle(self) -> None:
        """Have the hypervisor answer for as long as a worker has to wait for a start it lost itself."""
        ...

    def settle_inherited(self) -> None:
        """The same for a start that another worker lost."""
        ...


class RealLibvirt:
    """libvirt at a URI, its settle times shortened."""

    def __init__(self, uri: str, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._uri, self._kind, self._folder, self._monkeypatch = uri, kind, folder, monkeypatch
        self._opened: list[LibvirtHypervisor] = []
        self._used: list[VmId] = []
        self.hypervisor: Hypervisor = self.another()
        self._hands = libvirt.open(uri)

    def another(self) -> Hypervisor:
        return self._open(self._uri)

    def away(self) -> Hypervisor:
        return self._open(f"qemu+unix:///system?socket={self._folder}/nobody-listens")

    def _open(self, uri: str) -> Hypervisor:
        boot = BootFilesOnDisk(self._folder)
        peers = {HostId("elsewhere"): self._uri}
        made = LibvirtHypervisor(uri, boot, settle=Seconds(0.5), settle_inherited=Seconds(1.5), peers=peers)
        self._opened.append(made)
        return made

    def new_vm(self) -> VmId:
        vm = VmId(f"contract{next(_numbers)}")
        self._used.append(vm)
        return vm

    def xml(self, vm: VmId) -> str:
        memory = "<memory unit='MiB'>32</memory>"
        return f"<domain type='{self._kind}'><name>{vm}</name>{memory}<os><type>hvm</type></os></domain>"

    def refused_xml(self, vm: VmId) -> str:
        return self.xml(vm).replace(f"type='{self._kind}'", "type='nonsense'")

    def foreign(self) -> VmId:
        vm = self.new_vm()
        self._hands.createXML(self.xml(vm), 0)
        return vm

    def pause(self, vm: VmId) -> None:
        self._hands.lookupByName(vm).suspend()

    def resume(self, vm: VmId) -> None:
        self._hands.lookupByName(vm).resume()

    @contextmanager
    def losing_starts(self) -> Iterator[None]:
        def line_breaks(*_facts: object) -> None:
            error = libvirt.libvirtError("x")
            text = "Cannot recv data: Connection reset by peer"
            error.err = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, text, 2, None, None, None, -1, -1)
            raise error

        with self._monkeypatch.context() as broken:
            broken.setattr(libvirt.virConnect, "createXML", line_breaks)
            yield

    def monotonic(self) -> float:
        return time.monotonic()

    def settle(self) -> None:
        time.sleep(0.6)

    def settle_inherited(self) -> None:
        time.sleep(1.6)

    def close(self) -> None:
        for vm in self._used:
            try:
                self._hands.lookupByName(vm).destroy()
            except libvirt.libvirtError:
                continue  # it ended in the test
        self._hands.close()
        for hypervisor in self._opened:
            hypervisor.close()


class SimLibvirt:
    """The simulator's."""

    def __init__(self) -> None:
        self._driver = Driver()
        self._machine = self._driver.machine("host1")
        self._opened: list[Hypervisor] = []
        times = Times(start_s=0.5, stop_s=0.1, guest_up_s=0.0)
        self._daemon = Libvirtd(
            self._driver.kernel,
            self._machine,
            Network(),
            lambda _vm: times,
            lambda _copy: None,
            lambda _copy: None,
            load=lambda _vm: Load(cpus=0.25, memory_mib=16.0),
        )
        self.hypervisor: Hypervisor = self.another()

    def another(self) -> Hypervisor:
        process, boot = self._driver.process(self._machine), self._machine.boot
        assert boot is not None
        twin = SimHypervisor(process, self._daemon, SimBootFiles(boot, process))
        self._opened.append(cast("Hypervisor", Driven(self._driver, process, twin)))
        return self._opened[-1]

    def away(self) -> Hypervisor:
        self._daemon.become("dead")
        return self.another()

    def new_vm(self) -> VmId:
        return VmId(f"contract{next(_numbers)}")

    def xml(self, vm: VmId) -> str:
        return f"<domain><name>{vm}</name></domain>"

    def refused_xml(self, vm: VmId) -> str:
        self._daemon.start_fails[vm] = 1
        return self.xml(vm)

    def foreign(self) -> VmId:
        return self._daemon.run(self.new_vm(), None).vm

    def pause(self, vm: VmId) -> None:
        self._daemon.copies[vm].state = Sighting.PAUSED

    def resume(self, vm: VmId) -> None:
        self._daemon.copies[vm].state = Sighting.RUNNING

    @contextmanager
    def losing_starts(self) -> Iterator[None]:
        def lose(_vm: VmId, _generation: Generation, _start_sent_at: Instant | None, wait: Wait) -> None:
            wait.wake(HypervisorUnreachable("the line broke"))

        real: Callable[[VmId, Generation, Instant | None, Wait], None] = self._daemon.create
        self._daemon.create = lose  # type: ignore[method-assign]
        try:
            yield
        finally:
            self._daemon.create = real  # type: ignore[method-assign]

    def monotonic(self) -> float:
        return self._driver.kernel.now

    def settle(self) -> None:
        self._answer_for(SETTLE_S)

    def settle_inherited(self) -> None:
        self._answer_for(SETTLE_INHERITED_S)

    def _answer_for(self, span: float) -> None:
        """An answer a second to every worker, as inventories make it: after a silence a worker waits anew."""
        until = self._driver.kernel.now + span
        while self._driver.kernel.now < until:
            self._driver.pass_time(1.0)
            for hypervisor in self._opened:
                hypervisor.domains()
