"""Shared by all tests: a store to work with. Other fixtures live beside the tests that use them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.redis_server import RedisServer

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
"""Machines are shared: how long one example took says nothing."""


LAB = "tests/lab/"


class TwoLanes(LoadScopeScheduling):
    """`pytest -n 2`: whatever stands up a lab in one lane, file by file all others in the other; then in both."""

    def _split_scope(self, nodeid: str) -> str:
        return LAB if nodeid.startswith(LAB) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoLanes:
    config.option.loadscopereorder = False  # the lab's stand first, see below
    return TwoLanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LAB))


@pytest.fixture(scope="session", autouse=True)
def interrupts_arrive() -> None:
    """A shell that starts us in the background has interrupts ignored, and our children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for the whole session; ask for `redis_server`, which empties it first."""
    server = RedisServer()
    yield server
    server.kill()


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """An empty redis-server. Do not stop it: ask for `own_redis` for that."""
    client = shared_redis.client()
    client.flushall()
    client.close()
    return shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A redis-server of this test's own, to be frozen, killed or restarted."""
    server = RedisServer()
    yield server
    server.kill()
