"""Flower as it really runs, as its own user of Redis: sees workers, queues and how a move comes on, orders nothing."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from functools import partial

import pytest

from fangnetz.core.convergence import Progress
from fangnetz.core.units import Seconds
from tasks import steps
from tasks.progress import shown
from tests.redis_server import wait_for
from tests.tasks.cluster import REDIS_SECRET, Processes, closed_port
from workers.app import create_app


class Window:
    """What a browser with the password is shown."""

    def __init__(self, cluster: Processes) -> None:
        self.cluster = cluster
        found = re.search(r"^flower: \{port: (\d+)", cluster.config.read_text(), re.MULTILINE)
        assert found
        self._url = f"http://127.0.0.1:{found[1]}"

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Return status and text; 0 while nobody listens."""
        login = base64.b64encode(f"admin:{REDIS_SECRET}".encode()).decode()
        request = urllib.request.Request(self._url + path, data=body, headers={"Authorization": f"Basic {login}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def workers(self) -> set[str]:
        """Those it has heard of; none while it does not listen to events yet."""
        status, text = self.ask("/workers?json=1")
        return {item["hostname"].split("@")[0] for item in json.loads(text)["data"]} if status == 200 else set()


@pytest.fixture
def window(cluster: Processes) -> Iterator[Window]:
    cluster.raw.acl_log_reset()
    cluster.start("flower")
    yield Window(cluster)
    cluster.kill("flower")


def test_flower_shows_all_and_orders_nothing(window: Window) -> None:
    assert wait_for(lambda: window.workers() >= {"h1", "control-c1", "work-c1", "fence-c1"}, 60, 0.5), (
        window.cluster.said("flower")[-2000:]
    )
    status, text = window.ask("/broker")
    assert (status, "work" in text) == (200, True)
    asked = json.dumps({"args": ["h1", "ada"]}).encode()
    assert window.ask("/api/task/send-task/fangnetz.fence", asked)[0] in (401, 403, 405)
    assert window.ask("/api/worker/shutdown/h1@localhost", b"")[0] in (401, 403, 405)
    assert not any(window.cluster.died(role) for role in ("host", "control", "work", "fence", "beat"))
    assert window.cluster.raw.acl_log() == [], "nobody lacks a right, nor tries what it must not"


def test_how_a_step_comes_on_is_its_tasks_state_until_it_has_ended(window: Window) -> None:
    """Said by a host's own user, over the real broker: its rights have to allow it."""
    app = create_app(window.cluster.settings, "host", "h1")
    task, identity, worker = app.tasks[steps.migrate_vm.name], uuid.uuid4().hex, "h1@a-test"

    def event(kind: str, **fields: object) -> None:
        with app.events.default_dispatcher(hostname=worker) as events:  # as its worker sends them
            events.send(kind, uuid=identity, **fields)

    def seen() -> tuple[str, str]:
        status, text = window.ask(f"/api/task/info/{identity}")
        said = json.loads(text) if status == 200 else {}
        return said.get("state", ""), said.get("result") or ""

    assert wait_for(lambda: bool(window.workers()), 60, 0.5), "it hears events"
    event("task-received", name="fangnetz.migrate_vm", args="('op-1', 'migrate/web/1')")

    def tells_of(share: float) -> bool:
        return seen()[1].startswith(f"{share:.0%}")

    assert wait_for(lambda: seen()[0] == "RECEIVED", 20, 0.2)
    event("task-started")
    task.push_request(id=identity, hostname=worker)
    show = shown(task)
    task.pop_request()
    for share in (0.25, 0.5):
        show(Progress(elapsed_s=Seconds(1.0), total_mib=200.0, sent_mib=60.0, remaining_mib=200.0 * (1 - share)))
        assert wait_for(lambda: seen()[0] == "PROGRESS", 20, 0.2)
        assert wait_for(partial(tells_of, share), 20, 0.2), seen()
    event("task-succeeded", result="web has left h1 for h2", runtime=2.5)
    assert wait_for(lambda: seen() == ("SUCCESS", "web has left h1 for h2"), 20, 0.2), seen()
    show(Progress(elapsed_s=Seconds(2.0), total_mib=200.0, sent_mib=200.0, remaining_mib=0.0))
    assert not wait_for(lambda: seen()[0] != "SUCCESS", 1.5, 0.2), "one that comes late takes no end back"
    assert window.cluster.raw.acl_log() == []


def test_a_broker_that_is_away_keeps_nobody_from_going_on(window: Window) -> None:
    app = create_app(window.cluster.settings, "host", "h1")
    app.conf.broker_url = f"redis://127.0.0.1:{closed_port()}/0"
    task = app.tasks[steps.migrate_vm.name]
    task.push_request(id=uuid.uuid4().hex, hostname="h1@a-test")
    show = shown(task)
    task.pop_request()
    began = time.monotonic()
    for _ in range(100):
        show(Progress(elapsed_s=Seconds(1.0), total_mib=200.0, sent_mib=60.0, remaining_mib=100.0))
    assert time.monotonic() - began < 0.5
