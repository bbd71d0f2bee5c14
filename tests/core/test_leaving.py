"""A host that goes down in order: what is done with its VMs, and whom its goodbye is a proof for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from fangnetz.core.actions import Decision, EndOperation, OpenOperation, PutHost, PutHostDoc, PutVm
from fangnetz.core.leaving import Parting, goodbye_bound_s, parting, said_goodbye, stays_with
from fangnetz.core.model import (
    ClusterView,
    Destination,
    Heartbeat,
    HostDoc,
    HostState,
    HypervisorHealth,
    Leaving,
    VmDoc,
    VmRecord,
    VmState,
    VmWish,
    WishKind,
)
from fangnetz.core.operations import Operation, OperationKind, failover_steps, migrate_steps
from fangnetz.core.policy import OnShutdown, Policy
from fangnetz.core.rooms import rooms
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, OperationId, VmId
from tests.core.world import T0, beat, decided, host_record, probe_round, verdicts_of, view, vm_doc, vm_record, wish

H1, H2 = HostId("h1"), HostId("h2")
WEB, DB = VmId("web"), VmId("db")
REBOOT, SHUTDOWN, NO = Leaving.REBOOT, Leaving.SHUTDOWN, Leaving.NO
WEB_RUNS = [(vm_doc("web"), vm_record("web", "h1", 7))]
CONTESTED = Instant(T0 - 1)


def going(how: Leaving = SHUTDOWN, at: float = T0 - 0.1, **more: Any) -> Heartbeat:
    return replace(beat("h1", at, **more), leaving=how)


def seen(
    report: Heartbeat,
    vms: Iterable[tuple[VmDoc, VmRecord | None]] = WEB_RUNS,
    *,
    leaving_at: float = T0 - 5,
    state: HostState = HostState.ONLINE,
    alone: bool = False,
    **more: Any,
) -> ClusterView:
    others = [] if alone else [beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)]
    record = replace(host_record("h1", state), leaving_at=Instant(leaving_at))
    docs = [HostDoc(id=HostId(h), incarnation=Incarnation("i1")) for h in ("h1", "h2", "h3")]
    return view(
        T0, hosts=["h1"] if alone else ["h1", "h2", "h3"], beats=[report, *others],
        records=[record, *([] if alone else [host_record("h2"), host_record("h3")])],
        vms=vms, **{"docs": docs[:1] if alone else docs, **more},
    )  # fmt: skip


def done_with(look: ClusterView, how: OnShutdown = OnShutdown.CONDITIONAL, **more: Any) -> Decision:
    return decided(look, policy=Policy(on_shutdown=how, **more))


def opened(found: Decision) -> list[tuple[OperationKind, str]]:
    return [(a.operation.kind, a.operation.subject) for a in found.actions if isinstance(a, OpenOperation)]


def put(found: Decision, vm: VmId = WEB) -> list[VmRecord]:
    return [a.record for a in found.actions if isinstance(a, PutVm) and a.record.id == vm]


def host_of(found: Decision) -> list[HostState]:
    return [a.record.state for a in found.actions if isinstance(a, PutHost) and a.record.id == H1]


# --- what the policy says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "how", "parts"),
    [
        (OnShutdown.CONDITIONAL, REBOOT, Parting.KEEP),
        (OnShutdown.CONDITIONAL, SHUTDOWN, Parting.RECOVER),
        (OnShutdown.KEEP, REBOOT, Parting.KEEP),
        (OnShutdown.KEEP, SHUTDOWN, Parting.KEEP),
        (OnShutdown.RECOVER, REBOOT, Parting.RECOVER),
        (OnShutdown.RECOVER, SHUTDOWN, Parting.RECOVER),
        (OnShutdown.EVACUATE, REBOOT, Parting.EVACUATE),
        (OnShutdown.EVACUATE, SHUTDOWN, Parting.EVACUATE),
        (OnShutdown.EVACUATE, NO, Parting.NONE),
    ],
)
def test_a_reboot_and_a_shutdown_follow_the_policy(policy: OnShutdown, how: Leaving, parts: Parting) -> None:
    look = seen(going(how, runs={"web": 7}))
    assert parting(look, H1, verdicts_of(look), Policy(on_shutdown=policy)) is parts


def test_what_an_operator_has_emptied_goes_on_being_emptied() -> None:
    docs = [HostDoc(id=H1, evacuate=True, incarnation=Incarnation("i1"))]
    look = seen(going(runs={"web": 7}), docs=docs)
    assert parting(look, H1, verdicts_of(look), Policy()) is Parting.EVACUATE


def test_after_the_deadline_and_where_no_host_is_left_nothing_moves_any_more() -> None:
    policy = Policy(on_shutdown=OnShutdown.EVACUATE, evacuate_deadline_s=60.0)
    for at, parts in ((T0 - 59, Parting.EVACUATE), (T0 - 60, Parting.RECOVER)):
        look = seen(going(runs={"web": 7}), leaving_at=at)
        assert parting(look, H1, verdicts_of(look), policy) is parts
    look = seen(going(runs={"web": 7}), alone=True)
    assert parting(look, H1, verdicts_of(look), policy) is Parting.RECOVER


def test_of_two_machines_of_one_name_neither_announces_anything() -> None:
    look = seen(replace(going(runs={"web": 7}), contested_at=CONTESTED))
    assert parting(look, H1, verdicts_of(look), Policy()) is Parting.NONE
    assert not said_goodbye(seen(replace(going(releases={"web": 7}), contested_at=CONTESTED)), H1)


# --- what is done ------------------------------------------------------------------------------------------------


def test_a_vm_is_stopped_and_kept_for_the_reboot() -> None:
    found = done_with(seen(going(REBOOT, runs={"web": 7})))
    assert opened(found) == [(OperationKind.STOP, "web")]
    (record,) = put(found)
    assert (record.state, record.kept) == (VmState.STOPPING, 7)


def test_a_vm_is_stopped_and_not_kept_at_a_shutdown() -> None:
    found = done_with(seen(going(runs={"web": 7})))
    assert opened(found) == [(OperationKind.STOP, "web")]
    assert [record.kept for record in put(found)] == [0]


def test_the_least_important_are_stopped_first_and_four_at_once() -> None:
    vms = [(vm_doc(f"vm{n}", priority=n, memory=64), vm_record(f"vm{n}", "h1", 7)) for n in range(6)]
    found = done_with(seen(going(runs={f"vm{n}": 7 for n in range(6)}), vms))
    assert [subject for _, subject in opened(found)] == ["vm0", "vm1", "vm2", "vm3"]


def test_what_is_not_managed_is_not_stopped_and_holds_no_goodbye_back() -> None:
    vms = [(vm_doc("web", wish=VmWish.IGNORED), vm_record("web", "h1", 7, state=VmState.UNMANAGED))]
    look = seen(going(runs={"web": 7}), vms)
    assert opened(done_with(look)) == []
    assert said_goodbye(look, H1)


def test_a_host_that_goes_down_takes_no_vm() -> None:
    look = seen(going(runs={"web": 7}))
    assert H1 not in {room.spec.id for room in rooms(look, verdicts_of(look))}
    assert H2 in {room.spec.id for room in rooms(look, verdicts_of(look))}


def test_what_moves_away_is_to_come_back() -> None:
    found = done_with(seen(going(runs={"web": 7})), OnShutdown.EVACUATE)
    assert opened(found) == [(OperationKind.MIGRATE, "web")]
    (doc,) = [a.doc for a in found.actions if isinstance(a, PutHostDoc) and a.doc.id == H1]
    assert (doc.away, doc.failback, doc.maintenance, doc.evacuate) == ((WEB,), True, False, False)
    assert host_of(found) == [HostState.EVACUATING]


def a_move(owner_leaves: bool) -> Operation:
    return Operation(
        id=OperationId("migrate-web-1"), kind=OperationKind.MIGRATE, subject="web", epoch=Epoch(7),
        opened_at=Instant(T0 - 90), reason="", steps=migrate_steps(), target=H2 if owner_leaves else H1,
    )  # fmt: skip


@pytest.mark.parametrize(("since", "ended"), [(T0 - 59, 0), (T0 - 61, 1)])
def test_a_move_away_has_until_the_deadline(since: float, ended: int) -> None:
    look = seen(going(runs={"web": 7}), leaving_at=since, operations=[a_move(True)])
    found = done_with(look, OnShutdown.EVACUATE, evacuate_deadline_s=60.0)
    assert len([a for a in found.actions if isinstance(a, EndOperation)]) == ended


def test_a_move_to_a_host_that_goes_down_is_ended() -> None:
    vms = [(vm_doc("web"), vm_record("web", "h2", 7))]
    look = seen(going(), vms, operations=[a_move(False)])
    look = replace(look, heartbeats={**look.heartbeats, H2: beat("h2", T0 - 0.1, runs={"web": 7})})
    assert [a.id for a in done_with(look).actions if isinstance(a, EndOperation)] == ["migrate-web-1"]


# --- the goodbye -------------------------------------------------------------------------------------------------


def test_a_released_vm_starts_elsewhere_while_its_host_still_reports() -> None:
    found = done_with(seen(going(releases={"web": 7})))
    assert opened(found) == [(OperationKind.START, "web")]


def test_one_that_ended_without_a_promise_is_asked_for_it_first() -> None:
    look = seen(going())
    assert not said_goodbye(look, H1)
    assert opened(done_with(look)) == [(OperationKind.STOP, "web")]
    assert put(done_with(seen(going(REBOOT))))[-1].kept == 7


@pytest.mark.parametrize(
    ("report", "complete"),
    [
        (going(releases={"web": 7}), True),
        (going(releases={"web": 8}), True),
        (going(releases={"web": 6}), False),
        (going(), False),
        (going(runs={"web": 7}), False),
        (going(runs={"web": 7}, releases={"web": 7}), False),
        (going(NO, releases={"web": 7}), False),
        (going(releases={"web": 7}, hypervisor=HypervisorHealth.HUNG), False),
        (going(releases={"web": 7}, orders=("start-web-1/start/web/1",)), False),
    ],
    ids=[
        "released", "a later one released", "an earlier one released", "not released", "runs", "runs, released",
        "not announced", "libvirt hung", "a start is in hand",
    ],
)  # fmt: skip
def test_a_goodbye_is_whole_once_every_vm_is_released(report: Heartbeat, complete: bool) -> None:
    assert said_goodbye(seen(report), H1) is complete


def test_a_copy_that_may_be_arriving_holds_the_goodbye_back() -> None:
    coming = Destination(host=H1, incarnation=Incarnation("i1"), generation=Generation(8))
    vms = [(vm_doc("web"), replace(vm_record("web", "h2", 7), moving=coming))]
    assert not said_goodbye(seen(going(), vms), H1)
    assert said_goodbye(seen(going(releases={"web": 8}), vms), H1)


def test_a_vm_that_was_stopped_a_moment_ago_is_not_stopped_again() -> None:
    assert opened(done_with(seen(going(runs={"web": 7}, releases={"web": 7})))) == []


def test_of_an_earlier_boot_that_lost_its_vm_a_later_boots_goodbye_says_nothing_at_once() -> None:
    early = replace(going(boot="i2"), boot_since=Instant(T0 - 0.5))
    assert not said_goodbye(seen(early), H1)
    assert said_goodbye(seen(replace(early, boot_since=Instant(T0 - 5))), H1)


def silent(report: Heartbeat, state: HostState, **more: Any) -> ClusterView:
    quiet = [probe_round(T0 - s, {"h1": False, "h2": True, "h3": True}) for s in (1.0, 0.1)]
    return seen(report, state=state, probes=tuple(quiet), **more)


def test_a_host_that_has_said_goodbye_has_left_and_is_not_missed() -> None:
    found = done_with(seen(going(releases={"web": 7})))
    assert host_of(found) == [HostState.LEFT]
    later = silent(going(releases={"web": 7}, at=T0 - 30), HostState.LEFT)
    assert (OperationKind.FAILOVER, "h1") not in opened(done_with(later))
    assert host_of(done_with(later)) == []
    assert opened(done_with(later)) == [(OperationKind.START, "web")]


@pytest.mark.parametrize("state", [HostState.ONLINE, HostState.EVACUATING, HostState.LEFT])
def test_one_that_still_ran_a_vm_is_lost_as_any_other(state: HostState) -> None:
    look = silent(going(runs={"web": 7}, at=T0 - 30), state)
    assert opened(done_with(look)) == [(OperationKind.FAILOVER, "h1")]


def a_failover() -> Operation:
    return Operation(
        id=OperationId("failover-h1-1"), kind=OperationKind.FAILOVER, subject="h1", epoch=Epoch(7),
        opened_at=Instant(T0 - 2), reason="it was silent", steps=failover_steps(), incarnation=Incarnation("i1"),
    )  # fmt: skip


@pytest.mark.parametrize(("at_work", "then"), [(True, []), (False, [HostState.LEFT])])
def test_once_its_failover_was_called_off_one_that_said_goodbye_has_left(
    *, at_work: bool, then: list[HostState]
) -> None:
    """[its late word ended the failover; it stayed `fencing` for ever, its VMs lost, and nobody was told]"""
    look = silent(going(releases={"web": 7}, at=T0 - 30), HostState.FENCING, operations=[a_failover()] * at_work)
    assert host_of(done_with(look)) == then


def test_a_host_that_nobody_fences_any_more_is_what_it_is_seen_to_be() -> None:
    answers = (probe_round(T0 - 0.1, {"h1": True, "h2": True, "h3": True}),)
    report = beat("h1", T0 - 30, runs={"web": 7})
    look = seen(report, state=HostState.FENCING, leaving_at=0.0, probes=answers)
    assert host_of(done_with(look)) == [HostState.SUSPECT]
    look = seen(report, state=HostState.FENCING, leaving_at=0.0, probes=answers, operations=[a_failover()])
    assert HostState.SUSPECT not in host_of(done_with(look))


def test_a_shutdown_that_is_called_off_has_the_host_back() -> None:
    look = seen(going(NO, runs={"web": 7}), state=HostState.EVACUATING)
    assert host_of(done_with(look, OnShutdown.EVACUATE)) == [HostState.ONLINE]
    look = seen(going(NO, releases={"web": 7}), state=HostState.LEFT, leaving_at=0.0)
    assert host_of(done_with(look)) == [HostState.RETURNING]


@pytest.mark.parametrize(("state", "then"), [(HostState.MAINTENANCE, []), (HostState.ONLINE, [HostState.MAINTENANCE])])
def test_a_host_in_maintenance_stays_in_it(state: HostState, then: list[HostState]) -> None:
    docs = [HostDoc(id=H1, maintenance=True, incarnation=Incarnation("i1"))]
    look = seen(going(releases={"web": 7}), state=state, docs=docs)
    assert host_of(done_with(look)) == then


def test_what_still_runs_on_a_host_in_maintenance_is_dealt_with_the_same() -> None:
    docs = [HostDoc(id=H1, maintenance=True, incarnation=Incarnation("i1"))]
    for how, kind in ((OnShutdown.RECOVER, OperationKind.STOP), (OnShutdown.EVACUATE, OperationKind.MIGRATE)):
        look = seen(going(runs={"web": 7}), state=HostState.MAINTENANCE, docs=docs)
        assert opened(done_with(look, how)) == [(kind, "web")]


# --- kept for its host -------------------------------------------------------------------------------------------

KEPT = replace(vm_record("web", "h1", 7, state=VmState.WAITING), kept=Generation(7))


def test_a_kept_vm_starts_nowhere_else() -> None:
    look = silent(going(REBOOT, releases={"web": 7}, at=T0 - 30), HostState.LEFT, vms=[(vm_doc("web"), KEPT)])
    assert stays_with(look, KEPT) == H1
    assert opened(done_with(look)) == []
    assert "starts again with it" in put(done_with(look))[-1].reason


def test_a_kept_vm_starts_with_the_next_boot_of_its_host() -> None:
    back = beat("h1", T0 - 0.1, boot="i2")
    look = seen(replace(back, boot_since=Instant(T0 - 9)), [(vm_doc("web"), KEPT)], leaving_at=0.0)
    look = replace(look, host_records={**look.host_records, H1: host_record("h1", boot="i2")})
    (operation,) = [a.operation for a in done_with(look).actions if isinstance(a, OpenOperation)]
    assert (operation.kind, operation.target) == (OperationKind.START, H1)


def test_one_that_was_to_be_kept_and_still_ran_when_its_host_was_lost_is_kept_no_longer() -> None:
    look = silent(going(REBOOT, runs={"web": 7}, at=T0 - 30), HostState.ONLINE, vms=[(vm_doc("web"), KEPT)])
    assert stays_with(look, KEPT) is None


def test_what_was_kept_at_another_number_is_not_kept() -> None:
    look = seen(going(REBOOT, releases={"web": 8}))
    assert stays_with(look, replace(KEPT, generation=Generation(8))) is None


def test_one_that_runs_on_is_kept_no_longer() -> None:
    running = replace(KEPT, state=VmState.STOPPING)
    look = seen(going(NO, runs={"web": 7}), [(vm_doc("web"), running)], leaving_at=0.0)
    assert [record.kept for record in put(done_with(look))] == [0]


def test_a_person_may_start_it_elsewhere() -> None:
    asked = wish(WishKind.VM_START, "web")
    look = silent(
        going(REBOOT, releases={"web": 7}, at=T0 - 30), HostState.LEFT, vms=[(vm_doc("web"), KEPT)], wishes=(asked,)
    )
    assert [record.kept for record in put(done_with(look))] == [0]


def test_nobody_is_alarmed_before_a_reboot_had_its_time() -> None:
    report = going(REBOOT, releases={"web": 7}, at=T0 - 30)
    for since, alarmed in ((T0 - 599, False), (T0 - 601, True)):
        look = silent(report, HostState.LEFT, vms=[(vm_doc("web"), replace(KEPT, since=Instant(since)))])
        assert any(alarm.kind == "vm_waiting" for alarm in done_with(look).alarms) is alarmed


def test_the_host_waits_for_moves_then_for_stops_a_few_at_a_time() -> None:
    policy = Policy(evacuate_deadline_s=100.0, stop_bound_s=30.0)
    slack = 2 * policy.resume_s
    assert [goodbye_bound_s(policy, vms) - slack for vms in (0, 1, 4, 5)] == [100.0, 130.0, 130.0, 160.0]
