"""What is remembered of a roll, so that another command can go on with it. Holds what was done, never what is so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from fangnetz.core.actions import Alarm
from fangnetz.core.detector import Verdict, Watch
from fangnetz.core.model import ClusterView
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Incarnation, Instant, Seconds, VmId

OUTPUT_KEPT = 4000
"""Characters of a command's output that are kept per host: its last words say what went wrong."""


INTERRUPTED = "interrupted"
"""Why a roll stopped that a person ended."""


class Stage(StrEnum):
    """What a host's turn is at, in this order; a wave's hosts enter each of them together."""

    EMPTYING = "emptying"
    COMMAND = "command"
    RETURN = "return"
    """The command has ended well; the host has to be cleanly back."""
    HOME = "home"
    """It takes VMs again, and its own come home."""
    DONE = "done"


class Commanded(StrEnum):
    """What is known of the administrator's command for one host."""

    NOT_YET = "not_yet"
    BEGUN = "begun"
    """Written before it is started. Read by another command it means: nobody knows how it ended."""
    FAILED = "failed"
    WELL = "well"
    VOUCHED = "vouched"
    """A person said that its work is done."""


class Resumption(StrEnum):
    """What a person said of a command whose end is not known, or that failed."""

    UNSAID = "unsaid"
    AGAIN = "again"
    RAN = "ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long each wait of a roll may last."""

    return_s: Seconds
    """From the command's end until the host is cleanly back."""
    moves_s: Seconds
    """Until a host is empty, and until its VMs are home."""
    command_s: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One host's turn. `vms`: what was on it before, and is to be there again."""

    host: HostId
    vms: tuple[VmId, ...]
    stage: Stage = Stage.EMPTYING
    since: Instant
    """When this stage began, or was taken up again: its waits count from here."""
    asked: bool = False
    """Whether whoever has the roll in hand was granted what this stage asks of a controller."""
    boot: Incarnation = Incarnation("")
    """The boot that the command met."""
    command: Commanded = Commanded.NOT_YET
    exit_code: int | None = None
    output: str = ""
    not_home: tuple[str, ...] = ()
    """Why VMs of its own are not on it at the end, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """A roll over `hosts` in this order. `turns`: the hosts whose turn has begun; `out`: who may be away meanwhile.

    `token` names the command that has it in hand `until` then (store's clock); nobody, once that has passed.
    """

    id: str
    by: str
    began_at: Instant
    hosts: tuple[HostId, ...]
    command: tuple[str, ...]
    limits: Limits
    at_once: int = 1
    reboots: bool = False
    """Whether a host is back only in another boot than the one the command met."""
    turns: tuple[Turn, ...] = ()
    out: tuple[HostId, ...] = ()
    stopped: str = ""
    """Why it stopped; empty while it goes on and once it is finished."""
    token: str
    until: Instant

    @property
    def in_hand(self) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.turns if turn.stage is not Stage.DONE)

    @property
    def done(self) -> tuple[HostId, ...]:
        return tuple(turn.host for turn in self.turns if turn.stage is Stage.DONE)

    @property
    def waiting(self) -> tuple[HostId, ...]:
        begun = {turn.host for turn in self.turns}
        return tuple(host for host in self.hosts if host not in begun)

    @property
    def finished(self) -> bool:
        return not self.in_hand and not self.waiting

    def put(self, *turns: Turn) -> Roll:
        """Return the roll with these turns in place of the same hosts' earlier ones, or behind them."""
        new = {turn.host: turn for turn in turns}
        kept = tuple(new.pop(turn.host, turn) for turn in self.turns)
        return replace(self, turns=(*kept, *new.values()))

    def turn(self, host: HostId) -> Turn:
        return next(turn for turn in self.turns if turn.host == host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The cluster at one look. `watch` is None, and `unwatched` says why, while no controller watches."""

    view: ClusterView
    watch: Watch | None
    unwatched: str
    verdicts: Mapping[HostId, Verdict]
    alarms: tuple[Alarm, ...]
    policy: Policy


def answered(roll: Roll, hosts: Collection[HostId]) -> Roll:
    """Return the roll once a controller granted what was asked for these hosts."""
    return roll.put(*(replace(turn, asked=True) for turn in roll.in_hand if turn.host in hosts))


def commanded(roll: Roll, host: HostId, exit_code: int | None, output: str, now: Instant) -> Roll:
    """Return the roll once the command for `host` has ended; `exit_code` None: it was ended, nobody knows how far."""
    turn = replace(roll.turn(host), exit_code=exit_code, output=output[-OUTPUT_KEPT:])
    if exit_code == 0:
        return roll.put(replace(turn, command=Commanded.WELL, stage=Stage.RETURN, since=now, asked=False))
    return roll.put(turn if exit_code is None else replace(turn, command=Commanded.FAILED))


def renewed(roll: Roll, until: Instant) -> Roll:
    return replace(roll, until=until)


def stopped(roll: Roll, why: str) -> Roll:
    """Return the roll out of everybody's hand."""
    return replace(roll, stopped=why, until=Instant(0.0))
