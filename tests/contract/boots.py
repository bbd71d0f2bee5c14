"""What the suite of boot files needs of an implementation: processes of one boot, also one beside the test."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.core.units import Generation, Seconds, VmId
from fangnetz.ports import BootFiles
from fangnetz.sim.files import SimBootFiles
from tests.contract.simulated import STEP_S, DrivenBootFiles, Driver

Ended = Callable[[float], bool]
"""Waits for so many seconds at most; whether it has ended by then."""


class BootSubject(Protocol):
    """One boot of one host."""

    def open(self) -> BootFiles:
        """Return another process's handle."""
        ...

    def beside(self, work: Callable[[BootFiles], None]) -> Ended:
        """Have another process do something while the test goes on."""
        ...

    def die_holding(self, vm: VmId, generation: Generation) -> None:
        """Have a process take the VM's lock, promise this generation, note a start of the next one, and be killed."""
        ...


DIES = """
import os, signal, sys
from pathlib import Path
from fangnetz.adapters.boot_files import BootFilesOnDisk
files = BootFilesOnDisk(Path(sys.argv[1]))
with files.lock(sys.argv[2], 1.0):
    files.release(sys.argv[2], int(sys.argv[3]))
    files.note_start(sys.argv[2], int(sys.argv[3]) + 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


class DiskBoot:
    """The real one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> BootFiles:
        return BootFilesOnDisk(self._folder)

    def beside(self, work: Callable[[BootFiles], None]) -> Ended:
        thread = threading.Thread(target=work, args=(self.open(),), daemon=True)
        thread.start()

        def ended(within: float) -> bool:
            thread.join(within)
            return not thread.is_alive()

        return ended

    def die_holding(self, vm: VmId, generation: Generation) -> None:
        subprocess.run([sys.executable, "-c", DIES, self._folder, vm, str(generation)], check=False, timeout=60)


class SimBoot:
    """The simulator's."""

    def __init__(self) -> None:
        self._driver = Driver()
        self._machine = self._driver.machine("host1")
        assert self._machine.boot is not None
        self._boot = self._machine.boot

    def open(self) -> BootFiles:
        return cast("BootFiles", DrivenBootFiles(self._driver, self._driver.process(self._machine), self._boot))

    def beside(self, work: Callable[[BootFiles], None]) -> Ended:
        process, over = self._driver.process(self._machine), list[bool]()

        def thread() -> None:
            work(SimBootFiles(self._boot, process))
            over.append(True)

        process.spawn("beside", thread)

        def ended(within: float) -> bool:
            until = self._driver.kernel.now + within
            while not over and self._driver.kernel.now < until:
                self._driver.pass_time(STEP_S)
            return bool(over)

        return ended

    def die_holding(self, vm: VmId, generation: Generation) -> None:
        process = self._driver.process(self._machine)
        files = SimBootFiles(self._boot, process)

        def thread() -> None:
            with files.lock(vm, Seconds(1.0)):
                files.release(vm, generation)
                files.note_start(vm, Generation(generation + 1))
                process.sleep(Seconds(3600.0))

        process.spawn("dies", thread)
        self._driver.pass_time(1.0)
        process.kill()
        self._driver.pass_time(STEP_S)
