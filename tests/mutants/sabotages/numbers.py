"""Numbers that never come back, and lives of the store."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="the hold after a change of the store is left out",
        rule="4",
        file="core/quorum.py",
        old="        if not _inventory_known(view, host)\n",
        new="        if False and not _inventory_known(view, host)\n",
        stories=("store/wiped_while_a_host_is_dark", "store/wiped_and_a_host_is_gone"),
    ),
    Sabotage(
        name="a write that no replica confirmed counts",
        rule="4",
        file="sim/store/server.py",
        old="        if confirmed and self.replicas:\n            if self.replicas < 0:",
        new="        if False and self.replicas:\n            if self.replicas < 0:",
        stories=("store/failover", "store/failover_during_a_failover"),
    ),
    Sabotage(
        name="the lease is taken while another holds it",
        rule="4",
        file="sim/store/life.py",
        old="    if m.holder is not None and not mine and m.lease_until > at:\n        return None\n",
        new="",
        stories=("power/power_loss",),
    ),
)
