"""One executor a step."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="a step's lease is not asked for",
        rule="5",
        file="sim/store/journal.py",
        old="    if step.state is StepState.RUNNING and not mine and until > now:\n"
        '        return _refused(identity, key, "leased", until - now), step.state\n',
        new="",
        stories=("messages/all_doubled",),
    ),
    Sabotage(
        name="a step that is done is done again",
        rule="5",
        file="sim/store/journal.py",
        old='    if step.settled:\n        return "settled"\n',
        new="",
        stories=("messages/all_doubled", "messages/late_by_an_hour"),
    ),
    Sabotage(
        name="a host is switched on while a lost executor may cut it",
        rule="5",
        file="core/decide/returns.py",
        old="    if view.now < max(record.cut_possible_until, record.since + policy.power_on_after_s):",
        new="    if False:",
        stories=("fencing/power_on_again", "controllers/fence_freeze_at_fence_sent"),
    ),
)
