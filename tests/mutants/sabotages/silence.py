"""Mass failure, and what silence says."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="brakes are off",
        rule="6",
        file="core/quorum.py",
        old="    found: list[Brake] = []\n    if view.paused is not None:",
        new="    return ()\n    found: list[Brake] = []\n    if view.paused is not None:",
        stories=("network/all_hosts_cut", "network/split_in_halves"),
    ),
    Sabotage(
        name="one host more than allowed may be lost",
        rule="6",
        file="core/quorum.py",
        old="    return max(1, math.floor(voters * share))",
        new="    return max(1, math.floor(voters * share)) + 1",
        stories=("power/two_lost_at_once", "network/split_in_halves"),
    ),
    Sabotage(
        name="no host may be lost where a third of them is none",
        rule="6",
        file="core/quorum.py",
        old="    return max(1, math.floor(voters * share))",
        new="    return math.floor(voters * share)",
        stories=("network/one_of_two_hosts_cut",),
    ),
    Sabotage(
        name="the startup grace is left out",
        rule="6",
        file="core/quorum.py",
        old="    if in_grace(view, watch, policy) and unreported:",
        new="    if False and unreported:",
        stories=("store/wiped_while_a_host_is_cut",),
    ),
    Sabotage(
        name="a host nobody could ask is called lost",
        rule="7",
        file="core/detector.py",
        old='        finding, sentence = Finding.UNKNOWN, f"{missing}, and {asked}"',
        new='        finding, sentence = Finding.LOST, f"{missing}, and {asked}"',
        stories=("network/controller_in_charge_cut", "network/all_hosts_cut"),
    ),
    Sabotage(
        name="a host that answers probes is called lost",
        rule="evidence",
        file="core/detector.py",
        old="    elif answered:\n        finding, sentence = Finding.SUSPECT,",
        new="    elif answered:\n        finding, sentence = Finding.LOST,",
        stories=("hosts/worker_killed", "hosts/libvirt_hung"),
    ),
    Sabotage(
        name="a gap of the store counts as a host's silence",
        rule="7",
        file="core/detector.py",
        old="        before = None if previous is None or gap else previous.hosts.get(host)",
        new="        before = None if previous is None else previous.hosts.get(host)",
        stories=("store/back_just_before_a_host_freezes",),
    ),
)
