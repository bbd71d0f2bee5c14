"""`fangnetz host`: see the hosts, and wish a fence, a confirmation, a return or maintenance. Cuts nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._console import (
    QUIET,
    Fields,
    Row,
    Rows,
    age,
    clock,
    err,
    few,
    memory,
    out,
    say,
    span,
    state_cell,
    style_of,
    title,
)
from fangnetz.cli._evacuation import follow_evacuation, plan, plan_item, plan_page
from fangnetz.cli._follow import Ended, follow_host, follow_operation
from fangnetz.cli._items import host_item, print_item, print_list
from fangnetz.cli._session import Json, Session, open_session
from fangnetz.cli._snapshot import Snapshot, take, why_not_fenced
from fangnetz.cli._tables import hosts_table
from fangnetz.cli._uses import host_uses_said
from fangnetz.cli._wish import TIMEOUT_S, Timeout, Wait, Yes, ask, carry, confirm, operator
from fangnetz.cli.status import pause_line
from fangnetz.core.detector import heard
from fangnetz.core.errors import WishRefused
from fangnetz.core.fencing import binding_state
from fangnetz.core.model import HostState, Power, WishKind
from fangnetz.core.units import HostId
from fangnetz.ports import WishResult

app = typer.Typer(
    no_args_is_help=True, help="See hosts; fence, confirm off, activate, empty, take out for maintenance."
)

Host = Annotated[str, typer.Argument(metavar="HOST")]


# --- views -------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show every host: state, whether it could be fenced, what runs there."""
    snapshot = take(open_session())
    if as_json:
        print_list(host_item(snapshot, host) for host in snapshot.view.hosts)
    else:
        if paused := pause_line(snapshot):
            out().print(paused)
        out().print(hosts_table(snapshot, snapshot.view.hosts, names=True))


@app.command("show")
def show(host: Host, as_json: Json = False) -> None:
    """Show one host: the evidence about it, why it is or is not fenced, its fence devices, its VMs."""
    snapshot = take(open_session())
    name = _known(snapshot, host)
    if as_json:
        print_item(host_item(snapshot, name))
    else:
        out().print(_page(snapshot, name))


def _known(snapshot: Snapshot, host: str) -> HostId:
    if host not in snapshot.view.hosts:
        raise WishRefused(f"{host} is no host of this cluster; it has {', '.join(sorted(snapshot.view.hosts))}")
    return HostId(host)


def _page(snapshot: Snapshot, host: HostId) -> RenderableType:
    view, record, spec = snapshot.view, snapshot.host(host), snapshot.view.hosts[host]
    word, beat, vms = snapshot.protection_word(host), heard(view, host), snapshot.vms_on(host)
    state = state_cell(record.state.value)
    state.append(f"  for {age(record.since, view.now)}", style=QUIET)
    pairs: list[tuple[str, str | Text]] = [
        ("state", state),
        ("reason", record.reason),
        ("boot", record.incarnation or "–"),
        ("fencing", Text(word, style=style_of(word))),
        ("heartbeat", "none in this life of the store"),
        ("memory", memory(snapshot.memory_used(host), spec.memory_mib)),
        ("VMs", few([vm.id for vm in vms], 12) or "none"),
    ]
    if beat is not None:
        pairs[4] = (
            "heartbeat",
            f"{span(view.now - beat.received_at)} ago, number {beat.sequence}, libvirt {beat.hypervisor}, "
            f"load {beat.load:.2f}, {beat.memory_free_mib} MiB free",
        )
    if used := host_uses_said(snapshot, host):
        pairs.insert(6, ("in use", used))
    if spec.zone:
        pairs.insert(4, ("zone", spec.zone))
    doc = view.host_docs.get(host)
    if doc is not None and doc.maintenance:
        pairs.insert(2, ("maintenance", doc.reason or "wished"))
    if record.exits:  # those nobody asked for, of one hour
        pairs.append(("went down", ", ".join(clock(at) for at in record.exits)))
    parts: list[RenderableType] = [title(host), Fields(pairs), "", title("Evidence"), _evidence(snapshot, host)]
    if spec.fencing:
        parts += ["", title("Fence devices"), _devices(snapshot, host)]
    return Group(*parts)


def _evidence(snapshot: Snapshot, host: HostId) -> RenderableType:
    verdict, record = snapshot.verdicts.get(host), snapshot.host(host)
    pairs: list[tuple[str, str | Text]] = []
    if verdict is None:
        pairs.append(("verdict", Text(f"not known: {snapshot.unwatched}", style=QUIET)))
    else:
        finding = Text(verdict.finding.value, style=style_of(verdict.finding.value))
        finding.append(f": {verdict.sentence}", style="none")
        pairs.append(("verdict", finding))
        # A fresh heartbeat is shown above already.
        told = verdict.signals[1:] if verdict.fresh else verdict.signals
        pairs += [(signal.source, f"{signal.answer}: {signal.detail}") for signal in told]
    pairs += [("brake", brake.sentence) for brake in snapshot.brakes(host)]
    if record.proof is not None:
        void = " (void: that boot spoke again)" if record.proof.void else ""
        pairs.append(("proof", f"{clock(record.proof.proven_at, day=True)} {record.proof.sentence}{void}"))
    pairs.append(("", why_not_fenced(snapshot, host)))
    return Fields(pairs)


def _devices(snapshot: Snapshot, host: HostId) -> Rows:
    view, incarnation = snapshot.view, snapshot.incarnation(host)
    readings = {reading.device: reading for reading in view.readings.get(host, ())}
    rows: list[Row] = []
    for number, level in enumerate(view.hosts[host].fencing, start=1):
        for device in level:
            reading = readings.get(device)
            power = reading.power.value if reading else "never asked"
            rows.append(
                Row(
                    cells=(
                        device,
                        str(number),
                        power,
                        f"{age(reading.asked_at, view.now)} ago" if reading else "–",
                        binding_state(view.bindings.get((host, device)), incarnation).value,
                    ),
                    note=reading.raw if reading is not None and reading.power is Power.UNKNOWN else "",
                )
            )
    return Rows(("device", "level", "reads", "asked", "binding"), rows)


# --- wishes ------------------------------------------------------------------------------------------------------


def _follower(session: Session, result: WishResult, timeout: float) -> Callable[[], Ended] | None:
    identity = result.operation
    return None if identity is None else lambda: follow_operation(session, identity, timeout)


@app.command("fence")
def fence(
    host: Host, yes: Yes = False, wait: Wait = False, timeout: Timeout = TIMEOUT_S, as_json: Json = False
) -> None:
    """Cut a host's power and start its VMs elsewhere. Of a living host only after a yes.

    It is about the boot seen now: refused if the host has booted anew before a controller takes it up.
    """
    session = open_session()
    snapshot = take(session, holes=True)
    name = _known(snapshot, host)
    if snapshot.reports(name):
        vms = [vm.id for vm in snapshot.vms_on(name)]
        what = f"{name} is alive and runs {few(vms, 6) if vms else 'no VM'}"
        confirm(
            f"{what}. Fencing cuts its power now"
            + (": its VMs stop hard and start elsewhere" if vms else "")
            + ". Fence it?",
            yes=yes,
            otherwise=f"{what}: fencing a living host needs --yes",
        )
    result = ask(session, WishKind.HOST_FENCE, name, boot=snapshot.boot_seen(name))
    carry(result, as_json=as_json, wait=wait, follow=_follower(session, result, timeout))


@app.command("confirm-off")
def confirm_off(
    host: Host,
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="Who vouches for it; the login name if left out.")
    ] = "",
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Vouch, by name, that a host is off, so that its VMs start elsewhere. Refused at any sign of life.

    Also for a host that is no longer in the cluster file. It is about the boot seen now, and refused if the host has
    booted anew since.
    """
    session = open_session()
    snapshot = take(session, holes=True)
    # A host that is not in the cluster file any more may still own VMs: a person's word is all there is about it.
    name = HostId(host) if host in snapshot.view.outside else _known(snapshot, host)
    person = by.strip() or operator()
    boot = snapshot.boot_seen(name)
    meaning = (
        f"{person} vouches that {name}{f' (boot {boot[:8]})' if boot else ''} is switched off: seen on the spot, not "
        "concluded from silence. Its VMs start elsewhere at once. If it still runs, two copies of a VM write one disk "
        "and destroy it."
    )
    if not yes and not as_json:
        say(err(), meaning)
    confirm(f"Is {name} off?", yes=yes, otherwise=f"{meaning} Without a terminal this needs --yes")
    result = ask(session, WishKind.HOST_CONFIRM_OFF, name, by=person, boot=boot)
    carry(result, as_json=as_json, wait=wait, follow=_follower(session, result, timeout))


@app.command("activate")
def activate(
    host: Host,
    failback: Annotated[
        bool, typer.Option("--failback", help="Bring home the VMs that an evacuation moved away.")
    ] = False,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Let a host rejoin after a fence, or end its evacuation or maintenance."""
    _wish_state(WishKind.HOST_ACTIVATE, host, HostState.ONLINE, wait, timeout, as_json, failback=failback)


@app.command("evacuate")
def evacuate(
    host: Host,
    preview: Annotated[bool, typer.Option("--preview", help="Only say who would go where, and who could not.")] = False,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Move every VM off a host while it runs, then take the host out for maintenance. Users notice nothing.

    One with `live: false` is stopped, moved and started, or stays (policy `unmovable`); --preview says which.
    A VM that cannot leave stays and runs, and is tried again when room appears; said again, all are tried at once.
    It holds until `host activate`, also over a loss of power.
    """
    session = open_session()
    snapshot = take(session, holes=True)
    name = _known(snapshot, host)
    if preview:
        found = plan(snapshot, name)
        if as_json:
            print_item(plan_item(found))
        else:
            out().print(plan_page(snapshot, found))
        return
    result = ask(session, WishKind.HOST_EVACUATE, name)
    carry(result, as_json=as_json, wait=wait, follow=lambda: follow_evacuation(session, name, timeout))


@app.command("maintenance")
def maintenance(host: Host, wait: Wait = False, timeout: Timeout = TIMEOUT_S, as_json: Json = False) -> None:
    """Take a host out: it takes no new VMs and is not fenced. `host activate` ends it."""
    _wish_state(WishKind.HOST_MAINTENANCE, host, HostState.MAINTENANCE, wait, timeout, as_json)


def _wish_state(
    kind: WishKind, host: str, goal: HostState, wait: bool, timeout: float, as_json: bool, *, failback: bool = False
) -> None:
    session = open_session()
    name = _known(take(session, holes=True), host)
    result = ask(session, kind, name, failback=failback)
    carry(result, as_json=as_json, wait=wait, follow=lambda: follow_host(session, name, goal, timeout))
