"""What Redis holds: values come back as they went in, and what this version does not understand is refused by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fangnetz.adapters.redis import RedisStore
from fangnetz.adapters.redis.client import answers
from fangnetz.adapters.redis.keys import CLOSED_MAX, EVENTS_MAX, Keys, kind_of
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.actions import Alarm, Happened
from fangnetz.core.convergence import Progress
from fangnetz.core.detector import HostWatch, Watch
from fangnetz.core.errors import StoredContentError, StoreUnreachable
from fangnetz.core.model import (
    UNKNOWN_BOOT,
    Answer,
    Binding,
    Destination,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostSpec,
    OffProof,
    PauseDoc,
    Power,
    PowerReading,
    ProbeAnswer,
    ProbeRound,
    Release,
    Rules,
    SlotSeen,
    VmDoc,
    VmRecord,
    VmSighting,
    VmSpec,
    VmState,
    VmUse,
    Wish,
    WishKind,
)
from fangnetz.core.operations import OperationState, Order, Outcome, Step, StepKind, StepState, vm_start_steps
from fangnetz.core.policy import Fallback
from fangnetz.core.retries import Retries
from fangnetz.core.units import Instant, OperationId, Seconds
from fangnetz.engine.ledger import Ledger, key_of
from fangnetz.ports import Claim, LedgerEntry, WishResult
from tests.contract.subjects import BOOT, C1, DB, H1, OP, WEB, Cluster, RedisSubject
from tests.core.world import T0, beat, host_record, probe_round, reading, vm_doc, wish
from tests.redis_server import RedisServer

KEYS = Keys("test")
HOSTS = {H1: HostSpec(id=H1, cpus=1, memory_mib=64)}


@pytest.fixture
def raw(subject: RedisSubject) -> redis.Redis:
    return subject.raw


# --- round trips -------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=12)
AT = st.integers(0, 2**52).map(lambda us: us / 1_000_000)
SPAN = st.floats(0, 1e6, allow_nan=False)
NUMBER = st.integers(0, 2**53 - 1)
FACT = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
FACTS = st.dictionaries(TEXT, FACT, max_size=4)


def made(kind: type, /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Every field of the value is drawn: a field left out of storage somewhere would come back as its default."""
    known = {"received_at", "boot_since", "contested_at"} if kind is Heartbeat else set()
    missing = set(kind.__dataclass_fields__) - set(fields) - known
    assert not missing, f"{kind.__name__}: {missing} are never drawn"
    return st.builds(kind, **fields)


def enum_of(kind: type, name: str) -> st.SearchStrategy[Any]:
    from typing import get_type_hints

    return st.sampled_from(list(get_type_hints(kind)[name]))


READINGS = made(
    PowerReading, host=st.just(H1), device=NAME, power=enum_of(PowerReading, "power"), asked_at=AT, answered_at=AT,
    incarnation=TEXT, guid=TEXT, raw=TEXT,
)  # fmt: skip
PROOFS = made(
    OffProof, host=st.just(H1), incarnation=TEXT, kind=enum_of(OffProof, "kind"), proven_at=AT, sentence=TEXT,
    evidence=st.lists(READINGS, max_size=2).map(tuple), void=st.booleans(), life=TEXT,
)  # fmt: skip
HOST_RECORDS = made(
    HostRecord, id=st.just(H1), state=enum_of(HostRecord, "state"), since=AT, reason=TEXT, incarnation=TEXT,
    proof=st.none() | PROOFS, cut_by=st.none() | NAME, suspected_at=st.none() | AT, cut_possible_until=AT,
    exits=st.lists(AT, max_size=3).map(tuple),
    leaving_at=AT,
)  # fmt: skip
DESTINATIONS = made(Destination, host=NAME, incarnation=TEXT, generation=NUMBER)
VM_RECORDS = made(
    VmRecord, id=st.just(WEB), state=enum_of(VmRecord, "state"), owner=st.none() | NAME, owner_incarnation=TEXT,
    generation=NUMBER, since=AT, reason=TEXT, operation=st.none() | NAME, failures=st.integers(0, 99),
    ended_on=st.none() | NAME,
    moving=st.none() | DESTINATIONS, tried_at=AT, stuck_at=AT, tries=st.integers(0, 99), kept=NUMBER,
)  # fmt: skip
SIGHTINGS = made(
    VmSighting, vm=NAME, state=enum_of(VmSighting, "state"), generation=st.none() | NUMBER,
    start_sent_at=st.none() | AT, held=st.booleans(),
)  # fmt: skip
RELEASES = made(Release, vm=NAME, generation=NUMBER, left_for=NUMBER)
HEARTBEATS = made(
    Heartbeat, host=st.just(H1), incarnation=TEXT, sequence=st.integers(1, 2**53 - 1),
    hypervisor=enum_of(Heartbeat, "hypervisor"), inventory=st.lists(SIGHTINGS, max_size=3).map(tuple),
    inventory_age_s=SPAN, releases=st.lists(RELEASES, max_size=3).map(tuple),
    orders=st.lists(TEXT, max_size=2).map(tuple), load=SPAN, memory_free_mib=NUMBER,
    uses=st.lists(st.builds(VmUse, NAME, SPAN, NUMBER), max_size=3).map(tuple), uses_age_s=SPAN,
    slot_waits_s=st.none() | SPAN, slots=st.lists(st.builds(SlotSeen, NAME, NAME, AT, AT, AT), max_size=3).map(tuple),
    leaving=enum_of(Heartbeat, "leaving"),
    bmc_guids=st.lists(TEXT, max_size=2).map(tuple), worker=TEXT, protocol=st.integers(0, 9),
)  # fmt: skip
ANSWERS = st.sampled_from(list(Answer))
ROUNDS = made(
    ProbeRound, prober=st.just(C1), started_at=AT, ended_at=AT, references=st.lists(TEXT, max_size=2).map(tuple),
    answers=st.lists(made(ProbeAnswer, host=NAME, ping=ANSWERS, kernel=ANSWERS, libvirt=ANSWERS), max_size=2).map(
        tuple
    ),
)  # fmt: skip
RULES = made(
    Rules, allowed=st.lists(NAME, max_size=2).map(tuple), strict=st.booleans(),
    preferred=st.lists(st.tuples(NAME, st.integers(-9, 9)), max_size=2).map(tuple),
    together=st.lists(NAME, max_size=2).map(tuple), apart=st.lists(NAME, max_size=2).map(tuple),
    failback=st.none() | st.booleans(),
)  # fmt: skip
SPECS = made(
    VmSpec, id=NAME, memory_mib=NUMBER, cpus=NUMBER, priority=st.integers(-9, 9), digest=TEXT, uuid=TEXT,
    disks=st.lists(TEXT, max_size=3).map(tuple), rules=RULES, live=st.booleans(),
    fallback=st.none() | st.sampled_from(list(Fallback)),
    retries=made(Retries, restarts=st.none() | st.integers(0, 9), relocations=st.none() | st.integers(0, 9)),
)  # fmt: skip
VM_DOCS = made(
    VmDoc, spec=SPECS, xml=TEXT, wish=enum_of(VmDoc, "wish"), source=TEXT, declared=st.none() | enum_of(VmDoc, "wish")
)
HOST_DOCS = made(
    HostDoc, id=NAME, maintenance=st.booleans(), evacuate=st.booleans(), away=st.lists(NAME, max_size=3).map(tuple),
    failback=st.booleans(), reason=TEXT, incarnation=NAME, quarantine=TEXT,
    stopped=st.lists(NAME, max_size=3).map(tuple),
)  # fmt: skip
PAUSES = made(PauseDoc, on=st.booleans(), by=TEXT, reason=TEXT, since=AT, until=st.none() | AT)
BINDINGS = made(
    Binding, host=NAME, device=NAME, incarnation=TEXT, seen_on_at=AT, guid=TEXT,
    guid_matches=st.none() | st.booleans(), read_off=st.booleans(),
)  # fmt: skip
WISHES = made(
    Wish, id=NAME, kind=st.sampled_from(list(WishKind)), subject=TEXT, by=TEXT, at=AT, force=st.booleans(),
    failback=st.booleans(),
    doc=st.none() | VM_DOCS, boot=TEXT, to=st.none() | NAME, reason=TEXT, until=st.none() | AT,
)  # fmt: skip
ALARMS = made(Alarm, kind=TEXT, subject=TEXT, sentence=TEXT, highest=st.booleans())
WATCHED = made(HostWatch, incarnation=TEXT, sequence=NUMBER, heard_at=AT, silent_for=SPAN, back_at=AT)
WATCHES = made(
    Watch, started_at=AT, since=AT, looked_at=AT, life=TEXT, gap=TEXT, hosts=st.dictionaries(NAME, WATCHED, max_size=2)
)
ORDERS = made(
    Order,
    vm=NAME,
    host=NAME,
    arriving=st.booleans(),
    to=st.none() | DESTINATIONS,
    incarnation=TEXT,
    generation=NUMBER,
    life=TEXT,
    deadline=AT,
    force=st.booleans(),
    beside=st.lists(NAME, max_size=2).map(tuple),
)
SIZES = st.floats(0, 1e9, allow_nan=False)
PROGRESS = made(
    Progress, elapsed_s=SPAN, total_mib=SIZES, sent_mib=SIZES, remaining_mib=SIZES, speed_mib_s=SIZES,
    dirty_mib_s=SIZES, rounds=st.integers(0, 10**6), downtime_s=SPAN,
)  # fmt: skip

many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@many
@given(record=HOST_RECORDS, vm=VM_RECORDS, report=HEARTBEATS, plug=READINGS, seen=ROUNDS)
def test_whatever_is_recorded_or_reported_comes_back_whole(
    cluster: Cluster,
    raw: redis.Redis,
    record: HostRecord,
    vm: VmRecord,
    report: Heartbeat,
    plug: PowerReading,
    seen: ProbeRound,
) -> None:
    raw.delete(KEYS.host(H1), KEYS.heartbeat(H1), KEYS.power(H1), KEYS.vm(WEB))
    store = cluster.store
    assert store.put_host(record, None, cluster.epoch)
    assert store.put_vm(vm, None, cluster.epoch)
    at = store.put_heartbeat(report)
    store.put_reading(plug)
    store.put_probe_round(seen)
    store.view(HOSTS, C1)
    found = store.view(HOSTS, None)
    assert found.host_records == {H1: record}
    assert found.vm_records[WEB] == replace(vm, since=pytest.approx(vm.since, abs=2e-6))
    assert found.heartbeats == {H1: replace(report, received_at=at, boot_since=at)}
    assert found.readings[H1] == (plug,)
    assert seen in found.probes
    assert store.put_host(replace(record, reason="read, then written"), found.host_records[H1], cluster.epoch)


def test_a_report_that_does_not_say_when_its_copies_were_started_is_read(cluster: Cluster, raw: redis.Redis) -> None:
    cluster.store.put_heartbeat(beat("h1", 1.0, runs={"web": 7}))
    doc = json.loads(raw.hget(KEYS.heartbeat(H1), "doc"))
    for seen in doc["inventory"]:
        del seen["start_sent_at"], seen["held"]
    raw.hset(KEYS.heartbeat(H1), "doc", json.dumps(doc))
    found = cluster.store.view(HOSTS, None)
    assert found.unreadable == ()
    assert [(s.vm, s.generation, s.start_sent_at) for s in found.heartbeats[H1].inventory] == [(WEB, 7, None)]


@many
@given(
    docs=st.lists(VM_DOCS | HOST_DOCS | BINDINGS | PAUSES, max_size=4, unique_by=key_of), asked=WISHES,
    alarms=st.lists(ALARMS, max_size=3),
    watch=WATCHES, event=made(Happened, kind=TEXT, subject=TEXT, sentence=TEXT, facts=FACTS),
)  # fmt: skip
def test_whatever_people_define_wish_or_are_told_comes_back_whole(
    cluster: Cluster, raw: redis.Redis, docs: list[Any], asked: Wish, alarms: list[Alarm], watch: Watch, event: Happened
) -> None:
    raw.delete(KEYS.ledger, KEYS.ledger_version, KEYS.ledger_versions, KEYS.wishes)
    store = cluster.store
    Ledger(store, _NoFiles(), SystemProcess()).write(docs)
    store.add_wish(asked)
    store.put_alarms(alarms, cluster.epoch)
    store.put_watch(C1, watch)
    store.log([event])
    found = store.view(HOSTS, None)
    assert found.vms == {d.spec.id: d for d in docs if isinstance(d, VmDoc)}
    assert found.host_docs == {d.id: d for d in docs if isinstance(d, HostDoc)}
    assert found.bindings == {(d.host, d.device): d for d in docs if isinstance(d, Binding)}
    assert found.pause == next((d for d in docs if isinstance(d, PauseDoc)), None)
    assert found.wishes == (asked,)
    assert store.alarms() == tuple(alarms)
    assert store.holder_watch() == watch
    told = store.events("", 1, Seconds(0))[0]
    assert (told.kind, told.subject, told.sentence, told.facts) == (
        event.kind, event.subject, event.sentence, event.facts
    )  # fmt: skip


class _NoFiles:
    def load(self) -> tuple[LedgerEntry, ...]:
        return ()

    def write(self, entries: object) -> None:
        pass


@many
@given(order=ORDERS, facts=FACTS, proof=PROOFS, sentence=TEXT, progress=PROGRESS)
def test_whatever_an_operation_holds_comes_back_whole(
    cluster: Cluster,
    raw: redis.Redis,
    order: Order,
    facts: dict[str, Any],
    proof: OffProof,
    sentence: str,
    progress: Progress,
) -> None:
    raw.delete(KEYS.open, KEYS.operation(OP), KEYS.step(OP, "plan/1"))
    given_step = vm_start_steps(order, attempt=1, after="plan/1")[0]
    opened = replace(
        cluster.operation(replace(given_step, facts=facts), Step(key="plan/1", kind=StepKind.PLAN)), proof=proof
    )
    assert cluster.store.open_operation(replace(opened, reason=sentence))
    found = cluster.store.operation(OP)
    assert found is not None
    assert (found.proof, found.reason) == (proof, sentence)
    step = found.step(given_step.key)
    assert step is not None
    assert step.order is not None
    assert replace(step.order, deadline=order.deadline) == order
    assert step.order.deadline == pytest.approx(order.deadline, abs=5e-6)
    assert (step.facts, step.after) == (facts, ("plan/1",))
    cluster.store.renew(cluster.claim("plan/1"), Seconds(4.0), progress)
    assert cluster.step("plan/1").progress == progress


# --- garbage -----------------------------------------------------------------------------------------------------


def filled(cluster: Cluster) -> None:
    """One of everything."""
    store = cluster.store
    cluster.vm()
    store.put_host(host_record("h1"), None, cluster.epoch)
    store.put_heartbeat(beat("h1", 1.0))
    store.put_reading(reading("h1", Power.ON, 1.0))
    store.view(HOSTS, C1)
    store.put_probe_round(probe_round(1.0, {"h1": True}, by=C1))
    cluster.open()
    store.add_wish(wish(WishKind.VM_START, "web"))
    done = wish(WishKind.VM_STOP, "web")
    store.add_wish(done)
    store.settle_wish(done, WishResult(id=done.id, granted=True, sentence="", operation=None), cluster.epoch)
    store.put_alarms([Alarm(kind="k", subject="s", sentence="x")], cluster.epoch)
    store.put_watch(C1, Watch(started_at=Instant(0), since=Instant(0), looked_at=Instant(0), life="x", hosts={}))
    Ledger(store, _NoFiles(), SystemProcess()).write([vm_doc("web"), HostDoc(id=H1)])


def read_everything(store: RedisStore) -> None:
    unreadable = store.view(HOSTS, C1).unreadable
    if unreadable:
        raise StoredContentError("; ".join(unreadable))
    for read in (
        store.alarms,
        store.roll,
        store.holder_watch,
        store.control_lease,
        lambda: store.wish_result("vm_stop-web"),
        lambda: store.operation(OP),
        lambda: store.operations(5),
        lambda: store.ledger(-1),
        lambda: store.definition(WEB),
        lambda: store.events("", 5, Seconds(0)),
        lambda: store.claim(OP, "plan/1", token="t", executor="e", incarnation=BOOT, lease=Seconds(1.0)),
    ):
        read()


def put_string(key: str) -> Callable[[redis.Redis, str], object]:
    return lambda raw, text: raw.set(key, text)


def put_field(key: str, *fields: str) -> Callable[[redis.Redis, str], object]:
    return lambda raw, text: raw.hset(key, mapping=dict.fromkeys(fields, text))


def put_item(key: str) -> Callable[[redis.Redis, str], object]:
    return lambda raw, text: (raw.delete(key), raw.lpush(key, text))


STEP = KEYS.step(OP, "plan/1")
PLACES: dict[str, tuple[str, Callable[[redis.Redis, str], object]]] = {
    "heartbeat": (KEYS.heartbeat(H1), put_field(KEYS.heartbeat(H1), "doc")),
    "heartbeat's time": (KEYS.heartbeat(H1), put_field(KEYS.heartbeat(H1), "at")),
    "host": (KEYS.host(H1), put_string(KEYS.host(H1))),
    "vm state": (KEYS.vm(WEB), put_field(KEYS.vm(WEB), "state")),
    "vm generation": (KEYS.vm(WEB), put_field(KEYS.vm(WEB), "generation")),
    "vm since": (KEYS.vm(WEB), put_field(KEYS.vm(WEB), "since")),
    "operation": (KEYS.operation(OP), put_field(KEYS.operation(OP), "doc")),
    "operation state": (KEYS.operation(OP), put_field(KEYS.operation(OP), "state")),
    "operation epoch": (KEYS.operation(OP), put_field(KEYS.operation(OP), "epoch")),
    "operation opened": (KEYS.operation(OP), put_field(KEYS.operation(OP), "opened")),
    "operation steps": (KEYS.operation(OP), put_field(KEYS.operation(OP), "steps")),
    "step": (STEP, put_field(STEP, "kind")),
    "step state": (STEP, put_field(STEP, "state")),
    "step facts": (STEP, put_field(STEP, "facts")),
    "step after": (STEP, put_field(STEP, "after")),
    "step attempt": (STEP, put_field(STEP, "attempt")),
    "probes": (KEYS.probes(C1), put_item(KEYS.probes(C1))),
    "power": (KEYS.power(H1), put_field(KEYS.power(H1), "ipmi")),
    "wishes": (KEYS.wishes, put_field(KEYS.wishes, "w")),
    "wish": (KEYS.wish("vm_stop-web"), put_string(KEYS.wish("vm_stop-web"))),
    "alarms": (KEYS.alarms, put_string(KEYS.alarms)),
    "roll": (KEYS.roll, put_string(KEYS.roll)),
    "watch": ("watch:c1", put_string(KEYS.watch(C1))),
    "ledger": ("ledger", put_field(KEYS.ledger, "vm/web")),
    "ledger version": (KEYS.ledger_version, put_string(KEYS.ledger_version)),
    "lease until": (KEYS.lease, put_field(KEYS.lease, "until")),
    "lease epoch": (KEYS.lease, put_field(KEYS.lease, "epoch")),
    "life": (KEYS.life, put_field(KEYS.life, "since")),
    "controllers": (KEYS.controllers, put_field(KEYS.controllers, "c1")),
    "placements": (KEYS.placements, put_string(KEYS.placements)),
    "events": (KEYS.events, lambda raw, text: raw.xadd(KEYS.events, {"kind": "k", "facts": text})),
}


PAST_ALL_NUMBERS = '{"elapsed_s": 1e999, "total_mib": NaN, "sent_mib": 0, "remaining_mib": 0}'
WELL = {("step after", "[]"), ("step facts", '{"a": 1}'), ("events", '{"a": 1}'), ("alarms", "[]")}
"""What may stand there."""


@pytest.mark.parametrize("place", PLACES)
def test_garbage_is_refused_by_the_name_of_its_key(cluster: Cluster, raw: redis.Redis, place: str) -> None:
    filled(cluster)
    key, put = PLACES[place]
    read_everything(cluster.store)
    for garbage in ("{", "[]", '{"a": 1}', "zzz", "\N{PILE OF POO}"):
        if (place, garbage) in WELL:
            continue
        put(raw, garbage)
        with pytest.raises(StoredContentError) as refusal:
            read_everything(cluster.subject.another())
        assert key in str(refusal.value)


@pytest.mark.parametrize("garbage", ["{", "[]", '{"a": 1}', "zzz", "null", PAST_ALL_NUMBERS])
def test_a_damaged_word_of_how_a_step_comes_on_is_none_and_the_step_goes_on(
    cluster: Cluster, raw: redis.Redis, garbage: str
) -> None:
    filled(cluster)
    claim = cluster.claim("plan/1")
    raw.hset(STEP, "progress", garbage)
    read_everything(cluster.store)
    assert cluster.step("plan/1").progress is None
    assert cluster.store.renew(claim, Seconds(4.0)) > claim.now
    assert cluster.store.settle(claim, Outcome(state=StepState.DONE, sentence="done")).step("plan/1") is not None


def of_another_type(raw: redis.Redis, key: str) -> None:
    """What Redis answers WRONGTYPE to, whoever reads it."""
    raw.delete(key)
    raw.set(key, "x") if key == KEYS.events else raw.xadd(key, {"nobody": "wrote this"})


@pytest.mark.parametrize(
    "key",
    [
        KEYS.clock, KEYS.life, KEYS.lease, KEYS.controllers, KEYS.files, KEYS.open, KEYS.closed, KEYS.ledger_version,
        KEYS.ledger, KEYS.vms, KEYS.wishes, KEYS.placements, KEYS.heartbeat(H1), KEYS.host(H1), KEYS.power(H1),
        KEYS.probes(C1), KEYS.vm(WEB), KEYS.operation(OP), STEP, KEYS.wish("vm_stop-web"), KEYS.alarms, KEYS.watch(C1),
        KEYS.events, KEYS.roll,
    ],
)  # fmt: skip
def test_a_key_of_another_type_is_refused_by_its_name(cluster: Cluster, raw: redis.Redis, key: str) -> None:
    filled(cluster)
    of_another_type(raw, key)
    with pytest.raises(StoredContentError, match="another type") as refusal:
        read_everything(cluster.subject.another())
    assert key in str(refusal.value)


def test_a_key_of_another_type_stops_nobody_elses_matter(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    cluster.vm(DB)
    Ledger(cluster.store, _NoFiles(), SystemProcess()).write([vm_doc("db")])
    damaged = [
        KEYS.heartbeat(H1), KEYS.host(H1), KEYS.power(H1), KEYS.probes(C1), KEYS.vm(WEB), KEYS.operation(OP),
        KEYS.wishes,
    ]  # fmt: skip
    for key in damaged:
        of_another_type(raw, key)
    cluster.open(identity="op-2", subject=DB)
    view = cluster.store.view(HOSTS, C1)
    assert (list(view.vms), list(view.vm_records), list(view.operations)) == ([DB], [DB], ["op-2"])
    assert (view.heartbeats, view.host_records, view.readings[H1], view.probes, view.wishes) == ({}, {}, (), (), ())
    assert sorted(sentence.partition(": ")[0] for sentence in view.unreadable) == sorted(damaged)
    assert view.unreadable_records == (WEB,)


def test_what_was_just_seen_is_written_over_a_value_of_another_type(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    for key in (KEYS.host(H1), KEYS.power(H1), KEYS.probes(C1), KEYS.events):
        of_another_type(raw, key)
    store, record = cluster.store, host_record("h1")
    assert not store.put_host(record, record, cluster.epoch), "no record stands there"
    assert store.put_host(record, None, cluster.epoch)
    store.put_reading(reading("h1", Power.OFF, 1.0))
    store.put_probe_round(probe_round(1.0, {"h1": True}, by=C1))
    store.log([Happened(kind="k", subject="s", sentence="x", facts={})])  # lost, and nobody stops for it
    view = store.view(HOSTS, C1)
    assert (view.unreadable, view.host_records[H1], len(view.probes)) == ((), record, 1)
    assert [seen.power for seen in view.readings[H1]] == [Power.OFF]


def test_a_host_reports_over_a_heartbeat_of_another_type(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    for key in (KEYS.heartbeat(H1), KEYS.past(H1)):
        of_another_type(raw, key)
    assert any(KEYS.heartbeat(H1) in sentence for sentence in cluster.store.view(HOSTS, C1).unreadable)
    cluster.store.put_heartbeat(beat("h1", T0, boot=BOOT, seq=2000))
    view = cluster.store.view(HOSTS, C1)
    assert (view.unreadable, view.heartbeats[H1].incarnation) == ((), BOOT)


@pytest.mark.parametrize("field", ["doc", "incarnation", "sequence", "at", "boot_since", "contested"])
def test_a_host_reports_over_a_heartbeat_that_cannot_be_read(cluster: Cluster, raw: redis.Redis, field: str) -> None:
    filled(cluster)
    raw.hset(KEYS.heartbeat(H1), field, b"\xff\xfe no text")  # type: ignore[arg-type]  # bytes are what is meant
    cluster.store.put_heartbeat(beat("h1", T0, boot=BOOT, seq=2000))
    cluster.store.put_heartbeat(beat("h1", T0, boot=BOOT, seq=2001))
    view = cluster.store.view(HOSTS, C1)
    assert (view.unreadable, view.heartbeats[H1].incarnation) == ((), BOOT)


@pytest.mark.parametrize(
    ("key", "call"),
    [
        (KEYS.lease, lambda cluster: cluster.store.take_lease(C1, Seconds(4.0))),
        (KEYS.life, lambda cluster: cluster.store.meet()),
        (KEYS.vm(WEB), lambda cluster: cluster.store.mark_vm(WEB, 1, VmState.RUNNING, "x", cluster.epoch)),
        (KEYS.operation(OP), lambda cluster: cluster.store.adopt_operation(OP, cluster.epoch)),
        (KEYS.wishes, lambda cluster: cluster.store.add_wish(wish(WishKind.VM_START, WEB))),
        (KEYS.clock, lambda cluster: cluster.store.now()),
    ],
)
def test_a_script_that_meets_a_key_of_another_type_names_it_and_what_belongs_there(
    cluster: Cluster, raw: redis.Redis, key: str, call: Callable[[Cluster], object]
) -> None:
    filled(cluster)
    of_another_type(raw, key)
    with pytest.raises(StoredContentError, match="is a stream, and Fangnetz keeps a hash there") as refusal:
        call(cluster)
    assert str(refusal.value).startswith(key)


def test_bytes_that_are_no_text_are_damage_of_their_key_alone(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    raw.set(KEYS.host(H1), b'{"id": "h1", "reason": "\xff"}')
    raw.hset(KEYS.vm(WEB), "generation", b"\xff")  # type: ignore[arg-type]  # bytes are what is meant
    view = cluster.store.view(HOSTS, C1)
    assert sorted(sentence.partition(": ")[0] for sentence in view.unreadable) == sorted([KEYS.host(H1), KEYS.vm(WEB)])
    assert H1 in view.heartbeats


def test_every_key_has_a_type_that_the_table_names(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    for key in raw.scan_iter():
        assert kind_of(key) == raw.type(key), key


def test_a_closed_operation_of_another_type_is_dropped_in_its_turn(
    cluster: Cluster, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fangnetz.adapters.redis.journal.CLOSED_MAX", 0)
    raw.zadd(KEYS.closed, {"op-9": 1.0})
    raw.set(KEYS.operation(OperationId("op-9")), "x")
    cluster.store.archive()
    assert (raw.zcard(KEYS.closed), raw.exists(KEYS.operation(OperationId("op-9")))) == (0, 0)


@pytest.mark.parametrize("right", ["hgetall", "get", "lrange"])
def test_a_right_that_is_missing_is_no_damage_of_a_key(
    cluster: Cluster, raw: redis.Redis, redis_server: RedisServer, right: str
) -> None:
    filled(cluster)
    raw.execute_command("ACL", "SETUSER", "poor", "on", "nopass", "~*", "&*", "+@all", f"-{right}")
    poor = redis.Redis(port=redis_server.port, username="poor", password="any", decode_responses=True)
    try:
        with pytest.raises(StoreUnreachable, match="right"):
            RedisStore(poor, "test").view(HOSTS, C1)
    finally:
        poor.close()
        raw.execute_command("ACL", "DELUSER", "poor")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (redis.exceptions.BusyLoadingError("LOADING Redis is loading"), "did not answer"),
        (redis.ResponseError("BUSY Redis is busy running a script"), "refused a command"),
        (redis.exceptions.ReadOnlyError("READONLY You can't write"), "refused a command"),
        (redis.exceptions.NoPermissionError("NOPERM no permissions"), "lacks a right"),
    ],
)
def test_only_another_type_is_a_keys_own_damage(error: Exception, sentence: str) -> None:
    class Pipe:
        def execute(self, *, raise_on_error: bool) -> list[Any]:
            assert not raise_on_error
            return ["well", redis.ResponseError("WRONGTYPE Operation against a key"), error]

    with pytest.raises(StoreUnreachable, match=sentence):
        answers(Pipe())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(sorted(PLACES)), garbage=st.one_of(TEXT, st.builds(json.dumps, FACT | FACTS)))
def test_no_content_whatever_surprises_a_reader(subject: RedisSubject, place: str, garbage: str) -> None:
    subject.raw.flushall()
    subject.store = subject.another()
    fresh = Cluster(subject)
    filled(fresh)
    PLACES[place][1](subject.raw, garbage)
    with contextlib.suppress(StoredContentError):
        read_everything(fresh.store)


def test_what_cannot_be_read_is_named_and_stops_nobody_elses_matter(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    cluster.vm(DB)
    Ledger(cluster.store, _NoFiles(), SystemProcess()).write([vm_doc("db")])
    raw.hset(KEYS.vm(WEB), "state", "asleep")
    raw.hset(KEYS.operation(OP), "epoch", "?")
    raw.hset(KEYS.power(H1), "ipmi", "off, I think")
    cluster.open(identity="op-2", subject=DB)
    view = cluster.store.view(HOSTS, C1)
    assert view.lease is not None
    assert (list(view.vms), list(view.vm_records)) == ([DB], [DB]), "nothing at all is decided about a broken VM"
    assert list(view.operations) == ["op-2"]
    assert view.readings[H1] == ()
    assert [key for key in (KEYS.vm(WEB), KEYS.operation(OP), KEYS.power(H1)) if key in " ".join(view.unreadable)] == [
        KEYS.vm(WEB),
        KEYS.operation(OP),
        KEYS.power(H1),
    ]


def test_a_host_whose_document_cannot_be_read_is_a_member_in_maintenance_and_its_boot_unknown(
    cluster: Cluster, raw: redis.Redis
) -> None:
    filled(cluster)
    raw.hset(KEYS.ledger, f"host/{H1}", "{}")
    view = cluster.subject.another().view({}, C1)
    assert (view.host_docs[H1].maintenance, view.host_docs[H1].incarnation) == (True, UNKNOWN_BOOT)
    assert view.outside == (H1,), "taken out of the cluster file, it is still held in mind"


def test_the_vms_of_which_something_cannot_be_read_are_named(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    assert cluster.store.view(HOSTS, C1).unreadable_vms == ()
    raw.hset(KEYS.ledger, f"vm/{DB}", "{")
    raw.hset(KEYS.vm(WEB), "state", "asleep")
    view = cluster.subject.another().view(HOSTS, C1)
    assert (view.unreadable_vms, view.unreadable_records) == ((DB, WEB), (WEB,))
    assert view.set_aside == {WEB: vm_doc("web")}, "its disks are known still"


def test_a_host_record_with_the_fields_of_another_version_is_written_over_and_a_broken_one_too(
    cluster: Cluster, raw: redis.Redis
) -> None:
    filled(cluster)
    text = json.loads(str(raw.get(KEYS.host(H1))))
    del text["cut_by"]
    text["cut_by_us"] = True  # as an earlier version wrote it: of which operation, it did not say
    raw.set(KEYS.host(H1), json.dumps(text))
    old = cluster.store.view(HOSTS, C1).host_records[H1]
    assert old.cut_by is None
    assert cluster.store.put_host(replace(old, reason="news"), old, cluster.epoch)
    assert not cluster.store.put_host(replace(old, reason="stale"), old, cluster.epoch)
    raw.set(KEYS.host(H1), "{")
    assert not cluster.store.put_host(old, old, cluster.epoch)
    assert cluster.store.put_host(old, None, cluster.epoch)


def test_a_broken_document_keeps_no_other_from_being_copied(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    raw.hset(KEYS.ledger, "vm/broken", "{")
    found = cluster.store.ledger(-1)
    assert found is not None
    assert [entry.key for entry in found[1]] == [f"host/{H1}", f"vm/{WEB}"]


def test_another_layout_is_refused_with_a_sentence(cluster: Cluster, subject: RedisSubject, raw: redis.Redis) -> None:
    raw.set(KEYS.schema, "2")
    for ask in (lambda store: store.meet(), lambda store: store.control_lease()):
        with pytest.raises(StoredContentError, match="schema"):
            ask(subject.another())


# --- bounds and tidiness -----------------------------------------------------------------------------------------


def test_closed_operations_are_kept_up_to_a_bound_and_the_oldest_go_whole(
    cluster: Cluster, subject: RedisSubject, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CLOSED_MAX >= 100
    monkeypatch.setattr("fangnetz.adapters.redis.journal.CLOSED_MAX", 3)
    for number in range(6):
        cluster.open(identity=f"op-{number}")
        cluster.store.settle(
            cluster.claim("close", identity=f"op-{number}"),
            Outcome(state=StepState.DONE, sentence="", closes=OperationState.DONE),
        )
    still_open = cluster.open(identity="op-6")
    cluster.store.archive()
    assert [op.id for op in cluster.store.operations(10)] == ["op-6", "op-5", "op-4", "op-3"]
    assert cluster.store.operation(still_open.id) == still_open
    left = {key.split(":op:")[1].split(":")[0] for key in raw.scan_iter("*:op:*")}
    assert left == {"op-6", "op-5", "op-4", "op-3"}


def test_the_event_log_is_bounded(cluster: Cluster, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EVENTS_MAX >= 1000
    monkeypatch.setattr("fangnetz.adapters.redis.journal.EVENTS_MAX", 50)
    for _ in range(10):
        cluster.store.log([Happened(kind="k", subject="s", sentence="x", facts={})] * 100)
    assert raw.xlen(KEYS.events) <= 50 + 100  # Redis trims whole blocks of 100


def test_every_key_carries_the_clusters_hash_tag(cluster: Cluster, raw: redis.Redis) -> None:
    filled(cluster)
    claim = cluster.claim("plan/1")
    assert isinstance(claim, Claim)
    assert all(key.startswith("fn:{test}:") for key in raw.scan_iter("*"))


def test_two_clusters_share_a_server_without_seeing_each_other(cluster: Cluster, redis_server: RedisServer) -> None:
    filled(cluster)
    other = RedisStore(redis_server.client(), "other")
    other.meet()
    view = other.view(HOSTS, C1)
    assert (view.vm_records, view.operations, view.heartbeats, view.vms) == ({}, {}, {}, {})
    assert other.operation(OperationId(OP)) is None


@pytest.mark.parametrize("garbage", [True, 5, ["op-1"]])
def test_a_cut_that_no_operation_is_named_for_is_refused_with_a_sentence(
    cluster: Cluster, raw: redis.Redis, garbage: object
) -> None:
    filled(cluster)
    text = json.loads(str(raw.get(KEYS.host(H1))))
    raw.set(KEYS.host(H1), json.dumps({**text, "cut_by": garbage}))
    view = cluster.store.view(HOSTS, C1)
    assert H1 not in view.host_records
    assert any(KEYS.host(H1) in sentence and "cut_by" in sentence for sentence in view.unreadable)
