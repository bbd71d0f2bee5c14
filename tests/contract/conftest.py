"""Factories of the contract suites: one param per implementation of a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fangnetz.ports import BootFiles
from tests.contract.boots import BootSubject, DiskBoot, SimBoot
from tests.contract.subjects import Cluster, RedisSubject, StoreSubject, TwinSubject


@pytest.fixture(params=["redis", "twin"])
def subject(request: pytest.FixtureRequest) -> Iterator[StoreSubject]:
    """An empty store."""
    if request.param == "twin":
        yield TwinSubject()
        return
    made = RedisSubject(request.getfixturevalue("redis_server"))
    yield made
    made.close()


@pytest.fixture
def cluster(subject: StoreSubject) -> Cluster:
    """A store that c1 is in charge of."""
    return Cluster(subject)


@pytest.fixture(params=["disk", "twin"])
def boot(request: pytest.FixtureRequest, tmp_path: Path) -> BootSubject:
    """A boot that has promised nothing and started nothing."""
    return SimBoot() if request.param == "twin" else DiskBoot(tmp_path / "run")


@pytest.fixture
def open_boot_files(boot: BootSubject) -> Callable[[], BootFiles]:
    """Opens the same boot's files again and again, as each worker process of a host does."""
    return boot.open
