"""Freeze and thaw: a whole machine of the lab, all processes of one role on it, or one process by its number.

A frozen machine is as silent as a hung one: its kernel answers nothing either, so its links go down with it (its BMC
stays). A frozen process leaves the machine's kernel answering. Never touches a process that is not the lab's.
"""

from __future__ import annotations

import signal
import time

from fangnetz.lab.cuts import rewire
from fangnetz.lab.errors import LabError
from fangnetz.lab.host import host_is_on, is_service
from fangnetz.lab.plan import Plan
from fangnetz.lab.processes import LabProcess, processes_of, send

_ROUNDS_MAX = 50


def freeze(plan: Plan, target: str, *, kernel_answers: bool = False) -> float:
    """Stop HOST, CONTROLLER, NODE/ROLE or PID. Return the instant before the effect. Raises LabError for a stranger."""
    if target in plan.nodes:
        _check_is_on(plan, target)
        at = time.time()
        if not kernel_answers:
            (plan.folder / "frozen" / target).touch()
            _rewire_all(plan, target)
    else:
        _members(plan, target)
        at = time.time()
    # What was being forked while we looked is caught by the next look.
    for _ in range(_ROUNDS_MAX):
        running = [process for process in _members(plan, target) if process.state != "T"]
        if not running:
            return at
        for process in running:
            send(process, signal.SIGSTOP)
        time.sleep(0.01)
    raise LabError(f"{target} did not freeze: {', '.join(f'{p.role} ({p.pid})' for p in running)} still runs")


def thaw(plan: Plan, target: str) -> float:
    """Let a frozen target go on; harmless when it is not frozen. Return the instant before the effect."""
    at = time.time()
    if target in plan.nodes:
        _check_is_on(plan, target)
        (plan.folder / "frozen" / target).unlink(missing_ok=True)
        _rewire_all(plan, target)
    for process in _members(plan, target):
        send(process, signal.SIGCONT)
    return at


def frozen_nodes(plan: Plan) -> set[str]:
    """Return the machines that are frozen as a whole."""
    return {path.name for path in (plan.folder / "frozen").iterdir()}


def _rewire_all(plan: Plan, node: str) -> None:
    for link in plan.links_of(node):
        if link != "bmc":
            rewire(plan, node, link)


def _check_is_on(plan: Plan, node: str) -> None:
    if node in plan.hosts and not host_is_on(plan, node):
        raise LabError(f"{node} is off; `fangnetz lab power {node} on` switches it on")


def _members(plan: Plan, target: str) -> list[LabProcess]:
    everything = processes_of(plan.name, plan.tag)
    if target in plan.nodes:
        return [process for process in everything if process.node == target]
    if target.isdigit():
        found = [process for process in everything if process.pid == int(target)]
    else:
        node, _, role = target.partition("/")
        found = [
            process for process in everything if (process.node, process.role) == (node, role) and is_service(process)
        ]
    if not found:
        raise LabError(
            f"nothing called {target!r} runs in lab {plan.name}; give a machine, MACHINE/ROLE or a process number "
            f"from `fangnetz lab status`"
        )
    return found
