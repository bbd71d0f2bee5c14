"""`fangnetz simulate --from-cluster`: today's view of the real cluster, and what a loss would come to. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._console import BAD, BUSY, GOOD, QUIET, Fields, Row, Rows, clock, out, span, state_cell, title
from fangnetz.cli._items import alarm_item
from fangnetz.cli._json import Item, print_item
from fangnetz.cli._session import Session, open_session
from fangnetz.cli._snapshot import Snapshot, take
from fangnetz.cli._tables import alarms_table
from fangnetz.cli.incident import KEPT
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import Power
from fangnetz.core.units import HostId, Seconds
from fangnetz.sim.what_if.answer import Fate, HostAnswer, VmAnswer, WhatIf, what_if
from fangnetz.sim.what_if.measured import Measured, measure
from fangnetz.sim.what_if.today import Loss, Today, assumptions

HOW = {Loss.POWER: "without power", Loss.NETWORK: "cut off from both networks", Loss.STORAGE: "without storage"}


def ask(names: Sequence[str], loss: Loss, seed: int, *, as_json: bool) -> bool:
    """Play the loss of these hosts from today's view and print the answer; return whether every law held."""
    session = open_session()
    lost = _hosts(session, names)
    snapshot = take(session)
    today = _today(session, snapshot)
    answer = what_if(today, lost, loss, seed)
    if as_json:
        print_item({"what_if": _item(snapshot, today, answer, seed)})
    else:
        out().print(_page(snapshot, today, answer))
    return not answer.broken


def _hosts(session: Session, names: Sequence[str]) -> tuple[HostId, ...]:
    for name in names:
        if name not in session.hosts:
            known = ", ".join(sorted(session.hosts))
            raise WishRefused(f"--lose is {name!r}: it must be a host of the cluster file, which has {known}")
    return tuple(dict.fromkeys(HostId(name) for name in names))


def _today(session: Session, snapshot: Snapshot) -> Today:
    with session.asking() as store:
        operations = store.operations(KEPT)
    hosts, settings = tuple(snapshot.view.hosts), session.settings
    return Today(
        cluster=snapshot.cluster,
        view=snapshot.view,
        policy=snapshot.policy,
        reporting=frozenset(host for host in hosts if snapshot.reports(host)),
        off=frozenset(host for host in hosts if snapshot.power(host) is Power.OFF),
        incarnations={host: snapshot.incarnation(host) for host in hosts},
        controllers={name: controller.host for name, controller in settings.controllers.items()},
        store_host=_store_host(session),
        sentinels=bool(settings.redis.sentinels),
        measured=measure(operations),
    )


def _store_host(session: Session) -> HostId | None:
    """Return the host whose address is the store's; behind Sentinels it may be anywhere."""
    address = urlsplit(session.settings.redis.url).hostname
    return next((host for host, one in session.settings.hosts.items() if address and one.address == address), None)


# --- as JSON -----------------------------------------------------------------------------------------------------


def _item(snapshot: Snapshot, today: Today, answer: WhatIf, seed: int) -> Item:
    return {
        "cluster": today.cluster,
        "at": float(snapshot.view.now),
        "seed": seed,
        "lose": list(answer.lost),
        "loss": answer.loss.value,
        "in_charge": today.holder,
        "times": {
            "fence_s": _measured_item(today.measured.fence()),
            "start_s": _measured_item(today.measured.start()),
        },
        "assumptions": list(assumptions(today)),
        "hosts": [_host_item(host) for host in answer.hosts],
        "vms": [_vm_item(vm) for vm in answer.vms],
        "not_saved": [{"name": vm.vm, "outcome": vm.fate.value, "reason": vm.reason} for vm in answer.not_saved],
        "alarms": [alarm_item(alarm) for alarm in answer.alarms],
        "broken": [broken.plain() for broken in answer.broken],
    }


def _measured_item(measured: Measured) -> Item:
    return {"seconds": float(measured.seconds), "samples": measured.samples, "default": measured.samples == 0}


def _host_item(host: HostAnswer) -> Item:
    return {
        "name": host.host,
        "state": host.state.value,
        "reason": host.reason,
        "suspected_after_s": host.suspected_after,
        "fence_sent_after_s": host.fence_sent_after,
        "fence_proven_after_s": host.proven_after,
        "proof": host.proof or None,
    }


def _vm_item(vm: VmAnswer) -> Item:
    return {
        "name": vm.vm,
        "from": vm.source,
        "to": vm.target,
        "outcome": vm.fate.value,
        "running_after_s": vm.running_after,
        "reason": vm.reason,
    }


# --- for a person ------------------------------------------------------------------------------------------------


def _page(snapshot: Snapshot, today: Today, answer: WhatIf) -> RenderableType:
    view = f"as {today.cluster} stood at {clock(snapshot.view.now)}, {today.holder or 'nobody'} in charge"
    parts: list[RenderableType] = [title(f"{' and '.join(answer.lost)} {HOW[answer.loss]}", view)]
    parts += ["", title("Hosts", "seconds after the loss"), _hosts_table(answer.hosts)]
    parts += ["", title("VMs", "seconds after the loss")]
    parts.append(_vms_table(answer.vms) if answer.vms else Text("  none is touched", style=QUIET))
    if answer.alarms:
        parts += ["", title("Alarms that would stand"), alarms_table(answer.alarms)]
    parts += [
        "",
        title("Times"),
        Fields([("a cut", _told(today.measured.fence())), ("a start", _told(today.measured.start()))]),
    ]
    said = assumptions(today)
    if said:
        parts += ["", title("Taken for granted"), Fields([("·", sentence) for sentence in said])]
    return Group(*parts, "", *_verdict(answer))


def _hosts_table(hosts: Sequence[HostAnswer]) -> Rows:
    rows = [
        Row(
            cells=(
                host.host,
                state_cell(host.state.value),
                _after(host.suspected_after),
                _after(host.fence_sent_after),
                _after(host.proven_after),
            ),
            note=host.reason,
        )
        for host in hosts
    ]
    return Rows(("host", "in the end", "suspect", "cut", "proven off"), rows)


def _vms_table(vms: Sequence[VmAnswer]) -> Rows:
    rows = [
        Row(
            cells=(vm.vm, _fate_cell(vm.fate), f"{vm.source} → {vm.target or '–'}", _after(vm.running_after)),
            note=vm.reason,
            note_style=QUIET if vm.saved else "",
        )
        for vm in sorted(vms, key=lambda vm: (vm.saved, vm.running_after or 0.0))
    ]
    return Rows(("VM", "in the end", "way", "running"), rows)


def _fate_cell(fate: Fate) -> Text:
    return Text(f"● {fate.value}", style=BAD) if fate is Fate.HANGS else state_cell(fate.value)


def _after(seconds: Seconds | None) -> str:
    return "–" if seconds is None else f"+{span(seconds)}"


def _told(measured: Measured) -> Text:
    line = Text(span(measured.seconds))
    if measured.samples:
        line.append(f"  median of {measured.samples} in this cluster's journal", style=QUIET)
    else:
        line.append("  a default: nothing was measured here yet", style=BUSY)
    return line


def _verdict(answer: WhatIf) -> list[Text]:
    lines = [Text(f"law broken: {broken.what}: {broken.sentence}", style=BAD) for broken in answer.broken]
    saved, lost = len(answer.vms) - len(answer.not_saved), len(answer.not_saved)
    last = max((vm.running_after or 0.0 for vm in answer.vms if vm.saved), default=0.0)
    line = Text("● ", style=BAD if lost else GOOD)
    line.append(f"{saved} of {len(answer.vms)} VMs would run" + (f", the last one after {span(last)}" if saved else ""))
    if lost:
        line.append(f"; {lost} would not: {', '.join(vm.vm for vm in answer.not_saved)}", style=BAD)
    return [*lines, line]
