"""Two hosts' hypervisors between which a VM can move: real ones side by side, and the simulator's."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path
from typing import Protocol, cast

import libvirt

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.core.units import HostId, VmId
from fangnetz.ports import Hypervisor
from fangnetz.sim.files import SimBootFiles
from fangnetz.sim.libvirtd import Libvirtd as SimDaemon
from fangnetz.sim.libvirtd import SimHypervisor, Times
from fangnetz.sim.network import Network
from tests.adapters.conftest import Libvirtd
from tests.contract.simulated import Driven, Driver

HERE, THERE = HostId("here"), HostId("there")
_numbers = itertools.count(1)


class Movers(Protocol):
    """A host that a VM leaves, and the one it goes to."""

    here: Hypervisor
    there: Hypervisor

    def new_vm(self) -> VmId:
        """Return a name that no test has used."""
        ...

    def xml(self, vm: VmId) -> str: ...

    def slowly(self, vm: VmId) -> None:
        """Have the VM, which runs here, take a few seconds to leave."""
        ...


class RealMovers:
    """Two libvirtds with QEMU (TCG) in one network namespace."""

    def __init__(self, source: Libvirtd, target: Libvirtd, folder: Path) -> None:
        peers = {THERE: f"qemu+tcp://127.0.0.1:{target.port}/system"}
        # Before a VM is sent somebody must listen there. We are in another network namespace and knock at this one.
        self._door = socket.create_server(("127.0.0.1", target.port))
        self.boot = BootFilesOnDisk(folder / "here")
        log_dir = source.home / "log" / "qemu"
        self.here: Hypervisor = LibvirtHypervisor(source.uri, self.boot, peers=peers, log_dir=log_dir)
        self.there: Hypervisor = LibvirtHypervisor(target.uri, BootFilesOnDisk(folder / "there"))
        self.hands = libvirt.open(source.uri)
        self._used: list[VmId] = []

    def new_vm(self) -> VmId:
        self._used.append(VmId(f"mover{next(_numbers)}"))
        return self._used[-1]

    def xml(self, vm: VmId) -> str:
        memory = "<memory unit='MiB'>32</memory>"
        return f"<domain type='qemu'><name>{vm}</name>{memory}<os><type machine='q35'>hvm</type></os></domain>"

    def slowly(self, vm: VmId) -> None:
        self.hands.lookupByName(vm).migrateSetMaxSpeed(1)  # MiB/s

    def close(self) -> None:
        for vm in self._used:
            for side in (self.here, self.there):
                side.destroy(vm)
        for each in (self.here, self.there):
            cast("LibvirtHypervisor", each).close()
        self.hands.close()
        self._door.close()


def _takes_a_while(_vm: VmId) -> Times:
    return Times(migrate_s=3.0)


class SimMovers:
    """Two simulated daemons."""

    def __init__(self) -> None:
        driver, network = Driver(), Network()
        daemons: dict[HostId, SimDaemon] = {}
        sides = []
        for host in (HERE, THERE):
            machine = driver.machine(host)
            daemons[host] = SimDaemon(
                driver.kernel,
                machine,
                network,
                _takes_a_while,
                lambda _copy: None,
                lambda _copy: None,
                daemons.__getitem__,
            )
            process, boot = driver.process(machine), machine.boot
            assert boot is not None
            twin = SimHypervisor(process, daemons[host], SimBootFiles(boot, process))
            sides.append(cast("Hypervisor", Driven(driver, process, twin)))
        self.here, self.there = sides

    def new_vm(self) -> VmId:
        return VmId(f"mover{next(_numbers)}")

    def xml(self, vm: VmId) -> str:
        return f"<domain><name>{vm}</name></domain>"

    def slowly(self, vm: VmId) -> None: ...
