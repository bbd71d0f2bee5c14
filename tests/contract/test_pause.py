"""While the cluster is paused no step begins and no effect is sent; what had begun is read, written down and ended."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from fangnetz.core.errors import Paused
from fangnetz.core.model import Destination, PauseDoc
from fangnetz.core.operations import AT_A_HOST, Outcome, Step, StepKind, StepState
from fangnetz.core.pause import GOES_ON, may_be_claimed
from fangnetz.core.units import Generation, Instant
from fangnetz.ports import PAUSE_KEY, Claim, LedgerEntry
from tests.contract.subjects import BOOT, H1, LEASE, Cluster

START = "start/web/1"
OVER = Outcome(state=StepState.READY, sentence="libvirt gave no answer")


def write(cluster: Cluster, body: str) -> None:
    now = cluster.store.now()
    cluster.store.put_ledger([LedgerEntry(key=PAUSE_KEY, version=int(now * 1_000_000) + 1, body=body)])


def pause(cluster: Cluster, *, on: bool = True, until: float | None = None) -> None:
    doc = PauseDoc(on=on, by="ada", since=cluster.store.now(), until=None if until is None else Instant(until))
    write(cluster, TypeAdapter(PauseDoc).dump_json(doc).decode())


@pytest.fixture
def ordered(cluster: Cluster) -> Cluster:
    cluster.vm(generation=7)
    cluster.open(cluster.start_step())
    return cluster


def test_no_step_is_claimed_in_a_pause_and_after_it_every_one_is(ordered: Cluster) -> None:
    pause(ordered)
    assert ordered.refused(START) == "paused"
    pause(ordered, on=False)
    assert ordered.claim(START).step.attempt == 1


def test_a_pause_ends_at_its_instant_by_the_stores_clock(ordered: Cluster) -> None:
    pause(ordered, until=ordered.store.now() + 3600)
    assert ordered.refused(START) == "paused"
    pause(ordered, until=ordered.store.now() - 1)
    assert ordered.claim(START)


def test_a_tombstone_is_no_pause(ordered: Cluster) -> None:
    write(ordered, "")
    assert ordered.claim(START)


@pytest.mark.parametrize("kind", list(StepKind))
def test_what_may_be_claimed_is_what_core_says(cluster: Cluster, kind: StepKind) -> None:
    there = Destination(host=H1, incarnation=BOOT, generation=Generation(7))
    made = cluster.vm(generation=7)
    assert cluster.store.put_vm(replace(made, moving=there), made.generation, cluster.epoch)
    step = Step(key="a", kind=kind, order=replace(cluster.order(), to=there) if kind in AT_A_HOST else None)
    cluster.open(step)
    pause(cluster)
    if may_be_claimed(step):
        assert isinstance(cluster.try_claim("a"), Claim)
    else:
        assert cluster.refused("a") == "paused"


def test_a_step_whose_executor_died_is_taken_over_in_a_pause(ordered: Cluster) -> None:
    ordered.claim(START, token="dead", lease=0.02)
    pause(ordered)
    ordered.subject.pass_time(LEASE)
    assert ordered.claim(START, token="next").step.attempt == 2


def test_an_order_that_was_begun_once_is_asked_about_in_a_pause(ordered: Cluster) -> None:
    ordered.store.settle(ordered.claim(START), OVER)
    pause(ordered)
    assert ordered.claim(START, token="again").step.attempt == 2


def test_a_fence_that_was_given_back_does_not_begin_again_in_a_pause(cluster: Cluster) -> None:
    cluster.open(Step(key="fence", kind=StepKind.FENCE))
    cluster.store.settle(cluster.claim("fence"), OVER)
    pause(cluster)
    assert cluster.refused("fence") == "paused"


def test_a_lease_is_kept_in_a_pause_and_no_effect_begins_under_it(ordered: Cluster) -> None:
    claim = ordered.claim(START)
    pause(ordered)
    assert ordered.store.renew(claim, LEASE) > claim.now
    with pytest.raises(Paused):
        ordered.store.renew(claim, LEASE, begins=True)
    pause(ordered, on=False)
    assert ordered.store.renew(claim, LEASE, begins=True)


@pytest.mark.parametrize("kind", sorted(GOES_ON - AT_A_HOST))
def test_what_brings_something_to_its_end_may_have_its_effect(cluster: Cluster, kind: StepKind) -> None:
    cluster.open(Step(key="a", kind=kind))
    pause(cluster)
    claim = cluster.try_claim("a")
    assert isinstance(claim, Claim)
    assert cluster.store.renew(claim, LEASE, begins=True)


def test_a_pause_is_seen_in_the_view(cluster: Cluster) -> None:
    assert cluster.store.view({}, None).paused is None
    pause(cluster)
    seen = cluster.store.view({}, None).paused
    assert seen is not None
    assert (seen.by, seen.until) == ("ada", None)
    pause(cluster, on=False)
    after = cluster.store.view({}, None)
    assert (after.paused, after.pause is not None) == (None, True)
