"""A process that listens for faults: this one, with files of its own; deaf again after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fangnetz.engine import faults
from tests.contract.subjects import RedisSubject
from tests.engine.bench import Bench
from tests.redis_server import RedisServer


@pytest.fixture
def arm(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Arm this process; what it was armed for before is taken back."""
    deafen = faults.listen(tmp_path, "test", "")

    def anew(words: str) -> None:
        faults.fault_file(tmp_path, "test").write_text(words)
        faults.listen(tmp_path, "test", "")  # a process that listens already notices within LOOK_EVERY_S

    yield anew
    deafen()


@pytest.fixture
def bench(redis_server: RedisServer, tmp_path: Path) -> Iterator[Bench]:
    subject = RedisSubject(redis_server)
    yield Bench(subject, tmp_path)
    subject.close()
