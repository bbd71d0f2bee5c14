"""One look at Redis takes several questions, and others go on between any two of them: what it shows holds together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fangnetz.adapters.redis import client, journal, view
from fangnetz.core.model import ClusterView, Destination, HostSpec, VmState
from fangnetz.core.operations import (
    OperationState,
    Outcome,
    Step,
    StepState,
    ready_steps,
    start_steps,
    vm_move_steps,
    vm_start_steps,
)
from fangnetz.core.units import Generation, Incarnation
from fangnetz.engine.tick import void_order
from fangnetz.ports import Assign, Claim
from tests.contract.subjects import BOOT, C1, H1, H2, OP, WEB, Cluster
from tests.core.world import beat

HOSTS = {host: HostSpec(id=host, cpus=1, memory_mib=64) for host in (H1, H2)}
QUESTIONS = 5
"""Of one look at a store that has an open operation; the last one is seen to be the last."""
THERE, ANEW = Incarnation("boot-of-h2"), Incarnation("h2 booted anew")
before_each_question = pytest.mark.parametrize("question", range(QUESTIONS))


@pytest.fixture
def looked(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], ClusterView]:
    """Looks once, while somebody else does something right before one of its questions."""

    def look(question: int, meanwhile: Callable[[], object]) -> ClusterView:
        asked = 0

        def answers(pipe: Any) -> list[Any]:
            nonlocal asked
            asked += 1
            if asked == question + 1:
                meanwhile()
            return client.answers(pipe)

        with monkeypatch.context() as patch:
            patch.setattr(view, "answers", answers)
            patch.setattr(journal, "answers", answers)
            found = cluster.store.view(HOSTS, C1)
        assert asked >= min(question + 1, QUESTIONS), "a question is left out"
        return found

    return look


def settled(cluster: Cluster, key: str, boot: str = BOOT) -> None:
    claim = cluster.try_claim(key, boot=boot)
    assert isinstance(claim, Claim), claim
    cluster.store.settle(claim, Outcome(state=StepState.DONE, sentence="done"))


def planned(cluster: Cluster, steps: tuple[Step, ...], boot: Incarnation, *, moving: bool = False) -> None:
    """Settle the plan: web is given to that boot of h2, by these steps."""
    give = Assign(
        vm=WEB, expected=Generation(7), floor=Generation(0), owner=H2, incarnation=boot, reason="h2 has room",
        steps=tuple(step.key for step in steps), moving=moving,
    )  # fmt: skip
    outcome = Outcome(state=StepState.DONE, sentence="h2", adds=steps)
    cluster.store.settle(cluster.claim("plan/1"), outcome, [give], 0)


@pytest.fixture
def sent(cluster: Cluster) -> Cluster:
    """web has left h1 for h2, and is to be handed over."""
    cluster.vm(generation=7)
    cluster.open(*start_steps())
    to = Destination(host=H2, incarnation=THERE, generation=Generation(0))
    leaves = replace(cluster.order(generation=7), to=to)
    arrives = replace(cluster.order(generation=0), host=H2, incarnation=THERE)
    planned(cluster, vm_move_steps(leaves, arrives, attempt=1, after="plan/1"), THERE, moving=True)
    settled(cluster, "prepare/web/1", THERE)
    settled(cluster, "migrate/web/1")
    return cluster


def hand_over(cluster: Cluster) -> None:
    record = cluster.record()
    assert record.moving is not None
    new = replace(
        record,
        owner=H2,
        owner_incarnation=THERE,
        generation=record.moving.generation,
        state=VmState.MOVING,
        moving=None,
    )
    assert cluster.store.put_vm(new, record.generation, cluster.epoch)
    settled(cluster, "hand_over/web/1")


@before_each_question
def test_a_vm_handed_over_meanwhile_is_not_one_that_has_moved_on(
    sent: Cluster, looked: Callable[[int, Callable[[], object]], ClusterView], question: int
) -> None:
    found = looked(question, lambda: hand_over(sent))
    (operation,) = found.operations.values()
    assert [void_order(step, found) for step in ready_steps(operation)] == [""]


@before_each_question
def test_a_move_over_meanwhile_is_not_one_that_nobody_carries(
    sent: Cluster, looked: Callable[[int, Callable[[], object]], ClusterView], question: int
) -> None:
    def ended() -> None:
        hand_over(sent)
        settled(sent, "resume/web/1", THERE)
        sent.store.end_operation(OP, OperationState.DONE, "done", sent.epoch)
        assert not sent.store.view(HOSTS, None).operations

    found = looked(question, ended)
    assert found.operations or found.vm_records[WEB].moving is None


@before_each_question
def test_a_start_ordered_meanwhile_to_a_host_just_booted_is_not_one_to_a_boot_that_is_gone(
    cluster: Cluster, looked: Callable[[int, Callable[[], object]], ClusterView], question: int
) -> None:
    cluster.vm(generation=7)
    cluster.open(*start_steps())
    cluster.store.put_heartbeat(beat(H2, 1.0, boot=THERE))

    def booted_and_ordered() -> None:
        cluster.store.put_heartbeat(beat(H2, 2.0, boot=ANEW))
        order = replace(cluster.order(generation=0), host=H2, incarnation=ANEW)
        planned(cluster, vm_start_steps(order, attempt=1, after="plan/1"), ANEW)

    found = looked(question, booted_and_ordered)
    (operation,) = found.operations.values()
    assert [void_order(step, found) for step in ready_steps(operation)] == [""]


@before_each_question
def test_operations_of_a_life_that_is_over_are_not_shown_in_the_next(
    sent: Cluster, looked: Callable[[int, Callable[[], object]], ClusterView], question: int
) -> None:
    before = sent.life.incarnation

    def wiped() -> None:
        sent.subject.wipe()
        sent.store.meet()

    found = looked(question, wiped)
    assert found.life.incarnation == before or not found.operations


def test_no_question_is_asked_after_these(
    sent: Cluster, looked: Callable[[int, Callable[[], object]], ClusterView]
) -> None:
    def never() -> None:
        raise AssertionError("one more question: let something happen before it too")

    assert OP in looked(QUESTIONS, never).operations
