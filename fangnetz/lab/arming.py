"""Arm, disarm and let go the fault points of one process of a lab. Never makes a process fail by itself.

A process is named MACHINE/ROLE as in `fangnetz lab status`: host1/worker, c1/control, c1/work, c1/fence. Each has a
file of its own in its machine's run folder, so the processes of one controller do not take each other's faults.
"""

from __future__ import annotations

from pathlib import Path

from fangnetz.core.errors import SettingsError
from fangnetz.engine.faults import fault_file, hung_file, parse
from fangnetz.lab.errors import LabError, LabUsageError
from fangnetz.lab.host import init_pid
from fangnetz.lab.plan import Plan
from fangnetz.lab.product import CONTROLLER_ROLES

HOST_ROLE = "worker"


def arm(plan: Plan, target: str, words: str) -> None:
    """Make a process fail where `words` say, instead of what it was armed for. LabUsageError for an unknown point."""
    try:
        faults = parse(words)
    except SettingsError as error:
        raise LabUsageError(str(error)) from error
    if not faults:
        raise LabUsageError("no fault point is named; `fangnetz lab faults` lists them")
    run, role = _place(plan, target)
    file = fault_file(run, role)
    try:
        new = file.with_name(f"{file.name}.arming")
        new.write_text(",".join(str(fault) for fault in faults))
        new.rename(file)
    except OSError as error:
        raise LabError(f"{target} cannot be armed: {error.strerror}") from error


def disarm(plan: Plan, target: str) -> None:
    """Take back what did not happen yet, and let go whatever thread hangs. Harmless when there is nothing."""
    run, role = _place(plan, target)
    fault_file(run, role).unlink(missing_ok=True)
    hung_file(run, role).unlink(missing_ok=True)


def armed(plan: Plan, target: str) -> str:
    """Return what a process is still armed for; empty once all of it has happened (or its host is off)."""
    try:
        run, role = _place(plan, target)
        return fault_file(run, role).read_text().strip()
    except (OSError, LabError):
        return ""


def hangs(plan: Plan, target: str) -> bool:
    """Whether a thread of the process hangs at a point, until `disarm` lets it go."""
    try:
        run, role = _place(plan, target)
    except LabError:
        return False
    return hung_file(run, role).exists()


def _place(plan: Plan, target: str) -> tuple[Path, str]:
    """Return the run folder of a process, as seen from here, and its role's name there."""
    node, _, role = target.partition("/")
    if node in plan.hosts and role == HOST_ROLE:
        pid = init_pid(plan, node)
        if pid is None:
            raise LabError(f"{node} is off")
        return Path(f"/proc/{pid}/root/run/fangnetz"), "host"
    if node in plan.controllers and role in CONTROLLER_ROLES:
        return plan.folder / "controllers" / node / "run", role
    raise LabUsageError(
        f"no process {target!r} can be made to fail: give HOST/{HOST_ROLE} or CONTROLLER/"
        f"{'|'.join(CONTROLLER_ROLES)}, such as {plan.hosts[0]}/{HOST_ROLE}"
    )
