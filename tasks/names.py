"""Task names and queues: what travels through Redis, independent of import paths."""

from __future__ import annotations

from fangnetz.core.operations import QUEUE_FENCE, QUEUE_WORK, StepKind, host_queue

TICK = "fangnetz.tick"
SWEEP = "fangnetz.sweep"
PROBE = "fangnetz.probe_hosts"
READ_POWER = "fangnetz.read_power"
QUEUE_PROBE = "probe"
"""Questions to fence devices: any controller's work process may ask them."""


def step_task(kind: StepKind) -> str:
    """Return the name of the task that carries out steps of this kind."""
    return f"fangnetz.{kind.value}"


def control_queue(controller: str) -> str:
    """Return the queue only that controller's control process reads."""
    return f"control.{controller}"


def probe_queue(controller: str) -> str:
    """Return the queue of that controller's own probe rounds: what its beat asks for, its work process does."""
    return f"probe.{controller}"


__all__ = [
    "PROBE",
    "QUEUE_FENCE",
    "QUEUE_PROBE",
    "QUEUE_WORK",
    "READ_POWER",
    "SWEEP",
    "TICK",
    "control_queue",
    "host_queue",
    "probe_queue",
    "step_task",
]
