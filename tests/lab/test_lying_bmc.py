"""A BMC that says off and cuts nothing: with the storage lock on, no second copy starts and a person is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fangnetz.lab import Lab
from fangnetz.lab.stage import own_name
from fangnetz.lab.storm.lookout import Lookout
from tests.lab.cluster import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")]
NAME = own_name("lying")


@pytest.fixture
def locked() -> Iterator[Cluster]:
    Lab.remove(NAME)
    with Lab.up(name=NAME, hosts=3, vms=2, storage_lock=True, slots=False) as lab, Lookout(lab) as lookout:
        cluster = Cluster(lab, lookout)
        with cluster.judged():
            yield cluster


@contextmanager
def believed(cluster: Cluster, vms: list[str]) -> Iterator[None]:
    """While the liar is believed, libvirt begins a paused process of each VM; the lock keeps it from ever running."""
    with ExitStack() as stack:
        for vm in vms:
            stack.enter_context(cluster.lookout.on_purpose(vm))
        yield


def test_a_lying_bmc_and_a_cut_end_with_a_person_and_never_with_two_writers(locked: Cluster) -> None:
    lost = locked.busiest()
    vms = locked.on(lost)
    locked.lab.bmc(lost, "lying")
    at = locked.lab.cut(lost)
    with believed(locked, vms):
        incident = locked.incident_of(lost, at)
    assert incident["fence_proven_at"] is not None, "the liar was believed: that is what the lock is for"
    assert locked.since(at, "start_refused")
    for vm in vms:
        assert locked.vm(vm)["state"] == "needs_person"
        assert "lease" in locked.vm(vm)["reason"]
        assert locked.first_write_after(vm, at) is None
    assert set(vms) <= locked.writing(), "the old copies write on, alone"
    locked.lab.heal(lost)
    locked.until(
        lambda: any("proof is void" in e["sentence"] for e in locked.since(at, "alarm", "host_state")),
        30,
        "the old boot speaks, and that voids the proof with the highest alarm",
    )
    assert locked.lab.witness()["overlaps"] == [], "which excuses no writer"
