"""Slots on the shared storage."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="a slot speaks for a host long after it was written last",
        rule="evidence",
        file="core/slots.py",
        old="    lives = written_at > last_heard + policy.overdue_s and read_at - written_at < policy.window_s",
        new="    lives = written_at > last_heard + policy.overdue_s",
        stories=("network/isolated_then_without_power",),
    ),
    Sabotage(
        name="a host that nobody can talk to is lost, whatever its slot says",
        rule="evidence",
        file="core/detector.py",
        old="    elif slot is not None and slot.answer is Answer.YES:",
        new="    elif False:",
        stories=("network/isolated_and_left",),
    ),
    Sabotage(
        name="a slot that nobody reads is waited for",
        rule="9",
        file="core/slots.py",
        old="        awaited = awaited or (reads_on and",
        new="        awaited = awaited or (True or",
        stories=("network/isolated_and_no_reader_has_disks",),
    ),
    Sabotage(
        name="a boot that writes its slot after it was proven off stays proven off",
        rule="2a",
        file="core/fencing.py",
        old="    if wrote_after(host, proof.incarnation, since, view):",
        new="    if False:",
        stories=("fencing/lying_bmc_of_a_host_that_writes_its_slot",),
    ),
    Sabotage(
        name="a person's word stands against a slot that is written",
        rule="2d",
        file="core/decide/fence_wishes.py",
        old="    return slot is not None and slot.answer is Answer.YES",
        new="    return False",
        stories=("network/isolated_and_confirmed_off",),
    ),
    Sabotage(
        name="a host that has lost its storage is as good as any",
        rule="evidence",
        file="core/detector.py",
        old="    if stuck(beat, policy):",
        new="    if False:",
        stories=("network/storage_cut",),
    ),
    Sabotage(
        name="a host rejoins without its storage",
        rule="evidence",
        file="core/decide/returns.py",
        old="    if not_written(beat, policy):",
        new="    if False:",
        stories=("network/returns_without_its_disks",),
    ),
    Sabotage(
        name="what a reader finds changed was written just now",
        rule="evidence",
        file="engine/slots.py",
        old="        return _Reading(mark, self.read_after, now, now, past)",
        new="        return _Reading(mark, now, now, now, past)",
        stories=("network/reader_frozen_while_a_host_dies",),
    ),
)
