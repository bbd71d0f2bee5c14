"""What a VM needs: adopted where it runs, started where it is wished, stopped where it is not, or a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from fangnetz.core.actions import Decision, OpenOperation, PutVm
from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostRecord,
    HostState,
    HypervisorHealth,
    Sighting,
    VmDoc,
    VmRecord,
    VmState,
    VmWish,
)
from fangnetz.core.operations import (
    Operation,
    OperationKind,
    StepKind,
    StepState,
    failover_steps,
    start_steps,
    stop_steps,
)
from fangnetz.core.ownership import unanswered_order
from fangnetz.core.units import Epoch, HostId, Instant, OperationId, VmId
from tests.core.world import (
    T0,
    beat,
    binding,
    decided,
    host_record,
    off_proof,
    probe_round,
    sighting,
    start_order,
    view,
    vm_doc,
    vm_record,
)

HOSTS = ("h1", "h2", "h3")
BOUND = [binding(h) for h in ("h1", "h2", "h3")]
DOC = vm_doc("web")
WEB = vm_record("web", "h1", 5)


def seen_with(
    record: VmRecord | None = WEB, *beats: Heartbeat, doc: VmDoc = DOC, records: Iterable[HostRecord] | None = None,
    **more: object,
) -> ClusterView:  # fmt: skip
    said = {b.host: b for b in (beat("h1", T0 - 0.1), beat("h2", T0 - 0.1), beat("h3", T0 - 0.1), *beats)}
    return view(T0, beats=said.values(), vms=[(doc, record)], bindings=BOUND, records=records, **more)  # type: ignore[arg-type]


def opened(decision: Decision) -> list[Operation]:
    return [a.operation for a in decision.actions if isinstance(a, OpenOperation)]


def kinds(decision: Decision) -> list[tuple[OperationKind, str]]:
    return [(o.kind, o.subject) for o in opened(decision)]


def put(decision: Decision) -> VmRecord | None:
    return next((a.record for a in reversed(decision.actions) if isinstance(a, PutVm)), None)


def alarms(decision: Decision) -> dict[str, bool]:
    return {a.kind: a.highest for a in decision.alarms}


def running(host: str, generation: int | None = 5, state: Sighting = Sighting.RUNNING, **more: object) -> Heartbeat:
    return beat(host, T0 - 0.1, seen=(sighting("web", generation, state),), **more)  # type: ignore[arg-type]


START = [(OperationKind.START, "web")]
STOP = [(OperationKind.STOP, "web")]


def test_a_vm_that_runs_where_it_belongs_is_left_alone() -> None:
    decision = decided(seen_with(WEB, running("h1")))
    assert kinds(decision) == []
    assert put(decision) is None


def test_a_defined_vm_gets_a_record_and_then_a_start() -> None:
    first = put(decided(seen_with(None)))
    assert first is not None
    assert (first.state, first.owner) == (VmState.WAITING, None)
    assert kinds(decided(seen_with(first))) == START


def test_an_ignored_vm_is_never_touched() -> None:
    decision = decided(seen_with(WEB, doc=vm_doc("web", wish=VmWish.IGNORED)))
    record = put(decision)
    assert kinds(decision) == []
    assert record is not None
    assert record.state is VmState.UNMANAGED


def test_a_vm_that_ended_by_itself_is_started_again_and_counted() -> None:
    decision = decided(seen_with())
    record = put(decision)
    assert kinds(decision) == START
    assert record is not None
    assert record.failures == 1


def test_a_vm_that_keeps_ending_is_failed_and_started_no_more() -> None:
    record = put(decided(seen_with(replace(WEB, failures=4))))
    assert record is not None
    assert record.state is VmState.FAILED
    assert kinds(decided(seen_with(record))) == []


def test_an_inventory_older_than_the_record_says_nothing() -> None:
    assert kinds(decided(seen_with(WEB, beat("h1", T0 - 0.1, age=600)))) == []


def test_a_start_in_the_hosts_hand_is_waited_for() -> None:
    assert kinds(decided(seen_with(WEB, beat("h1", T0 - 0.1, orders=("op-1/start/web/1",))))) == []


@pytest.mark.parametrize("bound_s", [5.0, 10.0, 60.0])
def test_a_start_that_libvirt_never_answered_is_waited_for_and_counted_once(bound_s: float) -> None:
    """Not every `start_bound_s`, however short: the VM neither fails nor gets a second start while one may come."""
    record = replace(WEB, state=VmState.STARTING)
    for after_s in range(0, 60, int(bound_s)):
        now = T0 + bound_s + after_s
        told = [beat(h, now - 0.1, orders=(unanswered_order(VmId("web")),) if h == "h1" else ()) for h in HOSTS]
        assert kinds(decision := decided(view(now, beats=told, vms=[(DOC, record)], bindings=BOUND))) == []
        assert put(decision) is None
    now = T0 + 66 + bound_s
    ended = put(decided(view(now, beats=[beat(h, now - 0.1) for h in HOSTS], vms=[(DOC, record)], bindings=BOUND)))
    assert ended is not None
    assert (ended.state, ended.failures) == (VmState.WAITING, 1)


def test_a_vm_of_a_silent_host_is_lost_and_not_started() -> None:
    probes = tuple(probe_round(T0 - n, {"h1": False, "h2": True}) for n in (1.1, 0.1))
    decision = decided(seen_with(WEB, beat("h1", T0 - 9), probes=probes))
    record = put(decision)
    assert (OperationKind.START, "web") not in kinds(decision)
    assert record is not None
    assert record.state is VmState.LOST


@pytest.mark.parametrize("age", [2.0, 9.0, 900.0])
def test_silence_alone_never_starts_a_vm(age: float) -> None:
    assert (OperationKind.START, "web") not in kinds(decided(seen_with(WEB, beat("h1", T0 - age))))


def test_a_vm_of_a_host_proven_off_is_started_when_room_appears_heard_in_this_life_or_not() -> None:
    gone = [host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 30)), host_record("h2"), host_record("h3")]
    heard = seen_with(WEB, beat("h1", T0 - 60), records=gone)
    unheard = replace(heard, heartbeats={h: b for h, b in heard.heartbeats.items() if h != "h1"})
    assert kinds(decided(heard)) == START
    assert kinds(decided(unheard)) == START


@pytest.mark.parametrize("state", [VmState.NEEDS_PERSON, VmState.FAILED])
def test_a_vm_that_waits_for_a_person_is_not_tried_by_itself(state: VmState) -> None:
    record = vm_record("web", "h2", 9, state=state)
    promised = beat("h2", T0 - 0.1, releases={"web": 9})
    assert kinds(decided(seen_with(record))) == kinds(decided(seen_with(record, promised))) == []
    seen_again = put(decided(seen_with(record, running("h2", 9))))
    assert seen_again is not None
    assert seen_again.state is VmState.RUNNING


def test_a_vm_an_operation_works_on_is_left_to_it() -> None:
    operation = Operation(
        id=OperationId("op"), kind=OperationKind.START, subject="web", epoch=Epoch(7), opened_at=Instant(T0),
        reason="", steps=start_steps(),
    )  # fmt: skip
    assert kinds(decided(seen_with(WEB, operations=[operation]))) == []


def under_failover(silent_for: float = 2.0, planned: StepState = StepState.READY, doc: VmDoc = DOC) -> VmRecord | None:
    """Return what is written of `web` while the failover of its host is open, which an OFF began."""
    steps = tuple(replace(s, state=planned) if s.kind is StepKind.PLAN else s for s in failover_steps())
    failover = Operation(
        id=OperationId("op"), kind=OperationKind.FAILOVER, subject="h1", epoch=Epoch(4), opened_at=Instant(T0),
        reason="", steps=steps, incarnation=WEB.owner_incarnation, proof=off_proof("h1", T0 - 1),
    )  # fmt: skip
    return put(decided(seen_with(WEB, beat("h1", T0 - silent_for), doc=doc, operations=[failover])))


def test_a_vm_is_lost_as_soon_as_a_failover_begins_with_its_hosts_off() -> None:
    """Before its host is called lost, and whether or not anybody carries the failover out."""
    lost = under_failover()
    assert lost is not None
    assert (lost.state, lost.owner, lost.generation) == (VmState.LOST, WEB.owner, WEB.generation)
    assert lost.reason == "h1 is off; its failover is under way"


def test_a_vm_of_a_failover_is_left_to_its_plan_to_its_report_and_to_who_wants_it_stopped() -> None:
    assert under_failover(planned=StepState.DONE) is None
    assert under_failover(silent_for=0.1) is None
    assert under_failover(doc=vm_doc("web", wish=VmWish.STOPPED)) is None


# --- stop --------------------------------------------------------------------------------------------------------


def test_a_vm_wished_to_stop_is_stopped_where_it_runs_gently() -> None:
    (operation,) = opened(decided(seen_with(WEB, running("h1"), doc=vm_doc("web", wish=VmWish.STOPPED))))
    (order,) = [s.order for s in operation.steps if s.order]
    assert (order.host, order.generation, order.force) == ("h1", 5, False)


def test_a_copy_stopped_a_moment_ago_is_not_stopped_again_although_an_older_inventory_shows_it() -> None:
    doc = vm_doc("web", wish=VmWish.STOPPED)
    assert opened(decided(seen_with(WEB, running("h1", releases={"web": 5}), doc=doc))) == []
    assert opened(decided(seen_with(WEB, running("h1", releases={"web": 4}), doc=doc))) != []


def test_it_is_called_stopped_only_once_that_is_known() -> None:
    doc = vm_doc("web", wish=VmWish.STOPPED)
    known = put(decided(seen_with(WEB, doc=doc)))
    assert known is not None
    assert known.state is VmState.STOPPED
    silent = put(decided(seen_with(WEB, beat("h1", T0 - 9), doc=doc)))
    assert silent is None or silent.state is not VmState.STOPPED


# --- reality and record ------------------------------------------------------------------------------------------


def test_a_vm_seen_elsewhere_is_adopted_once_its_owner_is_heard_without_it() -> None:
    record = put(decided(seen_with(WEB, running("h2", 7))))
    assert record is not None
    assert (record.owner, record.generation, record.state) == ("h2", 7, VmState.RUNNING)


@pytest.mark.parametrize(
    "owner",
    [
        beat("h1", T0 - 9),
        beat("h1", T0 - 0.1, hypervisor=HypervisorHealth.HUNG),
        beat("h1", T0 - 0.1, hypervisor=HypervisorHealth.DOWN),
    ],
    ids=["silent", "libvirt hung", "libvirt down"],
)
def test_otherwise_it_is_not_but_alarmed(owner: Heartbeat) -> None:
    decision = decided(seen_with(WEB, owner, running("h2", 7)))
    adopted = put(decision)
    assert adopted is None or adopted.owner == "h1"
    assert alarms(decision)["seen_elsewhere"]


def test_a_vm_seen_elsewhere_is_adopted_if_its_owner_is_proven_off() -> None:
    gone = [host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 5)), host_record("h2"), host_record("h3")]
    record = put(decided(seen_with(WEB, beat("h1", T0 - 9), running("h2", 7), records=gone)))
    assert record is not None
    assert record.owner == "h2"


def test_two_running_copies_raise_the_highest_alarm_and_the_older_one_is_stopped() -> None:
    decision = decided(seen_with(WEB, running("h1", 5), running("h2", 4)))
    (operation,) = opened(decision)
    (order,) = [s.order for s in operation.steps if s.order]
    assert (order.host, order.generation, order.force) == ("h2", 4, True)
    assert alarms(decision)["runs_twice"]


def test_of_two_older_copies_one_is_stopped_at_a_time() -> None:
    decision = decided(seen_with(WEB, running("h1", 5), running("h2", 4), running("h3", 3)))
    (operation,) = opened(decision)
    assert [(s.order.host, s.order.generation) for s in operation.steps if s.order] == [("h2", 4)]


@pytest.mark.parametrize(
    ("mine", "other"), [(5, 6), (5, None), (4, 3)], ids=["newer", "foreign", "owner runs no newest"]
)
def test_no_copy_is_stopped_without_the_two_facts(mine: int, other: int | None) -> None:
    decision = decided(seen_with(WEB, running("h1", mine), running("h2", other)))
    assert opened(decision) == []
    assert alarms(decision)["runs_twice"]


# --- two copies of one generation --------------------------------------------------------------------------------

PAUSED = Sighting.PAUSED


def copy(host: str, started: float | None, state: Sighting = Sighting.RUNNING, **more: object) -> Heartbeat:
    seen = replace(sighting("web", 5, state), start_sent_at=None if started is None else Instant(started))
    return beat(host, T0 - 0.1, seen=(seen,), **more)  # type: ignore[arg-type]


def paused_on(decision: Decision) -> list[str]:
    """Whose copies are ordered to be paused; nothing else may be opened."""
    assert all(operation.kind is OperationKind.PAUSE for operation in opened(decision))
    return [s.order.host for o in opened(decision) for s in o.steps if s.order]


@pytest.mark.parametrize(
    ("h1", "h2", "owner", "later"),
    [
        (10, 20, "h1", ["h2"]),
        (10, 20, "h2", ["h2"]),
        (20, 10, "h1", ["h1"]),
        (10, 10, "h1", ["h2"]),
        (None, None, "h2", ["h1"]),
        (None, 10, "h1", ["h2"]),
        (10, None, "h3", []),
        (10, 10, "h3", []),
    ],
)
def test_the_later_of_two_equal_generations_is_paused_and_the_highest_alarm_raised(
    h1: float | None, h2: float | None, owner: str, later: list[str]
) -> None:
    decision = decided(seen_with(vm_record("web", owner, 5), copy("h1", h1), copy("h2", h2)))
    assert paused_on(decision) == later
    assert alarms(decision)["runs_twice"]
    record = put(decision)
    assert (record.state if record else None) == (VmState.NEEDS_PERSON if later else None)


def test_a_pause_is_ordered_from_the_boot_and_for_the_generation_that_was_seen() -> None:
    (operation,) = opened(decided(seen_with(WEB, copy("h1", 10), copy("h2", 20))))
    (order,) = [s.order for s in operation.steps if s.order]
    assert (order.vm, order.host, order.incarnation, order.generation) == ("web", "h2", "i1", 5)
    assert [s.kind for s in operation.steps] == [StepKind.PAUSE, StepKind.CLOSE]


def test_a_pause_names_where_the_other_copies_of_that_generation_run() -> None:
    (operation,) = opened(decided(seen_with(WEB, copy("h1", 10), copy("h2", 30), copy("h3", 20))))
    assert [s.order.beside for s in operation.steps if s.order] == [("h1", "h3")]
    older = decided(seen_with(WEB, copy("h1", 10), copy("h2", 30), running("h3", 4)))
    assert [s.order.beside for o in opened(older) for s in o.steps if s.order and o.kind is OperationKind.PAUSE] == [
        ("h1",)
    ]
    paused = decided(seen_with(WEB, copy("h1", 10), copy("h2", 30), copy("h3", 20, PAUSED)))
    assert [s.order.beside for o in opened(paused) for s in o.steps if s.order] == [("h1",)]


@pytest.mark.parametrize(("ago", "again"), [(0.5, False), (9.9, False), (10.1, True)])
def test_a_pause_that_was_not_made_is_ordered_again_only_after_a_while(ago: float, again: bool) -> None:
    """Its host answered no and the operation is over; what we hear says still that two run."""
    twice = (copy("h1", 10), copy("h2", 20))
    first = put(decided(seen_with(WEB, *twice)))
    assert first is not None
    decision = decided(seen_with(replace(first, since=Instant(T0 - ago)), *twice))
    assert paused_on(decision) == (["h2"] if again else [])
    assert alarms(decision)["runs_twice"]
    later = put(decision)
    assert (later.since if later else None) == (T0 if again else None)


def test_a_copy_that_was_paused_and_runs_again_is_paused_at_once() -> None:
    record = put(decided(seen_with(WEB, copy("h1", 10), copy("h2", 20))))
    paused = put(decided(seen_with(record, copy("h1", 10), copy("h2", 20, PAUSED))))
    assert paused_on(decided(seen_with(paused, copy("h1", 10), copy("h2", 20)))) == ["h2"]


def test_two_reports_that_were_one_move_leave_the_vm_running() -> None:
    record = put(decided(seen_with(WEB, copy("h1", 10), copy("h2", 10))))
    moved = put(decided(seen_with(record, copy("h2", 10))))
    assert moved is not None
    assert (moved.state, moved.owner) == (VmState.RUNNING, "h2")


def test_a_pause_under_way_is_not_ordered_again() -> None:
    (operation,) = opened(decided(seen_with(WEB, copy("h1", 10), copy("h2", 20))))
    decision = decided(seen_with(WEB, copy("h1", 10), copy("h2", 20), operations=[operation]))
    assert opened(decision) == []
    assert alarms(decision)["runs_twice"]


def test_a_pause_waits_for_no_other_operation_on_the_vm() -> None:
    other = Operation(
        id=OperationId("op"), kind=OperationKind.START, subject="web", epoch=Epoch(7), opened_at=Instant(T0),
        reason="", steps=start_steps(),
    )  # fmt: skip
    decision = decided(seen_with(WEB, copy("h1", 10), copy("h2", 20), operations=[other]))
    assert paused_on(decision) == ["h2"]
    assert put(decision) is None  # whose record it is


@pytest.mark.parametrize("how", ["silent", "its libvirt hangs"])
def test_nothing_is_paused_for_a_copy_that_was_not_seen_lately(how: str) -> None:
    old = copy("h1", 10, age=60) if how == "its libvirt hangs" else replace(copy("h1", 10), received_at=Instant(T0 - 9))
    assert opened(decided(seen_with(WEB, old, copy("h2", 20)))) == []


@pytest.mark.parametrize("owner", ["h1", "h2"])
def test_a_paused_later_copy_stays_so_and_is_a_persons_matter(owner: str) -> None:
    twice = (copy("h1", 10), copy("h2", 20, PAUSED))
    decision = decided(seen_with(vm_record("web", owner, 5), *twice))
    record = put(decision)
    assert opened(decision) == []
    assert record is not None
    assert (record.state, record.owner) == (VmState.NEEDS_PERSON, owner)
    (alarm,) = [a for a in decision.alarms if a.kind == "runs_twice"]
    assert alarm.highest
    assert "virsh destroy web" in alarm.sentence
    again = decided(seen_with(record, *twice))
    assert (opened(again), put(again)) == ([], None)
    assert alarms(again)["runs_twice"]


@pytest.mark.parametrize("owner", ["h1", "h2"])
def test_a_paused_copy_left_alone_is_no_healthy_run_and_nothing_starts(owner: str) -> None:
    """The earlier copy has ended: what it wrote, the paused one does not know."""
    record = vm_record("web", owner, 5, state=VmState.NEEDS_PERSON)
    decision = decided(seen_with(record, copy("h2", 20, PAUSED)))
    left = put(decision)
    assert opened(decision) == []
    assert left is not None
    assert (left.state, left.owner) == (VmState.NEEDS_PERSON, owner)
    assert "fangnetz vm stop web" in left.reason
    assert put(decided(seen_with(left, copy("h2", 20, PAUSED)))) is None
    stopped = vm_doc("web", wish=VmWish.STOPPED)
    after = put(decided(seen_with(left, copy("h2", 20, PAUSED), doc=stopped))) or left
    assert kinds(decided(seen_with(after, copy("h2", 20, PAUSED), doc=stopped))) == STOP


@pytest.mark.parametrize(("kept", "owner"), [("h1", "h1"), ("h1", "h2"), ("h2", "h2"), ("h2", "h1")])
def test_the_copy_a_person_keeps_running_is_the_vm_again(kept: str, owner: str) -> None:
    record = vm_record("web", owner, 5, state=VmState.NEEDS_PERSON)
    again = put(decided(seen_with(record, copy(kept, 10))))
    assert again is not None
    assert (again.state, again.owner) == (VmState.RUNNING, kept)


def test_an_earlier_copy_that_somebody_paused_is_alarmed_and_nothing_is_done() -> None:
    decision = decided(seen_with(WEB, copy("h1", 10, PAUSED), copy("h2", 20)))
    assert (opened(decision), put(decision)) == ([], None)
    assert alarms(decision)["runs_twice"]


def test_an_older_generation_beside_two_equal_ones_is_stopped_as_well() -> None:
    decision = decided(seen_with(WEB, copy("h1", 10), copy("h2", 20), running("h3", 4)))
    assert sorted((o.kind, s.order.host) for o in opened(decision) for s in o.steps if s.order) == [
        (OperationKind.PAUSE, "h2"),
        (OperationKind.STOP, "h3"),
    ]


def test_a_copy_reported_by_a_silent_host_stops_nobody() -> None:
    other = beat("h2", T0 - 9, seen=(sighting("web", 4),))
    assert opened(decided(seen_with(WEB, running("h1", 5), other))) == []


@pytest.mark.parametrize("state", [Sighting.INCOMING, Sighting.CRASHED])
def test_an_incoming_migration_is_no_running_copy(state: Sighting) -> None:
    decision = decided(seen_with(WEB, running("h1", 5), running("h2", 5, state)))
    assert "runs_twice" not in alarms(decision)
    assert opened(decision) == []


def test_a_foreign_copy_is_alarmed_as_long_as_it_runs_and_adopted_once() -> None:
    first = decided(seen_with(vm_record("web", None, 0), running("h2", None)))
    adopted = put(first)
    assert adopted is not None
    assert adopted.owner == "h2"
    again = decided(seen_with(adopted, running("h2", None)))
    assert put(again) is None
    assert "foreign_copy" in alarms(first)
    assert "foreign_copy" in alarms(again)


def test_a_foreign_copy_can_be_stopped_by_wish() -> None:
    stopped = vm_doc("web", wish=VmWish.STOPPED)
    assert kinds(decided(seen_with(vm_record("web", "h2", 3), running("h2", None), doc=stopped))) == STOP


def test_a_paused_vm_is_alarmed() -> None:
    assert "vm_paused" in alarms(decided(seen_with(WEB, running("h1", 5, Sighting.PAUSED))))


def test_a_boot_storm_is_paced() -> None:
    vms = [(vm_doc(f"vm{n}", memory=1), vm_record(f"vm{n}", None)) for n in range(40)]
    beats = [beat(h, T0 - 0.1) for h in ("h1", "h2", "h3")]
    assert len(opened(decided(view(T0, beats=beats, vms=vms, bindings=BOUND)))) == 32


def test_an_owner_taken_out_of_the_cluster_file_is_named() -> None:
    record = put(decided(seen_with(vm_record("web", "gone", 5))))
    assert record is not None
    assert record.state is VmState.LOST
    assert "gone" in record.reason
    assert HostId("gone") not in seen_with().hosts


# --- stops -------------------------------------------------------------------------------------------------------


def stopping(count: int, *, seen_on: str = "h1", busy: int = 0) -> list[str]:
    """Return whose stop is opened when `count` VMs of one host are wished stopped and `busy` stops are under way."""
    names = [f"vm{n}" for n in range(count)]
    runs = dict.fromkeys([*names, *(f"old{n}" for n in range(busy))], 5)
    vms = [(vm_doc(vm, wish=VmWish.STOPPED), vm_record(vm, seen_on, 5)) for vm in names]
    under_way = [
        Operation(
            id=OperationId(f"op{n}"), kind=OperationKind.STOP, subject=f"old{n}", epoch=Epoch(7), opened_at=Instant(T0),
            reason="", steps=stop_steps(start_order(f"old{n}", seen_on, 5)),
        )
        for n in range(busy)
    ]  # fmt: skip
    beats = [beat(h, T0 - 0.1, runs=runs if h == seen_on else {}) for h in ("h1", "h2", "h3")]
    at = view(T0, beats=beats, vms=vms, bindings=BOUND, operations=under_way)
    return [o.subject for o in opened(decided(at)) if o.kind is OperationKind.STOP]


@pytest.mark.parametrize(("busy", "more"), [(0, 4), (1, 3), (3, 1), (4, 0), (7, 0)])
def test_stops_leave_half_of_a_hosts_slots_to_starts(busy: int, more: int) -> None:
    assert len(stopping(10, busy=busy)) == more


def test_stops_that_fit_are_all_opened() -> None:
    assert stopping(4) == ["vm0", "vm1", "vm2", "vm3"]


def test_the_stop_of_a_second_copy_waits_for_no_other() -> None:
    beats = [running("h1", 5), running("h2", 3), beat("h3", T0 - 0.1)]
    under_way = [
        Operation(
            id=OperationId(f"op{n}"), kind=OperationKind.STOP, subject=f"old{n}", epoch=Epoch(7), opened_at=Instant(T0),
            reason="", steps=stop_steps(start_order(f"old{n}", "h2", 5)),
        )
        for n in range(8)
    ]  # fmt: skip
    at = view(T0, beats=beats, vms=[(DOC, WEB)], bindings=BOUND, operations=under_way)
    assert kinds(decided(at)) == STOP


# --- a copy held by us, which carries that mark ------------------------------------------------------------------


def held(host: str, **more: object) -> Heartbeat:
    seen = replace(sighting("web", 5, PAUSED), start_sent_at=Instant(20), held=True)
    return beat(host, T0 - 0.1, seen=(seen,), **more)  # type: ignore[arg-type]


H1_OFF = (host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 1)), host_record("h2"), host_record("h3"))


@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.WAITING, VmState.STARTING, VmState.LOST])
@pytest.mark.parametrize(("owner", "generation"), [("h1", 5), ("h2", 5), ("h2", 9), (None, 0)])
def test_a_held_copy_is_never_the_run_of_its_vm_whatever_the_record_says(
    owner: str | None, generation: int, state: VmState
) -> None:
    """The earlier copy's host is proven off, the record rewritten by a refused start or wiped: the mark remains."""
    record = vm_record("web", owner, generation, state=state)
    decision = decided(seen_with(record, beat("h1", T0 - 30), held("h2"), records=H1_OFF))
    left = put(decision)
    assert [kind for kind, subject in kinds(decision) if subject == "web"] == []
    assert left is not None
    assert (left.state, left.owner) == (VmState.NEEDS_PERSON, owner)
    assert "fangnetz vm stop web" in left.reason
    assert "virsh resume" not in left.reason
    assert put(decided(seen_with(left, beat("h1", T0 - 30), held("h2"), records=H1_OFF))) is None


@pytest.mark.parametrize("owner", ["h1", "h2", None])
def test_a_held_copy_is_stopped_by_wish_and_then_the_vm_may_start(owner: str | None) -> None:
    stopped = vm_doc("web", wish=VmWish.STOPPED)
    record = vm_record("web", owner, 5, state=VmState.NEEDS_PERSON)
    gone = {"records": H1_OFF, "doc": stopped}
    after = put(decided(seen_with(record, beat("h1", T0 - 30), held("h2"), **gone))) or record  # type: ignore[arg-type]
    assert (OperationKind.STOP, "web") in kinds(decided(seen_with(after, beat("h1", T0 - 30), held("h2"), **gone)))  # type: ignore[arg-type]
    started = replace(after, state=VmState.WAITING, since=Instant(T0 - 1))
    empty = beat("h2", T0 - 0.1, releases={"web": 9})
    assert START[0] in kinds(decided(seen_with(started, beat("h1", T0 - 30), empty, records=H1_OFF)))


def test_a_held_copy_whose_host_was_heard_last_with_it_keeps_the_vm_from_starting_until_that_host_is_off() -> None:
    record = vm_record("web", None, 0, state=VmState.WAITING)
    silent = replace(held("h2"), received_at=Instant(T0 - 9))
    decision = decided(seen_with(record, silent))
    left = put(decision)
    assert START[0] not in kinds(decision)
    assert left is not None
    assert left.state is VmState.NEEDS_PERSON
    off = (host_record("h1"), host_record("h2", HostState.FENCED, proof=off_proof("h2", T0 - 1)), host_record("h3"))
    assert START[0] in kinds(decided(seen_with(record, silent, records=off)))


def test_a_held_copy_beside_an_owner_nobody_hears_is_not_to_be_resumed() -> None:
    decision = decided(seen_with(WEB, beat("h1", T0 - 9), held("h2")))
    (alarm,) = [a for a in decision.alarms if a.kind == "seen_elsewhere"]
    assert alarm.highest
    assert "do not resume" in alarm.sentence
    record = put(decision)
    assert record is None or record.state is not VmState.RUNNING


@pytest.mark.parametrize("owner", ["h1", None])
def test_a_copy_that_its_guest_or_a_person_paused_stays_a_run_that_is_alarmed(owner: str | None) -> None:
    """One copy and no mark: an I/O error or an administrator's hand, also after the store was wiped."""
    there = running("h1", 5, PAUSED)
    adopted = put(decided(seen_with(vm_record("web", owner, 5), there))) or WEB
    assert (adopted.state, adopted.owner) == (VmState.RUNNING, "h1")
    again = decided(seen_with(adopted, there))
    assert put(again) is None
    assert "vm_paused" in alarms(again)


def test_two_held_copies_are_a_persons_matter() -> None:
    record = put(decided(seen_with(vm_record("web", None, 0, state=VmState.WAITING), held("h1"), held("h2"))))
    assert record is not None
    assert record.state is VmState.NEEDS_PERSON
