"""The store port on Redis: what controllers and hosts share. Keys in keys.py; Lua for what must be atomic (`lua/`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import redis

from fangnetz.adapters.redis.client import answers, is_wrong_type, reading, sound, translated
from fangnetz.adapters.redis.codec import (
    adapter,
    decode,
    encode,
    facts_of,
    instant,
    micros,
    naming,
    vm_fields,
)
from fangnetz.adapters.redis.documents import Documents, document_of
from fangnetz.adapters.redis.journal import RedisJournal
from fangnetz.adapters.redis.keys import PAST_BOOTS_MAX, PROBE_ROUNDS_MAX, SCHEMA, WATCH_TTL_S, WISH_RESULT_TTL_S
from fangnetz.adapters.redis.view import Look, lease_of
from fangnetz.core.actions import Alarm
from fangnetz.core.detector import Watch
from fangnetz.core.errors import StaleToken, StoredContentError, StoreUnreachable
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
    VmDoc,
    VmRecord,
    VmState,
    Wish,
)
from fangnetz.core.operations import Operation, OperationState
from fangnetz.core.roll.values import Roll
from fangnetz.core.units import (
    ControllerId,
    Epoch,
    Generation,
    HostId,
    Instant,
    OperationId,
    Seconds,
    StoreIncarnation,
    VmId,
)
from fangnetz.ports import LedgerEntry, LoggedEvent, WishResult

Raw = dict[str, str]


class RedisStore(RedisJournal):
    """`ports.Store` and `ports.Operators` on one Redis connection pool; safe to share between threads."""

    def __init__(self, client: redis.Redis, cluster: str, replicas_min: int = 0) -> None:
        super().__init__(client, cluster, replicas_min)
        self._schema_seen = False
        self._epoch_seen = Epoch(0)
        self._clock_seen = Instant(0.0)
        self._documents = Documents()

    # -- life and lease --

    def meet(self) -> StoreLife:
        """Register the store's present life; refuse a layout of another version."""
        keys = self._keys
        if not self._schema_seen:
            with reading(keys.schema):
                self._redis.set(keys.schema, str(SCHEMA), nx=True)
                found = cast("str | None", self._redis.get(keys.schema))
            if found != str(SCHEMA):
                raise StoredContentError(f"{keys.schema} is {found}: this version understands layout {SCHEMA} only")
            self._schema_seen = True
        incarnation, since = self._scripts("meet", [keys.life, keys.lease], [micros(self._clock_seen)])
        return StoreLife(incarnation=StoreIncarnation(incarnation), since=instant(since))

    def take_lease(self, controller: ControllerId, ttl: Seconds) -> ControlLease | None:
        keys = self._keys
        args = [controller, micros(ttl), str(self._epoch_seen)]
        answer = self._scripts.confirmed("take_lease", [keys.life, keys.lease], args)
        if answer[0] != 1:
            return None
        epoch = self._epoch_seen = Epoch(max(self._epoch_seen, int(answer[1])))
        return ControlLease(holder=controller, epoch=epoch, until=instant(answer[2]))

    def drop_lease(self, controller: ControllerId) -> None:
        self._scripts("drop_lease", [self._keys.lease], [controller])

    # -- the view --

    def view(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId | None) -> ClusterView:
        look = Look(self._redis, self._keys, self.operations_of, self._documents)
        view = look.take(hosts, controller)
        self._documents, self._clock_seen = look.documents, Instant(max(self._clock_seen, view.now))
        return view

    def reports(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId) -> Reports:
        reports = Look(self._redis, self._keys, self.operations_of, self._documents).reports(hosts, controller)
        self._clock_seen = Instant(max(self._clock_seen, reports.now))
        return reports

    def unfinished(self, controller: ControllerId) -> bool:
        with reading(self._keys.lease):
            holder = self._redis.hget(self._keys.lease, "holder")
        if holder != controller:
            return False
        with reading(self._keys.open):
            return bool(self._redis.hlen(self._keys.open))

    # -- observation --

    def put_watch(self, controller: ControllerId, watch: Watch) -> None:
        with translated():
            self._redis.set(self._keys.watch(controller), encode(watch), ex=WATCH_TTL_S)

    def holder_watch(self) -> Watch | None:
        with reading(self._keys.lease):
            holder = cast("str | None", self._redis.hget(self._keys.lease, "holder"))
        if not holder:
            return None
        with reading(self._keys.watch(ControllerId(holder))):
            text = cast("str | None", self._redis.get(self._keys.watch(ControllerId(holder))))
        return decode(Watch, text, f"watch:{holder}") if text else None

    def put_files(self, controller: ControllerId, digest: str) -> None:
        with translated():
            self._redis.hset(self._keys.files, controller, digest)

    def put_heartbeat(self, beat: Heartbeat) -> Instant:
        keys = [self._keys.heartbeat(beat.host), self._keys.past(beat.host)]
        args = [beat.incarnation, str(beat.sequence), encode(beat), str(PAST_BOOTS_MAX)]
        at = self._scripts("heartbeat", keys, args)
        if at == -1:
            raise StaleToken(
                f"{beat.host} was reported by a later boot already: does another machine carry its FANGNETZ_HOST?"
            )
        return instant(at)

    def put_probe_round(self, probe: ProbeRound) -> None:
        key = self._keys.probes(probe.prober)

        def write(pipe: Any) -> None:
            pipe.lpush(key, encode(probe))
            pipe.ltrim(key, 0, PROBE_ROUNDS_MAX - 1)

        self._write_over(key, write)

    def put_reading(self, reading: PowerReading) -> None:
        key = self._keys.power(reading.host)
        self._write_over(key, lambda pipe: pipe.hset(key, reading.device, encode(reading)))

    def _write_over(self, key: str, write: Callable[[Any], object]) -> None:
        """Write down what was just seen. What stood there of another type gives way: no fence waits for a mend."""
        for over in (False, True):
            pipe = self._redis.pipeline(transaction=True)
            if over:
                pipe.delete(key)
            write(pipe)
            if not any(map(is_wrong_type, answers(pipe))):
                return

    # -- records --

    def put_host(self, record: HostRecord, expected: HostRecord | None, epoch: Epoch) -> bool:
        key = self._keys.host(record.id)
        stands = ""
        with suppress(StoredContentError), reading(key):  # of another type: no record, and put_host.lua says so too
            stands = cast("str | None", self._redis.get(key)) or ""
        if self._host(stands, key) != expected:
            return False
        answer = self._scripts("put_host", [self._keys.lease, key], [str(epoch), stands, encode(record)])
        if answer == 0:
            raise StaleToken(f"epoch {epoch} is no longer in charge")
        return bool(answer == 1)

    @staticmethod
    def _host(text: str, key: str) -> HostRecord | None:
        """Return what a text stands for, as the view does: what cannot be read is no record, and may be written over.

        Values are compared and not texts: another version may have written the same with other fields.
        """
        try:
            return decode(HostRecord, text, key) if text else None
        except StoredContentError:
            return None

    def put_alarms(self, alarms: Sequence[Alarm], epoch: Epoch) -> None:
        text = adapter(tuple[Alarm, ...]).dump_json(tuple(alarms)).decode()
        self._at_epoch(self._keys.alarms, text, epoch)

    def _at_epoch(self, key: str, text: str, epoch: Epoch) -> None:
        if self._scripts("put_at_epoch", [self._keys.lease, key], [str(epoch), text]) != 1:
            raise StaleToken(f"epoch {epoch} is no longer in charge")

    def put_vm(self, record: VmRecord, expected: Generation | None, epoch: Epoch) -> bool:
        fields = [part for pair in vm_fields(record).items() for part in pair]
        answer = self._scripts(
            "put_vm",
            [self._keys.lease, self._keys.vm(record.id), self._keys.vms],
            [str(epoch), "" if expected is None else str(expected), record.id, *fields],
        )
        if answer == 0:
            raise StaleToken(f"epoch {epoch} is no longer in charge")
        return bool(answer == 1)

    def mark_vm(self, vm: VmId, generation: Generation, state: VmState, reason: str, epoch: Epoch) -> bool:
        keys = [self._keys.lease, self._keys.vm(vm)]
        answer = self._scripts("mark_vm", keys, [str(epoch), str(generation), state.value, reason])
        if answer == -1:
            raise StaleToken(f"epoch {epoch} is no longer in charge")
        return bool(answer == 1)

    def forget_vm(self, vm: VmId, epoch: Epoch) -> None:
        keys = [self._keys.lease, self._keys.vm(vm), self._keys.vms]
        if self._scripts("forget_vm", keys, [str(epoch), vm]) != 1:
            raise StaleToken(f"epoch {epoch} is no longer in charge")

    # -- ledger --

    def ledger(self, known: int) -> tuple[int, tuple[LedgerEntry, ...]] | None:
        with reading(self._keys.ledger_version):
            text = cast("str | None", self._redis.get(self._keys.ledger_version))
            with naming(self._keys.ledger_version, "version"):
                version = int(text or 0)
        if version == known:
            return None
        with reading(self._keys.ledger):
            raw = cast("Raw", self._redis.hgetall(self._keys.ledger))
        entries: list[LedgerEntry] = []
        for key, text in sorted(raw.items()):
            with suppress(StoredContentError):  # every view names it; the others are still copied
                entries.append(decode(LedgerEntry, text, f"{self._keys.ledger} {key}"))
        return version, tuple(entries)

    def put_ledger(self, entries: Sequence[LedgerEntry]) -> None:
        if entries:
            args = [part for entry in entries for part in (entry.key, str(entry.version), encode(entry))]
            keys = [self._keys.ledger, self._keys.ledger_version, self._keys.ledger_versions]
            self._scripts("put_ledger", keys, args)

    def definition(self, vm: VmId) -> VmDoc | None:
        with reading(self._keys.ledger):
            text = cast("str | None", self._redis.hget(self._keys.ledger, f"vm/{vm}"))
        found = document_of(f"vm/{vm}", text, self._keys) if text else None
        return found if isinstance(found, VmDoc) else None

    # -- wishes, alarms, events (ports.Operators) --

    def control_lease(self) -> ControlLease | None:
        """Return who holds the control lease, also when it ran out; None if nobody does. Refuses another layout."""
        keys = self._keys
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(keys.schema)
        pipe.hgetall(keys.lease)
        first, second = answers(pipe)
        found, lease = cast("str | None", sound(first, keys.schema)), cast("Raw", sound(second, keys.lease))
        if found is not None and found != str(SCHEMA):
            raise StoredContentError(f"{keys.schema} is {found}: this version understands layout {SCHEMA} only")
        return lease_of(lease, keys) if "holder" in lease else None

    def add_wish(self, wish: Wish) -> None:
        keys = [self._keys.wishes, self._keys.wish(wish.id)]
        self._scripts("add_wish", keys, [wish.id, encode(wish)])

    def wishes_waiting(self) -> int:
        with reading(self._keys.wishes):
            return int(self._redis.hlen(self._keys.wishes))

    def settle_wish(self, wish: Wish, result: WishResult, epoch: Epoch) -> None:
        keys = [self._keys.lease, self._keys.wishes, self._keys.wish(wish.id)]
        args = [str(epoch), wish.id, encode(result), str(WISH_RESULT_TTL_S)]
        if self._scripts("settle_wish", keys, args) == -1:
            raise StaleToken(f"epoch {epoch} is no longer in charge")

    def wish_result(self, identity: str) -> WishResult | None:
        with reading(self._keys.wish(identity)):
            text = self._redis.get(self._keys.wish(identity))
        return decode(WishResult, cast("str", text), self._keys.wish(identity)) if text else None

    def alarms(self) -> tuple[Alarm, ...]:
        with reading(self._keys.alarms):
            text = self._redis.get(self._keys.alarms)
        return decode(tuple[Alarm, ...], cast("str", text), self._keys.alarms) if text else ()

    def roll(self) -> Roll | None:
        key = self._keys.roll
        with reading(key):
            text = cast("str | None", self._redis.get(key))
        return decode(Roll, text, key) if text else None

    def put_roll(self, roll: Roll, expected: Roll | None) -> bool:
        """Written only over what was read; a command run on a host rests on it, so replicas have it, too."""
        key = self._keys.roll
        with reading(key):
            stands = cast("str | None", self._redis.get(key)) or ""
        if (decode(Roll, stands, key) if stands else None) != expected:
            return False
        return bool(self._scripts.confirmed("put_roll", [key], [stands, encode(roll)]) == 1)

    def drop_roll(self) -> None:
        with translated():
            self._redis.delete(self._keys.roll)

    def operations(self, limit: int) -> tuple[Operation, ...]:
        with reading(self._keys.open):
            opened = cast("Raw", self._redis.hgetall(self._keys.open))
        with reading(self._keys.closed):
            closed = cast("list[str]", self._redis.zrevrange(self._keys.closed, 0, max(0, limit - 1)))
        found = self.operations_of([OperationId(identity) for identity in [*opened.values(), *closed]])
        return tuple(sorted(found, key=lambda op: op.opened_at, reverse=True)[:limit])

    def events(self, after: str, limit: int, block: Seconds) -> tuple[LoggedEvent, ...]:
        """Return events after an id ('' = the last `limit`), waiting up to `block` seconds for the first one."""
        key = self._keys.events
        with reading(key):
            if after == "":
                rows = list(reversed(cast("list[Any]", self._redis.xrevrange(key, count=limit))))
            elif block > 0:
                wait = int(min(block, 1.0) * 1000)
                answer = cast("Any", self._redis.xread({key: after}, count=limit, block=wait))
                rows = _stream_rows(answer, key)
            else:
                rows = cast("list[Any]", self._redis.xrange(key, min=f"({after}", count=limit))
        with naming(key, "event"):
            return tuple(_event(identity, fields) for identity, fields in rows)

    # -- operations as the tick sees them --

    def adopt_operation(self, identity: OperationId, epoch: Epoch) -> None:
        keys = [self._keys.lease, self._keys.operation(identity)]
        if self._scripts("adopt_operation", keys, [str(epoch)]) != 1:
            raise StaleToken(f"epoch {epoch} is no longer in charge")

    def end_operation(self, identity: OperationId, state: OperationState, sentence: str, epoch: Epoch) -> None:
        keys = [self._keys.lease, self._keys.operation(identity), self._keys.open, self._keys.closed]
        if self._scripts("end_operation", keys, [str(epoch), identity, state.value, sentence]) != 1:
            raise StaleToken(f"epoch {epoch} is no longer in charge")


def _event(identity: str, fields: Raw) -> LoggedEvent:
    return LoggedEvent(
        id=identity,
        at=Instant(int(identity.partition("-")[0]) / 1000),
        kind=fields.get("kind", ""),
        subject=fields.get("subject", ""),
        sentence=fields.get("sentence", ""),
        facts=facts_of(fields),
    )


def _stream_rows(answer: Any, key: str) -> list[Any]:
    """XREAD answers pairs (RESP2) or a mapping (RESP3), the latter with its rows wrapped once more."""
    if not answer:
        return []
    rows = list((answer if isinstance(answer, dict) else dict(answer))[key])
    wrapped = bool(rows) and isinstance(rows[0], list) and bool(rows[0]) and isinstance(rows[0][0], (list, tuple))
    return list(rows[0]) if wrapped else rows


__all__ = ["RedisStore", "StoreUnreachable"]
