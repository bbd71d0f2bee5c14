"""A roll in the hands of a command line: what `engine.rolling` asks of a terminal, and how scripts read a roll."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from fangnetz.cli._command import for_host, run_command
from fangnetz.cli._console import QUIET, err, say
from fangnetz.cli._follow import Lines
from fangnetz.cli._json import Item
from fangnetz.cli._session import Session
from fangnetz.cli._snapshot import Snapshot, take
from fangnetz.cli._wish import Interrupted, answer_to, write_wish
from fangnetz.core.model import Wish, WishKind
from fangnetz.core.roll.values import Roll, Seen
from fangnetz.core.roll.words import told
from fangnetz.core.units import HostId, Seconds
from fangnetz.engine import rolling
from fangnetz.engine.rolling import CommandEnded
from fangnetz.ports import Operators


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


class Hands:
    """`rolling.Hands` of this command."""

    def __init__(self, session: Session) -> None:
        self._session, self._lines = session, Lines()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, span: Seconds) -> None:
        time.sleep(span)

    def asking(self) -> AbstractContextManager[Operators]:
        return self._session.asking()

    def look(self) -> Seen:
        return seen_in(take(self._session, holes=True))

    def wish(self, kind: WishKind, host: HostId, *, by: str, failback: bool) -> Wish:
        return write_wish(self._session, kind, host, by=by, failback=failback)

    def answer(self, wish: Wish) -> str:
        try:
            return answer_to(self._session, wish).sentence
        except Interrupted:
            raise rolling.Interrupted from None

    def run(self, roll: Roll, host: HostId, renew: Callable[[], None]) -> CommandEnded:
        address = self._session.settings.hosts[host].address
        words = for_host(roll.command, host, address)
        self.show(roll, f"{host}: {' '.join(words)}")
        console, kept = err(), list[str]()

        def show(line: str) -> None:
            kept.append(line + "\n")
            say(console, f"{host} | {line}", QUIET)

        names = {"FANGNETZ_HOST": host, "FANGNETZ_ADDRESS": address}
        try:
            return run_command(words, names, show, renew, roll.limits.command_s)
        except KeyboardInterrupt:
            raise rolling.Interrupted("".join(kept)) from None

    def show(self, roll: Roll, words: str) -> None:
        self._lines.show(len(roll.done), len(roll.hosts), words)
