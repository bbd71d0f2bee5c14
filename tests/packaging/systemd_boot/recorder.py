"""Stands in for `fangnetz-worker` on a booted machine: writes down what it was called for and what was up at its end.

It asks systemd with the product's own code what is pending, and tells it READY and WATCHDOG as the host worker does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from workers.leave import pending_jobs, pending_shutdown

HOLD_S = 5.0  # a stop that does not wait for the goodbye has been carried out by then
UNITS = (
    "fangnetz-host.service",
    "fangnetz-control.service",
    "fangnetz-work.service",
    "fangnetz-fence.service",
    "fangnetz-beat.service",
    "redis-server.service",
    "libvirtd.service",
    "libvirtd.socket",
    "virtlogd.socket",
    "virtlockd.socket",
    "libvirt-guests.service",
    "virt-guest-shutdown.target",
    "test-machine.service",
    "test-network.service",
    "srv-images.mount",
)


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout


def states() -> dict[str, str]:
    shown = output("systemctl", "show", "-p", "Id,ActiveState", *UNITS)
    found = {}
    for block in shown.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines())
        found[values["Id"]] = values["ActiveState"]
    return found


def record(**line: object) -> None:
    with Path("/shared/record").open("a") as file:
        file.write(json.dumps(line) + "\n")


def goodbye() -> None:
    how = pending_shutdown(pending_jobs())
    if how.value in ("reboot", "shutdown"):
        time.sleep(HOLD_S)
    record(
        call="leave",
        how=how.value,
        up=sorted(name for name, state in states().items() if state == "active"),
        network=Path("/sys/class/net/net0").exists(),
        storage=Path("/srv/images").is_mount(),
        qemu=subprocess.run(["pgrep", "-c", "qemu-system"], capture_output=True, check=False).returncode == 0,
    )


def serve() -> None:
    """The host worker's life as systemd sees it, until it is told to stop."""
    record(call="host")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"])
        notify.send(b"READY=1")
        while True:
            time.sleep(5)
            notify.send(b"WATCHDOG=1")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["leave"]:
            goodbye()
        case ["host"]:
            serve()
        case others:
            record(call=" ".join(others))
