"""`fangnetz host`: see the hosts, and wish a fence, a confirmation, a return or maintenance. Cuts nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from fangnetz.cli._session import Json, Session, open_session
from fangnetz.cli._wish import TIMEOUT_S, Timeout, Wait, Yes, ask, carry, confirm, operator
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import HostState, WishKind
from fangnetz.core.units import HostId
from fangnetz.ports import WishResult

if TYPE_CHECKING:
    from fangnetz.cli._follow import Ended

app = typer.Typer(
    no_args_is_help=True, help="See hosts; fence, confirm off, activate, empty, take out for maintenance."
)

Host = Annotated[str, typer.Argument(metavar="HOST")]


# --- views -------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show every host: state, whether it could be fenced, what runs there."""
    from fangnetz.cli._host_pages import show_hosts
    from fangnetz.cli._snapshot import take

    show_hosts(take(open_session()), as_json=as_json)


@app.command("show")
def show(host: Host, as_json: Json = False) -> None:
    """Show one host: the evidence about it, why it is or is not fenced, its fence devices, its VMs."""
    from fangnetz.cli._host_pages import show_host
    from fangnetz.cli._snapshot import take

    session = open_session()
    name = _known(session, host)
    show_host(take(session), name, as_json=as_json)


def _known(session: Session, host: str) -> HostId:
    if host not in session.hosts:
        raise WishRefused(f"{host} is no host of this cluster; it has {', '.join(sorted(session.hosts))}")
    return HostId(host)


# --- wishes ------------------------------------------------------------------------------------------------------


def _follower(session: Session, result: WishResult, timeout: float) -> Callable[[], Ended] | None:
    identity = result.operation
    if identity is None:
        return None
    from fangnetz.cli._follow import follow_operation

    return lambda: follow_operation(session, identity, timeout)


@app.command("fence")
def fence(
    host: Host, yes: Yes = False, wait: Wait = False, timeout: Timeout = TIMEOUT_S, as_json: Json = False
) -> None:
    """Cut a host's power and start its VMs elsewhere. Of a living host only after a yes.

    It is about the boot seen now: refused if the host has booted anew before a controller takes it up.
    """
    from fangnetz.cli._console import few
    from fangnetz.cli._snapshot import take

    session = open_session()
    name = _known(session, host)
    snapshot = take(session, holes=True)
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
    from fangnetz.cli._console import err, say
    from fangnetz.cli._snapshot import take

    session = open_session()
    snapshot = take(session, holes=True)
    # A host that is not in the cluster file any more may still own VMs: a person's word is all there is about it.
    name = HostId(host) if host in snapshot.view.outside else _known(session, host)
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

    One with `live: false` (policy `unmovable`), or whose live migration failed (`evacuate_fallback`), stays, or is
    stopped, moved and started, or is stopped until `host activate`, as the VM's own `evacuate_fallback` or the policy
    says; --preview names it for each. One so stopped starts elsewhere before that only by `vm start`.
    A VM that cannot leave stays and runs, and is tried again when room appears; said again, all are tried at once.
    It holds until `host activate`, also over a loss of power.
    """
    session = open_session()
    name = _known(session, host)
    if preview:
        from fangnetz.cli._evacuation import show_plan
        from fangnetz.cli._snapshot import take

        show_plan(take(session, holes=True), name, as_json=as_json)
        return
    result = ask(session, WishKind.HOST_EVACUATE, name)

    def follow() -> Ended:
        from fangnetz.cli._evacuation import follow_evacuation

        return follow_evacuation(session, name, timeout)

    carry(result, as_json=as_json, wait=wait, follow=follow)


@app.command("maintenance")
def maintenance(host: Host, wait: Wait = False, timeout: Timeout = TIMEOUT_S, as_json: Json = False) -> None:
    """Take a host out: it takes no new VMs and is not fenced. `host activate` ends it."""
    _wish_state(WishKind.HOST_MAINTENANCE, host, HostState.MAINTENANCE, wait, timeout, as_json)


def _wish_state(
    kind: WishKind, host: str, goal: HostState, wait: bool, timeout: float, as_json: bool, *, failback: bool = False
) -> None:
    session = open_session()
    name = _known(session, host)
    result = ask(session, kind, name, failback=failback)

    def follow() -> Ended:
        from fangnetz.cli._follow import follow_host

        return follow_host(session, name, goal, timeout)

    carry(result, as_json=as_json, wait=wait, follow=follow)
