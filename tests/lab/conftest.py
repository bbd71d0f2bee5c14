"""One lab for the whole session, brought to rest before each end-to-end test; a look at the witness after each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fangnetz.lab import Lab
from fangnetz.lab.stage import own_name
from tests.lab.cluster import Cluster

NAME = own_name("test")
"""Two checkouts never share a lab."""


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    Lab.remove(NAME)
    with Lab.up(name=NAME, hosts=3, vms=4) as lab:
        yield Cluster(lab)


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """The lab at rest. Whatever a test does to it, no VM may ever have had two writers."""
    session_cluster.rest()
    yield session_cluster
    assert session_cluster.lab.witness()["overlaps"] == []
