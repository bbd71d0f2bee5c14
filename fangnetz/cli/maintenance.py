"""`fangnetz maintenance`: roll over hosts in turn; each is emptied, worked on by a command of yours, filled again."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._command import for_host, must_be_there, words_of
from fangnetz.cli._console import BAD, GOOD, QUIET, Fields, Row, Rows, clock, few, out, say, title
from fangnetz.cli._evacuation import plan_item, plan_page
from fangnetz.cli._json import print_item
from fangnetz.cli._roll import Hands, roll_item, seen_in
from fangnetz.cli._session import Json, Session, open_session
from fangnetz.cli._snapshot import Snapshot, take
from fangnetz.cli._wish import Interrupted, operator
from fangnetz.core.errors import FangnetzError, StoredContentError, WishRefused
from fangnetz.core.roll.begin import begun, obstacles, plan_wave, waves
from fangnetz.core.roll.values import Limits, Resumption, Roll
from fangnetz.core.roll.words import how_to_go_on, told
from fangnetz.core.units import HostId, Instant, Seconds
from fangnetz.engine.rolling import HAND_S, Rolling, refuse_while_unfinished, take_in_hand, taken_up

app = typer.Typer(no_args_is_help=True, help="Work on hosts in turn while every VM runs on.")

RETURN_S = 900.0
"""A server's firmware, disks and services take many minutes to come up."""
MOVES_S = 3600.0
"""As long as one live migration may take."""
COMMAND_S = 3600.0
LIMITS = Limits(return_s=Seconds(RETURN_S), moves_s=Seconds(MOVES_S), command_s=Seconds(COMMAND_S))


@app.command("roll")
def roll(
    *,
    hosts: Annotated[
        str, typer.Option("--hosts", metavar="HOST,…", help="Only these, in this order; else all of the cluster file.")
    ] = "",
    run: Annotated[
        str,
        typer.Option(
            "--run",
            metavar="CMD",
            help="Run here for each empty host, without a shell and without input; {host} and {address} are filled in, "
            "FANGNETZ_HOST and FANGNETZ_ADDRESS are set. Its last words are kept in the store.",
        ),
    ] = "",
    reboots: Annotated[
        bool, typer.Option("--reboots", help="CMD restarts the host: it is back only in another boot.")
    ] = False,
    wait_return: Annotated[
        float | None,
        typer.Option("--wait-return", min=1, metavar="SECONDS", help=f"Until a host is cleanly back [{RETURN_S:g}]."),
    ] = None,
    wait_moves: Annotated[
        float | None,
        typer.Option(
            "--wait-moves", min=1, metavar="SECONDS", help=f"Until a host is empty, and its VMs home [{MOVES_S:g}]."
        ),
    ] = None,
    wait_run: Annotated[
        float | None,
        typer.Option("--wait-run", min=1, metavar="SECONDS", help=f"Until CMD has ended [{COMMAND_S:g}]."),
    ] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, metavar="N", help="Empty N hosts at a time, if all fits. [1]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the last roll stopped; --run replaces its command.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --resume: run CMD once more where nobody knows how it ended.")
    ] = False,
    ran: Annotated[
        bool, typer.Option("--ran", help="With --resume: CMD's work is done where it failed or was cut short.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only say who would go where, and what speaks against it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Empty each host while its VMs run, run CMD, wait for the host, bring its VMs home; then the next host.

    It stops at the first doubt: a VM with nowhere to go, CMD failed, a host not back in time, a VM that does not run
    as wished, another host lost, an alarm of the highest level. No VM is ever stopped for it. Where CMD begins a reboot
    that may come after CMD has ended, say --reboots.
    """
    session = open_session()
    snapshot = take(session, holes=True)
    with session.asking() as store:
        stands = store.roll()
    if resume:
        _must_stand_alone(hosts=hosts, at_once=at_once, reboots=reboots, again=again, ran=ran)
        known = _standing(stands)
        wanted = replace(
            known,
            command=words_of(run) if run else known.command,
            limits=_limits(known.limits, wait_return, wait_moves, wait_run),
        )
    else:
        if again or ran:
            raise WishRefused("--again and --ran say how to go on: they need --resume")
        limits = _limits(LIMITS, wait_return, wait_moves, wait_run)
        new = _new(session, hosts, run, reboots, limits, at_once or 1, preview=preview)
        wanted = begun(new, seen_in(snapshot))
    if preview:
        _preview(snapshot, wanted, as_json=as_json)
        return
    seen, hands = seen_in(snapshot), Hands(session)
    if resume:
        said = Resumption.AGAIN if again else Resumption.RAN if ran else Resumption.UNSAID
        wanted = taken_up(wanted, seen, said, uuid.uuid4().hex)
    else:
        refuse_while_unfinished(stands)
    _programs_must_be_there(session, wanted)
    take_in_hand(wanted, stands, seen, hands)
    _drive(hands, wanted, as_json=as_json)


def _must_stand_alone(*, hosts: str, at_once: int | None, reboots: bool, again: bool, ran: bool) -> None:
    if hosts or at_once is not None or reboots:
        raise WishRefused("--resume goes on as the roll was begun: --hosts, --at-once and --reboots cannot be changed")
    if again and ran:
        raise WishRefused("--again and --ran say the opposite of each other")


def _standing(stands: Roll | None) -> Roll:
    if stands is None:
        raise WishRefused(
            "the store knows of no roll to go on with; a host that one left empty is in maintenance in `fangnetz host "
            "list`, and `fangnetz host activate HOST --failback` ends that"
        )
    return stands


def _new(
    session: Session,
    hosts: str,
    run: str,
    reboots: bool,
    limits: Limits,
    at_once: int,
    *,
    preview: bool,
) -> Roll:
    if not run and not preview:
        raise WishRefused("a roll needs a command for each host: --run CMD")
    named = tuple(HostId(name.strip()) for name in hosts.split(",") if name.strip())
    if hosts and not named:
        raise WishRefused("--hosts names no host")
    with session.asking() as store:
        now = store.now()
    return Roll(
        id=uuid.uuid4().hex[:8],
        by=operator(),
        began_at=now,
        hosts=named or tuple(session.hosts),
        command=words_of(run) if run else (),
        limits=limits,
        at_once=at_once,
        reboots=reboots,
        token=uuid.uuid4().hex,
        until=Instant(now + HAND_S),
    )


def _limits(known: Limits, wait_return: float | None, wait_moves: float | None, wait_run: float | None) -> Limits:
    return Limits(
        return_s=known.return_s if wait_return is None else Seconds(wait_return),
        moves_s=known.moves_s if wait_moves is None else Seconds(wait_moves),
        command_s=known.command_s if wait_run is None else Seconds(wait_run),
    )


def _programs_must_be_there(session: Session, wanted: Roll) -> None:
    for host in (*(turn.host for turn in wanted.in_hand), *wanted.waiting):
        if host in session.settings.hosts:
            must_be_there(for_host(wanted.command, host, session.settings.hosts[host].address)[0])


def _drive(hands: Hands, wanted: Roll, *, as_json: bool) -> None:
    driver = Rolling(hands, wanted)
    well = driver.drive()
    if as_json:
        print_item({"roll": roll_item(driver.roll, 0.0), "ended": {"well": well, "sentence": driver.sentence}})
        if not well:
            raise typer.Exit(1)
        return
    if driver.interrupted:
        raise Interrupted(f"{driver.sentence}.")
    if not well:
        raise FangnetzError(f"{driver.sentence}.")
    say(out(), f"{driver.sentence}.")


def _preview(snapshot: Snapshot, wanted: Roll, *, as_json: bool) -> None:
    seen = seen_in(snapshot)
    plans = [plan_wave(wave, seen) for wave in waves(wanted)]
    against = obstacles(wanted, seen)
    if as_json:
        told_as = [[plan_item(snapshot, one)["preview"] for one in wave] for wave in plans]
        print_item({"preview": {"waves": told_as, "command": list(wanted.command), "against": list(against)}})
        return
    parts: list[RenderableType] = []
    for wave in plans:
        for one in wave:
            parts += [plan_page(snapshot, one), ""]
    line = Text("● ", style=BAD if against else GOOD)
    line.append(f"it would not begin: {'; '.join(against)}" if against else "it could begin now")
    out().print(Group(*parts, line))


@app.command("show")
def show(as_json: Json = False) -> None:
    """Show the last roll: which hosts had their turn, what is in hand, why it stopped, what the command said."""
    session = open_session()
    with session.asking() as store:
        found, now = store.roll(), store.now()
    if as_json:
        print_item({"roll": None if found is None else roll_item(found, now)})
    elif found is None:
        say(out(), "There was no roll yet.")
    else:
        out().print(_page(found, now))


def _page(found: Roll, now: Instant) -> RenderableType:
    item = roll_item(found, now)
    pairs: list[tuple[str, str | Text]] = [
        ("state", item["state"]),
        ("stands", told(found)),
        ("begun", f"{clock(found.began_at, day=True)} by {found.by}"),
        ("command", " ".join(found.command)),
    ]
    if item["state"] == "stopped":
        pairs.insert(2, ("go on", how_to_go_on(found)))
    rows = [
        Row(
            cells=(turn.host, turn.stage.value, turn.command.value, clock(turn.since), few(turn.vms) or "none"),
            note=turn.output.strip() or "; ".join(turn.not_home),
        )
        for turn in found.turns
    ]
    parts: list[RenderableType] = [title("Roll", few(found.hosts, 8)), Fields(pairs)]
    if rows:
        parts += ["", title("Turns"), Rows(("host", "stage", "command", "since", "VMs"), rows)]
    if found.waiting:
        parts.append(Text(f"  not begun: {', '.join(found.waiting)}", style=QUIET))
    return Group(*parts)


@app.command("forget")
def forget(as_json: Json = False) -> None:
    """Drop what is remembered of the last roll. Hosts stay as they are."""
    session = open_session()
    left: tuple[str, ...] = ()
    with session.asking() as store:
        try:
            found, now = store.roll(), store.now()
        except StoredContentError:
            found = None  # what cannot be read can still be dropped
        else:
            if found is not None and not found.finished and found.until > now:
                raise WishRefused("a command has this roll in hand: interrupt it first")
        store.drop_roll()
    if found is not None:
        left = tuple(turn.host for turn in found.in_hand)
    said = "the roll is forgotten"
    if left:
        said += (
            "; " + ", ".join(f"`fangnetz host activate {host} --failback`" for host in left) + " ends what was begun"
        )
    if as_json:
        print_item({"forgotten": True, "sentence": said, "left": list(left)})
    else:
        say(out(), f"{said}.")
