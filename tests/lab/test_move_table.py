"""A few rows of the table of struck live migrations, in a real lab; `make soak-table` plays all of them."""

from __future__ import annotations

import pytest

from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.table.move_cells import move_cell
from fangnetz.lab.table.move_judgement import move_faults
from fangnetz.lab.table.move_play import play_move
from tests.lab.cluster import Cluster

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    ("name", "ended"),
    [
        ("migrate:hand_over.before_settle:work", "done"),
        ("migrate:in_flight:control", "done"),
        ("migrate:in_flight:source_worker", "done"),
        ("migrate:migrate.left:store", "failed"),  # a new life of the store: its order ends, the guest goes on
    ],
)
def test_whoever_is_struck_in_a_move_the_guest_runs_once_and_on(cluster: Cluster, name: str, ended: str) -> None:
    onlooker = Onlooker(cluster.lab)
    seen = play_move(cluster.lab, onlooker, move_cell(name))
    assert move_faults(seen, 2 * onlooker.policy.resume_s) == ()
    assert (seen.state, seen.boots[seen.vm]) == (ended, 0)
    assert seen.runs_on[seen.vm] == (seen.target,)
