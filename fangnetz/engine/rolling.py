"""Drives a roll: looks, does what `core.roll` says is next, and writes down what came of it before it looks again.

Decides nothing itself. Everything a roll does to the cluster is a wish that a controller answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fangnetz.core.errors import Conflict, FangnetzError, StoreUnreachable, WishRefused
from fangnetz.core.model import Wish, WishKind
from fangnetz.core.roll.begin import obstacles, resumed
from fangnetz.core.roll.going import UNREST_S, Act, Activate, Evacuate, Finish, Keep, Pace, Run, Stop, Wait, next_act
from fangnetz.core.roll.values import (
    INTERRUPTED,
    Resumption,
    Roll,
    Seen,
    Stage,
    answered,
    commanded,
    renewed,
    stopped,
)
from fangnetz.core.roll.words import how_to_go_on, told
from fangnetz.core.units import HostId, Instant, Seconds
from fangnetz.ports import Clock, Operators

T = TypeVar("T")

HAND_S = 15.0
"""A command that was killed blocks `--resume` this long at most; a living one renews."""
RENEW_AT_S = 10.0
LOOK_EVERY_S = Seconds(0.2)


class Interrupted(FangnetzError):
    """Whoever drives it was told to stop. `output`: what the command on a host had said by then, if one ran."""

    def __init__(self, output: str | None = None) -> None:
        super().__init__(INTERRUPTED)
        self.output = output


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEnded:
    """`exit_code` None: it was ended by us, and nobody knows how far it came."""

    exit_code: int | None
    output: str


class Hands(Clock, Protocol):
    """What a roll is driven with: a command line and a person's terminal, or their twins."""

    def asking(self) -> AbstractContextManager[Operators]:
        """Give the store; StoreUnreachable, in words for a person, if it is away meanwhile."""
        ...

    def look(self) -> Seen: ...

    def wish(self, kind: WishKind, host: HostId, *, by: str, failback: bool) -> Wish:
        """Write a wish and return it at once: several of them are taken up together."""
        ...

    def answer(self, wish: Wish) -> str:
        """Wait for a controller's answer and return its sentence. WishRefused, or an error if nobody answers."""
        ...

    def run(self, roll: Roll, host: HostId, renew: Callable[[], None]) -> CommandEnded:
        """Run the roll's command for a host within its bound; `renew` is called now and then. Interrupted."""
        ...

    def show(self, roll: Roll, words: str) -> None: ...


# --- before the first step ---------------------------------------------------------------------------------------


def refuse_while_unfinished(stands: Roll | None) -> None:
    """WishRefused if an earlier roll is not finished: a new one would forget which hosts it left empty."""
    if stands is not None and not stands.finished:
        raise WishRefused(
            f"a roll over {', '.join(stands.hosts)} is not finished: {told(stands)}; `fangnetz maintenance roll "
            "--resume` goes on with it, `fangnetz maintenance forget` drops it"
        )


def taken_up(known: Roll, seen: Seen, said: Resumption, token: str) -> Roll:
    """Return a roll in the hand of `token`, to go on with. WishRefused as `resumed` says."""
    return resumed(known, seen, said, token, Instant(seen.view.now + HAND_S))


def take_in_hand(wanted: Roll, stands: Roll | None, seen: Seen, hands: Hands) -> None:
    """Write it down as ours. WishRefused with all that speaks against it, or if another command was faster."""
    against = obstacles(wanted, seen)
    if against:
        raise WishRefused(f"nothing was done, because {'; '.join(against)}")
    with hands.asking() as store:
        if not store.put_roll(wanted, stands):
            raise WishRefused("another command has just begun a roll or gone on with it; nothing was done")


# --- going on ----------------------------------------------------------------------------------------------------


class Rolling:
    """One that has a roll in hand. `roll` is always what was last written down."""

    def __init__(self, hands: Hands, roll: Roll) -> None:
        self._hands, self.roll = hands, roll
        self._pace = Pace()
        self._away_since: float | None = None
        self.interrupted = False

    def drive(self) -> bool:
        """Go on until every host had its turn, or the first doubt; return whether it was the former.

        Conflict if another command took the roll over, or it was forgotten: then nothing more is written.
        """
        try:
            why = self._go()
        except Conflict:
            raise
        except (KeyboardInterrupt, Interrupted):
            why, self.interrupted = INTERRUPTED, True
        except FangnetzError as error:
            why = str(error)
        if why:
            self._put_down(why)
        return not why

    def _go(self) -> str:
        """Return why it stopped; empty if it is finished."""
        while True:
            try:
                self._renew()
                seen = self._hands.look()
                self._away_since = None
                self._pace, act = next_act(self.roll, self._pace, seen)
                if isinstance(act, Stop):
                    return act.because
                if isinstance(act, Finish):
                    return ""
                self._do(act)
            except StoreUnreachable as away:
                if self._too_long():
                    return str(away)
                self._show("the store does not answer")
                self._hands.sleep(LOOK_EVERY_S)

    def _do(self, act: Act) -> None:
        match act:
            case Wait(sentence=sentence):
                self._show(sentence)
                self._hands.sleep(LOOK_EVERY_S)
            case Keep(roll=roll, sentence=sentence):
                self._keep(roll)
                self._show(sentence)
            case Evacuate(hosts=hosts):
                self._ask(WishKind.HOST_EVACUATE, hosts)
            case Activate(hosts=hosts):
                self._ask(WishKind.HOST_ACTIVATE, hosts)
            case Run(roll=roll, host=host):
                self._keep(roll)
                self._run(host)
            case _:
                raise AssertionError(act)

    def _too_long(self) -> bool:
        """Whether the store is away for longer than a roll bears. While a host is away, the store may be on it."""
        now = self._hands.monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        returning = any(turn.stage is Stage.RETURN for turn in self.roll.in_hand)
        return now - self._away_since > (self.roll.limits.return_s if returning else UNREST_S)

    def _show(self, words: str) -> None:
        self._hands.show(self.roll, words)

    # -- what it does --

    def _ask(self, kind: WishKind, hosts: Sequence[HostId]) -> None:
        self._keep(renewed(self.roll, Instant(self._now() + HAND_S)))  # thawed late, it must ask for nothing
        failback = kind is WishKind.HOST_ACTIVATE
        wishes = [self._hands.wish(kind, host, by=self.roll.by, failback=failback) for host in hosts]
        for wish in wishes:
            self._show(self._hands.answer(wish))
        self._keep(answered(self.roll, hosts))

    def _run(self, host: HostId) -> None:
        try:
            ended = self._hands.run(self.roll, host, self._renew_if_can)
        except Interrupted as stop:
            if stop.output is not None:
                self._keep(commanded(self.roll, host, None, stop.output, Instant(0.0)))
            raise
        self._keep(commanded(self.roll, host, ended.exit_code, ended.output, self._now()))
        if ended.exit_code is None:
            bound = self.roll.limits.command_s
            raise FangnetzError(f"the command on {host} had not ended after {bound:g} s and was ended")
        last = ended.output.strip().rpartition("\n")[2]
        self._show(f"{host}: the command exited with {ended.exit_code}" + (f", last saying: {last}" if last else ""))

    # -- what it remembers --

    def _now(self) -> Instant:
        def ask() -> Instant:
            with self._hands.asking() as store:
                return store.now()

        return self._until_answered(ask)

    def _renew(self) -> None:
        with self._hands.asking() as store:
            now = store.now()
        if self.roll.until - now < RENEW_AT_S:
            self._keep(renewed(self.roll, Instant(now + HAND_S)))

    def _renew_if_can(self) -> None:
        """Renew during the command: a store that is away for a while is no reason to end it."""
        try:
            with self._hands.asking() as store:
                now = store.now()
                if self.roll.until - now < RENEW_AT_S:
                    wanted, stands = renewed(self.roll, Instant(now + HAND_S)), store.roll()
                    if stands is not None and stands.token == wanted.token and store.put_roll(wanted, stands):
                        self.roll = wanted
        except StoreUnreachable:
            return

    def _keep(self, wanted: Roll) -> None:
        """Write the roll down; Conflict once it is not in our hand any more. A lost answer is asked for again."""

        def put() -> bool:
            with self._hands.asking() as store:
                stands = store.roll()  # ours, if not as `roll` says: a write whose answer was lost
                return stands is not None and stands.token == wanted.token and store.put_roll(wanted, stands)

        if not self._until_answered(put):
            raise Conflict(
                "another command took this roll in hand, or it was forgotten; this one does nothing more: "
                "`fangnetz maintenance show` says how it stands"
            )
        self.roll = wanted

    def _until_answered(self, ask: Callable[[], T]) -> T:
        """Return the answer; StoreUnreachable once it did not come for as long as a roll bears."""
        while True:
            try:
                answer = ask()
            except StoreUnreachable:
                if self._too_long():
                    raise
                self._hands.sleep(LOOK_EVERY_S)
                continue
            self._away_since = None
            return answer

    def _put_down(self, why: str) -> None:
        """Write why it stopped, in one try: whoever is told to wait for the store would be told nothing."""
        wanted = stopped(self.roll, why)
        # If it fails, it is in nobody's hand after HAND_S all the same.
        with suppress(FangnetzError, KeyboardInterrupt), self._hands.asking() as store:
            stands = store.roll()
            if stands is not None and stands.token == wanted.token:
                store.put_roll(wanted, stands)
        self.roll = wanted

    @property
    def sentence(self) -> str:
        """What a person is told at the end."""
        if self.roll.finished:
            return told(self.roll)
        return f"{told(self.roll)}; {how_to_go_on(self.roll)}"
