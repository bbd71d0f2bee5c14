"""One thin task per workflow step. Safe late, twice and at once: the journal admits or refuses, the engine acts."""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from celery import Task, shared_task

from fangnetz.core.operations import StepKind
from fangnetz.engine.execute import Done, Next
from tasks.later import later
from tasks.names import step_task
from tasks.progress import shown
from tasks.runtime import carry_out

log = structlog.get_logger(__name__)
RETRY_MAX_S = 5.0
"""A longer wait is left to the sweep: nothing is kept in a worker's memory for long."""


def follow(task: Task[Any, Any], done: Done) -> str:
    """Let the chain go on, come back later, or end here, as the engine says."""
    log.info("step", task=task.name, args=task.request.args, next=done.next.value, sentence=done.sentence)
    if done.next is Next.AGAIN and done.wait_s <= RETRY_MAX_S:
        again = task.signature_from_request(task.request)  # with the rest of its chain
        later(done.wait_s, partial(again.apply_async, retry=False))
    if done.next is not Next.GO_ON:
        task.request.chain = None
    return done.sentence


def _step(kind: StepKind) -> Any:
    @shared_task(bind=True, name=step_task(kind), ignore_result=True)
    def run(self: Task[Any, Any], operation: str, step: str) -> str:
        return follow(self, carry_out(operation, step, kind, shown(self)))

    return run


confirm_loss = _step(StepKind.CONFIRM)
fence_host = _step(StepKind.FENCE)
prove_off = _step(StepKind.PROVE)
plan_recovery = _step(StepKind.PLAN)
start_vm = _step(StepKind.START)
see_running = _step(StepKind.SEE_RUNNING)
stop_vm = _step(StepKind.STOP)
pause_vm = _step(StepKind.PAUSE)
plan_move = _step(StepKind.PLAN_MOVE)
prepare_vm = _step(StepKind.PREPARE)
migrate_vm = _step(StepKind.MIGRATE)
hand_over_vm = _step(StepKind.HAND_OVER)
resume_vm = _step(StepKind.RESUME)
power_on_host = _step(StepKind.POWER_ON)
close_operation = _step(StepKind.CLOSE)
