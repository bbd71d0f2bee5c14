"""`fangnetz vm`: see the VMs, and wish them added, started, stopped or forgotten. Talks to no hypervisor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._console import QUIET, Fields, age, clock, err, out, say, state_cell, title
from fangnetz.cli._evacuation import fallback_said
from fangnetz.cli._follow import Ended, follow_operation, follow_vm
from fangnetz.cli._items import vm_item
from fangnetz.cli._json import print_item, print_list
from fangnetz.cli._session import Json, Session, open_session
from fangnetz.cli._snapshot import Snapshot, take
from fangnetz.cli._tables import vms_table
from fangnetz.cli._uses import vm_uses_said
from fangnetz.cli._wish import TIMEOUT_S, Timeout, Wait, ask, carry
from fangnetz.core.detector import heard
from fangnetz.core.errors import SettingsError, WishRefused
from fangnetz.core.model import DROPPED, FROM_CLI, FROM_FILE, REMOVED, Rules, VmDoc, VmState, VmWish, WishKind
from fangnetz.core.policy import Fallback
from fangnetz.core.retries import Retries
from fangnetz.core.units import HostId, VmId

if TYPE_CHECKING:
    from fangnetz.settings import DomainFacts

app = typer.Typer(no_args_is_help=True, help="See VMs; add, start, stop, migrate, relocate, remove.")

Vm = Annotated[str, typer.Argument(metavar="NAME")]
To = Annotated[str, typer.Option("--to", metavar="HOST", help="There; else where there is most room.")]
DECLARED = {
    FROM_FILE: "in the cluster file",
    FROM_CLI: "with `vm add`",
    DROPPED: "in the cluster file once, and not any more",
    REMOVED: "no more: removed while it ran",
}


# --- views -------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show every VM: state, where, and why if it is not as wished."""
    snapshot = take(open_session())
    names = snapshot.vm_names()
    if as_json:
        print_list(vm_item(snapshot, vm) for vm in names)
    elif names:
        out().print(vms_table(snapshot, names))
    else:
        say(out(), "No VM yet: `fangnetz vm add NAME --xml FILE`, or declare it in the cluster file.", QUIET)


@app.command("show")
def show(vm: Vm, as_json: Json = False) -> None:
    """Show one VM: state and reason, wish, size, and where it is seen."""
    snapshot = take(open_session())
    name = _known(snapshot, vm)
    if as_json:
        print_item(vm_item(snapshot, name))
    else:
        out().print(_page(snapshot, name))


def _known(snapshot: Snapshot, vm: str) -> VmId:
    names = snapshot.vm_names()
    if vm not in names:
        raise WishRefused(f"{vm} is no VM of this cluster; it has {', '.join(names) or 'none yet'}")
    return VmId(vm)


def _page(snapshot: Snapshot, vm: VmId) -> RenderableType:
    item, view = vm_item(snapshot, vm), snapshot.view
    state = state_cell(item["state"])
    state.append(f"  for {age(item['since'], view.now)}", style=QUIET)
    seen = [
        f"{host}: {sighting.state}, generation {sighting.generation or 'none'}"
        for host in view.hosts
        if (beat := heard(view, host)) is not None and (sighting := beat.sees(vm)) is not None
    ]
    size = (
        "–"
        if item["memory_mib"] is None
        else f"{item['memory_mib']} MiB, {item['cpus']} CPU{'' if item['cpus'] == 1 else 's'}"
    )
    pairs: list[tuple[str, str | Text]] = [
        ("state", state),
        ("reason", item["reason"] or "–"),
        ("host", item["host"] or "–"),
        ("seen", ", ".join(seen) or "on no host that reports"),
        ("generation", str(item["generation"] or "–")),
        ("wish", item["wish"] or "–"),
        ("size", size),
        ("priority", "–" if item["priority"] is None else str(item["priority"])),
        ("rules", _rules_said(item["rules"] or {})),
        ("ends by itself", _retries_said(item["retries"] or {})),
        ("moves", "stopped for it: it cannot be moved while it runs" if item["live"] is False else "while it runs"),
        ("else", _fallback_said(item["evacuate_fallback"], item["host"])),
        ("declared", DECLARED.get(str(item["source"]), "–")),
    ]
    if used := vm_uses_said(snapshot, vm):
        pairs.insert(7, ("in use", used))
    if item["operation"]:
        pairs.append(("operation", item["operation"]))
    return Group(title(vm, clock(view.now)), Fields(pairs))


# --- wishes ------------------------------------------------------------------------------------------------------


@app.command("add")
def add(
    vm: Vm,
    xml: Annotated[Path, typer.Option("--xml", metavar="FILE", help="Its libvirt domain XML.")],
    *,
    priority: Annotated[int, typer.Option("--priority", min=-1000, max=1000, help="Higher starts first.")] = 0,
    wish: Annotated[VmWish, typer.Option("--wish", help="What is wanted of it.")] = VmWish.RUNNING,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="HOST", help="It runs on no other hosts; may be repeated.")
    ] = None,
    prefer: Annotated[
        list[str] | None,
        typer.Option("--prefer", metavar="HOST[=WEIGHT]", help="That host wins over emptier ones; may be repeated."),
    ] = None,
    together: Annotated[
        list[str] | None, typer.Option("--together", metavar="VM", help="Both on one host; may be repeated.")
    ] = None,
    apart: Annotated[
        list[str] | None, typer.Option("--apart", metavar="VM", help="Never both on one host; may be repeated.")
    ] = None,
    failback: Annotated[
        bool | None,
        typer.Option("--failback/--no-failback", help="It goes back to a host that it prefers; default: the policy's."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live/--no-live", help="Whether it can be moved while it runs; else it is stopped for it.")
    ] = True,
    max_restarts: Annotated[
        int | None,
        typer.Option("--max-restarts", min=0, max=100, help="It is restarted so often on a host where it ends."),
    ] = None,
    max_relocations: Annotated[
        int | None,
        typer.Option("--max-relocations", min=0, max=100, help="Then it is started elsewhere, so often (default 0)."),
    ] = None,
    evacuate_fallback: Annotated[
        Fallback | None,
        typer.Option("--evacuate-fallback", help="If it does not move live off a host; default: the policy's."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also if it is unfit to start on another host.")] = False,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Add a VM from any domain XML; say what makes it unfit for high availability.

    Also mends a VM whose definition or record cannot be read in the store: then give the definition it had. One whose
    definition is lost must not run meanwhile: nobody could tell its disk. One whose record is lost is taken up where it
    runs, with the disks it had, once every host reports or is proven off.
    """
    session = open_session()
    rules = Rules(
        allowed=tuple(HostId(host) for host in sorted(set(allow or ()))),
        preferred=tuple(sorted(dict(map(_preference, prefer or ())).items())),
        together=tuple(VmId(other) for other in sorted(set(together or ()))),
        apart=tuple(VmId(other) for other in sorted(set(apart or ()))),
        failback=failback,
    )
    retries = Retries(restarts=max_restarts, relocations=max_relocations)
    doc = _definition(vm, xml, priority, wish, rules, live=live, retries=retries, fallback=evacuate_fallback)
    _judge(doc, take(session, holes=True).view.vms, force=force)
    result = ask(session, WishKind.VM_ADD, doc.spec.id, force=force, doc=doc)
    goal = {VmWish.RUNNING: VmState.RUNNING, VmWish.STOPPED: VmState.STOPPED, VmWish.IGNORED: VmState.UNMANAGED}[wish]
    carry(result, as_json=as_json, wait=wait, follow=_follower(session, doc.spec.id, goal, timeout))


def _preference(text: str) -> tuple[HostId, int]:
    host, _, weight = text.partition("=")
    try:
        return HostId(host), int(weight or 1)
    except ValueError:
        raise SettingsError(f"--prefer is {text}: it must be a host, or a host with a weight, as host1=2") from None


def _rules_said(rules: dict[str, Any]) -> str:
    """Return the rules of a VM in words."""
    must = "prefers" if rules.get("strict") is False else "only on"
    weights = [f"{host} ({weight:+d})" for host, weight in rules.get("preferred", {}).items()]
    said = [
        f"{words} {', '.join(names)}"
        for words, names in (
            (must, rules.get("allowed")),
            ("prefers", weights),
            ("together with", rules.get("together")),
            ("apart from", rules.get("apart")),
        )
        if names
    ]
    if "failback" in rules:
        said.append("goes back" if rules["failback"] else "stays where it is")
    return "; ".join(said) or "none"


def _retries_said(retries: dict[str, int]) -> str:
    """Return in words what becomes of a VM that ends by itself."""
    here, elsewhere = retries.get("max_restarts"), retries.get("max_relocations", 0)
    restarts = "as the policy says" if here is None else f"{here} times in a row"
    return f"restarted there {restarts}" + (f", then elsewhere {elsewhere} times" if elsewhere else "")


def _fallback_said(fallback: str | None, host: str | None) -> str:
    """Return in words what an evacuation does about it if it does not move while it runs."""
    return "–" if fallback is None else fallback_said(Fallback(fallback), HostId(host or "its host"))


def _definition(
    vm: str,
    xml: Path,
    priority: int,
    wish: VmWish,
    rules: Rules,
    *,
    live: bool,
    retries: Retries,
    fallback: Fallback | None,
) -> VmDoc:
    """Return the definition in the file. SettingsError in one sentence that names the file."""
    from pydantic import TypeAdapter, ValidationError

    from fangnetz.settings import vm_doc_from_xml
    from fangnetz.settings.domain_facts import XML_BYTES_MAX
    from fangnetz.settings.load import read_text
    from fangnetz.settings.names import VmName

    try:
        TypeAdapter(VmName).validate_python(vm)
    except ValidationError as error:
        raise SettingsError(f"the name of a VM {error.errors()[0]['msg']}, unlike {vm!r}") from error
    text, rule = read_text(xml, XML_BYTES_MAX)
    if rule:
        raise SettingsError(f"{xml} {rule}")
    try:
        doc = vm_doc_from_xml(
            text, priority=priority, wish=wish, rules=rules, live=live, retries=retries, fallback=fallback
        )
    except SettingsError as error:
        raise SettingsError(f"{xml} is no domain XML: {error}") from error
    if doc.spec.id != vm:
        raise SettingsError(f"{xml} defines {doc.spec.id!r}, not {vm!r}: its <name> must be the name given")
    return doc


def _judge(doc: VmDoc, others: Mapping[VmId, VmDoc], *, force: bool) -> None:
    """Say all that speaks against it; WishRefused if that is too much, unless forced; always for another's disk."""
    from fangnetz.settings import UnfitLevel, read_domain, unfit_for_ha

    unfit = unfit_for_ha(doc.xml)
    against = [item.sentence for item in unfit if item.level is UnfitLevel.REFUSE]
    facts = read_domain(doc.xml)
    taken = [
        sentence
        for name, other in others.items()
        if name != doc.spec.id
        for sentence in _shared(facts, read_domain(other.xml), name)
    ]
    if taken:  # no force makes one disk two
        raise WishRefused(f"{doc.spec.id} cannot be added: {'; '.join(taken)}")
    for item in unfit:
        if item.level is UnfitLevel.WARN:
            say(err(), f"warning: {item.sentence}", "yellow")
    if against and not force:
        raise WishRefused(
            f"{doc.spec.id} is unfit for high availability: {'; '.join(against)} (--force adds it anyway)"
        )
    for sentence in against:
        say(err(), f"forced: {sentence}", "yellow")


def _shared(facts: DomainFacts, other: DomainFacts, name: VmId) -> list[str]:
    both = sorted(set(facts.disks) & set(other.disks))
    found = [f"its disk {disk} is the disk of VM {name} too: two writers destroy it" for disk in both]
    if facts.uuid and facts.uuid == other.uuid:
        found.append(f"it has the uuid of VM {name}: libvirt takes them for one domain")
    return found


@app.command("start")
def start(vm: Vm, wait: Wait = False, timeout: Timeout = TIMEOUT_S, as_json: Json = False) -> None:
    """Wish a VM to run; also tries again one that failed or needs a person."""
    _wish_state(WishKind.VM_START, vm, VmState.RUNNING, wait, timeout, as_json)


@app.command("stop")
def stop(vm: Vm, wait: Wait = False, timeout: Timeout = TIMEOUT_S, as_json: Json = False) -> None:
    """Wish a VM to be stopped: its guest is asked first, and switched off after a bound."""
    _wish_state(WishKind.VM_STOP, vm, VmState.STOPPED, wait, timeout, as_json)


@app.command("ignore")
def ignore(vm: Vm, wait: Wait = False, timeout: Timeout = TIMEOUT_S, as_json: Json = False) -> None:
    """Leave a VM alone: it runs on, but is not started, stopped, moved or recovered any more.

    `fangnetz vm start` or `fangnetz vm stop` takes it up again.
    """
    _wish_state(WishKind.VM_IGNORE, vm, VmState.UNMANAGED, wait, timeout, as_json)


@app.command("migrate")
def migrate(
    vm: Vm,
    to: To = "",
    wait: Wait = False,
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Move a VM to another host while it runs; its users notice nothing. If it cannot be moved, it runs on.

    `fangnetz operation cancel ID` ends a move under way. Of a VM that is stopped only the record moves.
    """
    _wish_moved(WishKind.VM_MIGRATE, vm, to, wait, timeout, as_json)


@app.command("relocate")
def relocate(
    vm: Vm,
    to: To = "",
    wait: Wait = False,
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Stop a VM in order and start it on another host: for one that cannot be moved while it runs.

    If that host does not take it, it starts on another one, or where it was. `fangnetz operation cancel ID` ends it
    as long as the VM is not being stopped. Of a VM that is stopped only the record moves.
    """
    _wish_moved(WishKind.VM_RELOCATE, vm, to, wait, timeout, as_json)


def _wish_moved(kind: WishKind, vm: str, to: str, wait: bool, timeout: float, as_json: bool) -> None:
    session = open_session()
    name = _known(take(session, holes=True), vm)
    result = ask(session, kind, name, to=HostId(to) if to else None)
    operation = result.operation
    follow = None if operation is None else (lambda: follow_operation(session, operation, timeout))
    carry(result, as_json=as_json, wait=wait, follow=follow)


@app.command("remove")
def remove(vm: Vm, wait: Wait = False, timeout: Timeout = TIMEOUT_S, as_json: Json = False) -> None:
    """Stop managing a VM. A copy that runs goes on, and keeps its disk from others until it has ended.

    Also forgets a VM whose record cannot be read in the store, once every host is known to have no copy of it.
    """
    _wish_state(WishKind.VM_REMOVE, vm, None, wait, timeout, as_json)


def _wish_state(kind: WishKind, vm: str, goal: VmState | None, wait: bool, timeout: float, as_json: bool) -> None:
    session = open_session()
    name = _known(take(session, holes=True), vm)
    carry(ask(session, kind, name), as_json=as_json, wait=wait, follow=_follower(session, name, goal, timeout))


def _follower(session: Session, vm: VmId, goal: VmState | None, timeout: float) -> Callable[[], Ended]:
    return lambda: follow_vm(session, vm, goal, timeout)
