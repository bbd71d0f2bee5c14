"""Knock at TCP ports: connected, refused, or silent. From one thread, all at once.

Never sends a byte, never counts as silence what the kernel answered while this process was not running: after the
deadline it looks once more, without waiting.
"""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from typing import cast

from fangnetz.core.model import Answer
from fangnetz.core.units import Seconds

AT_ONCE_MAX = 400
"""Open connects at a time; fewer if the process may not open so many files."""
FAIR_SHARE = 0.5
"""A connect that had less than this part of the timeout to answer and did not is UNKNOWN, not silent."""

Port = tuple[str, int]
Said = tuple[Answer, Answer]
"""What the kernel said, and what the service said."""

CONNECTED: Said = (Answer.YES, Answer.YES)
REFUSED: Said = (Answer.YES, Answer.NO)
SILENT: Said = (Answer.NO, Answer.NO)
NOT_ASKED: Said = (Answer.UNKNOWN, Answer.UNKNOWN)

_BY_ERROR = {
    0: CONNECTED,
    errno.EISCONN: CONNECTED,
    errno.ECONNREFUSED: REFUSED,
    errno.ECONNRESET: REFUSED,
    errno.ETIMEDOUT: SILENT,
    errno.EHOSTUNREACH: SILENT,
    errno.EHOSTDOWN: SILENT,
}
"""Everything else (no files left, our interface down, forbidden by our own firewall …) is our fault: not asked."""


def knock(ports: Sequence[Port], timeout: Seconds) -> Mapping[Port, Said]:
    """Connect to every (numeric address, port); each is answered once, whatever goes wrong."""
    return _Round(ports, timeout).run()


class _Round:
    def __init__(self, ports: Sequence[Port], timeout: Seconds) -> None:
        self._answers: dict[Port, Said] = dict.fromkeys(ports, NOT_ASKED)
        self._waiting = list(reversed(self._answers))
        self._started: dict[Port, float] = {}
        self._fair = timeout * FAIR_SHARE
        self._deadline = time.monotonic() + timeout
        self._at_once = min(AT_ONCE_MAX, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, 1))

    def run(self) -> Mapping[Port, Said]:
        with selectors.DefaultSelector() as selector:
            try:
                while True:
                    left = self._deadline - time.monotonic()
                    if left > 0:
                        self._start_more(selector)
                    if not selector.get_map():
                        break
                    self._hear(selector, max(left, 0))
                    if left <= 0:
                        self._give_up(selector)
                        break
            finally:
                for key in list(selector.get_map().values()):
                    cast("socket.socket", key.fileobj).close()
        return self._answers

    def _start_more(self, selector: selectors.BaseSelector) -> None:
        while self._waiting and len(selector.get_map()) < self._at_once:
            port = self._waiting.pop()
            family = socket.AF_INET6 if ":" in port[0] else socket.AF_INET
            try:
                door = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            except OSError:
                continue
            self._started[port] = time.monotonic()
            try:
                said = door.connect_ex(port)
            except OSError:  # not a numeric address
                said = errno.EINVAL
            if said == errno.EINPROGRESS:
                selector.register(door, selectors.EVENT_WRITE, port)
            else:
                self._answers[port] = _BY_ERROR.get(said, NOT_ASKED)
                door.close()

    def _hear(self, selector: selectors.BaseSelector, wait: float) -> None:
        for key, _ in selector.select(wait):
            door = cast("socket.socket", key.fileobj)
            self._answers[key.data] = _BY_ERROR.get(door.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), NOT_ASKED)
            selector.unregister(door)
            door.close()

    def _give_up(self, selector: selectors.BaseSelector) -> None:
        for key in selector.get_map().values():
            if self._deadline - self._started[key.data] >= self._fair:
                self._answers[key.data] = SILENT
