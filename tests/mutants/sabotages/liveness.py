"""Every incident ends in a named state."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="nobody sends lost steps again",
        rule="9",
        file="engine/tick.py",
        old="            if step.not_before <= now and not young:",
        new="            if False:",
        stories=("messages/all_lost", "controllers/work_killed_at_plan_claimed"),
    ),
    Sabotage(
        name="a VM that ended is not started again",
        rule="9",
        file="core/decide/vms.py",
        old="                self._ended_by_itself(record, owner)",
        new="                pass",
        stories=("vms/crash",),
    ),
    Sabotage(
        name="a plan made from what others placed meanwhile is written",
        rule="3",
        file="sim/store/journal.py",
        old="    if assigns and m.placements != placements:",
        new="    if False:",
        stories=("placement/two_lost_and_room_for_one",),
    ),
    Sabotage(
        name="a guest that arrived on a host's next boot is left waiting",
        rule="9",
        file="core/decide/arrivals.py",
        old="            if beat.incarnation != record.owner_incarnation:\n                reason",
        new="            if beat.incarnation != record.owner_incarnation:\n                return found\n                reason",
        stories=("migration/target_boots_anew_behind_a_split",),
    ),
    Sabotage(
        name="a guest that has left is removed as the store begins a new life",
        rule="10",
        file="core/decide/arrivals.py",
        old="        if self._has_arrived(record, to, sightings):",
        new="        if False:",
        stories=("migration/store_fails_over_at_the_end",),
    ),
)
