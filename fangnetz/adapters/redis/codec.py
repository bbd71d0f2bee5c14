"""Values <-> what Redis holds. Content this version does not understand is refused with a sentence naming the key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from fangnetz.core.convergence import Progress
from fangnetz.core.errors import StoredContentError
from fangnetz.core.model import Destination, VmRecord, VmState
from fangnetz.core.operations import Facts, Operation, OperationState, Order, Step, StepKind, StepState
from fangnetz.core.units import (
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    StoreIncarnation,
    VmId,
)

T = TypeVar("T")
Fields = dict[str, str]


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def adapter(kind: Any) -> TypeAdapter[Any]:
    """Return the (kept) translator of a value type."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def encode(value: object) -> str:
    return adapter(type(value)).dump_json(value).decode()


def decode(kind: type[T], text: str, key: str) -> T:
    """Return the value; StoredContentError naming `key` if the text is not one."""
    try:
        return cast("T", adapter(kind).validate_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise StoredContentError(f"{key}: {where}: {first['msg']}") from error


@contextmanager
def naming(key: str, what: str) -> Iterator[None]:
    """Turn what goes wrong while `key` is read into a StoredContentError that names it and what it is not."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise StoredContentError(f"{key}: is no {what}: {error!r}") from error


def instant(us: str | None) -> Instant:
    """Microseconds as text -> seconds."""
    return Instant(int(us or 0) / 1_000_000)


def micros(at: float) -> str:
    return str(round(at * 1_000_000))


def vm_fields(record: VmRecord) -> Fields:
    return {
        "owner": record.owner or "",
        "owner_incarnation": record.owner_incarnation,
        "generation": str(record.generation),
        "state": record.state.value,
        "since": micros(record.since),
        "reason": record.reason,
        "operation": record.operation or "",
        "failures": str(record.failures),
        "ended_on": record.ended_on or "",
        "tried_at": micros(record.tried_at),
        "tries": str(record.tries),
        "stuck_at": micros(record.stuck_at),
        "kept": str(record.kept),
        **_destination_fields("moving", record.moving),
    }


def _destination_fields(prefix: str, to: Destination | None) -> Fields:
    """Return the three fields of a destination. All empty where there is none: they are written over older ones."""
    return {
        f"{prefix}_host": to.host if to else "",
        f"{prefix}_incarnation": to.incarnation if to else "",
        f"{prefix}_generation": str(to.generation) if to else "",
    }


def _destination(prefix: str, fields: Mapping[str, str]) -> Destination | None:
    """KeyError or ValueError if one is named and not whole."""
    if not fields.get(f"{prefix}_host"):
        return None
    return Destination(
        host=HostId(fields[f"{prefix}_host"]),
        incarnation=Incarnation(fields[f"{prefix}_incarnation"]),
        generation=Generation(int(fields[f"{prefix}_generation"])),
    )


def vm_record(vm: VmId, fields: Mapping[str, str], key: str) -> VmRecord:
    try:
        return VmRecord(
            id=vm,
            state=VmState(fields["state"]),
            owner=HostId(fields["owner"]) if fields["owner"] else None,
            owner_incarnation=Incarnation(fields["owner_incarnation"]),
            generation=Generation(int(fields["generation"])),
            since=instant(fields["since"]),
            reason=fields["reason"],
            operation=OperationId(fields["operation"]) if fields.get("operation") else None,
            failures=int(fields.get("failures", "0")),
            ended_on=HostId(fields["ended_on"]) if fields.get("ended_on") else None,
            tried_at=instant(fields.get("tried_at", "0")),
            tries=int(fields.get("tries", "0")),
            stuck_at=instant(fields.get("stuck_at", "0")),
            kept=Generation(int(fields.get("kept", "0"))),
            moving=_destination("moving", fields),
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise StoredContentError(f"{key}: is no VM record: {error!r}") from error


def step_fields(step: Step) -> Fields:
    """Return the fields of a fresh step; what claiming and settling write is left out."""
    fields = {
        "kind": step.kind.value,
        "after": json.dumps(step.after),
        "state": step.state.value,
        "facts": json.dumps(dict(step.facts)),
    }
    if step.order is not None:
        fields |= {
            "o_vm": step.order.vm,
            "o_host": step.order.host,
            "o_incarnation": step.order.incarnation,
            "o_generation": str(step.order.generation),
            "o_life": step.order.life,
            "o_deadline": micros(step.order.deadline),
            "o_force": "1" if step.order.force else "",
            "o_arriving": "1" if step.order.arriving else "",
            "o_beside": json.dumps(step.order.beside),
        }
        if step.order.to is not None:
            fields |= _destination_fields("o_to", step.order.to)
    return fields


def step(key: str, fields: Mapping[str, str], where: str) -> Step:
    try:
        order = None
        if "o_vm" in fields:
            order = Order(
                vm=VmId(fields["o_vm"]),
                host=HostId(fields["o_host"]),
                incarnation=Incarnation(fields["o_incarnation"]),
                generation=Generation(int(fields["o_generation"])),
                life=StoreIncarnation(fields["o_life"]),
                deadline=instant(fields["o_deadline"]),
                force=bool(fields.get("o_force")),
                arriving=bool(fields.get("o_arriving")),
                beside=tuple(HostId(host) for host in _names(json.loads(fields.get("o_beside") or "[]"))),
                to=_destination("o_to", fields),
            )
        return Step(
            key=key,
            kind=StepKind(fields["kind"]),
            after=_names(json.loads(fields["after"])),
            state=StepState(fields["state"]),
            order=order,
            attempt=int(fields.get("attempt", "0")),
            token=fields.get("token", ""),
            executor=fields.get("executor", ""),
            lease_until=instant(fields.get("until")),
            not_before=instant(fields.get("not_before")),
            dispatched_at=instant(fields.get("dispatched")),
            claimed_at=instant(fields.get("claimed")),
            started_at=instant(fields.get("started")),
            ended_at=instant(fields.get("ended")),
            sentence=fields.get("sentence", ""),
            facts=facts_of(fields),
            progress=_progress(fields, where),
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise StoredContentError(f"{where}: is no step of an operation: {error!r}") from error


def _progress(fields: Mapping[str, str], where: str) -> Progress | None:
    """Return how a step came on; None if that is damaged: no step is lost for what only people look at."""
    if not fields.get("progress"):
        return None
    with suppress(StoredContentError):
        found = decode(Progress, fields["progress"], where)
        return found if all(map(math.isfinite, astuple(found))) else None
    return None


def facts_of(fields: Mapping[str, str]) -> Facts:
    """Return the facts beside a step or an event; ValueError if they are none."""
    facts = json.loads(fields.get("facts") or "{}")
    if not isinstance(facts, dict):
        raise ValueError(f"facts are {facts!r}")
    return facts


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"no names: {value!r}")
    return tuple(value)


def operation_header(operation: Operation) -> str:
    """Return what never changes of an operation, as JSON; steps and state live beside it."""
    data: dict[str, Any] = adapter(Operation).dump_python(operation, mode="json")
    for live in ("steps", "epoch", "state", "closed_at", "sentence"):
        data.pop(live)
    return json.dumps(data)


def operation(fields: Mapping[str, str], steps: tuple[Step, ...], key: str) -> Operation:
    try:
        data = json.loads(fields["doc"])
        header = adapter(Operation).validate_python(
            {**data, "steps": (), "epoch": int(fields["epoch"]), "state": fields["state"]}
        )
        return Operation(
            id=header.id,
            kind=header.kind,
            subject=header.subject,
            epoch=Epoch(int(fields["epoch"])),
            opened_at=instant(fields["opened"]),
            reason=header.reason,
            steps=steps,
            state=OperationState(fields["state"]),
            closed_at=instant(fields["closed"]) if "closed" in fields else None,
            sentence=fields.get("sentence", ""),
            incarnation=header.incarnation,
            incident=header.incident,
            forced_by=header.forced_by,
            proof=header.proof,
            suspected_at=header.suspected_at,
            last_heard_at=header.last_heard_at,
            target=header.target,
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise StoredContentError(f"{key}: is no operation: {error!r}") from error
