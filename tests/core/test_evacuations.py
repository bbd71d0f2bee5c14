"""A host that is emptied: what leaves in which order, when it is called empty, and what a person may ask of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fangnetz.core.actions import OpenOperation, PutHost, PutHostDoc, PutVm, SettleWish
from fangnetz.core.decide.evacuations import Evacuations
from fangnetz.core.decide.pacing import Pace
from fangnetz.core.evacuation import plan_evacuation
from fangnetz.core.model import ClusterView, HostDoc, HostState, HypervisorHealth, VmDoc, VmRecord, VmState, WishKind
from fangnetz.core.operations import Operation, OperationKind, Order, migrate_steps, vm_move_steps
from fangnetz.core.policy import Policy
from fangnetz.core.rooms import rooms
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, OperationId, StoreIncarnation, VmId
from tests.core.world import T0, beat, decided, host_record, spec, verdicts_of, view, vm_doc, vm_record, watched, wish

H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
DOC = HostDoc(id=H1, evacuate=True, reason="ada asked to empty it", incarnation=Incarnation("i1"))
NAMES = ("a", "b", "c")


def on_h1(*names: str, **more: Any) -> list[tuple[VmDoc, VmRecord | None]]:
    """VMs on h1, the first one the most important."""
    return [(vm_doc(name, priority=10 - index), vm_record(name, "h1", 7, **more)) for index, name in enumerate(names)]


def seen(
    *,
    doc: HostDoc = DOC,
    state: HostState = HostState.EVACUATING,
    vms: list[tuple[VmDoc, VmRecord | None]] | None = None,
    health: HypervisorHealth = HypervisorHealth.OK,
    age: float = 0.1,
    moving: Iterable[str] = (),
    hosts: Iterable[Any] = ("h1", "h2", "h3"),
    **more: Any,
) -> ClusterView:
    known = on_h1(*NAMES) if vms is None else vms
    runs = {record.id: 7 for _, record in known if record is not None and record.owner == H1}
    return view(
        T0,
        hosts=hosts,
        beats=[
            beat("h1", T0 - age, runs=runs if state is not HostState.MAINTENANCE else {}, hypervisor=health),
            beat("h2", T0 - 0.1, runs={r.id: 7 for _, r in known if r is not None and r.owner == H2}),
            beat("h3", T0 - 0.1),
        ],
        records=[host_record("h1", state), host_record("h2"), host_record("h3")],
        docs=[doc, *(HostDoc(id=host, incarnation=Incarnation("i1")) for host in (H2, H3))],
        vms=known,
        operations=[a_move(name) for name in moving],
        **more,
    )


def unhurried(look: ClusterView) -> Pace:
    return Pace(look, Policy(), Epoch(1), opened=(), but=())


def a_move(vm: str) -> Operation:
    return Operation(
        id=OperationId(f"migrate-{vm}-1"), kind=OperationKind.MIGRATE, subject=vm, epoch=Epoch(1),
        opened_at=Instant(T0), reason="", steps=migrate_steps(), target=H2,
    )  # fmt: skip


def begun(look: ClusterView, **policy: Any) -> list[str]:
    actions = decided(look, policy=Policy(**policy)).actions
    moves = [a.operation for a in actions if isinstance(a, OpenOperation)]
    assert all(op.kind is OperationKind.MIGRATE for op in moves)
    return [op.subject for op in moves]


def documents(look: ClusterView) -> list[HostDoc]:
    return [a.doc for a in decided(look).actions if isinstance(a, PutHostDoc)]


def alarm(look: ClusterView, kind: str) -> str:
    return next((a.sentence for a in decided(look).alarms if a.kind == kind), "")


# --- emptying ----------------------------------------------------------------------------------------------------


def test_the_most_important_leave_first_and_no_more_at_once_than_allowed() -> None:
    assert begun(seen()) == ["a", "b"]
    assert begun(seen(), moves_per_host_max=1) == ["a"]
    assert begun(seen(), moves_per_host_max=8, moves_max=2) == ["a", "b"]
    assert begun(seen(moving=["a"])) == ["b"], "one of two places is taken"
    assert begun(seen(moving=["a", "b"])) == []


def test_moves_begin_in_the_very_tick_in_which_the_host_begins_to_be_emptied() -> None:
    look = seen(state=HostState.ONLINE)
    states = [a.record.state for a in decided(look).actions if isinstance(a, PutHost) and a.record.id == H1]
    assert (begun(look), states) == (["a", "b"], [HostState.EVACUATING])


def test_what_left_is_remembered_for_the_way_home_and_when_it_was_tried() -> None:
    look = seen()
    assert documents(look) == [replace(DOC, away=(VmId("a"), VmId("b")))]
    tried = {a.record.id: a.record.tried_at for a in decided(look).actions if isinstance(a, PutVm)}
    assert tried == {"a": T0, "b": T0}


def test_what_came_because_another_host_was_emptied_is_at_home_there_and_not_here() -> None:
    look = seen()
    other = replace(look.host_docs[H2], maintenance=True, evacuate=True, away=(VmId("a"),))
    look = replace(look, host_docs={**look.host_docs, H2: other})
    assert documents(look) == [replace(DOC, away=(VmId("b"),))]


def test_a_move_that_came_to_nothing_is_not_begun_again_at_once_and_that_is_said() -> None:
    vms = [(doc, replace(record, tried_at=Instant(T0 - 5))) for doc, record in on_h1("a") if record is not None]
    assert begun(seen(vms=[*vms])) == []
    assert "a: its move came to nothing" in alarm(seen(vms=[*vms]), "evacuation_waits")
    long_ago = [(doc, replace(record, tried_at=Instant(T0 - 61))) for doc, record in vms]
    assert begun(seen(vms=[*long_ago])) == ["a"]


def test_what_has_no_room_stays_with_the_reason_and_keeps_no_other_one_back() -> None:
    vms = [(vm_doc("big", memory=9000, priority=9), vm_record("big", "h1", 7)), *on_h1("a")]
    look = seen(vms=vms, hosts=(replace(spec("h1"), memory_mib=16384), "h2", "h3"))
    assert begun(look) == ["a"]
    assert "big" in alarm(look, "evacuation_waits")


def test_a_host_is_in_maintenance_only_once_it_is_known_to_be_empty() -> None:
    gone = [(doc, replace(record, owner=H2)) for doc, record in on_h1("a") if record is not None]
    (empty,) = documents(seen(vms=[*gone]))
    assert (empty.maintenance, empty.evacuate) == (True, True)
    for not_yet in (
        seen(),
        seen(vms=[*gone], health=HypervisorHealth.HUNG),
        seen(vms=[*gone], age=20.0),
        seen(vms=on_h1("a", state=VmState.UNKNOWN)),
    ):
        assert not any(doc.maintenance for doc in documents(not_yet))


def test_a_host_is_not_out_before_the_last_that_left_was_seen_running_elsewhere() -> None:
    gone = [(doc, replace(record, owner=H2)) for doc, record in on_h1("a") if record is not None]
    leaves = Order(
        vm=VmId("a"), host=H1, incarnation=Incarnation("i1"), generation=Generation(7),
        life=StoreIncarnation(""), deadline=Instant(T0 + 60),
    )  # fmt: skip
    arrives = replace(leaves, host=H2, generation=Generation(8))
    look = seen(vms=[*gone], moving=["a"])
    (move,) = look.operations.values()
    open_yet = replace(move, steps=(*vm_move_steps(leaves, arrives, attempt=1, after=""), *move.steps))
    assert documents(look), "what has not left by this move is waited for no longer"
    assert documents(replace(look, operations={open_yet.id: open_yet})) == []


def test_a_host_is_not_out_while_the_look_does_not_show_from_where_a_vm_was_just_given_away() -> None:
    """Operations are read first: that one was planned, sent and handed over before the records were."""
    gone = [
        (doc, replace(record, owner=H2, generation=Generation(8), operation=OperationId("migrate-a-1")))
        for doc, record in on_h1("a")
        if record is not None
    ]
    look = seen(vms=[*gone], moving=["a"])
    assert documents(look) == []
    assert documents(replace(look, operations={}))


def test_a_host_is_not_called_empty_on_an_old_report_or_an_empty_one_of_a_hung_libvirt() -> None:
    """Whatever else the tick makes of it: in maintenance it would not be fenced."""
    gone = [(doc, replace(record, owner=H2)) for doc, record in on_h1("a") if record is not None]
    for look, empty in (
        (seen(vms=[*gone]), True),
        (seen(vms=[*gone], health=HypervisorHealth.HUNG), False),
        (seen(vms=[*gone], age=20.0), False),
    ):
        actions, _ = Evacuations(
            look, watched(look), verdicts_of(look), Policy(), pace=unhurried(look), documented=()
        ).decide()
        assert [a.doc.maintenance for a in actions if isinstance(a, PutHostDoc)] == ([True] if empty else [])


def test_a_host_to_be_emptied_takes_no_vm_although_its_record_says_online_yet() -> None:
    look = seen(state=HostState.ONLINE)
    assert {room.spec.id for room in rooms(look, verdicts_of(look))} == {H2, H3}


def test_a_silent_host_is_its_failovers_matter() -> None:
    assert begun(seen(age=20.0)) == []
    assert begun(seen(state=HostState.SUSPECT)) == []


def test_a_document_that_this_tick_writes_already_is_not_written_over() -> None:
    look = seen()
    found = Evacuations(
        look, watched(look), verdicts_of(look), Policy(), pace=unhurried(look), documented=[H1]
    ).decide()
    assert found == ([], [])


def test_the_preview_is_what_the_ticks_then_do() -> None:
    look = seen()
    plan = plan_evacuation(H1, look, watched(look), verdicts_of(look), Policy())
    targets = {a.operation.subject: a.operation.target for a in decided(look).actions if isinstance(a, OpenOperation)}
    assert [move.vm for move in plan.moves] == ["a", "b", "c"]
    assert targets == {move.vm: move.target for move in plan.moves[:2]}


# --- the way home ------------------------------------------------------------------------------------------------


def home(away: tuple[str, ...], *, failback: bool = True) -> ClusterView:
    vms = [
        (doc, replace(record, owner=H2) if doc.spec.id in away else record)
        for doc, record in on_h1(*NAMES)
        if record is not None
    ]
    doc = HostDoc(id=H1, away=tuple(map(VmId, away)), failback=failback, incarnation=Incarnation("i1"))
    return seen(doc=doc, state=HostState.ONLINE, vms=[*vms])


def test_what_left_comes_home_and_then_nothing_is_on_its_way_any_more() -> None:
    assert begun(home(("b", "c"))) == ["b", "c"]
    assert begun(home(("b", "c"), failback=False)) == []
    arrived = home(())
    assert documents(arrived) == [replace(arrived.host_docs[H1], failback=False)]


def test_a_host_emptied_again_before_all_of_its_own_are_home_forgets_none_of_them() -> None:
    _, (doc,) = asked(home(("b", "c")), WishKind.HOST_EVACUATE)
    assert (doc.failback, doc.away) == (False, (VmId("b"), VmId("c")))


# --- what a person asks for --------------------------------------------------------------------------------------


def asked(look: ClusterView, kind: WishKind, **more: Any) -> tuple[SettleWish, list[HostDoc]]:
    actions = decided(replace(look, wishes=(wish(kind, "h1", **more),))).actions
    (settled,) = [a for a in actions if isinstance(a, SettleWish)]
    return settled, [a.doc for a in actions if isinstance(a, PutHostDoc)]


def test_it_is_said_what_leaves_and_what_stays() -> None:
    settled, (doc,) = asked(seen(doc=HostDoc(id=H1), state=HostState.ONLINE), WishKind.HOST_EVACUATE)
    assert (settled.granted, doc.evacuate, doc.maintenance) == (True, True, False)
    assert "3 of 3 VMs leave" in settled.sentence


def test_a_host_in_maintenance_that_does_not_report_stays_in_it() -> None:
    """To empty it would end what keeps it from being fenced, and nothing could leave it."""
    out = HostDoc(id=H1, maintenance=True, incarnation=Incarnation("i1"))
    settled, docs = asked(seen(doc=out, age=60.0, state=HostState.MAINTENANCE), WishKind.HOST_EVACUATE)
    assert (settled.granted, docs) == (False, [])
    assert "does not report" in settled.sentence


def test_a_failback_can_be_called_off() -> None:
    settled, (doc,) = asked(home(("b", "c")), WishKind.HOST_ACTIVATE)
    assert (settled.granted, doc.failback, doc.away) == (True, False, ())
