"""An orderly shutdown or reboot of a simulated machine: the goodbye first, then its services, then its power.

Mirrors config/systemd: the goodbye is a unit that is stopped before all others, and the shutdown waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fangnetz.core.model import Leaving
from fangnetz.core.units import HostId
from fangnetz.engine.leave import LeaveHost
from fangnetz.sim.files import SimBootFiles
from fangnetz.sim.machine import Boot, Machine
from fangnetz.sim.process import Process
from fangnetz.sim.store.line import ServerLine
from fangnetz.sim.store.twin import StoreTwin

if TYPE_CHECKING:
    from fangnetz.sim.world import World

THAWED_S = 1.0
"""A machine that stands still goes down once it goes on: asked again this often."""


class Shutdown:
    """What `shutdown` and `reboot` do on one host's machine."""

    def __init__(self, world: World, machine: Machine, takes_s: float) -> None:
        self._world, self.machine, self._takes_s = world, machine, takes_s
        self._how = Leaving.NO
        self._process: Process | None = None

    @property
    def pending(self) -> bool:
        return self._how is not Leaving.NO

    def begin(self, how: Leaving) -> None:
        """Go down in order; of a machine that is off, or goes down already, nothing more."""
        machine = self.machine
        if machine.boot is None or not machine.up or self.pending:
            return
        self._how = how
        world, boot, host = self._world, machine.boot, HostId(machine.name)
        self._process = process = machine.run(f"leave {machine.name}", world.failed)
        store = StoreTwin(ServerLine(process, machine, world.server, world.network))
        goodbye = LeaveHost(
            host=host, hosts=world.hosts, store=store, boot=SimBootFiles(boot, process), policy=world.policy,
            process=process,
        )  # fmt: skip

        def say() -> None:
            said = goodbye.leave(how)
            world.chronicle.tell("goodbye", said.sentence, host=host, complete=said.complete)
            world.kernel.at(world.kernel.now, self._end_services, boot)

        process.spawn("goodbye", say)

    def cancel(self) -> None:
        """Have it stay on, however far it has come."""
        if not self.pending:
            return
        self._how = Leaving.NO
        if self._process is not None:
            self._process.kill()
            self._process = None
        if self.machine.boot is not None:
            self.machine.boot.leaving = Leaving.NO
        self._world.workers[HostId(self.machine.name)].start_again()

    # -- machine.Service --

    def start(self) -> None: ...

    def power_lost(self) -> None:
        self._how, self._process = Leaving.NO, None

    def thawed(self) -> None: ...

    # -- going down --

    def _end_services(self, boot: Boot) -> None:
        if self.pending and self.machine.boot is boot:
            self._world.workers[HostId(self.machine.name)].end()
            self._world.kernel.after(self._takes_s, self._off, boot)

    def _off(self, boot: Boot) -> None:
        machine, how = self.machine, self._how
        if not self.pending or machine.boot is not boot:
            return
        if machine.frozen:
            self._world.kernel.after(THAWED_S, self._off, boot)
            return
        machine.switch_off("shutdown")
        if how is Leaving.REBOOT:
            machine.switch_on("shutdown")
