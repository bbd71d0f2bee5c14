"""The one connection to libvirt: opened when first needed, watched by keepalive, replaced when dead.

Never opened, used or let go of in a caller's thread: each of these can hang as long as libvirtd does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import libvirt

from fangnetz.core.units import Generation

KEEPALIVE_EVERY_S = 2
KEEPALIVE_MISSES = 3
"""A silent libvirtd is given up after 2 x 3 + 2 s; this frees the threads stuck in it (a unix socket never would)."""


@dataclass(slots=True, eq=False)
class Link:
    """One open connection and what was learnt through it (domain ids may come again after libvirtd's restart)."""

    connection: libvirt.virConnect
    opened_at: float
    generations: dict[tuple[str, int], Generation | None] = field(default_factory=dict)
    event: int | None = None


class Connections:
    """The current link of one URI. Thread-safe; `current` only inside a bounded call."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._link: Link | None = None
        self._watchers: list[Callable[[], None]] = []
        self._guard = threading.Lock()

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back at every change of any domain's life, and when a connection is lost or made anew."""
        with self._guard:
            self._watchers.append(callback)

    def current(self) -> Link:
        """Return a living link, opening one if needed; libvirtError if that fails."""
        link = self._link
        if link is not None:
            if link.connection.isAlive():
                return link
            self.drop(link)
        # No lock while opening: a hung attempt must not hold up the next one.
        opened = self._open()
        with self._guard:
            if self._link is None:
                self._link = opened
                return opened
            kept = self._link
        _bury(opened)
        return kept

    def drop(self, link: Link | None = None) -> None:
        """Forget this link (or whatever is current); the next call opens another."""
        with self._guard:
            found = self._link
            if found is None or (link is not None and found is not link):
                return
            self._link = None
        _bury(found)

    def _open(self) -> Link:
        _start_event_loop(os.getpid())
        connection = libvirt.open(self._uri)
        link = Link(connection, time.monotonic())
        try:
            connection.setKeepAlive(KEEPALIVE_EVERY_S, KEEPALIVE_MISSES)
            connection.registerCloseCallback(self._changed, None)
        except libvirt.libvirtError as error:
            if (
                error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT
            ):  # drivers inside this process have no line to watch
                raise
        link.event = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._changed, None)
        self._changed()
        return link

    def _changed(self, *_facts: object) -> None:
        for callback in tuple(self._watchers):
            callback()


def _bury(link: Link) -> None:
    # No close(): libvirt may be inside this connection in another thread. It closes when the last of them lets go.
    threading.Thread(target=_let_go, args=(link,), name="libvirt-let-go", daemon=True).start()


def _let_go(link: Link) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        link.connection.unregisterCloseCallback()
    if link.event is not None:
        with contextlib.suppress(libvirt.libvirtError):
            link.connection.domainEventDeregisterAny(link.event)


@functools.lru_cache(maxsize=1)
def _start_event_loop(_pid: int) -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; libvirt would print them as well
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            time.sleep(1)
