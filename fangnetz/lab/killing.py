"""Kill -9 every process of one role on one machine of a lab. What keeps it up starts it again, like a service manager.

Never touches a process that is not the lab's.
"""

from __future__ import annotations

import signal
import time

from fangnetz.lab.errors import LabError
from fangnetz.lab.host import is_service
from fangnetz.lab.plan import Plan
from fangnetz.lab.processes import processes_of, send


def kill(plan: Plan, target: str) -> float:
    """Kill MACHINE/ROLE. Return the instant before the effect. LabError if nothing of that name runs at this moment."""
    node, _, role = target.partition("/")
    found = [each for each in processes_of(plan.name, plan.tag) if (each.node, each.role) == (node, role)]
    found = [each for each in found if is_service(each)]
    if not found:
        raise LabError(f"no {target} runs at this moment")
    at = time.time()
    for process in found:
        send(process, signal.SIGKILL)
    return at
