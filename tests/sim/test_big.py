"""A big cluster's bad day: hosts are lost one after the other, and every VM of theirs runs again, each once."""

from __future__ import annotations

import pytest

from fangnetz.lab.bench.simulation import BIG_HOSTS, BIG_LOST, BIG_VMS, big_story, tick_cost
from fangnetz.sim.play import play


@pytest.mark.parametrize(
    ("hosts", "vms", "lost"),
    [(12, 240, 2), pytest.param(BIG_HOSTS, BIG_VMS, BIG_LOST, marks=pytest.mark.soak)],
)
def test_every_vm_of_every_lost_host_runs_again(hosts: int, vms: int, lost: int) -> None:
    result = play(big_story(hosts, vms, lost))
    assert (result.data["broken"], result.data["unmet"]) == ([], [])
    homes = [1 + number % hosts for number in range(1, vms + 1)]
    assert result.data["counts"]["starts"] >= sum(1 for home in homes if 3 <= home < 3 + lost)


def test_one_decision_is_timed_on_a_cluster_at_rest() -> None:
    cost = tick_cost(4, 40)
    assert (cost.hosts, cost.vms) == (4, 40)
    assert cost.decide_s > 0
