"""A simulated process: `ports.Process` on the virtual clock. It may be frozen or killed wherever it waits.

Its threads run one at a time and give way at every port call. A killed one has no effect any more: what its threads
still do while they unwind meets a dead process at every port.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from fangnetz.core.units import Seconds
from fangnetz.sim.kernel import Kernel

T = TypeVar("T")


class Killed(BaseException):
    """Thrown into the threads of a process that is no more. No handler of the product catches it."""


def _one_after_another(kernel: Kernel, thread: Thread) -> None:
    """Run threads on this stack: it is made once, since a new one costs more than most threads do."""
    here = getcurrent()
    while True:
        thread.work()
        thread.over = True
        del thread  # nothing that has ended is held on to
        kernel.stacks.append(here)
        thread = kernel.hub.switch()


class Thread:
    """One thread of a process; it has a stack to itself from its beginning to its end."""

    __slots__ = ("begun", "green", "name", "over", "process", "work")

    def __init__(self, process: Process, name: str, work: Callable[[], object]) -> None:
        self.process, self.name, self.work = process, name, work
        self.green: greenlet
        """Its stack, once it has begun."""
        self.begun = self.over = False

    def go_on(self, value: object) -> None:
        """Let it run until it waits again. Called by the kernel only."""
        kernel = self.process.kernel
        kernel.current = self
        if self.begun:
            self.green.switch(value)
        elif kernel.stacks:
            self.begun, self.green = True, kernel.stacks.pop()
            self.green.switch(self)
        else:
            self.begun, self.green = True, greenlet(_one_after_another, kernel.hub)
            self.green.switch(kernel, self)
        kernel.current = None

    def end(self) -> None:
        """Have it end where it waits. Called by the kernel only."""
        if self.begun and not self.over:
            self.green.throw(Killed)


class Wait:
    """A thread that waits for one of several things; the first one wakes it."""

    __slots__ = ("over", "thread")

    def __init__(self, thread: Thread) -> None:
        self.thread, self.over = thread, False

    def due(self, value: object = None) -> None:
        """As `wake`, where that is all that is due: its thread has the rest of the event to itself."""
        self.thread.process.kernel.last_of_event = True
        self.wake(value)

    def wake(self, value: object = None) -> None:
        """Called by the kernel only; a thread that wakes another asks the kernel to."""
        if self.over:
            return
        self.over = True
        thread = self.thread
        process = thread.process
        if process.dead or process.frozen:
            process.resume(thread, value)
            return
        kernel = process.kernel  # as `resume` and `go_on` do: most of what happens in a story happens here
        kernel.current = thread
        thread.green.switch(value)
        kernel.current = None


class Process:
    """`ports.Process`. `failed` is told of an error that ended one of its threads."""

    def __init__(self, kernel: Kernel, name: str, failed: Callable[[str, Exception], None]) -> None:
        self.kernel, self.name, self._failed = kernel, name, failed
        self.dead = False
        self.frozen = False
        self._threads: dict[Thread, None] = {}
        self._parked: list[tuple[Thread, object]] = []
        self.at_end: list[Callable[[], object]] = []
        """Called once it is dead: what an operating system closes and lets go of."""

    # -- ports.Clock and ports.Process --

    def monotonic(self) -> float:
        return self.kernel.now

    def sleep(self, span: Seconds) -> None:
        wait, kernel = self.wait(), self.kernel
        if not kernel.skip_to(kernel.now + max(span, 0.0)):
            kernel.after(span, wait.due)
            kernel.hub.switch()

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        if self.dead:
            raise Killed

        def run() -> None:
            try:
                work()
            except Killed:
                pass
            except Exception as error:  # noqa: BLE001 - as a real thread, it ends and the process goes on
                self._failed(f"{self.name}: {name}", error)
            finally:
                self._threads.pop(thread, None)

        thread = Thread(self, name, run)
        self._threads[thread] = None
        self.kernel.at(self.kernel.now, self._begin, thread)

    def _begin(self, thread: Thread) -> None:
        self.kernel.last_of_event = True
        self.resume(thread, None)

    def flag(self) -> SimFlag:
        return SimFlag(self)

    def lock(self) -> SimLock:
        return SimLock(self)

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        if len(calls) == 1:
            return [calls[0]()]
        answers: dict[int, T] = {}
        errors: dict[int, Exception] = {}
        all_done = self.flag()

        def make(index: int, call: Callable[[], T]) -> None:
            try:
                answers[index] = call()
            except Exception as error:  # noqa: BLE001 - raised where it was asked for
                errors[index] = error
            if len(answers) + len(errors) == len(calls):
                all_done.set()

        for index, call in enumerate(calls):
            self.spawn("together", partial(make, index, call))
        if calls:
            all_done.wait()
        for error in errors.values():
            raise error
        return [answers[index] for index in range(len(calls))]

    def token(self) -> str:
        return self.kernel.name("t")

    def chance(self) -> float:
        return self.kernel.chance.random()

    # -- waiting --

    def wait(self) -> Wait:
        """Return something that wakes the calling thread; Killed if there is no such thread any more."""
        current = self.kernel.current
        if self.dead or current is None:
            raise Killed
        return Wait(current)

    def give_way(self) -> Any:
        """Wait until woken; return what it was woken with."""
        return self.kernel.hub.switch()

    def resume(self, thread: Thread, value: object) -> None:
        """Let a thread go on, unless the process is dead; later, if it is frozen."""
        if self.dead or thread.over:
            return
        if self.frozen:
            self._parked.append((thread, value))
        else:
            thread.go_on(value)

    # -- its end, and what stops it --

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        parked, self._parked = self._parked, []
        for thread, value in parked:
            self.kernel.at(self.kernel.now, self.resume, thread, value)

    def kill(self) -> None:
        """End it at once, as SIGKILL or the loss of power does. Called by the kernel, never by its own threads."""
        if self.dead:
            return
        self.dead = True
        for thread in list(self._threads):
            thread.end()
        self._threads.clear()
        self._parked.clear()
        for last in self.at_end:
            last()


class SimFlag:
    """`ports.Flag`."""

    def __init__(self, process: Process) -> None:
        self._process, self._set = process, False
        self._waits: list[Wait] = []

    def set(self) -> None:
        self._set = True
        waits, self._waits = self._waits, []
        kernel = self._process.kernel
        for wait in waits:
            kernel.at(kernel.now, wait.due, True)

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        if self._set:
            return True
        wait = self._process.wait()
        self._waits.append(wait)
        timer = None if timeout is None else self._process.kernel.after(timeout, wait.due, False)
        raised = bool(self._process.give_way())
        if raised and timer is not None:
            self._process.kernel.cancel(timer)
        elif not raised and wait in self._waits:
            self._waits.remove(wait)
        return raised or self._set


class SimLock:
    """A lock of one process."""

    def __init__(self, process: Process) -> None:
        self._process, self._held = process, False
        self._waits: list[Wait] = []

    def __enter__(self) -> None:
        while self._held:
            wait = self._process.wait()
            self._waits.append(wait)
            self._process.give_way()
        self._held = True

    def __exit__(self, *_how: object) -> None:
        self._held = False
        if self._waits:
            kernel = self._process.kernel
            kernel.at(kernel.now, self._waits.pop(0).due)
