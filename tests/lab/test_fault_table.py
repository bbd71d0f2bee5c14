"""One cell of the fault table for each step of a failover, and the cut that must never come late, in a real lab.

`make soak-table` plays the whole table.
"""

from __future__ import annotations

import pytest

from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.table.cells import cell
from fangnetz.lab.table.judgement import faults_of
from fangnetz.lab.table.play import play
from tests.lab.cluster import Cluster

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    "name",
    [
        "operation.opened:kill",
        "operation.before_dispatch:kill",
        "confirm.before_settle:kill",
        "fence.sent:kill",
        "prove.before_settle:kill",
        "plan.settled:kill",
        "start.created:kill",
        "running.claimed:kill",
        "close.before_settle:freeze",
    ],
)
def test_a_process_struck_in_any_step_delays_the_failover_and_no_more(cluster: Cluster, name: str) -> None:
    onlooker = Onlooker(cluster.lab)
    seen = play(cluster.lab, onlooker, cell(name))
    assert faults_of(seen, 2 * onlooker.policy.resume_s) == ()


def test_a_fence_executor_that_thaws_after_the_host_came_back_does_not_cut_it(cluster: Cluster) -> None:
    onlooker = Onlooker(cluster.lab)
    seen = play(cluster.lab, onlooker, cell("fence.before_cut:freeze"))
    assert faults_of(seen, 2 * onlooker.policy.resume_s) == ()
