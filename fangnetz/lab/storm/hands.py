"""The storm's hands: do one fault to a lab, undo it, and at the end heal everything. Never chooses anything.

A target that is gone by now (a frozen host that was fenced, a process between two lives) is no error: it is told.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from fangnetz.lab.arming import HOST_ROLE, arm, disarm
from fangnetz.lab.bmc import BmcMode
from fangnetz.lab.broker import fail_over, master_of
from fangnetz.lab.cuts import Direction
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.plan import Link
from fangnetz.lab.processes import LabProcess, processes_of, send
from fangnetz.lab.product import CONTROLLER_ROLES
from fangnetz.lab.store_faults import StoreVerb, store_fault
from fangnetz.lab.storm.faults import MASTER, Fault, FaultKind

_STORE_DO: dict[FaultKind, StoreVerb] = {
    FaultKind.STORE_KILL: "kill",
    FaultKind.STORE_STOP: "stop",
    FaultKind.STORE_HANG: "hang",
    FaultKind.STORE_WIPE: "wipe",
    FaultKind.STORE_ROLLBACK: "save",
    FaultKind.STORE_PART: "part",
}
_STORE_UNDO: dict[FaultKind, StoreVerb] = {
    FaultKind.STORE_STOP: "start",
    FaultKind.STORE_HANG: "resume",
    FaultKind.STORE_ROLLBACK: "rollback",
    FaultKind.STORE_PART: "join",
}

FOUND_WITHIN_S = 1.5
"""A process that is just being started again is waited for this long."""


def _cut_of(fault: Fault) -> tuple[Link, Direction]:
    """Return which link a cut is of, and which way; the plan wrote it, and the lab judges it."""
    link, _, direction = fault.how.partition(" ")
    return cast("Link", link), cast("Direction", direction)


class Hands:
    """Does faults to one lab. `do` and `undo` return what came of it in a sentence; empty means as planned."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._struck: dict[Fault, str] = {}
        """Which node a fault of `master` was done to: by its end another may be master."""

    def do(self, fault: Fault) -> str:
        """Begin the fault."""
        return self._try(lambda: self._begin(fault))

    def undo(self, fault: Fault) -> str:
        """End the fault; harmless if it ended by itself."""
        return self._try(lambda: self._finish(fault))

    def heal(self) -> None:
        """Undo whatever may be left of any fault. Raises LabError if it cannot."""
        lab, plan = self._lab, self._lab.plan
        for host in plan.hosts:
            lab.bmc(host, "ok")
        for node in plan.nodes:
            for link in plan.links_of(node):
                lab.heal(node, link)
        for store in plan.stores if len(plan.stores) > 1 else ():
            store_fault(plan, "join", store)
        for host in plan.hosts:
            lab.power(host, "on")
        for target in [f"{h}/{HOST_ROLE}" for h in plan.hosts] + [
            f"{c}/{role}" for c in plan.controllers for role in CONTROLLER_ROLES
        ]:
            with suppress(LabError):
                disarm(plan, target)
        for process in processes_of(plan.name, plan.tag):
            if process.state == "T":
                send(process, signal.SIGCONT)
        for node in (*plan.hosts, *plan.controllers):
            with suppress(LabError):
                lab.thaw(node)

    @staticmethod
    def _try(what: Callable[[], None]) -> str:
        try:
            what()
        except LabError as error:
            return str(error)
        return ""

    def _begin(self, fault: Fault) -> None:
        lab = self._lab
        match fault.kind:
            case FaultKind.KILL:
                for process in self._processes(fault.target):
                    send(process, signal.SIGKILL)
            case FaultKind.FREEZE:
                for process in self._processes(fault.target):
                    send(process, signal.SIGSTOP)
            case FaultKind.HOST_FREEZE:
                lab.freeze(fault.target)
            case FaultKind.CUT:
                self._struck[fault] = self._node(fault.target)
                lab.cut(self._struck[fault], *_cut_of(fault))
            case FaultKind.POWER_OFF | FaultKind.BLINK:
                lab.power(fault.target, "off")
            case FaultKind.BMC:
                lab.bmc(fault.target, cast("BmcMode", fault.how))
            case FaultKind.STORE_FAILOVER:
                fail_over(lab.plan)
            case FaultKind.POINT:
                for target in self._armed_by(fault):
                    with suppress(LabError):  # a host that is off has nobody to arm
                        arm(lab.plan, target, fault.how)
            case _:
                self._struck[fault] = self._node(fault.target)
                store_fault(lab.plan, _STORE_DO[fault.kind], self._struck[fault])

    def _finish(self, fault: Fault) -> None:
        lab = self._lab
        match fault.kind:
            case FaultKind.FREEZE:
                for process in self._processes(fault.target, wait_s=0.0):
                    send(process, signal.SIGCONT)
            case FaultKind.HOST_FREEZE:
                lab.thaw(fault.target)
            case FaultKind.CUT:
                node = self._struck.get(fault, fault.target)
                lab.heal(node, _cut_of(fault)[0])
            case FaultKind.POWER_OFF | FaultKind.BLINK:
                lab.power(fault.target, "on")
            case FaultKind.BMC:
                lab.bmc(fault.target, "ok")
            case FaultKind.POINT:
                self._disarm(fault)
            case _ if fault.kind in _STORE_UNDO:
                store_fault(lab.plan, _STORE_UNDO[fault.kind], self._struck.get(fault, fault.target))
            case _:
                pass

    def _node(self, target: str) -> str:
        return master_of(self._lab.plan) if target == MASTER else target

    def _armed_by(self, fault: Fault) -> list[str]:
        plan = self._lab.plan
        machines = plan.hosts if fault.target == HOST_ROLE else plan.controllers
        return [f"{machine}/{fault.target}" for machine in machines]

    def _disarm(self, fault: Fault) -> None:
        """Take back what was not met, and let go what hangs or stands still there."""
        for target in self._armed_by(fault):
            with suppress(LabError):
                disarm(self._lab.plan, target)
            with suppress(LabError):
                for process in self._processes(target, wait_s=0.0):
                    if process.state == "T":
                        send(process, signal.SIGCONT)

    def _processes(self, target: str, wait_s: float = FOUND_WITHIN_S) -> list[LabProcess]:
        """Return the processes of MACHINE/ROLE, or those of VM/qemu wherever it runs. LabError if there is none."""
        node, _, role = target.partition("/")
        plan = self._lab.plan
        until = time.monotonic() + wait_s
        while True:
            everything = processes_of(plan.name, plan.tag)
            if role == "qemu":
                found = [each for each in everything if each.role == f"qemu:{node}"]
            else:
                found = [each for each in everything if (each.node, each.role) == (node, role)]
            if found:
                return found
            if time.monotonic() > until:
                raise LabError(f"no {target} runs at this moment")
            time.sleep(0.05)
