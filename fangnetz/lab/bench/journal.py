"""What the journal costs a step: its claim, one renewal and its outcome, on the lab's own Redis over its network.

Runs in a bare lab, where no controller would take what it writes for work. Never leaves an open operation.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from fangnetz import wiring
from fangnetz.core.operations import Operation, OperationKind, OperationState, Outcome, Step, StepKind, StepState
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, Epoch, Incarnation, OperationId, Seconds
from fangnetz.lab.bench.machine_load import MachineLoad, machine_load
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.ports import Claim, Store
from fangnetz.settings import load_settings

STEPS = 300
IN_CHARGE_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalCost:
    """Medians over `steps` steps, in microseconds; `step_us` is the median of all three together."""

    steps: int
    claim_us: float
    renew_us: float
    settle_us: float
    step_us: float
    load: MachineLoad


def journal_cost(lab: Lab, steps: int = STEPS) -> JournalCost:
    """Write so many steps into the journal and take the time. The lab must be a bare one."""
    settings = load_settings(lab.config_path, "controller")
    store = wiring.open_store(settings, name="bench", user="controller")
    me, lease = ControllerId(lab.plan.controllers[0]), settings.policy.step_lease_s
    epoch = _take_charge(store, me, settings.policy)
    spans: list[tuple[float, float, float]] = []
    for number in range(steps):
        store.take_lease(me, settings.policy.control_lease_s)
        spans.append(_one(store, _open(store, number, epoch), lease))
    store.drop_lease(me)
    return JournalCost(
        steps=steps,
        claim_us=_median(span[0] for span in spans),
        renew_us=_median(span[1] for span in spans),
        settle_us=_median(span[2] for span in spans),
        step_us=_median(sum(span) for span in spans),
        load=machine_load(lab.name),
    )


def _one(store: Store, identity: OperationId, lease: Seconds) -> tuple[float, float, float]:
    """Return the seconds that claim, renewal and outcome took."""
    at = [time.perf_counter()]
    claim = store.claim(
        identity, "plan/1", token=uuid.uuid4().hex, executor="bench", incarnation=Incarnation(""), lease=lease
    )
    if not isinstance(claim, Claim):
        raise LabError(f"the journal did not grant a step: {claim.sentence}")
    at.append(time.perf_counter())
    store.renew(claim, lease)
    at.append(time.perf_counter())
    store.settle(claim, Outcome(state=StepState.DONE, sentence="measured", closes=OperationState.DONE))
    at.append(time.perf_counter())
    return at[1] - at[0], at[2] - at[1], at[3] - at[2]


def _take_charge(store: Store, me: ControllerId, policy: Policy) -> Epoch:
    """Become the one whose epoch counts; a store that has just begun its life makes everybody wait for a lease."""
    until = time.monotonic() + IN_CHARGE_WITHIN_S
    while True:
        store.meet()
        lease = store.take_lease(me, policy.control_lease_s)
        if lease is not None:
            return lease.epoch
        if time.monotonic() > until:
            raise LabError(f"the control lease could not be taken within {IN_CHARGE_WITHIN_S:g} s")
        time.sleep(0.1)


def _open(store: Store, number: int, epoch: Epoch) -> OperationId:
    identity = OperationId(f"bench-{number}-{uuid.uuid4().hex[:8]}")
    operation = Operation(
        id=identity,
        kind=OperationKind.START,
        subject=f"bench-{number}",
        epoch=epoch,
        opened_at=store.now(),
        reason="measured",
        steps=(Step(key="plan/1", kind=StepKind.PLAN),),
    )
    if not store.open_operation(operation):
        raise LabError(f"{identity} could not be opened")
    return identity


def _median(seconds: Iterable[float]) -> float:
    return round(statistics.median(seconds) * 1_000_000, 1)
