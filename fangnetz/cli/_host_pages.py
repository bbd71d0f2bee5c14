"""How `fangnetz host` shows hosts: the list, and one with the evidence about it. Only reads."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._console import (
    QUIET,
    Fields,
    Row,
    Rows,
    age,
    clock,
    few,
    memory,
    out,
    span,
    state_cell,
    style_of,
    title,
)
from fangnetz.cli._items import host_item
from fangnetz.cli._json import print_item, print_list
from fangnetz.cli._slots import host_slot_said
from fangnetz.cli._snapshot import Snapshot, why_not_fenced
from fangnetz.cli._tables import hosts_table
from fangnetz.cli._uses import host_uses_said
from fangnetz.cli.status import pause_line
from fangnetz.core.detector import heard
from fangnetz.core.fencing import binding_state
from fangnetz.core.model import Power
from fangnetz.core.units import HostId


def show_hosts(snapshot: Snapshot, *, as_json: bool) -> None:
    if as_json:
        print_list(host_item(snapshot, host) for host in snapshot.view.hosts)
        return
    if paused := pause_line(snapshot):
        out().print(paused)
    out().print(hosts_table(snapshot, snapshot.view.hosts, names=True))


def show_host(snapshot: Snapshot, host: HostId, *, as_json: bool) -> None:
    if as_json:
        print_item(host_item(snapshot, host))
    else:
        out().print(_page(snapshot, host))


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
    if slot := host_slot_said(snapshot, host):
        pairs.insert(5, ("slot", slot))
    if used := host_uses_said(snapshot, host):
        pairs.insert(len(pairs) - 1, ("in use", used))
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
