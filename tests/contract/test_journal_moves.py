"""Moves in the journal: a VM keeps its owner while it is moved, and nothing is done for a move that is none any more.

On the real store and on its twin.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.errors import Conflict, StaleToken
from fangnetz.core.model import Destination, VmState
from fangnetz.core.operations import Order, Outcome, StepKind, StepState, vm_move_steps, vm_relocate_steps
from fangnetz.core.units import Generation, Incarnation, Instant, Seconds
from fangnetz.ports import Assign, Claim
from tests.contract.subjects import BOOT, H1, H2, H3, LEASE, OP, WEB, Cluster

THERE = Incarnation("boot-of-h2")
PREPARE, MIGRATE, HAND_OVER, RESUME = (f"{step}/web/1" for step in ("prepare", "migrate", "hand_over", "resume"))


def give(*, expected: int = 7, floor: int = 0, steps: tuple[str, ...] = ()) -> Assign:
    return Assign(
        vm=WEB,
        expected=Generation(expected),
        floor=Generation(floor),
        owner=H2,
        incarnation=THERE,
        reason="h2 has room",
        steps=steps,
        moving=True,
    )


@pytest.fixture
def planned(cluster: Cluster) -> Cluster:
    """web runs on h1 at generation 7, and a plan has just settled that it moves to h2."""
    cluster.vm(generation=7)
    cluster.open()
    claim = cluster.claim("plan/1")
    to = Destination(host=H2, incarnation=THERE, generation=Generation(0))
    leaves = replace(cluster.order(generation=7), to=to)
    arrives = replace(cluster.order(generation=0), host=H2, incarnation=THERE)
    steps = vm_move_steps(leaves, arrives, attempt=1, after="plan/1")
    outcome = Outcome(state=StepState.DONE, sentence="h2", adds=steps)
    cluster.store.settle(claim, outcome, [give(steps=tuple(step.key for step in steps))], 0)
    return cluster


def order_of(cluster: Cluster, key: str) -> Order:
    found = cluster.step(key).order
    assert found is not None
    return found


def test_a_planned_move_leaves_the_vm_to_its_owner_and_numbers_the_copy_that_arrives(planned: Cluster) -> None:
    record = planned.record()
    assert (record.owner, record.generation, record.state) == (H1, 7, VmState.MOVING)
    assert record.moving is not None
    number = record.moving.generation
    assert (record.moving.host, record.moving.incarnation) == (H2, THERE)
    assert number > 7
    assert (order_of(planned, MIGRATE).generation, order_of(planned, MIGRATE).to) == (7, record.moving)
    assert [order_of(planned, key).generation for key in (PREPARE, RESUME)] == [number, number]
    assert planned.store.view({}, None).placements == 1


def test_the_number_of_a_copy_that_arrives_is_higher_than_any_reported(cluster: Cluster) -> None:
    cluster.vm(generation=7)
    cluster.open()
    floor = 4_000_000_000_000_000
    cluster.store.settle(cluster.claim("plan/1"), Outcome(state=StepState.DONE, sentence=""), [give(floor=floor)], 0)
    moving = cluster.record().moving
    assert moving is not None
    assert moving.generation == floor + 1


def test_a_vm_that_has_moved_on_is_not_moved(cluster: Cluster) -> None:
    cluster.vm(generation=8)
    cluster.open()
    with pytest.raises(Conflict):
        cluster.store.settle(cluster.claim("plan/1"), Outcome(state=StepState.DONE, sentence=""), [give()], 0)
    assert cluster.record().moving is None


def test_a_record_reads_back_with_its_destination_and_without(planned: Cluster) -> None:
    record = planned.record()
    assert planned.store.put_vm(replace(record, moving=None), Generation(7), planned.epoch)
    assert planned.record().moving is None
    assert planned.store.put_vm(record, Generation(7), planned.epoch)
    assert planned.record().moving == record.moving


def done(cluster: Cluster, key: str, boot: str = BOOT) -> None:
    claim = cluster.try_claim(key, boot=boot)
    assert isinstance(claim, Claim)
    cluster.store.settle(claim, Outcome(state=StepState.DONE, sentence="done"))


def test_each_host_carries_out_its_own_part(planned: Cluster) -> None:
    assert planned.refused(PREPARE) == "incarnation"
    done(planned, PREPARE, THERE)
    assert planned.refused(MIGRATE, boot=THERE) == "incarnation"
    done(planned, MIGRATE)
    assert planned.refused(RESUME, boot=THERE) == "generation", "it is not handed over yet"


def handed(cluster: Cluster) -> None:
    record = cluster.record()
    to = record.moving
    assert to is not None
    new = replace(record, owner=to.host, owner_incarnation=to.incarnation, generation=to.generation, moving=None)
    assert cluster.store.put_vm(new, record.generation, cluster.epoch)


def test_what_has_arrived_may_run_once_it_is_handed_over_and_then_nothing_is_sent_any_more(planned: Cluster) -> None:
    handed(planned)
    assert planned.refused(MIGRATE) == "generation"
    assert planned.refused(PREPARE, boot=THERE) == "generation"
    assert isinstance(planned.try_claim(RESUME, boot=THERE), Claim)


@pytest.mark.parametrize("step", [PREPARE, MIGRATE])
@pytest.mark.parametrize("what", ["given up", "moved elsewhere"])
def test_nothing_is_done_for_a_move_that_is_none_any_more(planned: Cluster, step: str, what: str) -> None:
    record = planned.record()
    elsewhere = Destination(host=H3, incarnation=THERE, generation=Generation(10**16))
    changed = replace(record, moving=None if what == "given up" else elsewhere)
    planned.store.put_vm(changed, Generation(7), planned.epoch)
    assert planned.refused(step, boot=THERE if step == PREPARE else BOOT) == "generation"


def test_a_migration_begins_by_its_deadline_and_may_last_beyond_it(cluster: Cluster) -> None:
    to = Destination(host=H2, incarnation=THERE, generation=Generation(9))
    cluster.vm(generation=7)
    cluster.store.put_vm(replace(cluster.record(), moving=to), Generation(7), cluster.epoch)
    soon = replace(cluster.order(generation=7, for_s=0.1), to=to)
    leaves, *_ = (s for s in vm_move_steps(soon, soon, attempt=1, after="") if s.kind is StepKind.MIGRATE)
    cluster.open(replace(leaves, after=()))
    claim = cluster.claim(MIGRATE)
    cluster.subject.pass_time(Seconds(0.15))
    assert cluster.store.renew(claim, LEASE) > Instant(0.0)
    cluster.store.settle(claim, Outcome(state=StepState.READY, sentence="again"))
    assert cluster.refused(MIGRATE) == "deadline"


def test_a_migration_is_not_renewed_once_the_vm_has_moved_on(planned: Cluster) -> None:
    done(planned, PREPARE, THERE)
    claim = planned.claim(MIGRATE)
    planned.store.renew(claim, LEASE)
    handed(planned)
    with pytest.raises(StaleToken):
        planned.store.renew(claim, LEASE)


def test_the_move_of_a_vm_is_known_by_whoever_looks(planned: Cluster) -> None:
    view = planned.store.view({}, None)
    assert view.vm_records[WEB].moving == planned.record().moving
    assert view.operations[OP].step(HAND_OVER) is not None


# --- a relocation: stopped, moved and started --------------------------------------------------------------------


def test_a_host_is_asked_before_a_vm_is_stopped_and_not_once_that_vm_has_moved_on_or_is_being_moved(
    cluster: Cluster,
) -> None:
    cluster.vm(generation=7)
    cluster.open()
    asks = replace(cluster.order(generation=7), host=H2, incarnation=THERE)
    steps = vm_relocate_steps(WEB, cluster.order(generation=7), asks, after="plan/1")
    cluster.store.settle(cluster.claim("plan/1"), Outcome(state=StepState.DONE, sentence="h2", adds=steps))
    assert [(step.key, step.kind) for step in steps] == [
        (PREPARE, StepKind.PREPARE), ("stop/web/1", StepKind.STOP), ("plan/2", StepKind.PLAN)
    ]  # fmt: skip
    record = cluster.record()
    going = Destination(host=H2, incarnation=THERE, generation=Generation(10**16))
    for changed in (replace(record, generation=Generation(8)), replace(record, moving=going)):
        assert cluster.store.put_vm(changed, record.generation, cluster.epoch)
        assert cluster.refused(PREPARE, boot=THERE) == "generation"
        assert cluster.store.put_vm(record, changed.generation, cluster.epoch)
    assert cluster.refused(PREPARE) == "incarnation"
    done(cluster, PREPARE, THERE)
    assert cluster.refused("stop/web/1", boot=THERE) == "incarnation"
    done(cluster, "stop/web/1")
    assert isinstance(cluster.try_claim("plan/2"), Claim)
