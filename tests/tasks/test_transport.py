"""Queues on a real Redis: as long as they may be and no longer, newest kept, and gone when nobody writes to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from fangnetz.settings import Settings, load_settings
from tests.redis_server import RedisServer
from tests.settings.conftest import WELL
from workers.app import create_app
from workers.celery_settings import STEPS_MAX, celery_settings, queue_bounds, redis_user
from workers.environment import ROLES
from workers.launch import POOL, queues
from workers.transport import Bound

PREFIX = "fn:demo:"


@pytest.fixture
def cluster(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FN_TEST_REDIS", "x")
    text = WELL.replace("redis://10.0.0.2:6379/0", redis_server.url).replace("  password_env: FN_TEST_REDIS\n", "")
    (tmp_path / "cluster.yaml").write_text(text)
    return load_settings(tmp_path / "cluster.yaml", "host")


@pytest.fixture
def app(cluster: Settings) -> Iterator[Celery]:
    made = create_app(cluster, "client", "test")
    yield made
    made.close()


def test_every_queue_anybody_reads_or_writes_is_bounded(cluster: Settings) -> None:
    bounds = queue_bounds(cluster)
    read = {queue for role in POOL for name in ("host1", "c1") for queue in queues(role, name).split(",")}
    assert read - {"host.c1", "control.host1", "probe.host1"} <= set(bounds)
    assert {queue.name for queue in celery_settings(cluster, "client", "x")["task_queues"]} == set(bounds)
    assert all(0 < bound.length_max <= STEPS_MAX and bound.idle_s > 0 for bound in bounds.values())


def test_a_full_queue_keeps_the_newest_and_a_reader_gets_them_in_order(app: Celery, redis_server: RedisServer) -> None:
    bound = app.conf.broker_transport_options["queue_bounds"]["control.c1"]
    for number in range(bound.length_max + 10):
        app.send_task("fangnetz.tick", args=(number,), queue="control.c1")
    assert redis_server.client().llen(f"{PREFIX}control.c1") == bound.length_max
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.amqp.queues["control.c1"])
        got = [queue.get(timeout=2).payload[0][0] for _ in range(bound.length_max)]
    assert got == list(range(10, bound.length_max + 10))


def test_an_hour_of_beats_that_nobody_reads_leaves_a_handful(app: Celery, redis_server: RedisServer) -> None:
    for _ in range(600):
        for task in ("fangnetz.tick", "fangnetz.sweep"):
            app.send_task(task, queue="control.c1")
        app.send_task("fangnetz.probe_hosts", queue="probe.c1")
    raw = redis_server.client()
    left = raw.lrange(f"{PREFIX}control.c1", 0, -1)
    assert len(left) <= 16
    assert any("fangnetz.sweep" in text for text in left)
    assert any("fangnetz.tick" in text for text in left)
    assert raw.llen(f"{PREFIX}probe.c1") <= 2


@pytest.mark.parametrize("queue", ["host.host1", "control.c1", "probe.c1", "work", "fence", "probe"])
def test_a_queue_nobody_writes_to_ends_by_itself(app: Celery, redis_server: RedisServer, queue: str) -> None:
    app.send_task("fangnetz.tick", queue=queue)
    left_s = redis_server.client().pttl(f"{PREFIX}{queue}") / 1000
    bound = queue_bounds_of(app)[queue]
    assert bound.idle_s - 10 < left_s <= bound.idle_s


def queue_bounds_of(app: Celery) -> dict[str, Bound]:
    found: dict[str, Bound] = app.conf.broker_transport_options["queue_bounds"]
    return found


def test_no_message_carries_an_instant_of_its_senders_clock(app: Celery, redis_server: RedisServer) -> None:
    app.send_task("fangnetz.tick", queue="control.c1")
    (text,) = redis_server.client().lrange(f"{PREFIX}control.c1", 0, -1)
    assert '"expires": null' in text
    assert '"eta": null' in text


def test_each_role_logs_in_as_itself_and_a_stranger_as_a_person() -> None:
    assert {role: redis_user(role) for role in ROLES} == {
        "host": "host",
        "control": "controller",
        "work": "controller",
        "fence": "controller",
        "beat": "controller",
        "flower": "flower",
    }
    assert redis_user("client") == "operator"


def test_a_reader_whose_connection_was_opened_anew_behind_its_back_is_not_deaf(app: Celery) -> None:
    """What a failed health check does right before BRPOP is sent: another socket, which nobody polls."""
    with app.connection_for_read() as connection:
        heard: list[str] = []
        consumer = connection.Consumer(
            [app.amqp.queues["control.c1"]], on_message=lambda message: heard.append(message.headers["task"])
        )
        with consumer:
            channel = consumer.channel
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.2)
            inner = channel.client.connection
            inner.disconnect()
            inner.connect()
            app.send_task("fangnetz.tick", queue="control.c1")
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=5)
            assert heard == ["fangnetz.tick"]
