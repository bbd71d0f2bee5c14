"""Drives a roll: looks, does what `core.roll` says is next, and writes down what came of it before it looks again.

Decides nothing itself. Everything a roll does to the cluster is a wish that a controller answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from fangnetz.cli._command import for_host, run_command
from fangnetz.cli._console import QUIET, err, say
from fangnetz.cli._follow import LOOK_EVERY_S, Lines
from fangnetz.cli._json import Item
from fangnetz.cli._session import Session
from fangnetz.cli._snapshot import Snapshot, take
from fangnetz.cli._wish import Interrupted, answer_to, write_wish
from fangnetz.core.errors import Conflict, FangnetzError, StoreUnreachable
from fangnetz.core.model import WishKind
from fangnetz.core.roll.going import UNREST_S, Act, Activate, Evacuate, Finish, Keep, Pace, Run, Stop, Wait, next_act
from fangnetz.core.roll.values import INTERRUPTED, Roll, Seen, Stage, answered, commanded, renewed, stopped
from fangnetz.core.roll.words import how_to_go_on, told
from fangnetz.core.units import HostId, Instant

T = TypeVar("T")

HAND_S = 15.0
"""A command that was killed blocks `--resume` this long at most; a living one renews."""
RENEW_AT_S = 10.0


def seen_in(snapshot: Snapshot) -> Seen:
    return Seen(
        view=snapshot.view,
        watch=snapshot.watch,
        unwatched=snapshot.unwatched,
        verdicts=snapshot.verdicts,
        alarms=snapshot.alarms,
        policy=snapshot.policy,
    )


def roll_item(roll: Roll, now: float) -> Item:
    """Return a roll as scripts read it."""
    state = "done" if roll.finished else "in_hand" if roll.until > now else "stopped"
    return {
        "id": roll.id,
        "by": roll.by,
        "began_at": float(roll.began_at),
        "state": state,
        "sentence": told(roll),
        "stopped": roll.stopped or None,
        "hosts": list(roll.hosts),
        "command": list(roll.command),
        "done": list(roll.done),
        "waiting": list(roll.waiting),
        "turns": [
            {
                "host": turn.host,
                "stage": turn.stage.value,
                "since": float(turn.since),
                "vms": list(turn.vms),
                "command": turn.command.value,
                "exit_code": turn.exit_code,
                "output": turn.output,
                "not_home": list(turn.not_home),
            }
            for turn in roll.turns
        ],
    }


class Driver:
    """One command that has a roll in hand. `roll` is always what was last written down."""

    def __init__(self, session: Session, roll: Roll) -> None:
        self.session, self.roll = session, roll
        self._pace, self._lines = Pace(), Lines()
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
                seen = seen_in(take(self.session, holes=True))
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
                time.sleep(LOOK_EVERY_S)

    def _do(self, act: Act) -> None:
        match act:
            case Wait(sentence=sentence):
                self._show(sentence)
                time.sleep(LOOK_EVERY_S)
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
        now = time.monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        returning = any(turn.stage is Stage.RETURN for turn in self.roll.in_hand)
        return now - self._away_since > (self.roll.limits.return_s if returning else UNREST_S)

    def _show(self, words: str) -> None:
        self._lines.show(len(self.roll.done), len(self.roll.hosts), words)

    # -- what it does --

    def _ask(self, kind: WishKind, hosts: Sequence[HostId]) -> None:
        self._keep(renewed(self.roll, Instant(self._now() + HAND_S)))  # thawed late, it must ask for nothing
        failback = kind is WishKind.HOST_ACTIVATE
        wishes = [write_wish(self.session, kind, host, by=self.roll.by, failback=failback) for host in hosts]
        for wish in wishes:
            self._show(answer_to(self.session, wish).sentence)
        self._keep(answered(self.roll, hosts))

    def _run(self, host: HostId) -> None:
        address = self.session.settings.hosts[host].address
        words = for_host(self.roll.command, host, address)
        self._show(f"{host}: {' '.join(words)}")
        console, kept = err(), list[str]()

        def show(line: str) -> None:
            kept.append(line + "\n")
            say(console, f"{host} | {line}", QUIET)

        bound = self.roll.limits.command_s
        try:
            ended = run_command(
                words, {"FANGNETZ_HOST": host, "FANGNETZ_ADDRESS": address}, show, self._renew_if_can, bound
            )
        except KeyboardInterrupt:
            self._keep(commanded(self.roll, host, None, "".join(kept), Instant(0.0)))
            raise
        self._keep(commanded(self.roll, host, ended.exit_code, ended.output, self._now()))
        if ended.exit_code is None:
            raise FangnetzError(f"the command on {host} had not ended after {bound:g} s and was ended")
        last = ended.output.strip().rpartition("\n")[2]
        self._show(f"{host}: the command exited with {ended.exit_code}" + (f", last saying: {last}" if last else ""))

    # -- what it remembers --

    def _now(self) -> Instant:
        def ask() -> Instant:
            with self.session.asking() as store:
                return store.now()

        return self._until_answered(ask)

    def _renew(self) -> None:
        with self.session.asking() as store:
            now = store.now()
        if self.roll.until - now < RENEW_AT_S:
            self._keep(renewed(self.roll, Instant(now + HAND_S)))

    def _renew_if_can(self) -> None:
        """Renew during the command: a store that is away for a while is no reason to end it."""
        try:
            with self.session.asking() as store:
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
            with self.session.asking() as store:
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
                time.sleep(LOOK_EVERY_S)
                continue
            self._away_since = None
            return answer

    def _put_down(self, why: str) -> None:
        """Write why it stopped, in one try: whoever is told to wait for the store would be told nothing."""
        wanted = stopped(self.roll, why)
        # If it fails, it is in nobody's hand after HAND_S all the same.
        with suppress(FangnetzError, KeyboardInterrupt), self.session.asking() as store:
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
