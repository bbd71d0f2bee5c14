"""A cluster on a real store, for every test of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.subjects import RedisSubject
from tests.engine.bench import Bench
from tests.redis_server import RedisServer


@pytest.fixture
def bench(redis_server: RedisServer, tmp_path: Path) -> Iterator[Bench]:
    subject = RedisSubject(redis_server)
    yield Bench(subject, tmp_path)
    subject.close()
