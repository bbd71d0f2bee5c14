"""A store that is gone, hangs, or comes back with another memory: always StoreUnreachable in time, never a value."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from fangnetz.adapters.redis import RedisStore, connect
from fangnetz.core.errors import StaleToken, StoreUnreachable
from fangnetz.core.operations import Outcome, StepState
from fangnetz.core.units import Instant, Seconds
from fangnetz.ports import Claim, NotClaimed
from tests.contract.subjects import C1, H1, LEASE, OP, WEB, Cluster, RedisSubject
from tests.core.world import beat, host_record
from tests.redis_server import RedisServer

BOUND = 0.5
RATIO = 3
"""Twice the bound at most (a broken connection, then a silent one), and room for a busy machine."""


@pytest.fixture
def cluster(own_redis: RedisServer) -> Iterator[Cluster]:
    subject = RedisSubject(own_redis)
    made = Cluster(subject)
    made.store = RedisStore(connect(own_redis.url, name="test", timeout_s=BOUND), "test")
    yield made
    subject.close()


WAITS = ("now", "view", "claim", "settle", "events", "mark_dispatched")


def every_call(cluster: Cluster, claim: Claim) -> dict[str, object]:
    store = cluster.store
    return {
        "now": store.now,
        "meet": store.meet,
        "take_lease": lambda: store.take_lease(C1, Seconds(1.0)),
        "drop_lease": lambda: store.drop_lease(C1),
        "view": lambda: store.view({}, C1),
        "operation": lambda: store.operation(OP),
        "claim": lambda: cluster.try_claim("plan/1"),
        "renew": lambda: store.renew(claim, LEASE),
        "settle": lambda: store.settle(claim, Outcome(state=StepState.DONE, sentence="")),
        "heartbeat": lambda: store.put_heartbeat(beat("h1", 1.0)),
        "put_host": lambda: store.put_host(host_record("h1"), None, cluster.epoch),
        "definition": lambda: store.definition(WEB),
        "ledger": lambda: store.ledger(-1),
        "alarms": store.alarms,
        "roll": store.roll,
        "drop_roll": store.drop_roll,
        "events": lambda: store.events("0-0", 5, Seconds(0.2)),
        "archive": store.archive,
        "mark_dispatched": lambda: store.mark_dispatched(OP, ["plan/1"]),
    }


@pytest.mark.parametrize("way", ["killed", "frozen"])
def test_no_answer_is_an_error_of_ours_within_the_bound(cluster: Cluster, own_redis: RedisServer, way: str) -> None:
    cluster.open()
    claim = cluster.claim("plan/1")
    calls = every_call(cluster, claim)
    (own_redis.kill if way == "killed" else own_redis.freeze)()
    for name, call in calls.items():
        if way == "frozen" and name not in WAITS:
            continue  # the rest goes through the same few ways of asking
        began = time.monotonic()
        with pytest.raises(StoreUnreachable) as said:
            call()  # type: ignore[operator]
        took = time.monotonic() - began
        assert took < RATIO * BOUND, f"{name} hung for {took:.1f} s"
        assert str(own_redis.port) not in str(said.value)


@pytest.mark.parametrize("state", ["fresh", "used", "checked", "broken"])
def test_a_hung_redis_is_given_up_in_the_time_of_two_timeouts_whatever_the_connection_was(
    own_redis: RedisServer, state: str
) -> None:
    """With each retry a new connection is made, whose handshake waits as well: that once made eight seconds of two."""
    client = connect(own_redis.url, name="test", timeout_s=BOUND)
    if state != "fresh":
        client.ping()
        (connection,) = client.connection_pool._available_connections
        if state == "checked":
            connection.next_health_check = 0  # as after five idle seconds: it is asked before it is used
        if state == "broken":
            own_redis.client().client_kill_filter(_type="normal", skipme=True)
    own_redis.freeze()
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        client.get("x")
    assert time.monotonic() - began < RATIO * BOUND


def test_a_connection_that_broke_while_idle_costs_no_call(own_redis: RedisServer) -> None:
    client = connect(own_redis.url, name="test", timeout_s=BOUND)
    client.set("x", "1")
    own_redis.client().client_kill_filter(_type="normal", skipme=True)
    assert client.get("x") == "1"


def test_a_store_that_thaws_works_on_and_late_answers_are_never_taken_for_others(
    cluster: Cluster, own_redis: RedisServer
) -> None:
    cluster.vm()
    own_redis.freeze()
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            cluster.store.definition(WEB)
    own_redis.thaw()
    assert cluster.store.now() > Instant(0)
    assert cluster.record().owner == H1


def test_a_write_nobody_heard_the_answer_of_is_safe_to_ask_for_again(cluster: Cluster, own_redis: RedisServer) -> None:
    cluster.open()
    claim = cluster.claim("plan/1")
    outcome = Outcome(state=StepState.DONE, sentence="once")
    own_redis.freeze()
    with pytest.raises(StoreUnreachable):
        cluster.store.settle(claim, outcome)
    own_redis.thaw()
    cluster.store.settle(claim, outcome)
    step = cluster.step("plan/1")
    assert (step.state, step.sentence) == (StepState.DONE, "once")


def test_a_restarted_store_is_another_life_in_which_nobody_leads_before_it_has_rested(
    cluster: Cluster, own_redis: RedisServer
) -> None:
    old = cluster.store.meet()
    cluster.vm()
    cluster.open(cluster.start_step())
    own_redis.restart()
    assert cluster.store.take_lease(C1, Seconds(0.0)) is None, "nobody has met this life yet"
    new = cluster.store.meet()
    assert new.incarnation > old.incarnation
    assert cluster.store.take_lease(C1, Seconds(1.0)) is None
    assert cluster.store.view({}, C1).vm_records == {}
    with pytest.raises(StaleToken):
        cluster.store.put_host(host_record("h1"), None, cluster.epoch)
    answer = cluster.try_claim("start/web/1")
    assert isinstance(answer, NotClaimed)
    assert answer.code == "gone"
    cluster.subject.age()
    assert cluster.lead() > cluster.epoch


def test_a_wrong_password_is_no_answer_and_is_not_told(own_redis: RedisServer) -> None:
    client = own_redis.client()
    client.config_set("requirepass", "right")
    store = RedisStore(connect(f"redis://:wr0ng-s3cret@127.0.0.1:{own_redis.port}/0", name="test"), "test")
    with pytest.raises(StoreUnreachable) as said:
        store.now()
    assert "wr0ng" not in str(said.value)
