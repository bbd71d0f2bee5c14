"""The server behind the store and the messages: up, down or hung; its memory kept, lost, rolled back or failed over.

Where there are replicas, the one that takes over has all that was confirmed and nothing that was written after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fangnetz.core.errors import FangnetzError, StoreUnreachable
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.machine import Machine
from fangnetz.sim.store.memory import Memory
from fangnetz.sim.store.queues import Queues

EPOCH_US = 1_000_000_000_000
"""What the wall clocks show when a story begins: a million seconds."""


class Raised:
    """What a script answered: an error of ours."""

    __slots__ = ("error",)

    def __init__(self, error: FangnetzError) -> None:
        self.error = error


class NotConfirmed(StoreUnreachable):
    """Written here and on too few replicas: it may be forgotten again, so nothing may rest on it."""

    def __init__(self, answer: object) -> None:
        """`answer`: what the script said."""
        super().__init__("0 of 1 replicas confirmed a write within 200 ms: it may be lost")
        self.answer = answer


class Server:
    """`done(script)` is told of every script that ran, right after it: the laws look on."""

    def __init__(self, kernel: Kernel, machine: Machine, replicas: int) -> None:
        self.kernel, self.machine, self.replicas = kernel, machine, replicas
        self.listening = False
        self.hung = False
        self.done: Callable[[Callable[..., Any], tuple[Any, ...], object], None] = lambda _script, _args, _answer: None
        self.memory = Memory(raw_us=self.raw_us, identity=kernel.name("run"))
        self.queues = Queues(kernel)
        self._replica = self.memory
        self._backlog: list[Callable[[], object]] = []
        self._held_down = False
        self._kept: dict[float, tuple[Memory, Queues]] = {}

    @property
    def confirmed(self) -> Memory | None:
        """What a replica has, if there is one."""
        return self._replica if self.replicas > 0 else None

    def raw_us(self) -> int:
        return EPOCH_US + int(self.kernel.now * 1_000_000) + self.machine.clock_us

    @property
    def stopped(self) -> bool:
        """Whether requests are taken but nothing is answered."""
        return self.hung or self.machine.frozen

    # -- requests --

    def serve(self, script: Callable[..., Any], args: tuple[Any, ...], *, confirmed: bool) -> object:
        """Run one script now; return its answer, or what it raised."""
        try:
            answer = script(self.memory, *args)
        except FangnetzError as error:
            answer = Raised(error)
        self.done(script, args, answer)
        if confirmed and self.replicas:
            if self.replicas < 0:
                return Raised(NotConfirmed(answer))
            self._replica = self.memory.copy(self.memory.identity)
        return answer

    def when_it_goes_on(self, request: Callable[[], object]) -> None:
        """Keep a request that arrived while it hangs."""
        self._backlog.append(request)

    # -- what happens to it --

    def start(self) -> None:
        """Its machine has booted."""
        if not self._held_down:
            self._restart(self.memory, self.queues)

    def power_lost(self) -> None:
        self._stop()

    def thawed(self) -> None:
        self.go_on() if not self.hung else None

    def go_down(self, span: float) -> None:
        self._stop()
        self._held_down = True
        self.kernel.after(span, self._up_again)

    def _stop(self) -> None:
        self.listening = self.hung = False
        self._backlog.clear()
        self.queues.forget_readers()

    def _up_again(self) -> None:
        self._held_down = False
        if self.machine.up and not self.listening:
            self._restart(self.memory, self.queues)

    def _restart(self, memory: Memory, queues: Queues) -> None:
        self.memory = memory.copy(self.kernel.name("run"))
        self.queues.take_over(queues)
        self.listening = True
        if self.replicas:
            self._replica = self.memory.copy(self.memory.identity)

    def mend(self) -> None:
        """Whatever was done to it ends now; what it forgot stays forgotten."""
        self.go_on()
        self._up_again()

    def hang(self, span: float) -> None:
        self.hung = True
        self.kernel.after(span, self.go_on)

    def go_on(self) -> None:
        self.hung = False
        if not self.stopped:
            backlog, self._backlog = self._backlog, []
            for request in backlog:
                request()

    def wipe(self) -> None:
        """Restarted empty."""
        self._stop()
        self._restart(Memory(raw_us=self.raw_us, identity=""), Queues(self.kernel))

    def keep(self, name: float) -> None:
        """Remember how it is now, for `roll_back`."""
        self._kept[name] = (self.memory.copy(""), self.queues.copy())

    def roll_back(self, name: float) -> None:
        self._stop()
        self._restart(*self._kept[name])

    def fail_over(self, span: float) -> None:
        """The master dies; a replica is promoted after a while, without what was never confirmed."""
        self._stop()
        self._held_down = True
        promoted, queues = self._replica, self.queues

        def promote() -> None:
            self._held_down = False
            self._restart(promoted, queues)

        self.kernel.after(span, promote)
