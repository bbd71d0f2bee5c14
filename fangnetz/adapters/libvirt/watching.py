"""Tell others soon that some domain began, ended or changed its state.

Never tells what changed: whoever is told asks. Why by looking and not by libvirt's events: see `connection`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from fangnetz.core.errors import WorldError
from fangnetz.core.units import Seconds

T = TypeVar("T")


class Watching(Generic[T]):
    """A thread that looks every `every` seconds and calls back when it sees something else than before."""

    def __init__(self, look: Callable[[], T], callback: Callable[[], None], every: Seconds) -> None:
        self._look = look
        self._callback = callback
        self._every = every
        self._stop = threading.Event()
        self._seen = self._glance()
        threading.Thread(target=self._run, name="libvirt-watch", daemon=True).start()

    def stop(self) -> None:
        """Look no more after the look under way; returns at once."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            now = self._glance()
            if now != self._seen:
                self._seen = now
                self._callback()

    def _glance(self) -> T | None:
        try:
            return self._look()
        except WorldError:
            return None
