"""Where a VM that runs may be moved, and why not; and nobody is given it while a copy of it may arrive somewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fangnetz.core.actions import EndOperation, OpenOperation, PutVm, SettleWish
from fangnetz.core.model import (
    ClusterView,
    Destination,
    HostState,
    HypervisorHealth,
    Release,
    Sighting,
    VmRecord,
    VmSighting,
    VmState,
    VmWish,
    WishKind,
)
from fangnetz.core.moving import Move, Stays, plan_move
from fangnetz.core.operations import Operation, OperationKind, OperationState, Step, StepKind, StepState, migrate_steps
from fangnetz.core.ownership import Granted, Withheld, arriving_at, may_own, owner_let_go
from fangnetz.core.policy import Policy
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, OperationId, VmId
from tests.core.world import (
    T0,
    beat,
    decided,
    host_record,
    off_proof,
    spec,
    verdicts_of,
    view,
    vm_doc,
    vm_record,
    watched,
    wish,
)  # fmt: skip

WEB, H1, H2, H3 = VmId("web"), HostId("h1"), HostId("h2"), HostId("h3")
TO = Destination(host=H2, incarnation=Incarnation("i1"), generation=Generation(9))


def seen(
    *,
    record: VmRecord | None = None,
    at: tuple[VmSighting, ...] = (VmSighting(vm=WEB, state=Sighting.RUNNING, generation=Generation(7)),),
    there: Mapping[str, Any] | None = None,
    here: Mapping[str, Any] | None = None,
    **more: Any,
) -> ClusterView:
    """web runs on h1 at generation 7; h2 and h3 have room, h3 more of it."""
    beats = [
        beat("h1", T0 - 0.1, **{"seen": at, **(here or {})}),
        beat("h2", T0 - 0.1, **(there or {})),
        beat("h3", T0 - 0.1),
    ]
    found = record or vm_record("web", "h1", 7)
    hosts = [spec("h1"), replace(spec("h2"), memory_mib=8192), replace(spec("h3"), memory_mib=16384)]
    return view(T0, hosts=hosts, beats=beats, vms=[(vm_doc("web"), found)], **more)


def planned(look: ClusterView, **more: Any) -> Move | Stays:
    return plan_move(WEB, look, watched(look), verdicts_of(look), Policy(), **more)


def why(look: ClusterView, **more: Any) -> str:
    found = planned(look, **more)
    assert isinstance(found, Stays), found
    return found.because


# --- where to ----------------------------------------------------------------------------------------------------


def test_it_goes_where_there_is_most_room() -> None:
    found = planned(seen())
    assert isinstance(found, Move)
    assert (found.source, found.target, found.incarnation) == (H1, H3, "i1")


def test_it_goes_where_it_is_asked_to_go_or_nowhere() -> None:
    found = planned(seen(), target=H2)
    assert isinstance(found, Move)
    assert found.target == H2
    assert "is where it runs" in why(seen(), target=H1)
    small = replace(spec("h2"), memory_mib=10)
    assert "10 MiB free of 10" in why(replace(seen(), hosts={**seen().hosts, H2: small}), target=H2)


def test_it_does_not_go_where_it_was_refused() -> None:
    found = planned(seen(), refused={H3: "h3 cannot run web: it has no bridge br0"})
    assert isinstance(found, Move)
    assert found.target == H2
    both = {H2: "h2 cannot run web: no", H3: "h3 cannot run web: it has no bridge br0"}
    assert "it has no bridge br0" in why(seen(), refused=both)


@pytest.mark.parametrize("state", [HostState.MAINTENANCE, HostState.DEGRADED, HostState.RETURNING])
def test_it_goes_to_no_host_that_takes_no_vms(state: HostState) -> None:
    records = [host_record("h1"), replace(host_record("h2"), state=state), host_record("h3")]
    assert why(seen(records=records), target=H2) == "h2 is not online and open for VMs"


def test_room_that_another_move_will_take_is_taken() -> None:
    other = replace(vm_record("db", "h1", 3), moving=replace(TO, host=H3))
    look = seen()
    doc = replace(vm_doc("db"), spec=replace(vm_doc("db").spec, memory_mib=16384))
    look = replace(look, vms={**look.vms, VmId("db"): doc}, vm_records={**look.vm_records, VmId("db"): other})
    found = planned(look)
    assert isinstance(found, Move)
    assert found.target == H2


# --- why not now -------------------------------------------------------------------------------------------------


def sighting(state: Sighting, generation: int | None = 7) -> tuple[VmSighting, ...]:
    number = None if generation is None else Generation(generation)
    return (VmSighting(vm=WEB, state=state, generation=number),)


@pytest.mark.parametrize(
    ("look", "because"),
    [
        (seen(at=()), "does not run on h1"),
        (seen(at=sighting(Sighting.PAUSED)), "is paused on h1"),
        (seen(at=sighting(Sighting.RUNNING, 6)), "of generation 6, not 7"),
        (seen(here={"hypervisor": HypervisorHealth.HUNG}), "is not well"),
        (seen(here={"boot": "i2"}), "is not well"),
        (seen(record=vm_record("web", None, 7, state=VmState.WAITING)), "runs nowhere"),
        (seen(record=vm_record("web", "h1", 7, state=VmState.STOPPING)), "web is stopping"),
        (seen(record=replace(vm_record("web", "h1", 7), moving=TO)), "may be there still"),
        (seen(life_since=T0 - 0.05), "has not been heard since the store's life began"),
    ],
    ids=["gone", "paused", "other copy", "libvirt hung", "booted anew", "nowhere", "stopping", "moving", "hold"],
)
def test_a_vm_is_not_moved_unless_it_is_known_to_run_where_it_belongs(look: ClusterView, because: str) -> None:
    assert because in why(look)


def test_a_vm_that_is_not_wished_to_run_is_not_moved() -> None:
    look = seen()
    assert "not wished to run" in why(replace(look, vms={WEB: replace(look.vms[WEB], wish=VmWish.STOPPED)}))


def test_a_copy_that_somebody_else_started_may_be_moved() -> None:
    assert isinstance(planned(seen(at=sighting(Sighting.RUNNING, None))), Move)


# --- nobody is given it while a copy may arrive ------------------------------------------------------------------


MOVING = replace(vm_record("web", "h1", 7, state=VmState.LOST), moving=TO)
GONE = {"releases": {"web": 9}}


def let_go(look: ClusterView) -> Granted | Withheld:
    return owner_let_go(look, look.vm_records[WEB])


def released(**more: Any) -> ClusterView:
    """h1 has let web go at its own number; what h2 says is the matter."""
    return seen(record=MOVING, at=(), here={"releases": {"web": 7}}, **more)


def test_what_its_owner_let_go_is_given_to_nobody_while_a_copy_may_arrive() -> None:
    look = released()
    assert arriving_at(look, MOVING) == "a copy of web was being moved to h2 and may be there still"
    assert isinstance(let_go(look), Withheld)
    for host in (H1, H2, H3):
        assert isinstance(may_own(look, MOVING, host, Incarnation("i1"), ()), Withheld), host


@pytest.mark.parametrize(
    "look",
    [
        released(there=GONE),
        released(there={"boot": "i2"}),
        released(proofs=[off_proof("h2", T0 - 1)], records=[host_record("h1"), host_record("h3")]),
    ],
    ids=["promised", "booted anew", "proven off"],
)
def test_it_is_given_away_once_nothing_can_have_arrived(look: ClusterView) -> None:
    look = replace(look, host_docs={}) if not look.proofs else look
    if look.proofs:
        proof = look.proofs[H2]
        fenced = replace(host_record("h2"), state=HostState.FENCED, proof=proof)
        look = replace(look, host_records={**look.host_records, H2: fenced}, heartbeats={
            host: b for host, b in look.heartbeats.items() if host != H2
        })  # fmt: skip
    if look.heartbeats.get(H2) is not None and look.heartbeats[H2].incarnation == "i2":
        settled = replace(look.heartbeats[H2], boot_since=look.now - 10)
        look = replace(look, heartbeats={**look.heartbeats, H2: settled})
    assert arriving_at(look, MOVING) == ""
    assert isinstance(let_go(look), Granted)


def test_a_promise_counts_only_without_a_copy_in_the_same_report() -> None:
    there = {**GONE, "seen": sighting(Sighting.INCOMING, 9)}
    assert arriving_at(released(there=there), MOVING) != ""


# --- what a tick makes of it -------------------------------------------------------------------------------------


def opened(look: ClusterView) -> list[OpenOperation]:
    return [action for action in decided(look).actions if isinstance(action, OpenOperation)]


def test_what_an_ended_move_left_is_removed_while_the_vm_runs_on() -> None:
    there = {"seen": sighting(Sighting.INCOMING, 9)}
    (action,) = opened(seen(record=replace(vm_record("web", "h1", 7), moving=TO), there=there))
    (stop,) = action.operation.of_kind(StepKind.STOP)
    assert stop.order is not None
    assert (stop.order.host, stop.order.generation, stop.order.arriving) == (H2, 9, True)


def test_a_copy_that_runs_at_its_destination_is_never_removed() -> None:
    there = {"seen": sighting(Sighting.RUNNING, 9)}
    look = seen(record=replace(vm_record("web", "h1", 7), moving=TO), at=(), there=there)
    assert opened(look) == []
    (put,) = [action for action in decided(look).actions if isinstance(action, PutVm)]
    assert (put.record.owner, put.record.generation, put.record.moving) == (H2, 9, None)


def left(left_for: int = 9, *, boot: str = "i1", listed: tuple[VmSighting, ...] = ()) -> dict[str, Any]:
    """What h1 says once web has left it for the copy of that number."""
    promise = Release(vm=WEB, generation=Generation(7), left_for=Generation(left_for))
    return {"promise": promise, "boot": boot, "seen": listed}


WAITS = VmSighting(vm=WEB, state=Sighting.INCOMING, generation=Generation(9))


def arrived(
    *,
    here: Mapping[str, Any] | None = None,
    copy: VmSighting | None = WAITS,
    promised: int = 0,
    third: tuple[VmSighting, ...] = (),
) -> ClusterView:
    """The move of web to h2 has ended without a word of it in the journal; what the hosts say is the matter."""
    said = {**left(), **(here or {})}
    promise = said.pop("promise")
    look = seen(
        record=replace(vm_record("web", "h1", 7), moving=TO),
        at=(),
        here=said,
        there={"seen": (copy,) if copy else (), "releases": {"web": promised} if promised else {}},
    )
    owner = replace(look.heartbeats[H1], releases=(promise,) if promise else ())
    other = replace(look.heartbeats[H3], inventory=third)
    return replace(look, heartbeats={**look.heartbeats, H1: owner, H3: other})


def listed_before(look: ClusterView) -> ClusterView:
    """The same; h1 is silent by now, and the list of its last report is older than its promise."""
    last = replace(look.heartbeats[H1], received_at=Instant(T0 - 30), inventory=sighting(Sighting.RUNNING, 7))
    return replace(look, heartbeats={**look.heartbeats, H1: last})


def given(look: ClusterView) -> list[HostId | None]:
    """Return whom a tick gives web to."""
    return [a.record.owner for a in decided(look).actions if isinstance(a, PutVm) and a.record.owner != H1]


def test_a_guest_that_has_left_for_the_copy_that_waits_goes_on_there_whatever_became_of_its_move() -> None:
    (put,) = [action for action in decided(arrived()).actions if isinstance(action, PutVm)]
    new = put.record
    assert (new.owner, new.owner_incarnation, new.generation, new.moving) == (H2, "i1", 9, None)
    assert (put.expected, new.state, opened(arrived())) == (7, VmState.MOVING, [])
    look = replace(arrived(), vm_records={WEB: new})
    (action,) = opened(look)
    assert (action.operation.kind, action.operation.steps[0].kind) == (OperationKind.RESUME, StepKind.RESUME)


@pytest.mark.parametrize(
    "look",
    [
        arrived(here={"promise": replace(left()["promise"], left_for=Generation(0))}),
        arrived(here={"promise": replace(left()["promise"], left_for=Generation(8))}),
        arrived(here={"promise": replace(left()["promise"], generation=Generation(6))}),
        arrived(here={"promise": replace(left()["promise"], generation=Generation(8))}),
        arrived(here={"promise": None}),
        arrived(here={"boot": "i2"}),
        arrived(here={"seen": sighting(Sighting.RUNNING, 7)}),
        arrived(here={"seen": sighting(Sighting.PAUSED, 7)}),
        listed_before(arrived()),
        arrived(copy=None),
        arrived(copy=sighting(Sighting.INCOMING, 8)[0]),
        arrived(copy=sighting(Sighting.INCOMING, None)[0]),
        arrived(promised=9),
        arrived(third=sighting(Sighting.RUNNING, 7)),
        arrived(third=sighting(Sighting.INCOMING, 9)),
    ],
    ids=[
        "stopped",
        "left for another copy",
        "an older promise",
        "a newer promise",
        "no promise",
        "booted anew",
        "runs on where it was",
        "paused where it was",
        "was listed where it was",
        "nothing there",
        "another copy there",
        "a copy without a number there",
        "promised never to run it",
        "runs on a third host",
        "arrives on a third host",
    ],
)
def test_what_has_arrived_is_let_run_on_nothing_less_than_its_owners_word(look: ClusterView) -> None:
    assert given(look) == []
    assert [a for a in opened(look) if a.operation.kind is OperationKind.RESUME] == []


def test_a_move_is_over_once_nothing_of_it_is_left() -> None:
    look = seen(record=replace(vm_record("web", "h1", 7), moving=TO), there=GONE)
    (put,) = [action for action in decided(look).actions if isinstance(action, PutVm)]
    assert (put.record.owner, put.record.moving) == (H1, None)


def test_a_copy_that_came_by_a_move_nobody_remembers_is_removed_and_one_moved_by_hand_is_not() -> None:
    (action,) = opened(seen(there={"seen": sighting(Sighting.INCOMING, 9)}))
    assert "nobody remembers" in action.operation.reason
    assert opened(seen(there={"seen": sighting(Sighting.INCOMING, 7)})) == []


def test_what_has_arrived_at_its_owner_is_let_run() -> None:
    look = seen(
        record=vm_record("web", "h2", 9, state=VmState.MOVING), at=(), there={"seen": sighting(Sighting.INCOMING, 9)}
    )
    (action,) = opened(look)
    assert action.operation.kind is OperationKind.RESUME
    older = seen(
        record=vm_record("web", "h2", 9, state=VmState.MOVING), at=(), there={"seen": sighting(Sighting.INCOMING, 8)}
    )
    assert all(a.operation.kind is not OperationKind.RESUME for a in opened(older)), "not the copy it is to run"


# --- wishes ------------------------------------------------------------------------------------------------------


def answer(look: ClusterView, kind: WishKind, subject: str, to: HostId | None = None) -> SettleWish:
    asked = replace(wish(kind, subject, at=T0), to=to)
    found = [a for a in decided(replace(look, wishes=(asked,))).actions if isinstance(a, SettleWish)]
    return found[0]


def test_a_wish_to_move_opens_a_move_once() -> None:
    look = seen()
    first, second = (answer(look, WishKind.VM_MIGRATE, "web") for _ in range(2))
    assert first.granted
    assert first.operation == second.operation is not None
    assert "h3" in first.sentence


@pytest.mark.parametrize(("to", "sentence"), [("h9", "is no host of this cluster"), ("h1", "runs on h1 already")])
def test_a_wish_to_move_it_nowhere_is_refused(to: str, sentence: str) -> None:
    refused = answer(seen(), WishKind.VM_MIGRATE, "web", HostId(to))
    assert not refused.granted
    assert sentence in refused.sentence


def under_way(kind: OperationKind = OperationKind.MIGRATE, *steps: Step) -> Operation:
    return Operation(
        id=OperationId("op"), kind=kind, subject="web", epoch=Epoch(7), opened_at=Instant(T0 - 5), reason="ada asked",
        steps=(*migrate_steps(), *steps),
    )  # fmt: skip


def test_only_a_move_is_cancelled_and_only_while_the_guest_has_not_left() -> None:
    assert "no open operation" in answer(seen(), WishKind.OPERATION_CANCEL, "x").sentence
    failover = answer(seen(operations=[under_way(OperationKind.FAILOVER)]), WishKind.OPERATION_CANCEL, "op")
    assert (failover.granted, "carried through" in failover.sentence) == (False, True)
    assert answer(seen(operations=[under_way()]), WishKind.OPERATION_CANCEL, "op").granted
    left = Step(key="migrate/web/1", kind=StepKind.MIGRATE, state=StepState.DONE)
    refused = answer(seen(operations=[under_way(OperationKind.MIGRATE, left)]), WishKind.OPERATION_CANCEL, "op")
    assert (refused.granted, "has left already" in refused.sentence) == (False, True)


def test_a_move_to_a_host_that_has_booted_anew_is_over_whatever_its_executor_waits_for() -> None:
    record = replace(vm_record("web", "h1", 7, state=VmState.MOVING, operation="migrate-web"), moving=TO)
    busy = Operation(
        id=OperationId("migrate-web"), kind=OperationKind.MIGRATE, subject="web", epoch=Epoch(7),
        opened_at=Instant(T0 - 5), reason="ada asked", steps=migrate_steps(),
    )  # fmt: skip
    look = seen(record=record, there={"boot": "i2"}, operations=[busy])
    settled = replace(look.heartbeats[H2], boot_since=look.now - 10)
    look = replace(look, heartbeats={**look.heartbeats, H2: settled})
    (end,) = [action for action in decided(look).actions if isinstance(action, EndOperation)]
    assert (end.id, end.state) == ("migrate-web", OperationState.FAILED)
    assert not [a for a in decided(seen(record=record, operations=[busy])).actions if isinstance(a, EndOperation)]
