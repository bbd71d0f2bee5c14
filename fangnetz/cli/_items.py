"""The JSON that scripts rely on: one function per noun. Instants are UTC seconds of the store; unknown is null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fangnetz.cli._json import Item
from fangnetz.cli._slots import host_slot
from fangnetz.cli._snapshot import Snapshot, why_not_fenced
from fangnetz.cli._uses import host_uses, vm_uses
from fangnetz.core import retries
from fangnetz.core.actions import Alarm
from fangnetz.core.detector import heard
from fangnetz.core.evacuation import fallback_of
from fangnetz.core.fencing import binding_state, protection
from fangnetz.core.incidents import Incident
from fangnetz.core.leaving import leaving
from fangnetz.core.model import HostRecord, OffProof, PauseDoc, Power, VmState, VmWish
from fangnetz.core.operations import Operation, Step
from fangnetz.core.rules import as_tree
from fangnetz.core.units import HostId, Instant, VmId
from fangnetz.ports import LoggedEvent


def _at(instant: Instant | None) -> float | None:
    """An instant that never was is kept as 0 in records and shown as null."""
    return float(instant) if instant else None


# --- hosts -------------------------------------------------------------------------------------------------------


def host_item(snapshot: Snapshot, host: HostId) -> Item:
    view, record, spec = snapshot.view, snapshot.host(host), snapshot.view.hosts[host]
    doc = view.host_docs.get(host)
    safe = protection(view, spec, snapshot.incarnation(host))
    verdict, beat = snapshot.verdicts.get(host), leaving(view, host)
    return {
        "id": host,
        "state": record.state.value,
        "since": _at(record.since),
        "reason": record.reason,
        "incarnation": record.incarnation or None,
        "last_boot": snapshot.boot_seen(host) or None,
        "power": _power(snapshot.power(host)),
        "maintenance": doc is not None and doc.maintenance,
        "quarantine": (doc.quarantine or None) if doc is not None else None,
        "exits": [float(at) for at in record.exits],
        "evacuate": doc is not None and doc.evacuate,
        "leaving": None if beat is None else beat.leaving.value,
        "away": list(doc.away) if doc is not None else [],
        "stopped": list(doc.stopped) if doc is not None else [],
        "protected": safe.protected,
        "protection": list(safe.sentences),
        "heartbeat": _heartbeat(snapshot, host),
        "vms": [vm.id for vm in snapshot.vms_on(host)],
        "memory_used_mib": snapshot.memory_used(host),
        "memory_mib": spec.memory_mib,
        "cpus": spec.cpus,
        "zone": spec.zone or None,
        "uses": host_uses(snapshot, host),
        "slot": host_slot(snapshot, host),
        "fence": {"devices": _devices(snapshot, host)},
        "proof": _proof(record),
        "verdict": None
        if verdict is None
        else {
            "finding": verdict.finding.value,
            "sentence": verdict.sentence,
            "silent_for_s": float(verdict.silent_for),
            "signals": [
                {"source": signal.source, "answer": signal.answer.value, "detail": signal.detail}
                for signal in verdict.signals
            ],
        },
        "brakes": [{"kind": brake.kind.value, "sentence": brake.sentence} for brake in snapshot.brakes(host)],
        "fencing": why_not_fenced(snapshot, host),
    }


def _power(power: Power) -> str | None:
    return None if power is Power.UNKNOWN else power.value


def _heartbeat(snapshot: Snapshot, host: HostId) -> Item | None:
    beat = heard(snapshot.view, host)
    if beat is None:
        return None
    return {
        "age_s": max(0.0, snapshot.view.now - beat.received_at),
        "sequence": beat.sequence,
        "hypervisor": beat.hypervisor.value,
        "load": beat.load,
        "memory_free_mib": beat.memory_free_mib,
    }


def _devices(snapshot: Snapshot, host: HostId) -> list[Item]:
    view, incarnation = snapshot.view, snapshot.incarnation(host)
    readings = {reading.device: reading for reading in view.readings.get(host, ())}
    items: list[Item] = []
    for number, level in enumerate(view.hosts[host].fencing, start=1):
        for device in level:
            reading = readings.get(device)
            items.append(
                {
                    "name": device,
                    "level": number,
                    "power": reading.power.value if reading else None,
                    "asked_at": _at(reading.asked_at) if reading else None,
                    "raw": reading.raw if reading else None,
                    "binding": binding_state(view.bindings.get((host, device)), incarnation).value,
                }
            )
    return items


def _proof(record: HostRecord) -> Item | None:
    return None if record.proof is None else proof_item(record.proof)


def proof_item(proof: OffProof) -> Item:
    return {
        "kind": proof.kind.value,
        "at": _at(proof.proven_at),
        "incarnation": proof.incarnation,
        "sentence": proof.sentence,
        "void": proof.void,
        "answers": [f"{reading.device}: {reading.power}: {reading.raw}" for reading in proof.evidence],
    }


# --- VMs ---------------------------------------------------------------------------------------------------------


def vm_item(snapshot: Snapshot, vm: VmId) -> Item:
    doc, record = snapshot.view.vms.get(vm), snapshot.view.vm_records.get(vm)
    state, reason = VmState.WAITING, "defined; no controller has taken it up yet"
    if record is not None:
        state, reason = record.state, record.reason
    elif doc is not None and doc.wish is VmWish.IGNORED:
        state = VmState.UNMANAGED
    return {
        "name": vm,
        "state": state.value,
        "host": record.owner if record else None,
        "generation": record.generation if record else None,
        "since": _at(record.since) if record else None,
        "reason": reason,
        "wish": doc.wish.value if doc else None,
        "memory_mib": doc.spec.memory_mib if doc else None,
        "cpus": doc.spec.cpus if doc else None,
        "uses": vm_uses(snapshot, vm),
        "priority": doc.spec.priority if doc else None,
        "live": doc.spec.live if doc else None,
        "evacuate_fallback": fallback_of(doc.spec, snapshot.policy).value if doc else None,
        "rules": as_tree(doc.spec.rules) if doc else None,
        "retries": retries.as_tree(doc.spec.retries) if doc else None,
        "source": doc.source if doc else None,
        "operation": record.operation if record else None,
    }


# --- operations, incidents, alarms, events -----------------------------------------------------------------------


def operation_item(operation: Operation) -> Item:
    return {
        "id": operation.id,
        "kind": operation.kind.value,
        "subject": operation.subject,
        "state": operation.state.value,
        "opened_at": _at(operation.opened_at),
        "closed_at": _at(operation.closed_at),
        "reason": operation.reason,
        "sentence": operation.sentence,
        "steps": [_step(step) for step in operation.steps],
    }


def _step(step: Step) -> Item:
    order = step.order
    return {
        "key": step.key,
        "kind": step.kind.value,
        "state": step.state.value,
        "attempt": step.attempt,
        "executor": step.executor or None,
        "started_at": _at(step.started_at),
        "ended_at": _at(step.ended_at),
        "sentence": step.sentence,
        "facts": dict(step.facts),
        "progress": None if step.progress is None else {**asdict(step.progress), "share": step.progress.share},
        "order": None if order is None else {"vm": order.vm, "host": order.host, "generation": order.generation},
    }


def incident_item(incident: Incident) -> Item:
    proof = incident.proof
    return {
        "id": incident.id,
        "host": incident.host,
        "incarnation": incident.incarnation or None,
        "state": incident.state.value,
        "last_heard_at": _at(incident.last_heard_at),
        "suspected_at": _at(incident.suspected_at),
        "opened_at": _at(incident.opened_at),
        "confirmed_at": _at(incident.confirmed_at),
        "fence_sent_at": _at(incident.fence_sent_at),
        "fence_proven_at": _at(incident.fence_proven_at),
        "recovered_at": _at(incident.recovered_at),
        "closed_at": _at(incident.closed_at),
        "reason": incident.reason,
        "sentence": incident.sentence,
        "evidence": list(incident.evidence),
        "proof": None
        if proof is None
        else {
            "kind": proof.kind.value,
            "at": _at(proof.at),
            "sentence": proof.sentence,
            "answers": list(proof.answers),
        },
        "vms": [
            {
                "name": vm.vm,
                "from": vm.source,
                "to": vm.target,
                "start_sent_at": _at(vm.start_sent_at),
                "running_at": _at(vm.running_at),
                "guest_up_at": _at(vm.guest_up_at),
                "outcome": vm.outcome.value,
                "reason": vm.reason,
            }
            for vm in incident.vms
        ],
    }


def alarm_item(alarm: Alarm) -> Item:
    return {"kind": alarm.kind, "subject": alarm.subject, "sentence": alarm.sentence, "highest": alarm.highest}


def event_item(event: LoggedEvent) -> Item:
    """The facts stand beside the event's own keys, `id` being an operation's; its place in the log is `event`.

    What a fact would hide becomes `operation_…`.
    """
    own: Mapping[str, Any] = {
        "event": event.id,
        "at": float(event.at),
        "kind": event.kind,
        "subject": event.subject,
        "sentence": event.sentence,
    }
    facts = {(f"operation_{name}" if name in own else name): value for name, value in event.facts.items()}
    return {**facts, **own}


def pause_item(pause: PauseDoc | None) -> Item | None:
    """The pause that lasts now; `until` is null where only a person ends it."""
    if pause is None:
        return None
    return {"by": pause.by, "reason": pause.reason, "since": _at(pause.since), "until": _at(pause.until)}


def status_item(snapshot: Snapshot) -> Item:
    view, lease = snapshot.view, snapshot.lease
    return {
        "cluster": snapshot.cluster,
        "at": float(view.now),
        "lease": None
        if lease is None
        else {
            "holder": lease.holder,
            "epoch": lease.epoch,
            "until": float(lease.until),
            "held": snapshot.held,
        },
        "paused": pause_item(view.paused),
        "store": {"incarnation": view.life.incarnation or None, "since": _at(view.life.since)},
        "controllers": [{"id": name, "looked_at": float(at)} for name, at in sorted(view.controllers.items())],
        "hosts": [host_item(snapshot, host) for host in view.hosts],
        "vms": [vm_item(snapshot, vm) for vm in snapshot.vm_names()],
        "operations": [
            operation_item(op) for op in sorted(view.operations.values(), key=lambda op: op.opened_at, reverse=True)
        ],
        "alarms": [alarm_item(alarm) for alarm in snapshot.alarms],
    }
