"""The helper process that speaks IPMI: loads pyghmi once, then forks a child for every call.

Why a process and not a thread: pyghmi keeps its sessions, sockets and one I/O thread in class variables, a second
session to a BMC in one process fails after the first one's logout (1.6.19), and one dark BMC holds up its shared loop.
A child can also be ended, and above all it ends *itself*: the kernel kills it at the caller's deadline, even if it was
frozen meanwhile. So a power command is never sent after its bound. [frozen executor thaws and cuts the wrong host]

Never decides anything, never writes a log, never sees a secret on its command line or in its environment. Started as
`python -P -m fangnetz.adapters.ipmi.call FD`; each packet on FD brings one socket (SCM_RIGHTS) for one call:
in  {"do": "status"|"on"|"off", "address", "port", "username", "password", "deadline": CLOCK_MONOTONIC seconds}
out "started" from the child, then {"said": "power"|"done"|"refused"|"silent", "power", "guid", "raw"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from pyghmi.exceptions import IpmiException
from pyghmi.ipmi.command import Command
from pyghmi.ipmi.private import session as pyghmi_session

PACKET_MAX = 65536
STARTED = b"started"
ORPHAN_LIFE = 5.0
"""Seconds a child lives without having been told its deadline."""

_CHASSIS, _APPLICATION = 0, 6
_GET_STATUS, _CONTROL, _GET_GUID = 1, 2, 0x37
_CONTROL_BYTE = {"off": 0, "on": 1}
_POWER_BIT = 1
_NO_ANSWER = 0xFFFF
_MISSING_RIGHT = 0xD4
_REFUSALS = ("password", "unauthorized", "privilege", "integrity", "illegal", "invalid role", "inactive role")
"""Words of pyghmi and of RMCP+ status codes (IPMI 2.0 table 13-15) by which a BMC turns a login down."""


def main() -> None:
    """Serve calls until the caller closes its end."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    use_one_thread()
    while True:
        packet, handles, _, _ = socket.recv_fds(control, 16, 1)
        if not packet:
            return
        for handle in handles:
            try:
                child = os.fork()
            except OSError:
                child = -1
            if child == 0:
                control.close()
                _child(handle)
            os.close(handle)


def use_one_thread() -> None:
    """Let pyghmi read its socket itself instead of through its I/O thread.

    The thread may fetch an answer just before the caller begins to wait for one; the caller then sleeps until its
    resend timer, 0.5 to 1 s later (measured: one question in ten on a busy machine). An unread socket forgets nothing.
    """

    def wait(timeout: float, _address: object = None, _queue: object = None) -> None:
        select.select(pyghmi_session.iosockets, (), (), max(timeout, 0))
        pyghmi_session._io_graball(pyghmi_session.iosockets, {})

    pyghmi_session.iothread = "not needed"
    pyghmi_session.iothreadready = True
    pyghmi_session._io_wait = wait


def _child(handle: int) -> None:
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, ORPHAN_LIFE)
        with socket.socket(fileno=handle) as caller:
            caller.send(STARTED)
            request = json.loads(caller.recv(PACKET_MAX))
            left = request["deadline"] - time.monotonic()
            if left > 0:
                signal.setitimer(signal.ITIMER_REAL, left)
                caller.send(json.dumps(call(request)).encode())
    finally:
        os._exit(0)


def call(request: dict[str, Any]) -> dict[str, str]:
    """Log in, do one thing, log out. To be called once per process."""
    try:
        session = Command(
            bmc=request["address"],
            port=request["port"],
            userid=request["username"],
            password=request["password"],
        )
    except IpmiException as error:
        words = str(error)
        if any(word in words.lower() for word in _REFUSALS):
            return {"said": "refused", "raw": words}
        return {"said": "silent", "raw": "no answer" if words in ("None", "timeout") else words}
    except OSError as error:
        return {"said": "silent", "raw": error.strerror or "network error"}
    try:
        if request["do"] == "status":
            return _status(session)
        return _control(session, request["do"])
    except IpmiException as error:
        return {"said": "silent", "raw": str(error)}
    finally:
        with contextlib.suppress(IpmiException):
            session.ipmi_session.logout()


def _status(session: Command) -> dict[str, str]:
    answer = session.raw_command(netfn=_CHASSIS, command=_GET_STATUS)
    failure = _failure(answer)
    if failure:
        return failure
    data = bytes(answer["data"])
    if answer["code"] != 0 or not data:
        return {
            "said": "power",
            "power": "unknown",
            "guid": _guid(session),
            "raw": _words("chassis status", answer),
        }
    power = "on" if data[0] & _POWER_BIT else "off"
    return {"said": "power", "power": power, "guid": _guid(session), "raw": _words("chassis status", answer)}


def _guid(session: Command) -> str:
    answer = session.raw_command(netfn=_APPLICATION, command=_GET_GUID)
    data = bytes(answer.get("data", b""))
    return data.hex() if answer["code"] == 0 and len(data) == 16 else ""


def _control(session: Command, wanted: str) -> dict[str, str]:
    answer = session.raw_command(netfn=_CHASSIS, command=_CONTROL, data=(_CONTROL_BYTE[wanted],))
    failure = _failure(answer)
    if failure:
        return failure
    if answer["code"] != 0:
        return {"said": "refused", "raw": _words(f"chassis control {wanted}", answer)}
    return {"said": "done", "raw": _words(f"chassis control {wanted}", answer)}


def _failure(answer: dict[str, Any]) -> dict[str, str] | None:
    if answer["code"] == _NO_ANSWER:
        return {"said": "silent", "raw": "no answer to the command"}
    if answer["code"] == _MISSING_RIGHT:
        return {"said": "refused", "raw": "insufficient privilege level"}
    return None


def _words(what: str, answer: dict[str, Any]) -> str:
    if answer["code"] == 0:
        return " ".join([what, *(f"{byte:02x}" for byte in bytes(answer["data"]))])
    return f"{what}: completion code 0x{answer['code']:02x} {answer.get('error', '')}".strip()


if __name__ == "__main__":
    main()
