"""`fangnetz events`: everything that happened, a sentence each. With --json one object a line, fit for a pipe."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.style import Style
from rich.text import Text

from fangnetz.cli._console import QUIET, clock, err, out, say
from fangnetz.cli._items import event_item
from fangnetz.cli._json import print_json
from fangnetz.cli._session import Json, Session, open_session
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.units import Seconds
from fangnetz.ports import LoggedEvent

app = typer.Typer(add_completion=False)

BLOCK_S = Seconds(1.0)
BATCH = 100
STYLES = {
    "alarm": "yellow",
    "fence_sent": "red",
    "fence_proven": "cyan",
    "vm_started": "green",
    "rejoined": "green",
    "wish_refused": "yellow",
}


@app.command()
def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, max=10_000, help="So many of the latest first.")] = 50,
    as_json: Json = False,
) -> None:
    """Show what happened, the latest last."""
    session = open_session()
    with session.asking() as store:
        latest = store.events("", max(1, limit), Seconds(0.0))
    for event in latest if limit else ():
        _show(event, as_json)
    if follow:
        try:
            _follow(session, latest[-1].id if latest else "0-0", as_json)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _follow(session: Session, after: str, as_json: bool) -> None:
    """Wait for news for ever; a store that is away is said once and asked again."""
    away = False
    while True:
        try:
            with session.asking() as store:
                found = store.events(after, BATCH, BLOCK_S)
        except StoreUnreachable as error:
            if not away:
                say(err(), f"{error}; waiting for it", QUIET)
            away = True
            time.sleep(BLOCK_S)
            continue
        away = False
        for event in found:
            _show(event, as_json)
            after = event.id


def _show(event: LoggedEvent, as_json: bool) -> None:
    if as_json:
        print_json(event_item(event))
        return
    console = out()
    head = Text(f"{clock(event.at, day=not _today(event.at))}  ", style=QUIET)
    head.append(f"{event.kind:<17} ", style=Style.parse(STYLES.get(event.kind, "none")))
    if not console.is_terminal:
        console.print(head.append(event.sentence, style="none"), soft_wrap=True)
        return
    # A sentence goes on below itself, not below the time.
    for number, part in enumerate(Text(event.sentence).wrap(console, max(24, console.width - len(head)))):
        console.print((head if number == 0 else Text(" " * len(head))).append_text(part), soft_wrap=True)


def _today(at: float) -> bool:
    return datetime.fromtimestamp(at, UTC).astimezone().date() == datetime.now(UTC).astimezone().date()
