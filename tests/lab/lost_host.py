"""A host is lost while something is done to the store: the steps of such a story, and the questions asked afterwards.

Numbers and copies are watched all the time (`Cluster.lookout`), so they are compared over every life of the store.
"""

from __future__ import annotations

from fangnetz.core.errors import StoreUnreachable
from fangnetz.lab.product import CONTROLLER_ROLES
from tests.lab.cluster import Cluster

BACK_WITHIN_S = 120.0
"""From the store's return until the VMs of a dead host write again: one lease's rest, the window, boots on a busy
machine, and whatever was under way has its bound."""


def lose_a_host(cluster: Cluster) -> tuple[str, list[str], float]:
    """Pull the plug of the host with the most VMs; return it, its VMs and when."""
    dead = cluster.busiest()
    vms = cluster.on(dead)
    assert vms
    return dead, vms, cluster.lab.power(dead, "off")


def until_opened(cluster: Cluster, dead: str, at: float) -> None:
    """Wait until the failover of `dead` stands in the journal."""

    def opened() -> bool:
        try:
            return cluster.lookout.ear.onlooker.failover(dead, at) is not None
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


def lives(cluster: Cluster) -> int:
    """Return how many lives of the store were seen so far."""
    with cluster.lookout.ear.lock:
        return len(cluster.lookout.ear.chronicle.lives)


def much_was_seen(cluster: Cluster, lives_before: int, lives_min: int) -> None:
    """Assert that the lookout had enough to compare; `lives_min`: fewer new lives of the store would show nothing.

    That nothing came back and nothing started unproven is judged after each test.
    """
    assert lives(cluster) - lives_before >= lives_min, "a store that never forgot shows nothing"
    with cluster.lookout.ear.lock:
        assert len(cluster.lookout.ear.chronicle.numbers) > len(cluster.lab.plan.vms)
    copies = cluster.lookout.truth.copies()
    assert len([copy for copy in copies if copy.generation is not None]) > len(cluster.lab.plan.vms)
