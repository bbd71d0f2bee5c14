"""One running cluster for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fangnetz.core.model import VmState, VmWish
from tests.tasks.cluster import Processes


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Host, control, work, fence and beat of one controller, started and watched from Redis' side."""
    made = Processes(tmp_path_factory.mktemp("cluster"))
    try:
        made.start("host", "control", "work", "fence", "beat")
        made.define("web", VmWish.RUNNING)
        made.define("db", VmWish.STOPPED)
        yield made
    finally:
        made.end()


@pytest.fixture
def cluster(processes: Processes) -> Processes:
    """The cluster with `web` running, `db` stopped and nothing under way."""
    assert processes.becomes("web", VmState.RUNNING, 90), "\n".join(
        f"--- {role}\n{processes.said(role)[-3000:]}" for role in processes.running
    )
    if processes.state("db") is not VmState.STOPPED:
        processes.wish("vm_stop", "db", "the test before")
        assert processes.becomes("db", VmState.STOPPED), processes.said("work")[-3000:]
    assert processes.nothing_under_way()
    return processes
