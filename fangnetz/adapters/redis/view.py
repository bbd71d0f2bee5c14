"""One look at everything in Redis. What cannot be read is named and left out on the safe side; it never stops the look.

Left out means: a VM nobody decides on, a host without record or proof, a maintenance that still holds. Only what all
else rests on (the store's life, lease, clock and counters) is refused as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import redis

from fangnetz.adapters.redis.client import answers, sound
from fangnetz.adapters.redis.codec import decode, instant, micros, naming, vm_record
from fangnetz.adapters.redis.documents import Documents, read_documents
from fangnetz.adapters.redis.keys import PROBE_ROUNDS_MAX, Keys
from fangnetz.core.errors import StoredContentError
from fangnetz.core.model import (
    ClusterView,
    ControlLease,
    Heartbeat,
    HostRecord,
    HostSpec,
    PowerReading,
    ProbeRound,
    Reports,
    StoreLife,
    VmRecord,
    Wish,
)
from fangnetz.core.operations import Operation
from fangnetz.core.units import (
    ControllerId,
    Epoch,
    HostId,
    Instant,
    OperationId,
    StoreIncarnation,
    VmId,
)

T = TypeVar("T")
Raw = dict[str, str]
SANE_US = 315_360_000_000_000
"""As in prelude.lua: a clock that says it is ten years away says nothing."""
ROWS = 3
"""Answers of the store about one host: its heartbeat, its record, its readings."""
ReadOperations = Callable[[Sequence[OperationId]], tuple[Operation, ...]]


@dataclass(slots=True)
class _Hosts:
    beats: dict[HostId, Heartbeat] = field(default_factory=dict)
    records: dict[HostId, HostRecord] = field(default_factory=dict)
    readings: dict[HostId, tuple[PowerReading, ...]] = field(default_factory=dict)


class Look:
    """One reading of a cluster. Made anew for each view; keeps what could not be read."""

    def __init__(self, client: redis.Redis, keys: Keys, read_operations: ReadOperations, known: Documents) -> None:
        """`known`: the documents an earlier look found; `documents` afterwards: those of this one."""
        self._redis, self._keys, self._read_operations = client, keys, read_operations
        self.documents = known
        self._unreadable: list[str] = []

    def take(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId | None) -> ClusterView:
        """Read the whole cluster: the operations, a transaction for what judges hosts, another for what it names.

        Operations come first. One that is over meanwhile only delays what is decided about its VMs; with records from
        before it, its orders would seem to be about a generation or a boot that is gone, and it to have ended badly.
        """
        life, operations = self._under_way()
        while (view := self._with(life, operations, hosts, controller)) is None:
            life, operations = self._under_way()
        return view

    def _under_way(self) -> tuple[Raw, dict[OperationId, Operation]]:
        """Return the open operations, and the life of the store that they are of."""
        asked = (self._keys.life, self._keys.open)
        pipe = self._redis.pipeline(transaction=True)
        for key in asked:
            pipe.hgetall(key)
        life, opened = (sound(answer, key) for key, answer in zip(asked, answers(pipe), strict=True))
        return life, self._operations([OperationId(identity) for identity in opened.values()])

    def _with(
        self,
        life_before: Raw,
        operations: dict[OperationId, Operation],
        hosts: Mapping[HostId, HostSpec],
        controller: ControllerId | None,
    ) -> ClusterView | None:
        """Return all there is besides these operations, or None if the store has begun a new life since."""
        keys = self._keys
        hashes = (keys.clock, keys.life, keys.lease, keys.controllers, keys.files)
        texts = (keys.ledger_version, keys.placements)
        base = (*hashes, *texts, keys.vms)
        pipe = self._redis.pipeline(transaction=True)
        pipe.time()
        for key in hashes:
            pipe.hgetall(key)
        for key in texts:
            pipe.get(key)
        pipe.smembers(keys.vms)
        pipe.hgetall(keys.wishes)
        self._ask_hosts(pipe, hosts)
        time, *first = answers(pipe)
        clock, life, lease, controllers, files, version, placements, vm_ids = (
            sound(answer, key) for key, answer in zip(base, first, strict=False)
        )
        if life != life_before:
            return None
        wish_row, *rows = first[len(base) :]
        wishes = self._row(wish_row, keys.wishes, {})
        now = self._clock(time, clock)
        if not version or version != self.documents.version:
            self.documents = read_documents(self._redis, keys)
        docs = self.documents
        self._unreadable.extend(docs.unreadable)
        probers = [ControllerId(name) for name in controllers]
        names = [VmId(vm) for vm in sorted(vm_ids)]
        # Taken out of the cluster file, yet a member once: its VMs may run there.
        outside = sorted(doc.id for doc in docs.hosts.values() if doc.incarnation and doc.id not in hosts)
        pipe = self._redis.pipeline(transaction=True)
        for prober in probers:
            pipe.lrange(keys.probes(prober), 0, PROBE_ROUNDS_MAX - 1)
        for vm in names:
            pipe.hgetall(keys.vm(vm))
        self._ask_hosts(pipe, outside)
        if controller is not None:
            pipe.hset(keys.controllers, controller, micros(now))
        second = answers(pipe)
        rounds = [
            probe
            for prober, texts in zip(probers, second, strict=False)
            for probe in self._all(ProbeRound, self._row(texts, keys.probes(prober), ()), keys.probes(prober))
        ]
        second = second[len(probers) :]
        vms, broken = self._vm_records(dict(zip(names, second, strict=False)))
        # Neither in the cluster file nor remembered, yet a VM is theirs.
        owners = sorted({r.owner for r in vms.values() if r.owner is not None} - {*hosts, *outside})
        remembered = second[len(names) : len(names) + ROWS * len(outside)]
        found = self._hosts([*hosts, *outside, *owners], [*rows, *remembered, *self._rows(owners)])
        taken = lease_of(lease, keys) if "holder" in lease else None
        taken = taken if taken is not None and taken.until > now else None
        with naming(keys.controllers, "list of controllers"):
            looked = {ControllerId(c): instant(at) for c, at in controllers.items()}
        with naming(keys.placements, "counter"):
            placed = int(placements or 0)
        return ClusterView(
            now=now,
            life=self._life(life),
            lease=taken if taken is not None and taken.holder == controller else None,
            hosts=hosts,
            host_records=found.records,
            host_docs=docs.hosts,
            heartbeats=found.beats,
            # A write asked for again after a lost answer is there twice; it stays one round of evidence.
            probes=tuple(sorted(dict.fromkeys(rounds), key=lambda probe: probe.started_at)),
            readings=found.readings,
            bindings=docs.bindings,
            vms={vm: doc for vm, doc in docs.vms.items() if vm not in broken},
            vm_records=vms,
            operations=operations,
            wishes=tuple(sorted(self._all(Wish, wishes.values(), keys.wishes), key=lambda wish: (wish.at, wish.id))),
            placements=placed,
            holder=taken.holder if taken is not None else None,
            controllers=looked,
            files=_files(files),
            proofs=docs.proofs,
            unreadable=tuple(self._unreadable),
            unreadable_vms=tuple(sorted(docs.unreadable_vms | broken)),
            unreadable_records=tuple(sorted(broken)),
            set_aside={vm: doc for vm, doc in docs.vms.items() if vm in broken},
            pause=docs.pause,
        )

    def reports(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId) -> Reports:
        """Read what hosts say of themselves, and write down that `controller` looked."""
        keys = self._keys
        asked = (keys.clock, keys.life, keys.files)
        pipe = self._redis.pipeline(transaction=True)
        pipe.time()
        for key in (*asked, *(keys.heartbeat(host) for host in hosts)):
            pipe.hgetall(key)
        time, *first = answers(pipe)
        clock, life, files = (sound(answer, key) for key, answer in zip(asked, first, strict=False))
        now = self._clock(time, clock)
        beats: dict[HostId, Heartbeat] = {}
        for host, answer in zip(hosts, first[len(asked) :], strict=True):
            raw = self._row(answer, keys.heartbeat(host), {})
            if raw and (beat := self._try(partial(self._heartbeat, host, raw))) is not None:
                beats[host] = beat
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(keys.controllers, controller, micros(now))
        answers(pipe)
        return Reports(now=now, life=self._life(life), hosts=hosts, heartbeats=beats, files=_files(files))

    def _life(self, fields: Raw) -> StoreLife:
        with naming(self._keys.life, "life of a store"):
            return StoreLife(
                incarnation=StoreIncarnation(fields.get("incarnation", "")), since=instant(fields.get("since"))
            )

    def _rows(self, hosts: Sequence[HostId]) -> list[Any]:
        if not hosts:
            return []
        pipe = self._redis.pipeline(transaction=True)
        self._ask_hosts(pipe, hosts)
        return answers(pipe)

    def _ask_hosts(self, pipe: Any, hosts: Iterable[HostId]) -> None:
        for host in hosts:
            pipe.hgetall(self._keys.heartbeat(host))
            pipe.get(self._keys.host(host))
            pipe.hgetall(self._keys.power(host))

    def _hosts(self, hosts: Sequence[HostId], rows: Sequence[Any]) -> _Hosts:
        keys, found = self._keys, _Hosts()
        for index, host in enumerate(hosts):
            beat_row, record_row, power_row = rows[ROWS * index : ROWS * (index + 1)]
            raw_beat = self._row(beat_row, keys.heartbeat(host), {})
            raw_record = self._row(record_row, keys.host(host), "")
            raw_power = self._row(power_row, keys.power(host), {})
            if raw_beat and (beat := self._try(partial(self._heartbeat, host, raw_beat))) is not None:
                found.beats[host] = beat
            if raw_record and (record := self._one(HostRecord, raw_record, keys.host(host))) is not None:
                found.records[host] = record
            found.readings[host] = self._all(PowerReading, raw_power.values(), keys.power(host))
        return found

    # -- what may be broken piece by piece --

    def _row(self, answer: Any, key: str, nothing: Any) -> Any:
        """Return one key's answer, or `nothing` where it holds another type of value; that is named."""
        return nothing if self._try(lambda: sound(answer, key)) is None else answer

    def _try(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except StoredContentError as error:
            self._unreadable.append(str(error))
            return None

    def _one(self, kind: type[T], text: str, key: str) -> T | None:
        return self._try(lambda: decode(kind, text, key))

    def _all(self, kind: type[T], texts: Iterable[str], key: str) -> tuple[T, ...]:
        return tuple(value for text in texts if (value := self._one(kind, text, key)) is not None)

    def _operations(self, identities: Sequence[OperationId]) -> dict[OperationId, Operation]:
        try:
            found = self._read_operations(identities)
        except StoredContentError:  # one of them, then: each by itself
            each = [self._try(partial(self._read_operations, [identity])) for identity in identities]
            found = tuple(operation for one in each if one for operation in one)
        return {operation.id: operation for operation in found}

    def _vm_records(self, rows: Mapping[VmId, Raw]) -> tuple[dict[VmId, VmRecord], set[VmId]]:
        """Return the records, and the VMs whose record is broken: nothing at all may be decided about those."""
        records: dict[VmId, VmRecord] = {}
        broken: set[VmId] = set()
        for vm, fields in rows.items():
            if not fields:
                continue
            record = self._try(partial(self._vm_record, vm, fields))
            if record is None:
                broken.add(vm)
            else:
                records[vm] = record
        return records, broken

    def _vm_record(self, vm: VmId, answer: Any) -> VmRecord:
        key = self._keys.vm(vm)
        return vm_record(vm, sound(answer, key), key)

    @staticmethod
    def _clock(time: tuple[int, int], clock: Raw) -> Instant:
        """Return the store's clock as its scripts read it (prelude.lua)."""
        ahead, latest = (_count(clock.get(field, "")) for field in ("ahead", "latest"))
        now = time[0] * 1_000_000 + time[1] + (ahead if ahead <= SANE_US else 0)
        return Instant((max(now, latest) if latest <= now + SANE_US else now) / 1_000_000)

    def _heartbeat(self, host: HostId, fields: Raw) -> Heartbeat:
        with naming(self._keys.heartbeat(host), "heartbeat"):
            data = {
                **json.loads(fields["doc"]),
                "received_at": int(fields["at"]) / 1_000_000,
                "boot_since": int(fields.get("boot_since") or fields["at"]) / 1_000_000,
                "contested_at": int(fields.get("contested") or 0) / 1_000_000,
            }
        return decode(Heartbeat, json.dumps(data), self._keys.heartbeat(host))


def _files(fields: Raw) -> dict[ControllerId, str]:
    return {ControllerId(name): digest for name, digest in fields.items()}


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def lease_of(fields: Raw, keys: Keys) -> ControlLease:
    """Return the control lease a hash holds, run out or not."""
    with naming(keys.lease, "control lease"):
        return ControlLease(
            holder=ControllerId(fields["holder"]), epoch=Epoch(int(fields["epoch"])), until=instant(fields["until"])
        )
