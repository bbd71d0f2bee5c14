"""A short storm over a real cluster: no law is broken, and afterwards it is whole again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangnetz.lab.storm.evidence import keep_evidence
from fangnetz.lab.storm.storm import blow
from tests.lab.cluster import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
SEED = 4
"""Two plugs, an emptied store, armed fault points, kills and freezes within the minute."""
SECONDS = 60.0


def test_a_short_storm_breaks_no_law_and_leaves_the_cluster_whole(cluster: Cluster) -> None:
    storm = blow(cluster.lab, SEED, SECONDS)
    if storm.violations:
        kept = keep_evidence(cluster.lab, storm, Path("build"))
        pytest.fail("\n".join([*storm.story, *storm.violations, f"logs: {kept}"]))
    assert sum(storm.result["faults"].values()) >= 5, "a storm that did nothing shows nothing"
    assert storm.result["whole_again_s"] is not None
