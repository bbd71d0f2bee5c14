"""`fangnetz status`: the whole cluster on one screen, and with --watch as it changes. Only reads."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._console import BAD, QUIET, clock, out, span, title
from fangnetz.cli._items import status_item
from fangnetz.cli._json import print_item
from fangnetz.cli._session import Json, Session, open_session
from fangnetz.cli._snapshot import Snapshot, take
from fangnetz.cli._tables import alarms_table, hosts_table, operations_table, vms_table
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.pause import HOW_TO_END, told

app = typer.Typer(add_completion=False)

REDRAW_S = 1.0


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Redraw every second, until interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Show who decides, hosts, VMs, open operations and standing alarms."""
    session = open_session()
    if not watch:
        snapshot = take(session)
        if as_json:
            print_item(status_item(snapshot))
        else:
            out().print(screen(snapshot))
        return
    try:
        _watch(session, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _watch(session: Session, as_json: bool) -> None:
    if as_json:
        while True:
            print_item(status_item(take(session)))
            time.sleep(REDRAW_S)
    from rich.live import Live

    first = screen(take(session))
    console = out()
    with Live(first, console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            live.update(_now(session), refresh=True)
            time.sleep(REDRAW_S)


def _now(session: Session) -> RenderableType:
    """The screen, or what is wrong with the store: watching outlives a pause of it."""
    try:
        return screen(take(session))
    except StoreUnreachable as error:
        return Text(f"{error}; VMs run on, nothing is decided", style=BAD)


def screen(snapshot: Snapshot) -> RenderableType:
    """Return everything `status` shows."""
    view = snapshot.view
    parts: list[RenderableType] = [_head(snapshot)]
    if snapshot.alarms:
        parts += ["", title("Alarms"), alarms_table(snapshot.alarms)]
    parts += ["", title("Hosts"), hosts_table(snapshot, view.hosts)]
    names = snapshot.vm_names()
    parts += ["", title("VMs")]
    parts.append(vms_table(snapshot, names) if names else Text("  none yet: `fangnetz vm add`", style=QUIET))
    if view.operations:
        opened = sorted(view.operations.values(), key=lambda op: op.opened_at, reverse=True)
        parts += ["", title("Open operations"), operations_table(opened, view.now)]
    return Group(*parts)


def _head(snapshot: Snapshot) -> Text:
    view, lease = snapshot.view, snapshot.lease
    line = title(snapshot.cluster)
    if lease is not None and snapshot.held:
        line.append(f"   {lease.holder} decides")
        line.append(f" (epoch {lease.epoch})", style=QUIET)
    else:
        line.append("   nobody decides", style=BAD)
    if view.life.since:
        line.append(f"   store up {span(view.now - view.life.since)}", style=QUIET)
    line.append(f"   {clock(view.now)}", style=QUIET)
    if snapshot.unwatched and snapshot.held:
        line.append(f"\n  {snapshot.unwatched}", style=BAD)
    paused = pause_line(snapshot)
    return line.append("\n").append(paused) if paused else line


def pause_line(snapshot: Snapshot) -> Text:
    """Return who paused the cluster, until when, and how it ends; empty if nobody did."""
    pause = snapshot.view.paused
    return Text(f"  {told(pause)}; {HOW_TO_END}", style=BAD) if pause is not None else Text()
