"""Two hosts are rolled over on real libvirt: each loses its power and boots anew, and no guest is started again."""

from __future__ import annotations

import json
import sys

import pytest

from tests.lab.cluster import Cluster
from tests.lab.test_evacuation import boots, write_on

pytestmark = pytest.mark.lab

PULL_THE_PLUG = (
    "from fangnetz.lab import Lab; lab = Lab.open({name!r}); lab.power('{host}', 'off'); lab.power('{host}', 'on')"
)


def test_hosts_are_restarted_in_turn_and_every_guest_writes_on_with_the_boot_it_had(cluster: Cluster) -> None:
    first, second = cluster.lab.plan.hosts[:2]
    homes = {vm: item["host"] for vm, item in cluster.vms().items()}
    for host in (first, second):  # each has something to lose
        if host not in homes.values():
            cluster.asked("vm", "migrate", min(homes), "--to", host, "--wait")
            homes = {vm: item["host"] for vm, item in cluster.vms().items()}
    before = boots(cluster)
    machines = {host: cluster.host(host)["incarnation"] for host in cluster.lab.plan.hosts}
    at = cluster.cursor()
    script = PULL_THE_PLUG.replace("{name!r}", repr(cluster.lab.name))
    command = f'{sys.executable} -c "{script}"'
    words = (
        "--hosts",
        f"{first},{second}",
        "--reboots",
        "--wait-return",
        "120",
        "--wait-moves",
        "120",
        "--run",
        command,
    )
    assert cluster.asked("maintenance", "roll", *words) == f"{first}, {second} had their turn.\n"
    found = {vm: (item["host"], item["state"]) for vm, item in cluster.vms().items()}
    assert found == {vm: (host, "running") for vm, host in homes.items()}, "every guest is home"
    write_on(cluster)
    assert boots(cluster) == before, "no guest was started anew"
    for host in cluster.lab.plan.hosts:
        item = cluster.host(host)
        assert item["state"] == "online"
        assert (item["incarnation"] != machines[host]) is (host in (first, second)), "the machines were"
    assert cluster.since(at, "vm_lost", "fence_sent") == []
    shown = json.loads(cluster.asked("maintenance", "show", "--json"))["roll"]
    assert (shown["state"], shown["done"]) == ("done", [first, second])
