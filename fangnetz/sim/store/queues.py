"""The message queues, which live in the same server as the store: pushed, read by whoever waited longest, bounded.

Delivers most things, most of the time, sometimes twice: a reader that died without a word takes one message with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fangnetz.sim.kernel import Kernel


@dataclass(frozen=True, slots=True)
class Message:
    """A task and its arguments; `chain`: what its worker sends on when it is done."""

    task: str
    args: tuple[str, ...]
    queue: str
    chain: tuple[Message, ...] = ()


class Reader(Protocol):
    """A worker that waits for a message. `silent`: its machine went without a word, and the server does not know."""

    @property
    def queues(self) -> Sequence[str]: ...

    @property
    def silent(self) -> bool: ...

    def take(self, message: Message) -> None: ...

    def disconnected(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Bound:
    """How long a queue may grow, and how long it is kept unused."""

    length_max: int
    idle_s: float


class Queues:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._kept: dict[str, deque[Message]] = {}
        self._put_at: dict[str, float] = {}
        self._bounds: dict[str, Bound] = {}
        self._readers: dict[str, list[Reader]] = {}
        self.drop = self.duplicate = self.delay = 0.0
        self.troubled_until = 0.0

    def bound(self, queue: str, bound: Bound) -> None:
        self._bounds[queue] = bound

    def trouble(self, *, drop: float, duplicate: float, delay: float, span: float) -> None:
        """Lose, double or hold back messages for a while: shares of them, and seconds at most."""
        self.drop, self.duplicate, self.delay = drop, duplicate, delay
        self.troubled_until = self._kernel.now + span

    def push(self, message: Message) -> None:
        if self._kernel.now < self.troubled_until:
            chance = self._kernel.chance
            if chance.random() < self.drop:
                return
            for _ in range(2 if chance.random() < self.duplicate else 1):
                self._kernel.after(self.delay * chance.random(), self._push, message)
            return
        self._push(message)

    def _push(self, message: Message) -> None:
        readers = self._readers.get(message.queue)
        if readers:
            reader = readers[0]
            self.leave(reader)
            if not reader.silent:
                reader.take(message)
            return
        queue = self._kept.setdefault(message.queue, deque())
        self._expire(message.queue, queue)
        queue.append(message)
        bound = self._bounds.get(message.queue)
        if bound is not None and len(queue) > bound.length_max:
            queue.popleft()
        self._put_at[message.queue] = self._kernel.now

    def _expire(self, name: str, queue: deque[Message]) -> None:
        bound = self._bounds.get(name)
        if bound is not None and self._kernel.now - self._put_at.get(name, self._kernel.now) > bound.idle_s:
            queue.clear()

    def read(self, reader: Reader) -> None:
        """Give the reader the next message of its queues, now or when one comes."""
        for name in reader.queues:
            queue = self._kept.get(name)
            if queue:
                self._expire(name, queue)
            if queue:
                reader.take(queue.popleft())
                return
        for name in reader.queues:
            self._readers.setdefault(name, []).append(reader)

    def leave(self, reader: Reader) -> None:
        for name in reader.queues:
            waiting = self._readers.get(name)
            if waiting and reader in waiting:
                waiting.remove(reader)

    def forget_readers(self) -> None:
        """The server went away: every connection is broken."""
        readers = {id(reader): reader for waiting in self._readers.values() for reader in waiting}
        self._readers.clear()
        for reader in readers.values():
            reader.disconnected()

    def copy(self) -> Queues:
        copied = Queues(self._kernel)
        copied._kept = {name: deque(queue) for name, queue in self._kept.items()}
        copied._put_at = dict(self._put_at)
        return copied

    def take_over(self, other: Queues) -> None:
        """Hold what the other one holds."""
        kept = other.copy()
        self._kept, self._put_at = kept._kept, kept._put_at
