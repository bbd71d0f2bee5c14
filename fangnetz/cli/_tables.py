"""Hosts, VMs, operations, alarms as rows: the same in `status` and in the lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from fangnetz.cli._console import BAD, BUSY, QUIET, Row, Rows, age, few, memory, span, state_cell, style_of
from fangnetz.cli._snapshot import Snapshot
from fangnetz.core.actions import Alarm
from fangnetz.core.detector import heard
from fangnetz.core.fencing import protection
from fangnetz.core.model import HostState, VmState, VmWish
from fangnetz.core.operations import Operation, OperationState
from fangnetz.core.units import HostId, VmId


def hosts_table(snapshot: Snapshot, hosts: Iterable[HostId], *, names: bool = False) -> Rows:
    """A row per host; its reason below, unless all is as it should be. `names`: VMs by name instead of a count."""
    shown = tuple(hosts)
    zones = any(snapshot.view.hosts[host].zone for host in shown)
    rows = [_host_row(snapshot, host, names, zones) for host in shown]
    return Rows(("host", *(("zone",) if zones else ()), "state", "for", "fencing", "VMs", "memory", "heard"), rows)


def _host_row(snapshot: Snapshot, host: HostId, names: bool, zones: bool) -> Row:
    view, record = snapshot.view, snapshot.host(host)
    now, spec = view.now, view.hosts[host]
    word = snapshot.protection_word(host)
    beat = heard(view, host)
    vms = [vm.id for vm in snapshot.vms_on(host)]
    notes: list[str] = []
    if record.state is not HostState.ONLINE:
        notes.append(record.reason)
    if word == "not protected" and snapshot.reports(host):
        sentences = protection(view, spec, snapshot.incarnation(host)).sentences
        notes.append(f"it could not be fenced: {'; '.join(sentences)}")
    doc = view.host_docs.get(host)
    if doc is not None and doc.maintenance and record.state is not HostState.MAINTENANCE:
        notes.append("maintenance is wished")
    return Row(
        cells=(
            host,
            *((spec.zone or "–",) if zones else ()),
            state_cell(record.state.value),
            age(record.since, now),
            Text(word, style=QUIET if word == "protected" else style_of(word)),
            few(vms, 3) if names else str(len(vms)),
            memory(snapshot.memory_used(host), spec.memory_mib),
            _heard(now - beat.received_at, snapshot.policy.overdue_s) if beat else Text("never", style=QUIET),
        ),
        note="; ".join(note for note in notes if note),
    )


def _heard(silent: float, overdue: float) -> Text:
    return Text(span(silent), style=QUIET if silent < overdue else BUSY)


def vms_table(snapshot: Snapshot, vms: Iterable[VmId]) -> Rows:
    return Rows(("VM", "state", "host", "for", "memory", "prio"), [_vm_row(snapshot, vm) for vm in vms], right=(4, 5))


def _vm_row(snapshot: Snapshot, vm: VmId) -> Row:
    doc, record = snapshot.view.vms.get(vm), snapshot.view.vm_records.get(vm)
    spec = doc.spec if doc else None
    size = f"{spec.memory_mib} MiB" if spec else "–"
    priority = str(spec.priority) if spec else "–"
    if record is None:
        ignored = doc is not None and doc.wish is VmWish.IGNORED
        state = VmState.UNMANAGED if ignored else VmState.WAITING
        note = "" if ignored else "defined; no controller has taken it up yet"
        return Row(cells=(vm, state_cell(state.value), "–", "–", size, priority), note=note)
    asked = (doc is not None and doc.wish is VmWish.STOPPED and record.state is VmState.STOPPED) or (
        record.state in (VmState.RUNNING, VmState.UNMANAGED)
    )
    return Row(
        cells=(
            vm,
            state_cell(record.state.value),
            record.owner or "–",
            age(record.since, snapshot.view.now),
            size,
            priority,
        ),
        note="" if asked else record.reason,
    )


def operations_table(operations: Sequence[Operation], now: float) -> Rows:
    """A row per operation with how far it is; its sentence (while open: its reason) below."""
    rows: list[Row] = []
    for operation in operations:
        settled = sum(1 for step in operation.steps if step.settled)
        end = operation.closed_at if operation.closed_at is not None else now
        rows.append(
            Row(
                cells=(
                    operation.id,
                    state_cell(operation.state.value),
                    f"{settled}/{len(operation.steps)}",
                    age(operation.opened_at, now),
                    span(end - operation.opened_at),
                ),
                note=operation.reason if operation.state is OperationState.OPEN else operation.sentence,
            )
        )
    return Rows(("operation", "state", "steps", "ago", "took"), rows)


def alarms_table(alarms: Sequence[Alarm]) -> Rows:
    rows = [
        Row(
            cells=(
                Text("▲" if alarm.highest else "△", style=f"bold {BAD}" if alarm.highest else BUSY),
                Text(alarm.kind, style=f"bold {BAD}" if alarm.highest else BUSY),
                alarm.subject,
            ),
            note=alarm.sentence,
            note_style="",
        )
        for alarm in alarms
    ]
    return Rows(("", "", ""), rows, heads_shown=False)
