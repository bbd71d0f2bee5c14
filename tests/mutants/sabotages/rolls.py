"""Rolls over hosts."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="a roll goes on whatever happens to another host",
        rule="roll",
        file="core/roll/going.py",
        old="    why = doubt(roll, seen)\n",
        new='    why = ""\n',
        stories=("maintenance/another_host_is_lost_meanwhile",),
    ),
    Sabotage(
        name="a host that does not come back is waited for without end",
        rule="roll",
        file="core/roll/going.py",
        old="now - turn.since > roll.limits.return_s",
        new="False",
        stories=("maintenance/a_host_does_not_come_back",),
    ),
    Sabotage(
        name="a command that failed is taken for done",
        rule="roll",
        file="core/roll/values.py",
        old="    if exit_code == 0:",
        new="    if exit_code is not None:",
        stories=("maintenance/the_command_fails_on_one_host",),
    ),
    Sabotage(
        name="a command that was killed, or ended at its bound, is run again unasked",
        rule="roll",
        file="core/roll/begin.py",
        old="        case Commanded.BEGUN, Resumption.UNSAID:",
        new="        case Commanded.VOUCHED, Resumption.UNSAID:",
        stories=("maintenance/killed_amid_its_command", "maintenance/the_command_does_not_end"),
    ),
    Sabotage(
        name="a roll that nobody remembers goes on",
        rule="roll",
        file="engine/rolling.py",
        old="                return stands is not None and stands.token == wanted.token and store.put_roll(wanted, stands)",
        new="                return store.put_roll(wanted, stands)",
        stories=("maintenance/the_store_is_wiped_meanwhile",),
    ),
    Sabotage(
        name="a store that is away for a moment ends a roll",
        rule="roll",
        file="engine/rolling.py",
        old="return now - self._away_since > (",
        new="return now - self._away_since >= 0 * (",
        stories=("maintenance/the_store_is_killed_as_a_host_returns",),
    ),
    Sabotage(
        name="a second roll begins over one that is not finished",
        rule="roll",
        file="engine/rolling.py",
        old="    if stands is not None and not stands.finished:",
        new="    if False:",
        stories=("maintenance/a_second_roll_is_refused",),
    ),
)
