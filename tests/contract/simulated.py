"""A simulated machine driven from a test: one of its processes makes each call, on the virtual clock, to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from fangnetz.core.units import Seconds, VmId
from fangnetz.sim.files import SimBootFiles
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.machine import Boot, Machine
from fangnetz.sim.process import Process

T = TypeVar("T")
STEP_S = 0.05
ENDLESS_S = 3600.0


class Driver:
    """One virtual clock, and machines on it that are on already."""

    def __init__(self) -> None:
        self.kernel = Kernel(0)

    def machine(self, name: str) -> Machine:
        made = Machine(self.kernel, name, 0.1, lambda _machine, _by: None)
        made.stand_ready()
        return made

    @staticmethod
    def process(machine: Machine) -> Process:
        return machine.run("under test", lambda where, error: pytest.fail(f"{where}: {error}"))

    def pass_time(self, span: float) -> None:
        self.kernel.run(self.kernel.now + span)

    def keep_up_with(self, now: float) -> None:
        """Be no earlier than another clock."""
        self.kernel.run(max(self.kernel.now, now))

    def call(self, process: Process, work: Callable[[], T]) -> T:
        """Have a process make a call; return its answer or raise its error."""
        answers: list[T] = []
        errors: list[Exception] = []

        def thread() -> None:
            try:
                answers.append(work())
            except Exception as error:  # noqa: BLE001 - it is raised where the call was asked for
                errors.append(error)

        process.spawn("call", thread)
        until = self.kernel.now + ENDLESS_S
        while not answers and not errors and self.kernel.now < until:
            self.pass_time(STEP_S)
        for error in errors:
            raise error
        return answers[0]


class Driven:
    """Plays a port by asking its twin through a driver. `before` is called before each call."""

    def __init__(
        self, driver: Driver, process: Process, twin: object, before: Callable[[], None] = lambda: None
    ) -> None:
        self._driver, self._process, self._twin, self._before = driver, process, twin, before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._twin, name)
        if not callable(found):
            return found

        def call(*args: Any, **words: Any) -> Any:
            self._before()
            return self._driver.call(self._process, lambda: found(*args, **words))

        return call


class DrivenBootFiles(Driven):
    """A lock is taken and given back in a call each, and held in between."""

    def __init__(self, driver: Driver, process: Process, boot: Boot) -> None:
        self._files = SimBootFiles(boot, process)
        super().__init__(driver, process, self._files)

    @contextmanager
    def lock(self, vm: VmId, bound: Seconds) -> Iterator[None]:
        held = self._files.lock(vm, bound)
        self._driver.call(self._process, held.__enter__)
        try:
            yield
        finally:
            self._driver.call(self._process, lambda: held.__exit__(None, None, None))
