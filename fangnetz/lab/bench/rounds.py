"""One round: a cause, the recovery that follows, its figures; and how the lab is put back for the next one.

A round never decides anything: it causes, waits with a bound, and reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fangnetz.core.incidents import VmOutcome
from fangnetz.core.operations import OperationState
from fangnetz.lab.bench.arithmetic import Marks, Phases, device_time, phase_of_interval, phases, window_left
from fangnetz.lab.bench.machine_load import MachineLoad, machine_load
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.onlooker import Failover, Onlooker
from fangnetz.lab.patience import wait_until
from fangnetz.lab.whereabouts import first_write_after, fullest, places

Cause = Literal["plug", "cut"]
RECOVERED_WITHIN_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFigures:
    """One VM's way: seconds from the cause to its first write on `target`, and the phases of it."""

    vm: str
    target: str
    total_s: float
    phases: Phases


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One cause and its recovery. `window_s`: what detection had to wait at least in this very round."""

    cause: Cause
    host: str
    at: float
    load: MachineLoad
    vms: tuple[VmFigures, ...]
    window_s: float
    fence_device_s: float
    overlaps: int

    @property
    def last(self) -> VmFigures:
        """The VM that came back last."""
        return max(self.vms, key=lambda each: each.total_s)


def play(lab: Lab, onlooker: Onlooker, cause: Cause, number: int, rounds: int) -> Round:
    """Pull the plug or cut the cluster link of the host with the most VMs, and measure until all of them write again.

    The cause comes at a phase of the heartbeat that differs from round to round. Raises LabError if they do not
    come back within RECOVERED_WITHIN_S.
    """
    host, vms = fullest(lab.plan.hosts, places(lab))
    if not vms:
        raise LabError("no VM runs on any host: there is nothing to measure")
    _wait_for_phase(onlooker, host, phase_of_interval(number, rounds, onlooker.policy.heartbeat_s))
    load = machine_load(lab.name)
    at = lab.power(host, "off") if cause == "plug" else lab.cut(host)
    wrote = _wait_until_written(lab, vms, at)
    failover = _wait_until_closed(onlooker, host, at)
    policy = onlooker.policy
    return Round(
        cause=cause,
        host=host,
        at=at,
        load=load,
        vms=tuple(_figures(failover, vm, at, wrote[vm]) for vm in vms),
        window_s=window_left(
            cause_at=at,
            last_heard_at=failover.incident.last_heard_at,
            window_s=policy.overdue_s if cause == "plug" else policy.window_s,
        ),
        fence_device_s=_device_time(failover),
        overlaps=len(lab.witness()["overlaps"]),
    )


def restore(lab: Lab, onlooker: Onlooker, host: str, cause: Cause) -> None:
    """Undo a cause and wait until the host has rejoined and the cluster is at rest."""
    if cause == "cut":
        lab.heal(host)
    lab.power(host, "on")
    onlooker.wait_until_calm()


def gather(lab: Lab, onlooker: Onlooker) -> None:
    """Bring all VMs onto one host: pull the others one after the other, so each time only the rest can take them.

    When it returns all hosts are up again and the cluster is at rest.
    """
    while True:
        host, vms = fullest(lab.plan.hosts, places(lab))
        if len(vms) == len(lab.plan.vms):
            break
        others = [each for each in lab.plan.hosts if each != host and each in onlooker.alive_hosts()]
        if not others:
            raise LabError(f"{host} is the only host left, but runs {len(vms)} of {len(lab.plan.vms)} VMs")
        # An empty host goes first: nothing moves yet, and the next one's VMs have only one host to go to.
        on = {each: [vm for vm, nodes in places(lab).items() if each in nodes] for each in others}
        emptiest = min(others, key=lambda each: len(on[each]))
        at = lab.power(emptiest, "off")
        _wait_until_written(lab, tuple(on[emptiest]), at)
        _wait_until_closed(onlooker, emptiest, at)
    for each in lab.plan.hosts:
        lab.power(each, "on")
    onlooker.wait_until_calm()


def _wait_for_phase(onlooker: Onlooker, host: str, after_s: float) -> None:
    """Return so many seconds after a heartbeat of the host."""
    before = onlooker.heard_at().get(host, 0.0)
    until = time.monotonic() + 3 * onlooker.policy.window_s
    while time.monotonic() < until:
        now = onlooker.heard_at().get(host, 0.0)
        if now > before:
            time.sleep(max(0.0, now + after_s - time.time()))
            return
        time.sleep(0.02)


def _wait_until_written(lab: Lab, vms: tuple[str, ...], at: float) -> dict[str, float]:
    wrote: dict[str, float] = {}

    def all_wrote() -> str:
        report = lab.witness()
        for vm in vms:
            first = first_write_after(report, vm, at)
            if first is not None:
                wrote[vm] = first
        return ", ".join(vm for vm in vms if vm not in wrote)

    _wait(all_wrote, "nobody writes again on")
    return wrote


def _wait_until_closed(onlooker: Onlooker, host: str, at: float) -> Failover:
    found: list[Failover] = []

    def closed() -> str:
        failover = onlooker.failover(host, at)
        if failover is None:
            return f"a failover of {host} that was never opened"
        if failover.operation.state is OperationState.OPEN:
            return failover.operation.id
        found.append(failover)
        return ""

    _wait(closed, "still waiting for")
    return found[-1]


def _wait(missing: Callable[[], str], what: str) -> None:
    wait_until(missing, RECOVERED_WITHIN_S, POLL_S, what)


def _figures(failover: Failover, vm: str, at: float, wrote_at: float) -> VmFigures:
    incident = failover.incident
    found = next((each for each in incident.vms if each.vm == vm), None)
    if found is None or found.outcome is not VmOutcome.RUNNING:
        raise LabError(f"{vm} writes again, but the incident calls it {found.outcome if found else 'not concerned'}")
    cut = phases(
        Marks(
            cause_at=at,
            opened_at=incident.opened_at,
            proven_at=incident.fence_proven_at,
            start_sent_at=found.start_sent_at,
            first_write_at=wrote_at,
        )
    )
    return VmFigures(vm=vm, target=str(found.target), total_s=wrote_at - at, phases=cut)


def _device_time(failover: Failover) -> float:
    incident = failover.incident
    fence = failover.operation.step("fence")
    text = fence.facts.get("proof") if fence else None
    evidence = json.loads(text)["evidence"] if isinstance(text, str) else []
    return device_time(
        sent_at=incident.fence_sent_at,
        proven_at=incident.fence_proven_at,
        asked=[(float(each["asked_at"]), float(each["answered_at"])) for each in evidence],
    )
