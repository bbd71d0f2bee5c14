"""What a person is told of a roll: one sentence with what was done, what was not, and how to go on."""

from __future__ import annotations

from fangnetz.core.roll.values import INTERRUPTED, Commanded, Roll, Stage, Turn

RESUME = "fangnetz maintenance roll --resume"


def told(roll: Roll) -> str:
    """Return how the roll stands: finished, going on, or stopped and why."""
    if roll.finished:
        rest = "; ".join(why for turn in roll.turns for why in turn.not_home)
        whose = "its" if len(roll.hosts) == 1 else "their"
        return f"{_names(roll.hosts)} had {whose} turn" + (f"; not home: {rest}" if rest else "")
    where = " and ".join(turn.host for turn in roll.in_hand) or f"the turn of {roll.waiting[0]}"
    head = f"stopped {'at' if roll.in_hand else 'before'} {where}: {roll.stopped}" if roll.stopped else f"at {where}"
    parts = [f"done: {_names(roll.done)}" if roll.done else "no host is done"]
    parts += [f"in hand: {turn.host}, {_stands(turn)}" for turn in roll.in_hand]
    parts += [f"not begun: {_names(roll.waiting)}"] if roll.waiting else []
    return "; ".join([head, *parts])


def how_to_go_on(roll: Roll) -> str:
    """Return the command that goes on with a stopped roll."""
    unknown = any(turn.stage is Stage.COMMAND and turn.command is Commanded.BEGUN for turn in roll.in_hand)
    failed = any(turn.stage is Stage.COMMAND and turn.command is Commanded.FAILED for turn in roll.in_hand)
    if unknown:
        return f"look there, then go on with `{RESUME} --again`, or `--ran` if the command's work is done"
    if failed:
        return f"once that is mended, `{RESUME}` runs the command there again (`--ran`: its work is done), and goes on"
    if roll.stopped == INTERRUPTED:
        return f"go on with `{RESUME}`"
    return f"once that is mended, go on with `{RESUME}`"


def _stands(turn: Turn) -> str:
    match turn.stage, turn.command:
        case Stage.EMPTYING, _:
            return "being emptied, which goes on by itself" if turn.asked else "not yet asked to be emptied"
        case Stage.COMMAND, Commanded.NOT_YET:
            return "empty and in maintenance, the command not run"
        case Stage.COMMAND, Commanded.BEGUN:
            return "empty and in maintenance, the command begun and its end not known"
        case Stage.COMMAND, _:
            return f"empty and in maintenance, the command failed with exit code {turn.exit_code}"
        case Stage.RETURN, _:
            return "in maintenance, the command run, the host not yet back"
        case _:
            return "the command run and the host back, its VMs not yet home"


def _names(hosts: tuple[str, ...]) -> str:
    return ", ".join(hosts)
