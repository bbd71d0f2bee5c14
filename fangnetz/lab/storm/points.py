"""Which fault points a storm arms, by the role whose processes pass them. A table and nothing else.

Every stage of every step of a failover, every effect, and the controller's own writes. A point is armed on all
machines of its role: whichever carries the step is hit.
"""

from __future__ import annotations

from collections.abc import Mapping

from fangnetz.core.operations import StepKind
from fangnetz.engine.fault_points import EFFECTS, POINTS, STEP_NAMES, STEP_STAGES

_KINDS: Mapping[str, tuple[StepKind, ...]] = {
    "work": (StepKind.CONFIRM, StepKind.PROVE, StepKind.PLAN, StepKind.SEE_RUNNING, StepKind.CLOSE),
    "fence": (StepKind.FENCE, StepKind.POWER_ON),
    "worker": (StepKind.START,),
}
_WRITES: Mapping[str, tuple[str, ...]] = {
    "work": ("host", "vm", "ledger", "reading", "events"),
    "fence": ("reading",),
    "worker": ("promise", "start_note", "heartbeat"),
    "control": ("life", "lease", "operation", "host", "vm", "ledger", "wish", "watch", "alarms", "step"),
}
ACTIONS = ("kill", "freeze", "hang", "raise")


def points_by_role() -> dict[str, tuple[str, ...]]:
    """Return role -> `POINT:ACTION` words, sorted."""
    found: dict[str, tuple[str, ...]] = {}
    for role in ("control", "work", "fence", "worker"):
        steps = [STEP_NAMES[kind] for kind in _KINDS.get(role, ())]
        points = {f"{step}.{stage}" for step in steps for stage in STEP_STAGES}
        points |= {effect for effect in EFFECTS if effect.partition(".")[0] in steps}
        points |= {point for point in POINTS if point.partition(".")[0] in _WRITES.get(role, ())}
        found[role] = tuple(f"{point}:{action}" for point in sorted(points) for action in ACTIONS)
    return found
