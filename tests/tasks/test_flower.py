"""Flower as it really runs, under its own user of Redis: sees workers and queues, orders nothing, lacks no right."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.redis_server import wait_for
from tests.tasks.cluster import REDIS_SECRET, Processes


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


@pytest.fixture
def window(cluster: Processes) -> Iterator[Window]:
    cluster.raw.acl_log_reset()
    cluster.start("flower")
    yield Window(cluster)
    cluster.kill("flower")


def test_flower_shows_all_and_orders_nothing(window: Window) -> None:
    def workers() -> set[str]:
        status, text = window.ask("/workers?json=1")
        return {item["hostname"].split("@")[0] for item in json.loads(text)["data"]} if status == 200 else set()

    assert wait_for(lambda: workers() >= {"h1", "control-c1", "work-c1", "fence-c1"}, 60, 0.5), window.cluster.said(
        "flower"
    )[-2000:]
    status, text = window.ask("/broker")
    assert (status, "work" in text) == (200, True)
    asked = json.dumps({"args": ["h1", "ada"]}).encode()
    assert window.ask("/api/task/send-task/fangnetz.fence", asked)[0] in (401, 403, 405)
    assert window.ask("/api/worker/shutdown/h1@localhost", b"")[0] in (401, 403, 405)
    assert not any(window.cluster.died(role) for role in ("host", "control", "work", "fence", "beat"))
    assert window.cluster.raw.acl_log() == [], "nobody lacks a right, nor tries what it must not"
