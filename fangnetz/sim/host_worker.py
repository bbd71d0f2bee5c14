"""The host worker as a simulated process: heartbeat, inventory, ledger and libvirt steps, put together as the real one.

Mirrors workers/host.py; its service manager starts it again when it was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from fangnetz.core.errors import FangnetzError, StoredContentError
from fangnetz.core.operations import StepKind, host_queue
from fangnetz.core.policy import RankBy
from fangnetz.core.slots import watched_by
from fangnetz.core.units import HostId, MiB, Seconds, VmId
from fangnetz.engine.execute import Executor
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.marked import marked_boot, marked_store
from fangnetz.engine.measuring import NOTHING, Meter
from fangnetz.engine.report import InventoryKeeper, Reporter
from fangnetz.engine.slots import SlotKeeper
from fangnetz.engine.steps.move import MoveAtHost
from fangnetz.engine.steps.vm import VmSteps
from fangnetz.ports import HostLoad
from fangnetz.sim.bus import SimDispatcher, Worker
from fangnetz.sim.disk_slots import SimSlots
from fangnetz.sim.files import SimBootFiles, SimLedgerFiles
from fangnetz.sim.libvirtd import Libvirtd, SimHypervisor
from fangnetz.sim.machine import Boot, Machine
from fangnetz.sim.process import Process
from fangnetz.sim.store.line import ServerLine
from fangnetz.sim.store.twin import StoreTwin

if TYPE_CHECKING:
    from fangnetz.sim.world import World

STARTS_S = 0.8
"""A worker needs this long from its start to its first report."""
STARTS_AGAIN_S = 5.0
"""What the service manager waits before it starts a killed one again."""
LEDGER_EVERY_S = 2.0
SLOTS = 8
IDLE = HostLoad(load=0.0, memory_free_mib=MiB(0))


class HostWorker:
    """The service on a host's machine."""

    def __init__(self, world: World, machine: Machine, daemon: Libvirtd) -> None:
        self._world, self.machine, self._daemon = world, machine, daemon
        self.process: Process | None = None
        self._ended_in: Boot | None = None
        """The boot in which it was ended for good."""

    def start(self) -> None:
        at_once = self._world.kernel.now == 0.0
        chance = self._world.kernel.chance.random()
        self._world.kernel.after(0.3 * chance if at_once else STARTS_S, self._start, self.machine.boot)

    def power_lost(self) -> None:
        self.process = None

    def thawed(self) -> None: ...

    def kill(self) -> None:
        if self.process is not None and not self.process.dead:
            self.process.kill()
            self._world.kernel.after(STARTS_AGAIN_S, self._start, self.machine.boot)

    def end(self) -> None:
        """Its service manager ends it, and does not start it again."""
        self._ended_in = self.machine.boot
        if self.process is not None:
            self.process.kill()

    def start_again(self) -> None:
        """Its service manager starts it again, if it was ended."""
        if self._ended_in is not None and self._ended_in is self.machine.boot:
            self._world.kernel.after(STARTS_S, self._start, self.machine.boot)
        self._ended_in = None

    def _start(self, boot: object) -> None:
        machine = self.machine
        if machine.boot is None or machine.boot is not boot or self._ended_in is boot:
            return
        self.process = machine.run(f"host {machine.name}", self._world.failed)
        _Parts(self._world, machine, machine.boot, self._daemon, self.process)


class _Parts:
    """Everything one worker process is made of."""

    def __init__(self, world: World, machine: Machine, of_boot: Boot, daemon: Libvirtd, process: Process) -> None:
        host, policy = HostId(machine.name), world.policy
        line = ServerLine(process, machine, world.server, world.network)
        self._store = StoreTwin(line)
        beats = StoreTwin(ServerLine(process, machine, world.server, world.network, timeout_s=1.0))
        boot = SimBootFiles(of_boot, process)
        if world.strikes.wanted:
            self._store, beats, boot = marked_store(self._store), marked_store(beats), marked_boot(boot)
        hypervisor = SimHypervisor(process, daemon, boot)
        self._process, self._world, self._host = process, world, host
        self._ledger = Ledger(self._store, SimLedgerFiles(machine, "host", process), process)
        self._guids: Sequence[str] = ()
        inventory = InventoryKeeper(hypervisor, policy.heartbeat_s, self._report, process)
        daemon.watch(process, inventory.kick)
        meter = Meter(hypervisor, process) if policy.rank_by is RankBy.MEASURED else None
        steps = VmSteps(
            journal=self._store,
            hypervisor=hypervisor,
            boot=boot,
            definition=self._definition,
            policy=policy,
            report=inventory.kick,
            look=lambda: self._store.view(world.hosts, None),
        )
        moves = MoveAtHost(
            journal=self._store,
            hypervisor=hypervisor,
            boot=boot,
            definition=self._definition,
            policy=policy,
            report=inventory.kick,
        )
        dispatcher = SimDispatcher(process, line, world.server, world.controllers)
        executor = Executor(
            name=f"host-{host}",
            journal=self._store,
            dispatcher=dispatcher,
            process=process,
            policy=policy,
            effects={
                StepKind.START: steps.start,
                StepKind.STOP: steps.stop,
                StepKind.PAUSE: steps.pause,
                StepKind.PREPARE: moves.prepare,
                StepKind.MIGRATE: moves.migrate,
                StepKind.RESUME: moves.resume,
            },
            incarnation=boot.incarnation,
        )
        slots = None
        if world.slots is not None:
            disk = SimSlots(process, machine, world.slots, world.network)
            slots = SlotKeeper(host, boot.incarnation, disk, watched_by(host, world.hosts), policy, process)
            slots.start()
        self._reporter = Reporter(
            host=host,
            store=beats,
            boot=boot,
            inventory=lambda: inventory.latest,
            orders=lambda: executor.in_hand_since(inventory.latest.taken_at),
            unanswered=lambda: hypervisor.unanswered_since(inventory.latest.taken_at),
            interval=policy.heartbeat_s,
            guids=lambda: tuple(self._guids),
            load=lambda: IDLE,
            measured=lambda: meter.latest if meter is not None else NOTHING,
            slots=slots,
            worker=process.name,
            process=process,
        )
        inventory.start()
        if meter is not None:
            meter.start()
        # When a story begins its workers have run for long: libvirt was asked, and no report says otherwise.
        world.kernel.after(0.05 if world.kernel.now < STARTS_S else 0.0, self._start_reporting)
        process.spawn("ledger", self._keep_ledger)
        Worker(
            process,
            machine,
            world.server,
            world.network,
            dispatcher,
            queues=(host_queue(host),),
            slots=SLOTS,
            executor=executor,
        )

    def _start_reporting(self) -> None:
        if not self._process.dead:
            self._reporter.start()

    def _report(self) -> None:
        self._reporter.kick()

    def _definition(self, vm: VmId) -> str:
        doc = self._store.definition(vm)
        if doc is None:
            raise StoredContentError(f"the ledger has no definition of {vm}")
        return doc.xml

    def _keep_ledger(self) -> None:
        while True:
            if not self._guids:
                read = (bmc.in_band for bmc in self._world.bmcs[self._host].values())
                self._guids = tuple(guid for guid in read if guid)
            with suppress(FangnetzError):
                self._ledger.sync()
            self._process.sleep(Seconds(LEDGER_EVERY_S))
