"""Factories of the contract suites: one param per implementation of a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.ports import BootFiles
from tests.contract.subjects import Cluster, RedisSubject, StoreSubject
from tests.redis_server import RedisServer


@pytest.fixture(params=["redis"])
def subject(redis_server: RedisServer) -> Iterator[StoreSubject]:
    """An empty store."""
    made = RedisSubject(redis_server)
    yield made
    made.close()


@pytest.fixture
def cluster(subject: StoreSubject) -> Cluster:
    """A store that c1 is in charge of."""
    return Cluster(subject)


@pytest.fixture(params=["disk"])
def open_boot_files(tmp_path: Path) -> Callable[[], BootFiles]:
    """Opens the same boot's files again and again, as each worker process of a host does."""
    return lambda: BootFilesOnDisk(tmp_path / "run")
