"""The beat of one controller. Every entry expires before its next one is due, so that a backlog never builds.

Two beats tick side by side: the control lease admits one controller, and two machines' probes tell more than one's.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId
from tasks.names import PROBE, QUEUE_PROBE, SWEEP, TICK, control_queue

SHARE_OF_INTERVAL = 0.9
"""A message expires after this share of its interval."""


def beat_schedule(policy: Policy, controller: ControllerId) -> dict[str, dict[str, Any]]:
    """Return Celery's `beat_schedule` for one controller."""
    mine = control_queue(controller)
    return {
        "tick": _entry(TICK, policy.tick_s, mine),
        "sweep": _entry(SWEEP, policy.tick_s, mine),
        "probe": _entry(PROBE, policy.heartbeat_s, QUEUE_PROBE),
    }


def _entry(task: str, every_s: float, queue: str) -> dict[str, Any]:
    return {
        "task": task,
        "schedule": timedelta(seconds=every_s),
        "options": {"queue": queue, "expires": every_s * SHARE_OF_INTERVAL},
    }
