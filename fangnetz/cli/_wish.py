"""An operator's wish: write it, wait for its answer, follow what comes of it. The only way the CLI changes anything."""

from __future__ import annotations

import getpass
import os
import sys
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any, TypedDict, Unpack

import typer

from fangnetz.cli._json import print_item
from fangnetz.cli._session import Session
from fangnetz.core.errors import FangnetzError, StoreUnreachable, WishRefused, WorldError
from fangnetz.core.model import VmDoc, Wish, WishKind
from fangnetz.core.units import HostId, Incarnation, Instant
from fangnetz.ports import WishResult

ANSWER_S = 15.0
"""A controller that ticks every second answers in two; after so long there is none."""
ASK_EVERY_S = 0.02
"""Somebody waits at a terminal, a tenth of a second as a rule, and the question is one short read."""

Wait = Annotated[bool, typer.Option("--wait", help="Follow to the end, with a progress bar.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=1, metavar="SECONDS", help="With --wait: no longer than this.")
]
TIMEOUT_S = 300.0
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class NoAnswer(WorldError):
    """Nobody took the wish up; it stays written."""


class Interrupted(FangnetzError):
    """The person stopped waiting; what was asked for goes on."""


def operator() -> str:
    """Return the name of the person at the keyboard, also behind sudo."""
    name = os.environ.get("SUDO_USER", "")
    if name:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def confirm(question: str, *, yes: bool, otherwise: str) -> None:
    """Ask the person at the terminal; WishRefused on no, and with `otherwise` when nobody is there to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise WishRefused(otherwise)
    if not typer.confirm(question, err=True):
        raise WishRefused("nothing was done")


class More(TypedDict, total=False):
    """What a wish may say beside its kind and subject, as in `Wish`.

    `by`: the person at the terminal if left out; `boot`: of the host that its writer saw, left out where the wish is
    about no boot, or none is known.
    """

    by: str
    force: bool
    doc: VmDoc | None
    boot: Incarnation
    to: HostId | None
    failback: bool
    reason: str
    until: Instant | None


def ask(session: Session, kind: WishKind, subject: str, **more: Unpack[More]) -> WishResult:
    """Write a wish and return its answer. WishRefused with the controller's sentence; NoAnswer after `ANSWER_S`."""
    return answer_to(session, write_wish(session, kind, subject, **more))


def write_wish(session: Session, kind: WishKind, subject: str, **more: Unpack[More]) -> Wish:
    """Write a wish and return it at once: several of them are taken up together."""
    more["by"] = more.get("by") or operator()
    with session.asking() as store:
        store.control_lease()  # refuses another version's layout: nothing is written into that
        wish = Wish(id=uuid.uuid4().hex, kind=kind, subject=subject, at=store.now(), **more)
        store.add_wish(wish)
    return wish


def answer_to(session: Session, wish: Wish) -> WishResult:
    """Wait for a wish's answer; errors as in `ask`."""
    result = _answer(session, wish.id)
    if result is None:
        raise NoAnswer(
            f"no controller has answered the wish {wish.kind} {wish.subject} within {ANSWER_S:g} s; the wish stays "
            "written, and the first controller that decides takes it up"
        )
    if not result.granted:
        raise WishRefused(result.sentence)
    return result


def _answer(session: Session, wish: str) -> WishResult | None:
    deadline = time.monotonic() + ANSWER_S
    while True:
        late = time.monotonic() >= deadline
        try:
            with session.asking() as store:
                result = store.wish_result(wish)
        except StoreUnreachable:
            if late:
                raise
            result = None
        except KeyboardInterrupt:
            raise Interrupted("interrupted before an answer; the wish stays written") from None
        if result is not None or late:
            return result
        try:
            time.sleep(ASK_EVERY_S)
        except KeyboardInterrupt:
            raise Interrupted("interrupted before an answer; the wish stays written") from None


def carry(
    result: WishResult, *, as_json: bool, wait: bool, follow: Callable[[], tuple[bool, str]] | None = None
) -> None:
    """Report a granted wish; with `wait`, follow it first. Exit 1 if it did not end well.

    `follow` returns whether it ended well and the sentence it ended with.
    """
    well, ended = True, ""
    if wait and follow is not None:
        if not as_json:
            from fangnetz.cli._console import err, say

            say(err(), f"{result.sentence}.")
        try:
            well, ended = follow()
        except KeyboardInterrupt:
            raise Interrupted("interrupted; what was asked for goes on") from None
    if as_json:
        answer: dict[str, Any] = {"wish": result.id, "granted": True, "sentence": result.sentence}
        answer["operation"] = result.operation
        answer["ended"] = {"well": well, "sentence": ended} if ended else None
        print_item(answer)
        if not well:
            raise typer.Exit(1)
        return
    if not well:
        raise FangnetzError(ended)
    said = ended or result.sentence
    if result.operation and not ended:
        said += f"; follow it with `fangnetz operation show {result.operation}`"
    from fangnetz.cli._console import out, say

    say(out(), f"{said}.")
