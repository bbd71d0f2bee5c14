"""Claims: one executor a step, under a lease that ends by itself, and only while all that its order says holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fangnetz.core.convergence import Progress
from fangnetz.core.errors import StaleToken
from fangnetz.core.operations import OperationKind, OperationState, Outcome, Step, StepKind, StepState, failover_steps
from fangnetz.core.units import ControllerId, Generation, HostId, Incarnation, OperationId, Seconds, StoreIncarnation
from fangnetz.ports import Claim, NotClaimed
from tests.contract.subjects import BOOT, C2, H1, H2, LEASE, OP, WEB, Cluster

START = "start/web/1"
DONE = Outcome(state=StepState.DONE, sentence="done")


@pytest.fixture
def ordered(cluster: Cluster) -> Cluster:
    """A VM at generation 7 given to h1, and an operation whose only step starts it there."""
    cluster.vm(generation=7)
    cluster.open(cluster.start_step())
    return cluster


# --- opening -----------------------------------------------------------------------------------------------------


def test_an_operation_reads_back_as_it_was_opened(cluster: Cluster) -> None:
    order = replace(cluster.order(), force=True)
    steps = (*failover_steps(), replace(cluster.start_step(order), after=("plan/1",), facts={"a": 1, "b": None}))
    made = replace(
        cluster.operation(*steps, kind=OperationKind.FAILOVER, subject=H1),
        incarnation=Incarnation("i1"), incident=OP, forced_by="ada", target=H2,
        suspected_at=cluster.store.now(), last_heard_at=cluster.store.now(),
    )  # fmt: skip
    assert cluster.store.open_operation(made)
    found = cluster.store.operation(OP)
    assert found is not None
    deadlines = [(s.key, s.order.deadline) for s in found.steps if s.order]
    assert deadlines == [(START, pytest.approx(order.deadline, abs=1e-5))]
    steps_back = tuple(replace(s, order=order if s.order else None) for s in found.steps)
    assert replace(found, opened_at=made.opened_at, steps=steps_back) == made
    assert made.opened_at <= found.opened_at <= cluster.store.now()
    assert cluster.store.view({}, None).operations == {OP: found}


def test_one_operation_of_a_kind_and_subject_is_open_at_a_time(cluster: Cluster) -> None:
    assert cluster.store.open_operation(cluster.operation(identity="op-1"))
    assert not cluster.store.open_operation(cluster.operation(identity="op-2"))
    assert cluster.store.operation(OperationId("op-2")) is None
    assert cluster.store.open_operation(cluster.operation(identity="op-3", subject="db"))
    assert cluster.store.open_operation(cluster.operation(identity="op-4", kind=OperationKind.STOP))
    cluster.store.end_operation(OperationId("op-1"), OperationState.DONE, "done", cluster.epoch)
    assert cluster.store.open_operation(cluster.operation(identity="op-5"))


def test_whoever_is_in_charge_is_told_whether_anything_is_unfinished(cluster: Cluster) -> None:
    holder = cluster.store.control_lease()
    assert holder is not None
    assert not cluster.store.unfinished(holder.holder)
    assert cluster.store.open_operation(cluster.operation())
    assert cluster.store.unfinished(holder.holder)
    assert not cluster.store.unfinished(ControllerId("another")), "that is not its matter"
    cluster.store.end_operation(OP, OperationState.DONE, "done", cluster.epoch)
    assert not cluster.store.unfinished(holder.holder)


def test_of_many_that_open_the_same_at_once_one_does(cluster: Cluster) -> None:
    stores = [cluster.subject.another() for _ in range(8)]
    made = [cluster.operation(identity=f"op-{n}") for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: stores[n].open_operation(made[n]), range(8)))
    assert done.count(True) == 1
    assert list(cluster.store.view({}, None).operations) == [f"op-{done.index(True)}"]


# --- claiming ----------------------------------------------------------------------------------------------------


def test_a_claim_says_who_does_it_and_until_when(ordered: Cluster) -> None:
    claim = ordered.claim(START, lease=LEASE)
    assert claim.until == pytest.approx(claim.now + LEASE, abs=1e-5)
    step = ordered.step(START)
    assert claim.step == step
    assert (step.state, step.token, step.executor, step.attempt) == (StepState.RUNNING, "t1", "executor of t1", 1)
    assert step.started_at == step.claimed_at == claim.now
    assert step.lease_until == claim.until


def test_of_many_that_claim_at_once_one_is_granted(ordered: Cluster) -> None:
    stores = [ordered.subject.another() for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: ordered.try_claim(START, token=f"t{n}", store=stores[n]), range(12)))
    assert [type(a) for a in answers].count(Claim) == 1
    assert {a.code for a in answers if isinstance(a, NotClaimed)} == {"leased"}
    assert ordered.step(START).attempt == 1


def test_asking_again_with_the_same_token_is_granted_again_and_is_no_new_attempt(ordered: Cluster) -> None:
    first, second = ordered.claim(START), ordered.claim(START)
    assert second.until >= first.until
    assert (second.step.attempt, second.step.claimed_at) == (1, first.now)


def test_a_held_step_tells_how_long_to_wait_and_is_free_when_its_lease_ran_out(ordered: Cluster) -> None:
    ordered.claim(START, lease=0.5)
    answer = ordered.try_claim(START, token="t2")
    assert isinstance(answer, NotClaimed)
    assert (answer.code, 0 < answer.wait_s <= 0.5) == ("leased", True)
    ordered.subject.pass_time(Seconds(0.52))
    second = ordered.claim(START, token="t2")
    assert second.step.attempt == 2
    assert second.step.started_at < second.step.claimed_at


def test_a_step_given_back_is_claimed_again_only_when_it_is_due(ordered: Cluster) -> None:
    again = Outcome(state=StepState.READY, sentence="not yet", retry_after_s=Seconds(0.5))
    ordered.store.settle(ordered.claim(START), again)
    answer = ordered.try_claim(START, token="t2")
    assert isinstance(answer, NotClaimed)
    assert (answer.code, 0 < answer.wait_s <= 0.55) == ("later", True)
    ordered.subject.pass_time(Seconds(0.52))
    assert ordered.claim(START, token="t2").step.attempt == 2


def test_what_the_journal_does_not_hold_cannot_be_claimed(ordered: Cluster) -> None:
    for identity, key in (("no-such", START), (OP, "start/db/1")):
        answer = ordered.try_claim(key, identity=identity)
        assert isinstance(answer, NotClaimed)
        assert answer.code == "gone"


@pytest.mark.parametrize("state", [StepState.DONE, StepState.REFUSED, StepState.FAILED])
def test_a_settled_step_is_not_claimed_again(ordered: Cluster, state: StepState) -> None:
    ordered.store.settle(ordered.claim(START), Outcome(state=state, sentence="over"))
    assert ordered.refused(START) == "settled"


def test_a_skipped_step_is_not_claimed(cluster: Cluster) -> None:
    cluster.open(*failover_steps())
    cluster.store.settle(cluster.claim("confirm"), Outcome(state=StepState.DONE, sentence="", skips=("fence",)))
    assert cluster.refused("fence") == "settled"


def test_a_step_of_a_closed_operation_is_not_claimed(ordered: Cluster) -> None:
    ordered.store.end_operation(OP, OperationState.CANCELLED, "enough", ordered.epoch)
    assert ordered.refused(START) == "closed"


def test_a_step_ordered_under_another_epoch_is_not_claimed(ordered: Cluster) -> None:
    ordered.lead(C2)
    assert ordered.refused(START) == "epoch"


def test_an_order_past_its_deadline_is_not_claimed(cluster: Cluster) -> None:
    cluster.vm()
    cluster.open(cluster.start_step(cluster.order(for_s=0.05)))
    cluster.subject.pass_time(Seconds(0.07))
    assert cluster.refused(START) == "deadline"


def test_an_order_of_another_life_of_the_store_is_not_claimed(cluster: Cluster) -> None:
    cluster.vm()
    cluster.open(cluster.start_step(replace(cluster.order(), life=StoreIncarnation("12345"))))
    assert cluster.refused(START) == "life"


def test_an_order_from_before_the_store_began_a_new_life_is_not_claimed(ordered: Cluster) -> None:
    ordered.subject.begin_new_life()
    ordered.store.meet()
    ordered.subject.age()
    ordered.store.adopt_operation(OP, ordered.lead())
    assert ordered.refused(START) == "life"


def test_nothing_is_claimed_in_a_memory_nobody_has_met(cluster: Cluster) -> None:
    """A replica was promoted a moment ago, or an old copy put back: what it holds may be yesterday's."""
    cluster.open(Step(key="fence", kind=StepKind.FENCE))
    claim = cluster.claim("fence", lease=0.01)
    cluster.subject.begin_new_life()
    cluster.subject.pass_time(Seconds(0.02))
    assert cluster.refused("fence", token="t2") == "life"
    with pytest.raises(StaleToken):
        cluster.store.renew(claim, LEASE)


def test_an_order_meant_for_another_boot_is_not_claimed(ordered: Cluster) -> None:
    assert ordered.refused(START, boot="i2") == "incarnation"
    assert ordered.refused(START, boot="") == "incarnation"


@pytest.mark.parametrize(
    "changed",
    [
        {"generation": Generation(8)},
        {"owner": HostId("h2")},
        {"owner_incarnation": Incarnation("i2")},
        {"owner": None, "owner_incarnation": Incarnation("")},
    ],
)
def test_a_start_is_not_claimed_once_its_vm_has_moved_on(ordered: Cluster, changed: dict[str, object]) -> None:
    ordered.store.put_vm(replace(ordered.record(), **changed), Generation(7), ordered.epoch)
    assert ordered.refused(START) == "generation"


def test_a_start_of_a_vm_without_record_is_not_claimed(ordered: Cluster) -> None:
    ordered.store.forget_vm(WEB, ordered.epoch)
    assert ordered.refused(START) == "generation"


@pytest.mark.parametrize("kind", [StepKind.STOP, StepKind.PAUSE])
def test_an_order_about_an_older_copy_is_claimed_although_the_vm_has_moved_on(cluster: Cluster, kind: StepKind) -> None:
    cluster.vm(generation=9, owner=H2)
    cluster.open(Step(key="one", kind=kind, order=cluster.order(generation=7)))
    cluster.claim("one")


@pytest.mark.parametrize("kind", [StepKind.STOP, StepKind.PAUSE])
@pytest.mark.parametrize("why", ["incarnation", "deadline", "life"])
def test_an_order_about_one_copy_is_checked_like_a_start_but_for_the_generation(
    cluster: Cluster, kind: StepKind, why: str
) -> None:
    order = cluster.order(generation=7, for_s=0.05 if why == "deadline" else 60.0)
    if why == "life":
        order = replace(order, life=StoreIncarnation("12345"))
    cluster.open(Step(key="one", kind=kind, order=order))
    cluster.subject.pass_time(Seconds(0.07 if why == "deadline" else 0.0))
    assert cluster.refused("one", boot="i2" if why == "incarnation" else BOOT) == why


@pytest.mark.parametrize("what", ["the controller", "the operation", "the store"])
def test_a_pause_is_not_renewed_once_what_it_was_granted_for_no_longer_holds(cluster: Cluster, what: str) -> None:
    cluster.vm()
    cluster.open(Step(key="pause/web", kind=StepKind.PAUSE, order=cluster.order(for_s=1.0)))
    claim = cluster.claim("pause/web")
    cluster.store.renew(claim, LEASE)
    match what:
        case "the controller":
            cluster.lead(C2)
        case "the operation":
            cluster.store.end_operation(OP, OperationState.CANCELLED, "enough", cluster.epoch)
        case "the store":
            cluster.subject.begin_new_life()
            cluster.store.meet()
    with pytest.raises(StaleToken):
        cluster.store.renew(claim, LEASE)


def test_a_step_without_an_order_asks_for_no_boot(cluster: Cluster) -> None:
    cluster.open()
    assert isinstance(cluster.try_claim("plan/1", boot=""), Claim)


# --- renewing ----------------------------------------------------------------------------------------------------


def test_renewing_moves_the_leases_end(ordered: Cluster) -> None:
    claim = ordered.claim(START, lease=0.1)
    until = ordered.store.renew(claim, LEASE)
    assert until > claim.until
    assert ordered.step(START).lease_until == until
    ordered.subject.pass_time(Seconds(0.12))
    assert ordered.refused(START) == "leased"


HALF = Progress(
    elapsed_s=Seconds(1.5), total_mib=200.0, sent_mib=120.5, remaining_mib=100.0, speed_mib_s=80.25, dirty_mib_s=2.0,
    rounds=2, downtime_s=Seconds(0.3),
)  # fmt: skip


def test_how_a_step_comes_on_is_written_with_its_lease_and_stays_until_there_is_news(ordered: Cluster) -> None:
    claim = ordered.claim(START)
    assert ordered.step(START).progress is None
    until = ordered.store.renew(claim, LEASE, HALF)
    assert (ordered.step(START).progress, ordered.step(START).lease_until) == (HALF, until)
    ordered.store.renew(claim, LEASE)
    assert ordered.step(START).progress == HALF
    further = replace(HALF, elapsed_s=Seconds(2.5), remaining_mib=10.0)
    ordered.store.renew(claim, LEASE, further)
    ordered.store.settle(claim, DONE)
    assert (ordered.step(START).state, ordered.step(START).progress) == (StepState.DONE, further)


def test_how_a_step_comes_on_changes_nothing_else_of_it(ordered: Cluster) -> None:
    claim = ordered.claim(START)
    before = ordered.step(START)
    until = ordered.store.renew(claim, LEASE, HALF)
    assert ordered.step(START) == replace(before, lease_until=until, progress=HALF)


def test_a_refused_renewal_leaves_no_word_of_how_the_step_comes_on(ordered: Cluster) -> None:
    claim = ordered.claim(START, lease=0.03)
    ordered.subject.pass_time(Seconds(0.05))
    ordered.claim(START, token="t2")
    with pytest.raises(StaleToken):
        ordered.store.renew(claim, LEASE, HALF)
    ordered.lead(C2)
    with pytest.raises(StaleToken):
        ordered.store.renew(claim, LEASE, HALF)
    assert ordered.step(START).progress is None


def test_a_claim_somebody_else_took_over_is_not_renewed(ordered: Cluster) -> None:
    claim = ordered.claim(START, lease=0.03)
    ordered.subject.pass_time(Seconds(0.05))
    until = ordered.claim(START, token="t2").until
    with pytest.raises(StaleToken):
        ordered.store.renew(claim, LEASE)
    assert ordered.step(START).lease_until == until


def test_a_claim_whose_lease_ran_out_is_renewed_while_nobody_else_claimed(ordered: Cluster) -> None:
    claim = ordered.claim(START, lease=0.03)
    ordered.subject.pass_time(Seconds(0.05))
    ordered.store.renew(claim, LEASE)
    assert ordered.refused(START) == "leased"


def test_a_settled_claim_is_not_renewed(ordered: Cluster) -> None:
    claim = ordered.claim(START)
    ordered.store.settle(claim, DONE)
    with pytest.raises(StaleToken):
        ordered.store.renew(claim, LEASE)


@pytest.mark.parametrize("what", ["the VM", "the controller", "the operation", "the store"])
def test_a_claim_is_not_renewed_once_what_it_was_granted_for_no_longer_holds(ordered: Cluster, what: str) -> None:
    claim = ordered.claim(START)
    match what:
        case "the VM":
            ordered.store.put_vm(replace(ordered.record(), generation=Generation(8)), Generation(7), ordered.epoch)
        case "the controller":
            ordered.lead(C2)
        case "the operation":
            ordered.store.end_operation(OP, OperationState.CANCELLED, "enough", ordered.epoch)
        case "the store":
            ordered.subject.begin_new_life()
            ordered.store.meet()
    with pytest.raises(StaleToken):
        ordered.store.renew(claim, LEASE)
    assert ordered.step(START).lease_until == claim.until


def test_a_claim_is_not_renewed_beyond_its_orders_deadline(cluster: Cluster) -> None:
    cluster.vm()
    cluster.open(cluster.start_step(cluster.order(for_s=0.5)))
    claim = cluster.claim(START)
    cluster.store.renew(claim, LEASE)
    cluster.subject.pass_time(Seconds(0.52))
    with pytest.raises(StaleToken):
        cluster.store.renew(claim, LEASE)
