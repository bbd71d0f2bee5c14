"""A store with a replica: what an effect rests on is confirmed; a promoted replica that missed a write does no harm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest

from fangnetz.adapters.redis import RedisStore
from fangnetz.adapters.redis.scripts import NotConfirmed, Scripts
from fangnetz.core.errors import StaleToken, StoreUnreachable
from fangnetz.core.operations import Order, Outcome, Step, StepKind, StepState, vm_start_steps
from fangnetz.core.units import Epoch, Generation, Instant, Seconds
from fangnetz.ports import Assign, Claim, NotClaimed
from tests.contract.subjects import BOOT, C1, C2, H1, H2, LEASE, OP, WEB, Cluster, RedisSubject
from tests.core.world import beat, host_record, spec
from tests.redis_server import RedisServer, wait_for

FENCE = Step(key="fence", kind=StepKind.FENCE)
TTL = Seconds(0.3)


@pytest.fixture
def pair(own_redis: RedisServer) -> Iterator[tuple[RedisServer, RedisServer]]:
    replica = RedisServer(replica_of=own_redis)
    try:
        assert wait_for(replica.is_linked)
        yield own_redis, replica
    finally:
        replica.kill()


def store_on(server: RedisServer) -> RedisStore:
    return RedisStore(server.client(), "test", replicas_min=1)


class Replicated(RedisSubject):
    def another(self) -> RedisStore:
        return store_on(self._server)


@pytest.fixture
def cluster(pair: tuple[RedisServer, RedisServer]) -> Cluster:
    return Cluster(Replicated(pair[0]))


def test_a_claim_is_granted_once_a_replica_has_it(cluster: Cluster, pair: tuple[RedisServer, RedisServer]) -> None:
    cluster.open(FENCE)
    claim = cluster.claim("fence")
    cluster.store.renew(claim, LEASE)
    found = store_on(pair[1]).operation(OP)
    step = found.step("fence") if found else None
    assert step is not None
    assert step.token == claim.token, "it is there, without waiting for it"


def test_nothing_an_effect_rests_on_counts_as_written_while_no_replica_confirms_it(
    cluster: Cluster, pair: tuple[RedisServer, RedisServer]
) -> None:
    cluster.open(FENCE, FENCE2)
    claim = cluster.claim("fence")
    pair[1].freeze()
    try:
        with pytest.raises(StoreUnreachable, match="replicas"):
            cluster.store.renew(claim, LEASE)
        with pytest.raises(StoreUnreachable, match="replicas"):
            cluster.try_claim("fence2")
        with pytest.raises(StoreUnreachable, match="replicas"):
            cluster.store.take_lease(C1, Seconds(3600))
    finally:
        pair[1].thaw()
    assert wait_for(lambda: _renews(cluster, claim))


FENCE2 = Step(key="fence2", kind=StepKind.FENCE)


def _renews(cluster: Cluster, claim: Claim) -> bool:
    with contextlib.suppress(StoreUnreachable):
        cluster.store.renew(claim, LEASE)
        return True
    return False


def unconfirmed(cluster: Cluster, replica: RedisServer, token: str) -> None:
    """A claim that no replica confirmed."""
    replica.freeze()
    try:
        with pytest.raises(StoreUnreachable, match="replicas"):
            cluster.try_claim("fence", token=token)
    finally:
        replica.thaw()


def confirmed(cluster: Cluster, token: str, lease: float = LEASE) -> Claim:
    """A claim, once replicas keep up again."""
    got: list[Claim] = []

    def claimed() -> bool:
        with contextlib.suppress(StoreUnreachable):
            answer = cluster.try_claim("fence", token=token, lease=lease)
            got.extend([answer] if isinstance(answer, Claim) else [])
        return bool(got)

    assert wait_for(claimed)
    return got[0]


def test_a_claim_that_nobody_was_granted_is_no_attempt(cluster: Cluster, pair: tuple[RedisServer, RedisServer]) -> None:
    cluster.open(FENCE)
    for token in ("t1", "t2", "t3"):
        unconfirmed(cluster, pair[1], token)
        assert cluster.step("fence") == FENCE, "as if nobody had asked, so no lease is waited out either"
    assert confirmed(cluster, "t4").step.attempt == 1


def test_an_attempt_that_may_have_had_an_effect_stays_counted(
    cluster: Cluster, pair: tuple[RedisServer, RedisServer]
) -> None:
    cluster.open(FENCE)
    lost = confirmed(cluster, "lost", lease=0.02)
    assert wait_for(lambda: cluster.store.now() > lost.until)
    unconfirmed(cluster, pair[1], "t2")
    step = cluster.step("fence")
    assert (step.state, step.attempt) == (StepState.RUNNING, 1), "its executor may still be at it"
    assert step.claimed_at >= lost.now, "and from then on others reckon how long"
    with pytest.raises(StaleToken):
        cluster.store.renew(lost, LEASE)
    assert confirmed(cluster, "t3").step.attempt == 2


def test_a_claim_is_not_taken_back_from_whoever_claimed_after_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.open(FENCE)
    call = Scripts.confirmed

    def slow(self: Scripts, name: str, keys: Sequence[str], args: Sequence[str]) -> object:
        monkeypatch.undo()
        answer = call(self, name, keys, [*args[:-1], "1"])
        cluster.claim("fence", token="next")
        raise NotConfirmed("its replicas answer too late", answer)

    monkeypatch.setattr(Scripts, "confirmed", slow)
    with pytest.raises(StoreUnreachable):
        cluster.try_claim("fence", token="slow")
    step = cluster.step("fence")
    assert (step.token, step.attempt) == ("next", 2)


def test_a_promoted_replica_that_missed_the_last_writes_gives_out_no_number_twice_and_grants_nothing(
    cluster: Cluster, pair: tuple[RedisServer, RedisServer]
) -> None:
    master, replica = pair
    cluster.open(FENCE)
    assert wait_for(lambda: store_on(replica).operation(OP) is not None)
    before = cluster.epoch
    replica.promote()  # while the old master still takes writes: a network split in two
    cluster.store.drop_lease(C1)
    lost: list[Epoch] = []
    with pytest.raises(StoreUnreachable):
        cluster.store.take_lease(C2, Seconds(3600))  # written by the master alone: never confirmed
    lost.append(Epoch(int(str(master.client().hget("fn:{test}:lease", "epoch")))))
    master.kill()

    after = RedisStore(replica.client(), "test")
    assert after.view({}, C1).lease is not None, "it believes that c1 is in charge, as before the last write"
    refused = after.claim(OP, "fence", token="t", executor="e", incarnation=BOOT, lease=LEASE)
    assert not isinstance(refused, Claim)
    assert refused.code == "life", "nobody has met this memory yet"
    with pytest.raises(StaleToken):
        after.put_host(host_record("h1"), None, before)
    assert after.take_lease(C1, TTL) is None

    old = cluster.life
    new = after.meet()
    assert new.incarnation != old.incarnation
    assert after.take_lease(C1, TTL) is None, "the lease rests for one ttl"
    taken: list[Epoch] = []

    def take() -> bool:
        lease = after.take_lease(C2, TTL)
        taken.extend([lease.epoch] if lease else [])
        return lease is not None

    assert wait_for(take)
    assert taken[0] > max(before, *lost)


def plan_web(store: RedisStore, claim: Claim, expected: int) -> Generation:
    """Settle a plan that gives web to h2; return the generation of the order it made."""
    order = Order(
        vm=WEB,
        host=H2,
        incarnation=BOOT,
        generation=Generation(expected),
        life=store.meet().incarnation,
        deadline=Instant(store.now() + 60),
    )
    pair = vm_start_steps(order, attempt=1, after="plan/1")
    give = Assign(
        vm=WEB,
        expected=Generation(expected),
        floor=Generation(0),
        owner=H2,
        incarnation=BOOT,
        reason="h2 has room",
        steps=tuple(step.key for step in pair),
    )
    outcome = Outcome(state=StepState.DONE, sentence="web to h2", adds=pair)
    step = store.settle(claim, outcome, [give], store.view({}, None).placements).step(START)
    assert step is not None
    assert step.order is not None
    return step.order.generation


START = "start/web/1"


def test_an_assignment_that_is_lost_with_the_master_is_never_carried_out_and_its_number_not_given_again(
    cluster: Cluster, pair: tuple[RedisServer, RedisServer]
) -> None:
    master, replica = pair
    store = cluster.subject.another()
    assert isinstance(store, RedisStore)
    cluster.vm(generation=7)
    cluster.open()
    claim = cluster.claim("plan/1", lease=1.0)  # a replica has this claim, and nothing after it
    replica.promote()
    lost = plan_web(store, claim, 7)
    assert lost > 7
    assert cluster.record().owner == H2, "the old master believes it"
    for executor in ("worker", "again"):  # whoever would carry it out asks right before, and a replica has to have it
        with pytest.raises(StoreUnreachable, match="0 of 1 replicas"):
            cluster.try_claim(START, token=executor)
    master.kill()

    after = RedisStore(replica.client(), "test")
    record = after.view({}, None).vm_records[WEB]
    assert (record.owner, record.generation) == (H1, 7), "the heir never heard of it"
    late = after.claim(OP, START, token="late", executor="worker", incarnation=BOOT, lease=LEASE)
    assert isinstance(late, NotClaimed)
    assert late.code == "gone", "nobody can take up the lost order"
    after.meet()
    taken: list[Epoch] = []

    def take() -> bool:
        lease = after.take_lease(C2, TTL)
        taken.extend([lease.epoch] if lease else [])
        return lease is not None

    assert not take(), "the lease rests for one ttl"
    assert wait_for(take)
    after.take_lease(C2, Seconds(3600))
    after.adopt_operation(OP, taken[0])
    claimed: list[Claim] = []

    def reclaim() -> bool:
        found = after.claim(OP, "plan/1", token="heir", executor="c2", incarnation=BOOT, lease=LEASE)
        claimed.extend([found] if isinstance(found, Claim) else [])
        return bool(claimed)

    assert wait_for(reclaim), "the lost executor's lease ends, and its plan is made anew"
    again = plan_web(after, claimed[0], 7)
    assert again > lost, "a number that may have been seen is never given twice"


def test_what_was_heard_by_the_old_master_was_not_heard_by_the_new_one_whatever_its_clock_says(
    cluster: Cluster, pair: tuple[RedisServer, RedisServer]
) -> None:
    """Its clock may be slower: then the old one's instants lie in its future."""
    master, replica = pair
    master.client().hset("fn:{test}:clock", "ahead", str(3_600_000_000))  # an hour ahead of the other machine
    heard_at = cluster.store.put_heartbeat(beat("h1", 1.0))
    assert wait_for(lambda: store_on(replica).view({H1: spec("h1")}, None).heartbeats)
    master.kill()
    replica.promote()
    after = RedisStore(replica.client(), "test")
    replica.client().hset("fn:{test}:clock", "ahead", "0")
    life = after.meet()
    assert life.since > heard_at
    assert after.put_heartbeat(beat("h1", 2.0)) >= life.since
