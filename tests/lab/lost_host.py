"""A host is lost while something is done to the store: the steps of such a story, and the questions asked afterwards.

Numbers and copies are listened to over whole modules (`Watched`), so they are compared over every life of the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fangnetz.core.errors import StoreUnreachable
from fangnetz.lab import Lab
from fangnetz.lab.product import CONTROLLER_ROLES
from fangnetz.lab.storm.copies import repeated_generations, unproven_starts
from fangnetz.lab.storm.ear import Ear
from fangnetz.lab.storm.truth import Truth
from tests.lab.cluster import Cluster

BACK_WITHIN_S = 120.0
"""From the store's return until the VMs of a dead host write again: one lease's rest, the window, boots on a busy
machine, and whatever was under way has its bound."""


@dataclass(slots=True)
class Watched:
    ear: Ear
    truth: Truth


def lose_a_host(cluster: Cluster) -> tuple[str, list[str], float]:
    """Pull the plug of the host with the most VMs; return it, its VMs and when."""
    dead = cluster.busiest()
    vms = cluster.on(dead)
    assert vms
    return dead, vms, cluster.lab.power(dead, "off")


def until_opened(cluster: Cluster, watched: Watched, dead: str, at: float) -> None:
    """Wait until the failover of `dead` stands in the journal."""

    def opened() -> bool:
        try:
            return watched.ear.onlooker.failover(dead, at) is not None
        except StoreUnreachable:
            return False

    cluster.until(opened, 60, f"the failover of {dead} is opened")


def until_recovered(cluster: Cluster, vms: list[str], at: float) -> None:
    cluster.until(lambda: all(cluster.first_write_after(vm, at) for vm in vms), BACK_WITHIN_S, f"{vms} write again")
    cluster.until(
        lambda: all(vm["state"] == "running" for vm in cluster.vms().values()), BACK_WITHIN_S, "all are called running"
    )
    cluster.until(
        lambda: not [o for o in cluster.listed("operation")["items"] if o["state"] == "open"],
        BACK_WITHIN_S,
        "every operation has ended",
    )


def boots_since(cluster: Cluster, vm: str, at: float) -> int:
    return len([boot for boot in cluster.boots(vm) if boot["first_at"] > at])


def boots_of(cluster: Cluster, vms: list[str]) -> dict[str, str]:
    return {vm: cluster.boots(vm)[-1]["boot"] for vm in vms}


def cuts_since(cluster: Cluster, at: float) -> list[str]:
    """Return the hosts whose BMC was told to switch off since `at`, by the BMCs' own logs."""
    found = []
    for host in cluster.lab.plan.hosts:
        log = cluster.lab.plan.folder / "bmc" / host / "power.log"
        for line in log.read_text().splitlines() if log.exists() else ():
            told_at, to, _ = line.split()
            if float(told_at) >= at and to == "0":
                found.append(host)
    return found


def controllers(cluster: Cluster) -> dict[tuple[str, str], int]:
    """Return the controllers' processes with their numbers; what one of them starts (fping) is not meant."""
    processes = cluster.lab.status()["processes"]
    keepers = {process["pid"] for process in processes if process["role"].endswith(".supervisor")}
    return {
        (process["host"], process["role"]): process["pid"]
        for process in processes
        if process["role"] in CONTROLLER_ROLES and process["parent"] in keepers
    }


@contextmanager
def watching(lab: Lab) -> Iterator[Watched]:
    with Truth(lab.plan) as truth, Ear(lab) as ear:
        yield Watched(ear, truth)


def nothing_came_back_or_started_unproven(cluster: Cluster, watched: Watched, lives_min: int) -> None:
    """Assert the laws over all that was watched; `lives_min`: fewer lives of the store would show nothing."""
    with watched.ear.lock:
        chronicle = watched.ear.chronicle
        assert len(chronicle.lives) >= lives_min, "a store that never forgot shows nothing"
        assert len(chronicle.numbers) > len(cluster.lab.plan.vms)
        assert chronicle.repeated() == ()
        assert chronicle.unproven() == ()
    copies = watched.truth.copies()
    assert len([copy for copy in copies if copy.generation is not None]) > len(cluster.lab.plan.vms)
    assert repeated_generations(copies) == ()
    assert unproven_starts(copies) == ()
