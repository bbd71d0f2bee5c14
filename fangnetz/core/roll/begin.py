"""What must hold before a roll begins or goes on, the waves it goes in, and its first values. Nothing is done here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from fangnetz.core.errors import WishRefused
from fangnetz.core.evacuation import EvacuationPlan, plan_evacuations
from fangnetz.core.model import HostState
from fangnetz.core.roll.doubts import doubt, state_of, unrest
from fangnetz.core.roll.values import Commanded, Resumption, Roll, Seen, Stage, Turn
from fangnetz.core.units import HostId, Instant

_OUT_FOR_GOOD = frozenset({HostState.MAINTENANCE, HostState.FENCED, HostState.LEFT, HostState.QUARANTINED})
"""Known to be away, and nobody is at work on it: a roll over others may begin."""


def waves(roll: Roll) -> tuple[tuple[HostId, ...], ...]:
    """Return the hosts whose turn has not begun, as they come up together."""
    left = roll.waiting
    return tuple(left[first : first + roll.at_once] for first in range(0, len(left), roll.at_once))


def plan_wave(hosts: tuple[HostId, ...], seen: Seen) -> tuple[EvacuationPlan, ...]:
    """Return where the VMs of these hosts go, all hosts emptied at once. WishRefused while nobody watches."""
    if seen.watch is None:
        raise WishRefused(f"there is no preview: {seen.unwatched}")
    return plan_evacuations(hosts, seen.view, seen.watch, seen.verdicts, seen.policy)


def stuck(plans: tuple[EvacuationPlan, ...]) -> tuple[str, ...]:
    """Return a sentence for each VM that has nowhere to go."""
    return tuple(f"{one.vm} cannot leave {plan.host}: {one.because}" for plan in plans for one in plan.stays)


def begun(roll: Roll, seen: Seen) -> Roll:
    """Return a new roll with the hosts that may be away while it lasts. WishRefused if its hosts make no sense."""
    twice = [host for host, times in Counter(roll.hosts).items() if times > 1]
    if not roll.hosts:
        raise WishRefused("there is no host to roll over")
    _must_be_known(roll.hosts, seen)
    if twice:
        raise WishRefused(f"{twice[0]} is named twice: each host has one turn")
    return replace(roll, out=_out(roll, seen))


def _must_be_known(hosts: tuple[HostId, ...], seen: Seen) -> None:
    known = seen.view.hosts
    for host in hosts:
        if host not in known:
            raise WishRefused(f"{host} is no host of this cluster; it has {', '.join(sorted(known))}")


def obstacles(roll: Roll, seen: Seen) -> tuple[str, ...]:
    """Return all that speaks against beginning, or going on, now; the VMs with nowhere to go are among it.

    Not while hosts are in hand: where their VMs are meanwhile says nothing of later turns. Each wave is looked at as it
    begins.
    """
    return tuple(dict.fromkeys(_obstacles(roll, seen)))


def _obstacles(roll: Roll, seen: Seen) -> Iterator[str]:
    for host in roll.waiting:
        state = state_of(host, seen)
        if state is HostState.MAINTENANCE:
            yield f"{host} is in maintenance already: activate it, or leave it out with --hosts"
    found = (doubt(roll, seen), unrest(roll, seen))
    yield from (why for why in found if why)
    if seen.watch is not None and not roll.in_hand:
        for wave in waves(roll):
            yield from stuck(plan_wave(wave, seen))


def resumed(roll: Roll, seen: Seen, said: Resumption, token: str, until: Instant) -> Roll:
    """Return the roll in the hand of `token`, its waits begun anew.

    WishRefused if another command has it in hand, nothing is left of it, a host of it is not in the cluster file any
    more, or nobody knows how a command ended.
    """
    now = seen.view.now
    if roll.until > now:
        raise WishRefused(
            f"another command has this roll in hand; if it was killed, it can be resumed in {roll.until - now:.0f} s"
        )
    if roll.finished:
        raise WishRefused(f"nothing is left of the roll over {', '.join(roll.hosts)}: begin a new one with --run")
    _must_be_known((*(turn.host for turn in roll.in_hand), *roll.waiting), seen)
    turns = [_taken_up(turn, said, now) for turn in roll.in_hand]
    again = replace(roll.put(*turns), stopped="", token=token, until=until)
    return replace(again, out=_out(again, seen))


def _taken_up(turn: Turn, said: Resumption, now: Instant) -> Turn:
    turn = replace(turn, since=now, asked=False)
    if turn.stage is not Stage.COMMAND:
        return turn
    match turn.command, said:
        case Commanded.BEGUN, Resumption.UNSAID:
            raise WishRefused(
                f"nobody knows how the command ended on {turn.host}: look there, then say --resume --again to run it "
                "once more, or --resume --ran if its work is done"
            )
        case ((Commanded.BEGUN | Commanded.FAILED), Resumption.RAN):
            return replace(turn, command=Commanded.VOUCHED, stage=Stage.RETURN)
        case _:
            return replace(turn, command=Commanded.NOT_YET, exit_code=None, output="")


def _out(roll: Roll, seen: Seen) -> tuple[HostId, ...]:
    ours = {*roll.waiting, *(turn.host for turn in roll.in_hand)}
    return tuple(host for host in seen.view.hosts if host not in ours and state_of(host, seen) in _OUT_FOR_GOOD)
