"""A machine: power, boots, what runs on it, what its disk keeps. Losing power ends everything on it at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fangnetz.core.model import Leaving, Release
from fangnetz.core.units import Generation, Incarnation, VmId
from fangnetz.ports import LedgerEntry, UnansweredStart
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.process import Process, Wait


class Service(Protocol):
    """Something a machine starts when it boots."""

    def start(self) -> None: ...

    def power_lost(self) -> None: ...

    def thawed(self) -> None: ...


@dataclass(slots=True)
class Boot:
    """What lives as long as one boot: its name, promises, unanswered starts, who holds which VM's lock, its goodbye."""

    incarnation: Incarnation
    released: dict[VmId, Generation] = field(default_factory=dict)
    left_for: dict[VmId, Generation] = field(default_factory=dict)
    starts: dict[VmId, UnansweredStart] = field(default_factory=dict)
    holders: dict[VmId, Process] = field(default_factory=dict)
    waiting: dict[VmId, list[Wait]] = field(default_factory=dict)
    leaving: Leaving = Leaving.NO

    def releases(self) -> tuple[Release, ...]:
        return tuple(
            Release(vm=vm, generation=self.released[vm], left_for=self.left_for.get(vm, Generation(0)))
            for vm in sorted(self.released)
        )


class Machine:
    """`on_power(machine, by)` is told of every change of power."""

    def __init__(self, kernel: Kernel, name: str, boot_s: float, on_power: Callable[[Machine, str], None]) -> None:
        self.kernel, self.name, self.boot_s, self._on_power = kernel, name, boot_s, on_power
        self.powered = False
        self.plugged = True
        self.up = False
        """Whether its system has booted."""
        self.frozen = False
        self.clock_us = 0
        """By how much its wall clock is off."""
        self.boot: Boot | None = None
        self.disk: dict[str, dict[str, LedgerEntry]] = {}
        """Folder -> versioned documents; survives everything."""
        self.services: list[Service] = []
        self.processes: dict[Process, None] = {}
        self._sessions = 0

    @property
    def answers(self) -> bool:
        """Whether its kernel speaks on the network."""
        return self.up and not self.frozen

    # -- power --

    def switch_on(self, by: str) -> None:
        if self.powered or not self.plugged:
            return
        self.powered = True
        self._sessions += 1
        self._on_power(self, by)
        self.kernel.after(self.boot_s, self._booted, self._sessions)

    def stand_ready(self) -> None:
        """Be on and booted, as it was before the story began."""
        self.powered = True
        self._sessions += 1
        self._booted(self._sessions)

    def _booted(self, session: int) -> None:
        if session != self._sessions or not self.powered:
            return
        self.up = True
        self.boot = Boot(incarnation=Incarnation(self.kernel.name("")))
        for service in self.services:
            service.start()

    def switch_off(self, by: str) -> None:
        if not self.powered:
            return
        self.powered = self.up = self.frozen = False
        self._sessions += 1
        for process in list(self.processes):
            process.kill()
        for service in self.services:
            service.power_lost()
        self.boot = None
        self._on_power(self, by)

    def reset(self, by: str) -> None:
        if self.powered:
            self.switch_off(by)
            self.switch_on(by)

    # -- what stops without ending --

    def freeze(self) -> None:
        if not self.up or self.frozen:
            return
        self.frozen = True
        for process in self.processes:
            process.freeze()

    def thaw(self) -> None:
        if not self.frozen:
            return
        self.frozen = False
        for process in list(self.processes):
            process.thaw()
        for service in self.services:
            service.thawed()

    # -- processes --

    def run(self, name: str, failed: Callable[[str, Exception], None]) -> Process:
        """Start a process here; it ends with the machine's power at the latest."""
        process = Process(self.kernel, name, failed)
        self.processes[process] = None
        process.at_end.append(lambda: self.processes.pop(process, None))
        if self.frozen:
            process.freeze()
        return process
