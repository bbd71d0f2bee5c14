"""Pauses and quarantine."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="a pause holds nothing back",
        rule="pause",
        file="core/model.py",
        old="        return self.pause if self.pause is not None and self.pause.lasts(self.now) else None",
        new="        return None",
        stories=("pause/host_cut_off_and_back_while_paused",),
        more=(("sim/store/journal.py", "return pause is not None and pause.lasts(instant(now))", "return False"),),
    ),
    Sabotage(
        name="a fence that was claimed is cut in a pause",
        rule="pause",
        file="sim/store/journal.py",
        old="    if begins and step.kind not in GOES_ON and _is_paused(m, now):",
        new="    if False:",
        stories=("pause/host_is_back_before_the_cut_that_a_pause_held",),
    ),
    Sabotage(
        name="a move that has begun is not handed over in a pause",
        rule="10",
        file="core/pause.py",
        old="StepKind.HAND_OVER, StepKind.RESUME, ",
        new="",
        stories=("pause/pause_during_a_migration",),
    ),
    Sabotage(
        name="nobody is quarantined",
        rule="quarantine",
        file="core/quarantine.py",
        old="    if enough == 0 or len(record.exits) < enough:",
        new="    if enough >= 0:",
        stories=("quarantine/once_is_enough",),
    ),
)
