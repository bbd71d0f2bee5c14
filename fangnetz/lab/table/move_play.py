"""Strike one step of one live migration in a lab, wait until all is over, and tell what was seen.

Every wait is for a condition and has a bound. What it did to the lab is undone at the end, however it ends.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fangnetz.core.model import HostState
from fangnetz.core.operations import Operation, OperationKind, OperationState
from fangnetz.core.units import HostId, VmId
from fangnetz.lab.arming import arm, armed, disarm, hangs
from fangnetz.lab.errors import LabError
from fangnetz.lab.killing import kill
from fangnetz.lab.lab import Lab
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.parting import part, rejoin
from fangnetz.lab.patience import wait_until
from fangnetz.lab.table.judgement import went_on_at
from fangnetz.lab.table.move_cells import MoveCell, Victim
from fangnetz.lab.table.move_judgement import MoveSeen
from fangnetz.lab.table.play import LOOK_EVERY_S, STRIKE_EVERY_S, wait_for_rest
from fangnetz.lab.whereabouts import fullest, places

STRUCK_WITHIN_S = 40.0
HEARD_WITHIN_S = 90.0
ENDED_WITHIN_S = 150.0
"""Also over a parted link: a connection that hangs ends by itself, or the move after `migrate_stall_s`."""
SLOW_MIB_S = 4
"""A guest of the lab has some 40 MiB to send: at this speed the blow comes in the middle of it."""
UNBOUND_MIB_S = 8192
_VIRSH = ("virsh", "-q", "-c", "qemu:///system")


@dataclass(slots=True, kw_only=True)
class MoveStage:
    """What one cell works with."""

    lab: Lab
    onlooker: Onlooker
    cell: MoveCell
    vm: VmId
    source: str
    target: str
    executors: tuple[str, ...]
    caused_at: float = 0.0
    struck: str = ""
    struck_at: float = 0.0
    died_with: tuple[str, ...] = ()
    """Other VMs that ran on the host that died."""
    asked: Future[Any] | None = field(default=None)


def play_move(lab: Lab, onlooker: Onlooker, cell: MoveCell) -> MoveSeen:
    """Play one cell; the lab must be at rest and is brought to rest again. Raises LabError if a wait was in vain."""
    wait_for_rest(lab, onlooker)
    stage = _set(lab, onlooker, cell)
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            _strike(stage, pool)
            _outlast(stage)
        finally:
            _undo(stage)
    rest_from = time.time()
    wait_until(lambda: _not_heard_since(stage, rest_from), HEARD_WITHIN_S, LOOK_EVERY_S)
    wait_for_rest(lab, onlooker)
    return _look(stage, _operations(stage), time.time() - rest_from)


def _set(lab: Lab, onlooker: Onlooker, cell: MoveCell) -> MoveStage:
    """Choose who goes where: the first VM of the fullest host, to the emptiest of the others."""
    where = places(lab)
    source, vms = fullest(lab.plan.hosts, where)
    others = [host for host in lab.plan.hosts if host != source]
    target = min(others, key=lambda host: len([vm for vm, nodes in where.items() if host in nodes]))
    executors: tuple[str, ...]
    match cell.executor:
        case "source":
            executors = (f"{source}/worker",)
        case "target" if cell.way == "migrate":
            executors = (f"{target}/worker",)
        case "target":
            executors = tuple(f"{host}/worker" for host in others)  # where to is the plan's to say
        case role:
            executors = tuple(f"{each}/{role}" for each in lab.plan.controllers)
    return MoveStage(
        lab=lab, onlooker=onlooker, cell=cell, vm=VmId(vms[0]), source=source, target=target, executors=executors
    )


# --- the blow ----------------------------------------------------------------------------------------------------


def _strike(stage: MoveStage, pool: ThreadPoolExecutor) -> None:
    cell, lab = stage.cell, stage.lab
    action = "kill" if cell.of_executor else "hang"
    if cell.point:
        for target in stage.executors:
            arm(lab.plan, target, f"{cell.point}@{stage.vm}:{action}")
    else:
        _set_speed(stage, SLOW_MIB_S)
    stage.caused_at = time.time()
    to = (
        ("host", "evacuate", stage.source)
        if cell.way == "evacuate"
        else ("vm", "migrate", stage.vm, "--to", stage.target)
    )
    stage.asked = pool.submit(lab.fangnetz, *to)
    if not cell.point:
        wait_until(lambda: _not_in_flight(stage), STRUCK_WITHIN_S, STRIKE_EVERY_S)
        _blow(stage)
        _set_speed(stage, UNBOUND_MIB_S)
        return
    held = ""

    def unstruck() -> str:
        nonlocal held
        for target in stage.executors:
            if not armed(lab.plan, target) and (cell.of_executor or hangs(lab.plan, target)):
                held = target
                return ""
        _refused(stage)
        return f"no process passed {cell.point}"

    wait_until(unstruck, STRUCK_WITHIN_S, STRIKE_EVERY_S)
    if cell.of_executor:
        stage.struck, stage.struck_at = held, time.time()
    else:
        _blow(stage)
    _release(stage)


def _blow(stage: MoveStage) -> None:
    lab, hosts = stage.lab, {Victim.SOURCE: stage.source, Victim.TARGET: stage.target}
    stage.struck_at = time.time()
    match stage.cell.victim:
        case Victim.SOURCE_WORKER | Victim.TARGET_WORKER | Victim.WORK | Victim.CONTROL as process:
            stage.struck = _kill_all(stage, process)
        case Victim.SOURCE | Victim.TARGET as victim:
            stage.struck = hosts[victim]
            where = places(lab)
            stage.died_with = tuple(vm for vm, on in where.items() if stage.struck in on and vm != stage.vm)
            stage.struck_at = lab.power(stage.struck, "off")
        case Victim.LINK:
            stage.struck = f"{stage.source}–{stage.target}"
            stage.struck_at = part(lab.plan, stage.source, stage.target)
        case Victim.STORE:
            stage.struck = "redis"
            stage.struck_at = lab.store("kill")


def _kill_all(stage: MoveStage, process: Victim) -> str:
    """Kill every process of that name; a controller's on all controllers, so that nobody is left to stand in for it."""
    targets: tuple[str, ...]
    match process:
        case Victim.SOURCE_WORKER:
            targets = (f"{stage.source}/worker",)
        case Victim.TARGET_WORKER:
            targets = (f"{stage.target}/worker",)
        case _:
            role = "work" if process is Victim.WORK else "control"
            targets = tuple(f"{each}/{role}" for each in stage.lab.plan.controllers)
    for target in targets:
        kill(stage.lab.plan, target)
    return ", ".join(targets)


def _set_speed(stage: MoveStage, mib_s: int) -> None:
    """At the source; one that is off by now, or has sent the VM away, sends nothing any more."""
    with suppress(LabError):
        stage.lab.in_host(stage.source, *_VIRSH, "migrate-setspeed", stage.vm, str(mib_s))


def _release(stage: MoveStage) -> None:
    """Take back what did not happen, and let go what is held; a target that is gone by now needs nothing."""
    for target in stage.executors:
        with suppress(LabError):
            disarm(stage.lab.plan, target)


# --- what is asked while waiting ---------------------------------------------------------------------------------


def _not_in_flight(stage: MoveStage) -> str:
    """From processes alone: the copy that arrives has its process before the first byte is sent."""
    _refused(stage)
    on = places(stage.lab)[stage.vm]
    return "" if {stage.source, stage.target} <= set(on) else f"{stage.vm} runs on {', '.join(on)} alone"


def _refused(stage: MoveStage) -> None:
    """Raise what became of the wish, if nothing came of it."""
    if stage.asked is not None and stage.asked.done():
        stage.asked.result()


def _not_heard_since(stage: MoveStage, at: float) -> str:
    """A worker that was killed is called well until its next report is overdue: nothing is asked of it before."""
    silent = [host for host, heard_at in stage.onlooker.heard_at().items() if heard_at <= at]
    return f"{', '.join(silent)} does not report" if silent else ""


def _operations(stage: MoveStage) -> tuple[Operation, ...]:
    """Return all that was opened about the VM since the cause, the oldest first."""
    found = [
        each
        for each in stage.onlooker.operations()
        if each.subject == stage.vm and each.opened_at >= stage.caused_at - 0.01
    ]
    return tuple(sorted(found, key=lambda each: each.opened_at))


def _not_ended(stage: MoveStage) -> str:
    operations = _operations(stage)
    if not any(each.kind is OperationKind.MIGRATE for each in operations):
        return f"no move of {stage.vm} was opened"
    open_ones = [each for each in operations if each.state is OperationState.OPEN]
    waits = [f"{each.id}: {step.key} {step.state}" for each in open_ones for step in each.steps if not step.settled]
    return ", ".join(waits)


def _not_emptied(stage: MoveStage) -> str:
    record = stage.onlooker.view().host_records.get(HostId(stage.source))
    if record is not None and record.state is HostState.MAINTENANCE:
        return ""
    return f"{stage.source} is not empty: {record.reason if record else 'not known'}"


def _not_failed_over(stage: MoveStage) -> str:
    failover = stage.onlooker.failover(stage.struck, stage.struck_at)
    if failover is None:
        return f"no failover of {stage.struck} was opened"
    return f"{failover.operation.id} is open" if failover.operation.state is OperationState.OPEN else ""


def _outlast(stage: MoveStage) -> None:
    wait_until(lambda: _not_ended(stage), ENDED_WITHIN_S, LOOK_EVERY_S)
    if stage.cell.victim in (Victim.SOURCE, Victim.TARGET):
        wait_until(lambda: _not_failed_over(stage), ENDED_WITHIN_S, LOOK_EVERY_S)
    if stage.cell.way == "evacuate":
        wait_until(lambda: _not_emptied(stage), ENDED_WITHIN_S, LOOK_EVERY_S)
    if stage.asked is not None:
        stage.asked.result()  # the wish was granted, whoever died meanwhile


# --- afterwards --------------------------------------------------------------------------------------------------


def _look(stage: MoveStage, operations: tuple[Operation, ...], rest_s: float) -> MoveSeen:
    lab, cell = stage.lab, stage.cell
    report = lab.witness()
    move = next(each for each in operations if each.kind is OperationKind.MIGRATE)
    lasted = [
        (gap["to"] or report["at"]) - gap["from"]
        for gap in report["vms"][stage.vm]["gaps"]
        if (gap["to"] or report["at"]) > stage.caused_at
    ]
    planned = next((step.order.to.host for step in move.steps if step.order and step.order.to), stage.target)
    return MoveSeen(
        cell=cell,
        vm=stage.vm,
        source=stage.source,
        target=planned,
        caused_at=stage.caused_at,
        struck=stage.struck,
        struck_at=stage.struck_at,
        went_on_at=went_on_at(cell, move, stage.vm, stage.struck_at) if cell.of_executor else None,
        ended_at=float(move.closed_at or time.time()),
        state=move.state.value,
        sentence=_last_words(move),
        others=tuple(f"{each.kind} {each.state}: {each.sentence}" for each in operations if each is not move),
        still_open=tuple(each.id for each in operations if each.state is OperationState.OPEN),
        boots={
            vm: len([boot for boot in seen["boots"] if boot["first_at"] > stage.caused_at])
            for vm, seen in report["vms"].items()
        },
        died_with=stage.died_with,
        runs_on=places(lab),
        overlaps=len([each for each in report["overlaps"] if each["to"] > stage.caused_at]),
        silence_s=max(lasted, default=0.0),
        rest_s=rest_s,
    )


def _last_words(operation: Operation) -> str:
    """Return the operation's sentence, or where it has none what its first step that failed said."""
    failed = [step.sentence for step in operation.steps if step.state in ("failed", "refused") and step.sentence]
    return operation.sentence or next(iter(failed), "")


def _undo(stage: MoveStage) -> None:
    """Disarm, rejoin, switch on, unbind and activate; what is in order already is left as it is."""
    lab = stage.lab
    _release(stage)
    rejoin(lab.plan)
    if stage.cell.victim in (Victim.SOURCE, Victim.TARGET):
        lab.power(stage.struck or stage.source, "on")
    for host in lab.plan.hosts if not stage.cell.point else ():
        with suppress(LabError):
            lab.in_host(host, *_VIRSH, "migrate-setspeed", stage.vm, str(UNBOUND_MIB_S))
    if stage.cell.way == "evacuate":
        lab.fangnetz("host", "activate", stage.source)
