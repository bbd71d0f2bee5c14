"""The control lease: one holder, numbers that never come back, a rest after each new life of the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters.redis import scripts
from fangnetz.core.actions import Alarm
from fangnetz.core.errors import StaleToken
from fangnetz.core.model import ControlLease, VmState, WishKind
from fangnetz.core.operations import OperationState, Outcome, Step, StepKind, StepState, vm_start_steps
from fangnetz.core.units import ControllerId, Epoch, OperationId, Seconds
from fangnetz.ports import WishResult
from tests.contract.subjects import C1, C2, H1, HOUR, OP, WEB, Cluster, StoreSubject
from tests.core.world import host_record, spec, wish

TTL = Seconds(30.0)
HOSTS = {H1: spec("h1")}


@pytest.fixture
def settled(subject: StoreSubject) -> StoreSubject:
    subject.store.meet()
    subject.age()
    return subject


def take(subject: StoreSubject, who: ControllerId = C1, ttl: Seconds = TTL) -> ControlLease:
    lease = subject.store.take_lease(who, ttl)
    assert lease is not None
    return lease


def test_one_holds_the_lease_and_nobody_else_gets_it(settled: StoreSubject) -> None:
    mine = take(settled)
    assert mine.holder == C1
    assert settled.store.take_lease(C2, TTL) is None
    assert settled.store.view({}, C2).lease is None
    assert settled.store.view({}, C1).lease == mine
    assert [settled.store.view({}, who).holder for who in (C1, C2, None)] == [C1, C1, C1], "whoever looks"


def test_of_many_that_ask_at_once_one_gets_it(settled: StoreSubject) -> None:
    stores = [settled.another() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: stores[n].take_lease(ControllerId(f"c{n}"), TTL), range(8)))
    assert sum(answer is not None for answer in answers) == 1


def test_renewing_keeps_the_epoch_and_moves_the_end(settled: StoreSubject) -> None:
    first = take(settled)
    settled.pass_time(Seconds(0.02))
    second = take(settled)
    assert second.epoch == first.epoch
    assert second.until > first.until


def test_a_lease_that_ran_out_comes_back_with_a_new_epoch(settled: StoreSubject) -> None:
    first = take(settled, ttl=Seconds(0.05))
    settled.pass_time(Seconds(0.08))
    assert (settled.store.view({}, C1).lease, settled.store.view({}, None).holder) == (None, None)
    assert take(settled).epoch > first.epoch


def test_a_lease_given_back_is_free_at_once_and_only_its_holder_gives_it_back(settled: StoreSubject) -> None:
    first = take(settled)
    settled.store.drop_lease(C2)
    assert settled.store.take_lease(C2, TTL) is None
    settled.store.drop_lease(C1)
    assert take(settled, C2).epoch > first.epoch


def test_epochs_grow_and_never_come_back_even_when_the_store_forgets_them(settled: StoreSubject) -> None:
    seen: list[Epoch] = []
    for _ in range(5):
        seen.append(take(settled).epoch)
        settled.lose_lease()
        seen.append(take(settled, C2).epoch)
        settled.store.drop_lease(C2)
    assert seen == sorted(set(seen))


def test_a_young_store_gives_its_lease_to_nobody_for_one_ttl(subject: StoreSubject) -> None:
    subject.store.meet()
    assert subject.store.take_lease(C1, Seconds(0.5)) is None
    subject.pass_time(Seconds(0.52))
    assert subject.store.take_lease(C1, Seconds(0.5)) is not None


def test_a_store_nobody_has_met_gives_its_lease_to_nobody(subject: StoreSubject) -> None:
    assert subject.store.take_lease(C1, Seconds(0.0)) is None


def test_a_new_life_takes_the_lease_away_and_rests(settled: StoreSubject) -> None:
    old = settled.store.meet()
    first = take(settled)
    settled.begin_new_life()
    assert settled.store.take_lease(C1, TTL) is None, "the holder may not carry its lease over"
    new = settled.store.meet()
    assert new.incarnation != old.incarnation
    assert new.since > old.since
    assert settled.store.view({}, C1).lease is None
    assert settled.store.take_lease(C1, TTL) is None
    settled.age()
    assert take(settled, C2).epoch > first.epoch


def test_meeting_again_changes_nothing(settled: StoreSubject) -> None:
    assert settled.store.meet() == settled.another().meet()


def test_whoever_is_no_longer_in_charge_is_refused_everywhere(cluster: Cluster) -> None:
    store, old = cluster.store, cluster.epoch
    record, op = cluster.vm(), cluster.open()
    order = vm_start_steps(cluster.order(for_s=0.0), attempt=1, after="plan/1")
    cluster.open(*order, identity="op-late", subject="late")
    asked = wish(WishKind.VM_START, "web")
    store.add_wish(asked)
    claim = cluster.claim("plan/1")
    cluster.lead(C2)
    before = store.view(HOSTS, None)
    for forbidden in (
        lambda: store.put_host(host_record("h1"), None, old),
        lambda: store.put_vm(record, record.generation, old),
        lambda: store.forget_vm(WEB, old),
        lambda: store.open_operation(cluster.operation(identity="op-2", subject="db", epoch=old)),
        lambda: store.adopt_operation(op.id, old),
        lambda: store.end_operation(op.id, OperationState.DONE, "no", old),
        lambda: store.put_alarms([Alarm(kind="k", subject="s", sentence="no")], old),
        lambda: store.mark_vm(WEB, record.generation, VmState.NEEDS_PERSON, "no", old),
        lambda: store.settle_wish(asked, WishResult(id=asked.id, granted=True, sentence="no", operation=None), old),
        lambda: store.renew(claim, HOUR),
        lambda: store.settle(claim, outcome(closes=OperationState.DONE)),
        lambda: store.settle(claim, outcome(adds=(Step(key="more", kind=StepKind.PLAN),))),
        lambda: store.settle(claim, outcome(skips=("close",))),
    ):
        with pytest.raises(StaleToken):
            forbidden()
    assert cluster.refused("close") == "epoch"
    late = before.operations[OperationId("op-late")]
    assert not store.give_up(late, late.steps[0], (), "no")
    after = store.view(HOSTS, None)
    assert (after.vm_records, after.host_records, after.operations) == (
        before.vm_records,
        before.host_records,
        before.operations,
    )
    assert store.alarms() == ()
    assert (after.wishes, store.wish_result(asked.id)) == ((asked,), None)


def outcome(**more: object) -> Outcome:
    return replace(Outcome(state=StepState.DONE, sentence="no"), **more)


def test_every_script_that_writes_asks_for_the_present_epoch_or_says_why_not() -> None:
    for script in sorted((Path(scripts.__file__).parent / "lua").glob("*.lua")):
        text = script.read_text()
        if script.stem not in ("prelude", "guard", "now"):  # parts of others; a question
            asks = "in_charge(" in text or script.stem in scripts.GUARDED
            assert asks != ("-- No epoch: " in text), script.name


def test_what_was_found_out_is_written_late_too_but_the_operation_is_its_new_holders(cluster: Cluster) -> None:
    cluster.open()
    claim = cluster.claim("plan/1")
    new = cluster.lead(C2)
    with pytest.raises(StaleToken):
        cluster.store.settle(claim, outcome(closes=OperationState.DONE))
    assert cluster.step("plan/1").state is StepState.RUNNING
    cluster.store.settle(claim, outcome(facts={"seen": 1}))
    assert (cluster.step("plan/1").state, cluster.step("plan/1").facts) == (StepState.DONE, {"seen": 1})
    cluster.store.adopt_operation(OP, new)
    closed = cluster.store.settle(cluster.claim("close"), outcome(closes=OperationState.DONE))
    assert closed.state is OperationState.DONE


def test_whoever_slept_through_the_end_of_its_lease_opens_nothing_though_nobody_else_has_it(cluster: Cluster) -> None:
    epoch = cluster.lead(ttl=Seconds(0.05))
    cluster.subject.pass_time(Seconds(0.08))
    with pytest.raises(StaleToken):
        cluster.store.open_operation(cluster.operation(epoch=epoch))
    assert cluster.store.view(HOSTS, None).operations == {}
    cluster.epoch = cluster.lead()
    cluster.open()


def test_an_epoch_nobody_ever_had_is_refused(subject: StoreSubject) -> None:
    subject.store.meet()
    with pytest.raises(StaleToken):
        subject.store.put_host(host_record("h1"), None, Epoch(1))


def test_an_adopted_operation_goes_on_under_the_new_epoch(cluster: Cluster) -> None:
    cluster.open()
    new = cluster.lead(C2)
    assert cluster.refused("plan/1") == "epoch"
    cluster.store.adopt_operation(OP, new)
    cluster.claim("plan/1")


def test_a_closed_operation_is_not_adopted(cluster: Cluster) -> None:
    cluster.open()
    cluster.store.end_operation(OP, OperationState.CANCELLED, "enough", cluster.epoch)
    cluster.store.adopt_operation(OP, cluster.lead(C2, HOUR))
    found = cluster.store.operation(OP)
    assert found is not None
    assert (found.epoch, found.state) == (cluster.epoch, OperationState.CANCELLED)
