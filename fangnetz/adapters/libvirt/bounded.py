"""Calls that cannot hang their caller: each runs in a thread of its own and is given up at its bound.

Never keeps more than a fixed number of given-up threads, never lets a given-up call begin an effect it has not begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from fangnetz.core.errors import HypervisorUnreachable, WorldError
from fangnetz.core.units import Seconds

T = TypeVar("T")

ABANDONED_MAX = 8
"""Threads stuck inside libvirt at a time; the next call is then answered at once, without a thread."""


class Deadline:
    """The instant at which the caller stops waiting. A call asks it right before an effect."""

    def __init__(self, bound: Seconds) -> None:
        self._at = time.monotonic() + bound

    def check(self) -> None:
        """Raise HypervisorUnreachable if the caller is no longer there. [libvirtd thaws a minute later]"""
        if time.monotonic() >= self._at:
            raise HypervisorUnreachable("libvirt took too long; the call was given up before its effect.")


class BoundedCalls:
    """A family of calls that shares one limit of stuck threads. Thread-safe."""

    def __init__(self, what: str, abandoned_max: int = ABANDONED_MAX) -> None:
        self._what = what
        self._abandoned_max = abandoned_max
        self._abandoned = 0
        self._guard = threading.Lock()

    @property
    def abandoned(self) -> int:
        return self._abandoned

    def run(self, call: Callable[[Deadline], T], bound: Seconds) -> T:
        """Return what `call` returns or raise what it raises; HypervisorUnreachable after `bound` seconds."""
        with self._guard:
            if self._abandoned >= self._abandoned_max:
                raise HypervisorUnreachable(
                    f"libvirt hangs: {self._abandoned} {self._what} wait for it already, no further one is sent."
                )
        attempt = _Attempt(call, Deadline(bound))
        thread = threading.Thread(target=self._carry_out, args=(attempt,), name="libvirt-call", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise HypervisorUnreachable("No thread could be started for a call to libvirt.") from error
        attempt.done.wait(bound)
        with self._guard:
            if not attempt.done.is_set():
                attempt.abandoned = True
                self._abandoned += 1
        if attempt.abandoned:
            raise HypervisorUnreachable(f"libvirt did not answer within {bound:g} s.")
        return attempt.result()

    def _carry_out(self, attempt: _Attempt[T]) -> None:
        try:
            attempt.carry_out()
        finally:
            with self._guard:
                attempt.done.set()
                if attempt.abandoned:
                    self._abandoned -= 1


class _Attempt(Generic[T]):
    def __init__(self, call: Callable[[Deadline], T], deadline: Deadline) -> None:
        self._call = call
        self._deadline = deadline
        self._values: list[T] = []
        self._error: Exception | None = None
        self.done = threading.Event()
        self.abandoned = False

    def carry_out(self) -> None:
        try:
            self._values.append(self._call(self._deadline))
        except WorldError as error:
            # The frames of a traceback hold the connection, and letting go of that could hang the caller.
            error.__context__ = None
            self._error = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread, not swallowed
            self._error = error

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._values[0]
