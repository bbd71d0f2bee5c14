"""Connections to libvirt, each used by one thread at a time.

Never shared between threads, never served by an event loop: libvirt's client (seen with 9.0 of Debian 12) crashes the
whole process when one thread waits for an answer and another one, a keepalive timer or an event callback being
unregistered wakes it: ten seconds of a frozen libvirtd were enough. It writes to a stack that is no longer there, as
CVE-2024-4418 describes. So there are no keepalives and no events here, and nothing else in this process may call
virEventRegisterDefaultImpl. A unix socket needs no keepalive: it breaks when libvirtd ends, and a frozen libvirtd is
what the bounds and the limit of stuck threads are for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import libvirt

from fangnetz.adapters.libvirt.domain_xml import Mark

IDLE_MAX = 2
"""Connections kept open between calls: one for the inventory, one for an order beside it."""


@dataclass(slots=True, eq=False)
class Link:
    """One open connection and what was learnt through it (domain ids may come again after libvirtd's restart)."""

    connection: libvirt.virConnect
    opened_at: float
    marks: dict[tuple[str, int], Mark] = field(default_factory=dict)


class Connections:
    """The open connections of one URI."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._idle: list[Link] = []
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Link]:
        """Lend a working link to this thread, opening one if needed; libvirtError if that fails. May hang.

        A link that broke meanwhile is found out when it is lent again.
        """
        link = self._working_idle() or self._open()
        try:
            yield link
        finally:
            with self._guard:
                if len(self._idle) < IDLE_MAX:
                    self._idle.append(link)

    def close(self) -> None:
        """Let go of idle links, without waiting: even that can hang."""
        with self._guard:
            links, self._idle = self._idle, []
        threading.Thread(target=links.clear, name="libvirt-let-go", daemon=True).start()

    def _working_idle(self) -> Link | None:
        while True:
            with self._guard:
                if not self._idle:
                    return None
                link = self._idle.pop()
            # Without an event loop only asking tells whether libvirtd is still the one that was there.
            with contextlib.suppress(libvirt.libvirtError):
                link.connection.getLibVersion()
                return link

    def _open(self) -> Link:
        _raise_errors_only(os.getpid())
        return Link(libvirt.open(self._uri), time.monotonic())


@functools.lru_cache(maxsize=1)
def _raise_errors_only(_pid: int) -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)  # they are raised; libvirt would print them as well
