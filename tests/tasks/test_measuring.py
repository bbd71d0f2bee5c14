"""A real host worker tells what its VMs use where hosts are ranked by it, and nothing of it elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fangnetz.core.model import Heartbeat
from fangnetz.core.policy import RankBy
from fangnetz.core.units import HostId
from fangnetz.engine.measuring import EVERY_S
from tests.redis_server import wait_for
from tests.tasks.cluster import Processes


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.end()


def heard(cluster: Processes) -> Heartbeat | None:
    return cluster.view().heartbeats.get(HostId("h1"))


@pytest.mark.parametrize("rank_by", RankBy)
def test_a_host_tells_what_its_vms_use_only_if_that_counts(one: Processes, rank_by: RankBy) -> None:
    text = one.config.read_text()
    one.config.write_text(text.replace("stop_bound_s: 2", f"stop_bound_s: 2, rank_by: {rank_by}"))
    one.start("host")
    assert wait_for(lambda: (beat := heard(one)) and beat.inventory, 60), one.said("host")[-3000:]
    if rank_by is RankBy.CONFIGURED:
        assert not wait_for(lambda: heard(one).uses, 5)
        return
    assert wait_for(lambda: heard(one).uses, 60), one.said("host")[-3000:]
    beat = heard(one)
    assert beat is not None
    assert {use.vm for use in beat.uses} == {seen.vm for seen in beat.inventory}
    assert all(use.memory_mib > 0 for use in beat.uses)
    # It goes on, by itself: a figure is renewed before it is old.
    assert wait_for(lambda: heard(one).uses_age_s > 2, 30)
    assert wait_for(lambda: heard(one).uses_age_s < 2, EVERY_S + 30)
