"""The beat of one controller: its own tick, sweep and probe rounds, each on a queue only that controller reads.

Two beats tick side by side: the control lease admits one controller, and two machines' probes tell more than one's.
No entry expires: an expiry is judged by the reader's wall clock. A backlog cannot build, because the queues are short
(workers.celery_settings).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId
from tasks.names import PROBE, SWEEP, TICK, control_queue, probe_queue


def beat_schedule(policy: Policy, controller: ControllerId) -> dict[str, dict[str, Any]]:
    """Return Celery's `beat_schedule` for one controller."""
    mine = control_queue(controller)
    return {
        "tick": _entry(TICK, policy.tick_s, mine),
        "sweep": _entry(SWEEP, policy.tick_s, mine),
        "probe": _entry(PROBE, policy.heartbeat_s, probe_queue(controller)),
    }


def _entry(task: str, every_s: float, queue: str) -> dict[str, Any]:
    return {"task": task, "schedule": timedelta(seconds=every_s), "options": {"queue": queue}}
