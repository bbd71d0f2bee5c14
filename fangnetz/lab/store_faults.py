"""What happens to a real store: killed, stopped, hung, emptied, put back to an older state. Done to the lab's Redis.

Its supervisor plays the service manager, so a killed Redis is back a second later; a stopped one stays down because
its supervisor is frozen. Never touches a Redis that is not the lab's, and never decides anything for the cluster.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from fangnetz.lab.errors import LabError
from fangnetz.lab.plan import Plan
from fangnetz.lab.processes import LabProcess, processes_of, send
from fangnetz.lab.run import run

StoreVerb = Literal["kill", "stop", "start", "hang", "resume", "wipe", "save", "rollback", "part", "join"]
VERBS: tuple[StoreVerb, ...] = get_args(StoreVerb)
ROLE = "redis"
_AOF = "appendonlydir"
_SAVED = "saved"
_DEAD_WITHIN_S = 5.0


def store_fault(plan: Plan, verb: StoreVerb, node: str = "redis") -> float:
    """Do this to the Redis on `node`. Return the instant before the effect, seconds since the epoch.

    `kill`: kill -9, back a second later with what it knew. `stop`: kill -9 and stay down until `start`. `hang`: frozen
    until `resume`; its port still accepts. `wipe`: back empty. `save`: a copy of what it knows now, for `rollback`,
    which brings it back as old as that copy. `part`: until `join`, what it writes reaches no other Redis, though all
    clients reach it. Raises LabError where there is nothing to do it to.
    """
    at = time.time()
    _DO[verb](plan, node)
    return at


def data_folder(plan: Plan, node: str) -> Path:
    """Return where a Redis of the lab keeps its data."""
    return plan.folder / node


def _kill(plan: Plan, node: str) -> None:
    for process in _servers(plan, node):
        send(process, signal.SIGKILL)


def _stop(plan: Plan, node: str) -> None:
    for keeper in _keepers(plan, node):
        send(keeper, signal.SIGSTOP)
    until = time.monotonic() + _DEAD_WITHIN_S
    while found := _of_role(plan, node, ROLE):
        if time.monotonic() > until:
            raise LabError(f"the Redis on {node} did not die within {_DEAD_WITHIN_S:g} s")
        for process in found:
            send(process, signal.SIGKILL)
        time.sleep(0.01)


def _start(plan: Plan, node: str) -> None:
    for keeper in _keepers(plan, node):
        send(keeper, signal.SIGCONT)


def _hang(plan: Plan, node: str) -> None:
    for process in _servers(plan, node):
        send(process, signal.SIGSTOP)


def _resume(plan: Plan, node: str) -> None:
    for process in _of_role(plan, node, ROLE):
        send(process, signal.SIGCONT)


def _wipe(plan: Plan, node: str) -> None:
    _stop(plan, node)
    shutil.rmtree(data_folder(plan, node) / _AOF, ignore_errors=True)
    _start(plan, node)


def _save(plan: Plan, node: str) -> None:
    """Copy the append-only files while nobody writes: the copy is of one instant."""
    folder = data_folder(plan, node)
    servers = [process for process in _servers(plan, node) if process.state != "T"]
    for process in servers:
        send(process, signal.SIGSTOP)
    try:
        shutil.rmtree(folder / _SAVED, ignore_errors=True)
        shutil.copytree(folder / _AOF, folder / _SAVED)
    except OSError as error:
        raise LabError(f"the data of the Redis on {node} could not be copied: {error}") from error
    finally:
        for process in servers:
            send(process, signal.SIGCONT)


def _rollback(plan: Plan, node: str) -> None:
    folder = data_folder(plan, node)
    if not (folder / _SAVED).is_dir():
        raise LabError(f"nothing was saved on {node}; `fangnetz lab store save` makes the copy to go back to")
    _stop(plan, node)
    shutil.rmtree(folder / _AOF, ignore_errors=True)
    shutil.copytree(folder / _SAVED, folder / _AOF)
    _start(plan, node)


def _part(plan: Plan, node: str) -> None:
    """Let nothing leave it towards the others: what was sent and not yet received is lost with it."""
    for other in _others(plan, node):
        _route(plan, node, "replace", other)


def _join(plan: Plan, node: str) -> None:
    for other in _others(plan, node):
        _route(plan, node, "del", other, tolerate=True)


def _others(plan: Plan, node: str) -> list[str]:
    found = [other for other in plan.stores if other != node]
    if not found:
        raise LabError(f"lab {plan.name} has one Redis; `fangnetz lab up --sentinel` makes three")
    return found


def _route(plan: Plan, node: str, verb: str, other: str, *, tolerate: bool = False) -> None:
    command = ("ip", "-n", plan.namespace(node), "route", verb, "blackhole", f"{plan.address(other)}/32")
    run(*command, tolerate=tolerate)


_DO: dict[StoreVerb, Callable[[Plan, str], None]] = {
    "kill": _kill,
    "stop": _stop,
    "start": _start,
    "hang": _hang,
    "resume": _resume,
    "wipe": _wipe,
    "save": _save,
    "rollback": _rollback,
    "part": _part,
    "join": _join,
}


def _servers(plan: Plan, node: str) -> list[LabProcess]:
    """Return the Redis on `node`. Raises LabError if none runs there now."""
    found = _of_role(plan, node, ROLE)
    if not found:
        raise LabError(f"no Redis runs on {node} in lab {plan.name} now")
    return found


def _keepers(plan: Plan, node: str) -> list[LabProcess]:
    found = _of_role(plan, node, f"{ROLE}.supervisor")
    if not found:
        raise LabError(f"no Redis is kept on {node} in lab {plan.name}")
    return found


def _of_role(plan: Plan, node: str, role: str) -> list[LabProcess]:
    """Return what runs there in that role; the pause between two lives of a Redis is no Redis."""
    return [
        each
        for each in processes_of(plan.name, plan.tag)
        if (each.node, each.role) == (node, role) and (role != ROLE or "redis-server" in each.command)
    ]
