"""Strike one process at one point of one failover in a lab, wait until all is over, and tell what was seen.

Every wait is for a condition and has a bound. What it did to the lab is undone at the end, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fangnetz.core.model import HostState
from fangnetz.core.operations import Operation, OperationKind, OperationState, StepState
from fangnetz.core.units import HostId, VmId
from fangnetz.lab.arming import arm, armed, disarm
from fangnetz.lab.errors import LabError
from fangnetz.lab.host import init_pid
from fangnetz.lab.lab import Lab
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.patience import wait_until
from fangnetz.lab.processes import processes_of
from fangnetz.lab.product import CONTROLLER_ROLES
from fangnetz.lab.table.cells import STORE, Blow, Cell
from fangnetz.lab.table.judgement import Seen, follows, went_on_at, words_of
from fangnetz.lab.verdict import writing_now
from fangnetz.lab.whereabouts import first_write_after, fullest, places

LOOK_EVERY_S = 0.05
STRIKE_EVERY_S = 0.01
REST_WITHIN_S = 120.0
STRUCK_WITHIN_S = 40.0
ENDED_WITHIN_S = 90.0
RETURNED_WITHIN_S = 90.0
SPOKE_WITHIN_S = 10.0
"""A thawed process says what it found within this: a few questions to the store, and two seconds of looking at most."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """What one cell works with."""

    lab: Lab
    onlooker: Onlooker
    cell: Cell
    host: str
    vms: tuple[str, ...]
    targets: tuple[str, ...]
    caused_at: float = 0.0
    struck: str = ""
    struck_at: float = 0.0
    thawed_at: float | None = None
    said: str = ""
    returned_and_cut: bool = False

    @property
    def vm(self) -> VmId:
        return VmId(self.vms[0])


def play(lab: Lab, onlooker: Onlooker, cell: Cell) -> Seen:
    """Play one cell; the lab must be at rest and is brought to rest again. Raises LabError if a wait was in vain."""
    wait_for_rest(lab, onlooker)
    host, vms = fullest(lab.plan.hosts, places(lab))
    if cell.role == "worker":
        targets = tuple(f"{each}/worker" for each in lab.plan.hosts if each != host)
    else:
        targets = tuple(f"{each}/{cell.role}" for each in lab.plan.controllers)
    stage = Stage(lab=lab, onlooker=onlooker, cell=cell, host=host, vms=vms, targets=targets)
    try:
        _strike(stage)
        _outlast(stage)
        return _look(stage)
    finally:
        _undo(stage)


def play_store_killed(lab: Lab, onlooker: Onlooker) -> Seen:
    """Kill the lab's Redis as soon as a failover is opened; the rest is as in `play`."""
    wait_for_rest(lab, onlooker)
    host, vms = fullest(lab.plan.hosts, places(lab))
    stage = Stage(lab=lab, onlooker=onlooker, cell=STORE, host=host, vms=vms, targets=())
    try:
        stage.caused_at = lab.power(host, "off")
        _wait(
            lambda: "" if _operation(stage) else f"no failover of {host} was opened",
            STRUCK_WITHIN_S,
            every=STRIKE_EVERY_S,
        )
        lab.store("kill")
        stage.struck, stage.struck_at = STORE.role, time.time()  # dead by now: what it wrote before is older
        _outlast(stage)
        _wait(lambda: _not_ended(stage), ENDED_WITHIN_S)  # also the one that was opened anew
        return _look(stage)
    finally:
        _undo(stage)


def wait_for_rest(lab: Lab, onlooker: Onlooker) -> None:
    """Wait until every host is online and protected, every VM runs and writes, and every process is up."""

    def unrest() -> str:
        running = {f"{p.node}/{p.role}" for p in processes_of(lab.plan.name, lab.plan.tag) if p.state != "T"}
        wanted = [f"{node}/{role}" for node in lab.plan.controllers for role in CONTROLLER_ROLES]
        wanted += [f"{node}/worker" for node in lab.plan.hosts]
        absent = [each for each in wanted if each not in running]
        silent = set(lab.plan.vms) - writing_now(lab.witness())
        return (
            (f"{absent[0]} does not run" if absent else "")
            or (f"nobody writes on {min(silent)}" if silent else "")
            or onlooker.unrest()
        )

    _wait(unrest, REST_WITHIN_S)


# --- the blow ----------------------------------------------------------------------------------------------------


def _strike(stage: Stage) -> None:
    cell, lab = stage.cell, stage.lab
    words = f"{cell.point}@{cell.subject(HostId(stage.host), stage.vm)}:{cell.blow}"
    for target in stage.targets:
        arm(lab.plan, target, words)
    stage.caused_at = lab.cut(stage.host) if cell.cause == "cut" else lab.power(stage.host, "off")

    def unstruck() -> str:
        for target in stage.targets:
            if not armed(lab.plan, target):
                stage.struck, stage.struck_at = target, time.time()
                return ""
        return f"no process passed {cell.point}"

    _wait(unstruck, STRUCK_WITHIN_S, every=STRIKE_EVERY_S)
    for target in stage.targets:
        disarm(lab.plan, target)


def _outlast(stage: Stage) -> None:
    """Wait until the incident has ended; thaw what was frozen when it may do harm, or cannot be spared any longer."""
    if stage.cell.blow is Blow.FREEZE:
        if stage.cell.role == "worker":
            _wait(lambda: _not_lost_yet(stage), ENDED_WITHIN_S)  # nobody but this host may start the VM
        else:
            _wait(lambda: _not_ended(stage), ENDED_WITHIN_S)
            if stage.cell.role == "control":
                _wait(lambda: _still_in_charge(stage), ENDED_WITHIN_S)  # an incident may end before its lease does
            if stage.cell.step == "fence":
                _wait_for_return(stage)
        _thaw(stage)
    _wait(lambda: _not_ended(stage), ENDED_WITHIN_S)
    _wait(lambda: _not_writing(stage), ENDED_WITHIN_S)


def _thaw(stage: Stage) -> None:
    lab = stage.lab
    before = init_pid(lab.plan, stage.host)
    offs = _offs(stage)
    log = _log(stage)
    size = log.stat().st_size
    stage.thawed_at = lab.thaw(stage.struck)
    operation = _operation(stage)
    identity = operation.id if operation is not None else ""

    def silent() -> str:
        with log.open(errors="replace") as file:
            file.seek(size)
            stage.said = words_of(file, identity, stage.cell.step_key(stage.vm))
        return "" if stage.said else f"{stage.struck} says nothing"

    with suppress(LabError):
        _wait(silent, SPOKE_WITHIN_S)
    stage.returned_and_cut = before is not None and (init_pid(lab.plan, stage.host) != before or _offs(stage) != offs)


def _wait_for_return(stage: Stage) -> None:
    """Let the host that was cut come back: only then can a thawed executor do it harm."""
    stage.lab.heal(stage.host)

    def away() -> str:
        record = stage.onlooker.view().host_records.get(HostId(stage.host))
        if record is not None and record.state is HostState.ONLINE:
            return ""
        return f"{stage.host} is not back: {record.reason if record else 'not known'}"

    _wait(away, RETURNED_WITHIN_S)


# --- what is asked while waiting ---------------------------------------------------------------------------------


def _operation(stage: Stage) -> Operation | None:
    failover = stage.onlooker.failover(stage.host, stage.caused_at)
    return failover.operation if failover else None


def _not_ended(stage: Stage) -> str:
    operation = _operation(stage)
    if operation is None:
        return f"no failover of {stage.host} was opened"
    if operation.state is not OperationState.OPEN:
        return ""
    waits = [f"{step.key} {step.state}" for step in operation.steps if not step.settled]
    return f"{operation.id} is open: {', '.join(waits)}"


def _not_lost_yet(stage: Stage) -> str:
    operation = _operation(stage)
    step = operation.step(stage.cell.step_key(stage.vm)) if operation else None
    if step is None or operation is None:
        return "the step is gone"
    view = stage.onlooker.view()
    if step.settled and not any(follows(other, step) and other.started_at for other in operation.steps):
        return f"nobody took up what follows {step.key}"
    swept_by = step.lease_until + 2 * stage.onlooker.policy.tick_s
    if step.state is StepState.RUNNING and view.now < swept_by:
        return f"{step.key} is still held by the frozen {stage.struck}, or was not sent again yet"
    return ""


def _still_in_charge(stage: Stage) -> str:
    holder = stage.onlooker.in_charge()
    frozen = stage.struck.partition("/")[0]
    return f"{holder or 'nobody'} is in charge while {frozen} is frozen" if holder in ("", frozen) else ""


def _not_writing(stage: Stage) -> str:
    report = stage.lab.witness()
    silent = [vm for vm in stage.vms if first_write_after(report, vm, stage.caused_at) is None]
    return f"nobody writes on {', '.join(silent)}" if silent else ""


def _offs(stage: Stage) -> int:
    try:
        lines = (stage.lab.plan.folder / "bmc" / stage.host / "power.log").read_text().splitlines()
    except FileNotFoundError:
        return 0
    orders = [line.split() for line in lines]
    return len([order for order in orders if float(order[0]) >= stage.caused_at and order[1] == "0"])


def _log(stage: Stage) -> Path:
    node, _, role = stage.struck.partition("/")
    plan = stage.lab.plan
    folder = plan.host_folder(node) if node in plan.hosts else plan.folder / "controllers" / node
    return folder / "log" / f"{role}.log"


# --- afterwards --------------------------------------------------------------------------------------------------


def _look(stage: Stage) -> Seen:
    lab, operation = stage.lab, _operation(stage)
    if operation is None:
        raise LabError(f"the failover of {stage.host} is gone")
    report = lab.witness()
    failovers = [
        each
        for each in stage.onlooker.operations()
        if each.kind is OperationKind.FAILOVER and each.subject == stage.host and each.opened_at >= stage.caused_at
    ]
    return Seen(
        cell=stage.cell,
        host=stage.host,
        vms=stage.vms,
        caused_at=stage.caused_at,
        struck=stage.struck,
        struck_at=stage.struck_at,
        thawed_at=stage.thawed_at,
        went_on_at=went_on_at(stage.cell, operation, stage.vm, stage.struck_at),
        ended_at=float(operation.closed_at or time.time()),
        state=operation.state.value,
        sentence=operation.sentence,
        incidents=len(failovers),
        offs=_offs(stage),
        boots={
            vm: len([boot for boot in seen["boots"] if boot["first_at"] > stage.caused_at])
            for vm, seen in report["vms"].items()
        },
        copies={vm: len(nodes) for vm, nodes in places(lab).items()},
        overlaps=len(report["overlaps"]),
        returned_and_cut=stage.returned_and_cut,
        said=stage.said,
    )


def _undo(stage: Stage) -> None:
    """Disarm, thaw, heal and switch on; a target that is gone by now needs nothing."""
    for target in stage.targets:
        with suppress(LabError):
            disarm(stage.lab.plan, target)
            stage.lab.thaw(target)
    if stage.cell.cause == "cut":
        stage.lab.heal(stage.host)
    stage.lab.power(stage.host, "on")


def _wait(missing: Callable[[], str], within_s: float, every: float = LOOK_EVERY_S) -> None:
    wait_until(missing, within_s, every)
