"""Words to the service manager: ready, and alive. Silent where none listens (NOTIFY_SOCKET unset)."""

from __future__ import annotations

import contextlib
import os
import socket


def tell(words: str) -> None:
    """Send `READY=1`, `WATCHDOG=1` … to systemd; an absent or deaf manager is no error."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(words.encode(), address)
