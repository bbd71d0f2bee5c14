"""What controllers record: put_host.lua, put_vm.lua, mark_vm.lua, forget_vm.lua, put_ledger.lua, and plain writes.

A function answers what its script does; None or False for refused, StaleToken for an epoch that is not in charge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from fangnetz.core.actions import Alarm, Happened
from fangnetz.core.errors import StaleToken
from fangnetz.core.model import Binding, HostDoc, HostRecord, OffProof, PauseDoc, VmDoc, VmRecord, VmState, Wish
from fangnetz.core.roll.values import Roll
from fangnetz.core.units import Epoch, Generation, HostId, Instant, VmId
from fangnetz.ports import LedgerEntry, LoggedEvent, WishResult
from fangnetz.sim.store.memory import EVENTS_MAX, WISH_RESULT_TTL_S, Documents, Memory, instant, micros

_KINDS: dict[
    str,
    TypeAdapter[VmDoc] | TypeAdapter[HostDoc] | TypeAdapter[Binding] | TypeAdapter[OffProof] | TypeAdapter[PauseDoc],
] = {
    "vm": TypeAdapter(VmDoc),
    "host": TypeAdapter(HostDoc),
    "binding": TypeAdapter(Binding),
    "proof": TypeAdapter(OffProof),
    "pause": TypeAdapter(PauseDoc),
}


def must_be_in_charge(m: Memory, epoch: Epoch) -> None:
    if not m.in_charge(epoch):
        raise StaleToken(f"epoch {epoch} is no longer in charge")


def put_host(m: Memory, record: HostRecord, expected: HostRecord | None, epoch: Epoch) -> bool:
    if m.hosts.get(record.id) != expected:
        return False
    must_be_in_charge(m, epoch)
    m.hosts[record.id] = record
    return True


def put_vm(m: Memory, record: VmRecord, expected: Generation | None, epoch: Epoch) -> bool:
    must_be_in_charge(m, epoch)
    old = m.vms.get(record.id)
    if (old.generation if old is not None else None) != expected:
        return False
    m.vms[record.id] = replace(record, since=instant(micros(record.since)))
    return True


def mark_vm(m: Memory, vm: VmId, generation: Generation, state: VmState, reason: str, epoch: Epoch) -> bool:
    must_be_in_charge(m, epoch)
    old = m.vms.get(vm)
    if old is None or old.generation != generation:
        return False
    since = old.since if old.state is state else instant(m.now_us())
    m.vms[vm] = replace(old, state=state, reason=reason, since=since)
    return True


def forget_vm(m: Memory, vm: VmId, epoch: Epoch) -> None:
    must_be_in_charge(m, epoch)
    m.vms.pop(vm, None)


# --- ledger ------------------------------------------------------------------------------------------------------


def ledger(m: Memory, known: int) -> tuple[int, tuple[LedgerEntry, ...]] | None:
    if m.ledger_version == known:
        return None
    return m.ledger_version, tuple(m.ledger[key] for key in sorted(m.ledger))


def put_ledger(m: Memory, entries: Sequence[LedgerEntry]) -> None:
    newer = [e for e in entries if e.version > (m.ledger[e.key].version if e.key in m.ledger else 0)]
    for entry in newer:
        m.ledger[entry.key] = entry
        m.go_on_after(entry.version)
    if newer:
        m.ledger_version = m.now_us()


def definition(m: Memory, vm: VmId) -> VmDoc | None:
    return documents(m).vms.get(vm)


def documents(m: Memory) -> Documents:
    """Return the ledger's documents, read anew only after one was written."""
    if m.documents_version != m.ledger_version:
        found = Documents()
        for key, entry in m.ledger.items():
            kind, _, name = key.partition("/")
            if not entry.body or kind not in _KINDS:
                continue
            known = m.documents.read.get(key)
            if known is None or known[0] != entry.body:
                known = entry.body, _KINDS[kind].validate_json(entry.body)
            found.read[key], (_, document) = known, known
            match document:
                case VmDoc():
                    found.vms[VmId(name)] = document
                case HostDoc():
                    found.hosts[HostId(name)] = document
                case Binding():
                    found.bindings[document.host, document.device] = document
                case OffProof():
                    found.proofs[HostId(name)] = document
                case PauseDoc():
                    found.pause = document
        m.documents, m.documents_version = found, m.ledger_version
    return m.documents


# --- wishes, alarms, events --------------------------------------------------------------------------------------


def add_wish(m: Memory, wish: Wish) -> None:
    if wish_result(m, wish.id) is None:
        m.wishes[wish.id] = wish


def wishes_waiting(m: Memory) -> int:
    return len(m.wishes)


def settle_wish(m: Memory, wish: Wish, result: WishResult, epoch: Epoch) -> None:
    must_be_in_charge(m, epoch)
    if m.wishes.pop(wish.id, None) is not None:
        m.answers[wish.id] = (result, m.raw_us() + WISH_RESULT_TTL_S * 1_000_000)


def roll(m: Memory) -> Roll | None:
    return m.roll


def put_roll(m: Memory, wanted: Roll, expected: Roll | None) -> bool:
    if m.roll != expected:
        return False
    m.roll = wanted
    return True


def drop_roll(m: Memory) -> None:
    m.roll = None


def wish_result(m: Memory, identity: str) -> WishResult | None:
    found = m.answers.get(identity)
    return found[0] if found is not None and found[1] > m.raw_us() else None


def put_alarms(m: Memory, alarms: Sequence[Alarm], epoch: Epoch) -> None:
    must_be_in_charge(m, epoch)
    m.alarms = tuple(alarms)


def alarms(m: Memory) -> tuple[Alarm, ...]:
    return m.alarms


def log(m: Memory, events: Sequence[Happened]) -> None:
    for event in events:
        at_ms = m.raw_us() // 1000
        last_ms, last_number = (int(part) for part in m.events[-1].id.split("-")) if m.events else (0, 0)
        ms, number = (at_ms, 0) if at_ms > last_ms else (last_ms, last_number + 1)
        line = LoggedEvent(
            id=f"{ms}-{number}",
            at=Instant(ms / 1000),
            kind=event.kind,
            subject=event.subject,
            sentence=event.sentence,
            facts=dict(event.facts),
        )
        m.events = (*m.events[-EVENTS_MAX + 1 :], line)


def events(m: Memory, after: str, limit: int) -> tuple[LoggedEvent, ...]:
    if after == "":
        return m.events[-limit:]
    return tuple(event for event in m.events if _order(event.id) > _order(after))[:limit]


def _order(identity: str) -> tuple[int, int]:
    ms, _, number = identity.partition("-")
    return int(ms), int(number or 0)
