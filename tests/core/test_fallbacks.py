"""A VM that does not move while it runs as its host is emptied: what its fallback makes of it, what starts it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.actions import EndOperation, OpenOperation, PutHostDoc, PutVm, SettleWish
from fangnetz.core.evacuation import EvacuationPlan, fallback_of, plan_evacuation, plan_evacuations
from fangnetz.core.model import (
    ClusterView,
    HostDoc,
    HostState,
    HypervisorHealth,
    Sighting,
    VmSighting,
    VmSpec,
    VmState,
    VmWish,
    WishKind,
)
from fangnetz.core.operations import OperationKind, StepKind
from fangnetz.core.policy import Fallback, Policy
from fangnetz.core.recovery import plan_starts
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, MiB, VmId
from tests.core.world import (
    T0,
    beat,
    decided,
    host_record,
    off_proof,
    verdicts_of,
    view,
    vm_doc,
    vm_record,
    watched,
    wish,
)  # fmt: skip

WEB, H1, H2 = VmId("web"), HostId("h1"), HostId("h2")
RUNS = (VmSighting(vm=WEB, state=Sighting.RUNNING, generation=Generation(7)),)
I1 = Incarnation("i1")
EMPTIED = HostDoc(id=H1, evacuate=True, reason="ada", incarnation=I1)
NAMED = replace(EMPTIED, stopped=(WEB,))
STOPS = Policy(evacuate_fallback=Fallback.STOP, unmovable=Fallback.STOP)
"""For both kinds of VM."""


def seen(
    *, doc: HostDoc = EMPTIED, host: HostState = HostState.EVACUATING, state: VmState = VmState.RUNNING,
    runs: bool = True, released: int = 0, live: bool = False, own: Fallback | None = None, boot: str = "i1",
    **record: Any,
) -> ClusterView:  # fmt: skip
    """h1 is emptied, and owns web at generation 7 as boot i1; h2 and h3 have room."""
    vm = vm_doc("web", wish=VmWish.RUNNING)
    vm = replace(vm, spec=replace(vm.spec, live=live, fallback=own))
    owned = replace(vm_record("web", "h1", 7, state=state), **record)
    first = beat("h1", T0 - 0.1, seen=RUNS if runs else (), releases={"web": released} if released else {})
    return view(
        T0,
        hosts=["h1", "h2", "h3"],
        beats=[replace(first, incarnation=Incarnation(boot)), beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)],
        records=[replace(host_record("h1", host), incarnation=Incarnation(boot)), host_record("h2"), host_record("h3")],
        docs=[doc, *(HostDoc(id=HostId(name), incarnation=I1) for name in ("h2", "h3"))],
        vms=[(vm, owned)],
    )


def plan(look: ClusterView, policy: Policy = STOPS) -> EvacuationPlan:
    return plan_evacuation(H1, look, watched(look), verdicts_of(look), policy)


def opened(look: ClusterView, policy: Policy = STOPS) -> list[OperationKind]:
    return [
        action.operation.kind for action in decided(look, policy=policy).actions if isinstance(action, OpenOperation)
    ]


def documents(look: ClusterView, policy: Policy = STOPS) -> list[HostDoc]:
    return [a.doc for a in decided(look, policy=policy).actions if isinstance(a, PutHostDoc) and a.doc.id == H1]


def left(look: ClusterView, policy: Policy = STOPS) -> str:
    alarms = decided(look, policy=policy).alarms
    return next((alarm.sentence for alarm in alarms if alarm.kind == "evacuation_waits"), "")


def asked(look: ClusterView, kind: WishKind, subject: str, policy: Policy = STOPS) -> tuple[SettleWish, list[Any]]:
    actions = decided(replace(look, wishes=(wish(kind, subject, at=T0),)), policy=policy).actions
    (settled,) = [action for action in actions if isinstance(action, SettleWish)]
    return settled, list(actions)


# --- which fallback ----------------------------------------------------------------------------------------------


@given(
    own=st.none() | st.sampled_from(Fallback),
    live=st.booleans(),
    failed=st.sampled_from(Fallback),
    unmovable=st.sampled_from(Fallback),
)
def test_a_vms_own_word_outranks_the_policys_which_has_one_for_either_kind(
    own: Fallback | None, live: bool, failed: Fallback, unmovable: Fallback
) -> None:
    spec = VmSpec(id=WEB, memory_mib=MiB(1), cpus=1, live=live, fallback=own)
    found = fallback_of(spec, Policy(evacuate_fallback=failed, unmovable=unmovable))
    assert found is (own or (failed if live else unmovable))


@pytest.mark.parametrize("fallback", Fallback)
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("live", [True, False])
def test_a_plan_makes_of_each_what_its_fallback_says(fallback: Fallback, own: bool, live: bool) -> None:
    others = next(one for one in Fallback if one is not fallback)
    policy = others if own else fallback
    look = seen(live=live, own=fallback if own else None, stuck_at=Instant(T0 - 100 if live else 0))
    found = plan(look, Policy(evacuate_fallback=policy, unmovable=policy))
    ways = [move.live for move in found.moves], len(found.stops), len(found.stays)
    expected = {
        Fallback.STAY: ([True], 0, 0) if live else ([], 0, 1),  # tried again as it runs
        Fallback.RELOCATE: ([False], 0, 0),
        Fallback.STOP: ([], 1, 0),
    }
    assert ways == expected[fallback]
    (same,) = plan_evacuations(
        [H1], look, watched(look), verdicts_of(look), Policy(evacuate_fallback=policy, unmovable=policy)
    )
    assert same == found


def test_one_that_may_move_is_not_stopped_before_its_migration_failed() -> None:
    for stuck_at in (0.0, T0 - 3601):
        found = plan(seen(live=True, stuck_at=Instant(stuck_at)))
        assert ([move.live for move in found.moves], found.stops) == ([True], ())


# --- the stop ----------------------------------------------------------------------------------------------------


def test_files_name_it_before_it_is_stopped_on_its_own_host_at_its_own_number() -> None:
    actions = decided(seen(), policy=STOPS).actions
    (operation,) = [action.operation for action in actions if isinstance(action, OpenOperation)]
    (doc,) = [action for action in actions if isinstance(action, PutHostDoc)]
    assert doc.doc.stopped == (WEB,)
    assert actions.index(doc) < actions.index(OpenOperation(operation=operation))
    (stop,) = operation.of_kind(StepKind.STOP)
    assert stop.order is not None
    assert (operation.kind, stop.order.host, stop.order.generation, stop.order.force) == (
        OperationKind.STOP, H1, 7, False
    )  # fmt: skip


def test_it_is_not_stopped_while_it_is_not_known_to_run_well_there() -> None:
    look = seen()
    hung = replace(look.heartbeats[H1], hypervisor=HypervisorHealth.HUNG)
    assert opened(replace(look, heartbeats={**look.heartbeats, H1: hung})) == []
    assert opened(seen(state=VmState.NEEDS_PERSON)) == []


def test_so_many_guests_are_shut_down_at_once_on_a_host_and_the_least_important_first() -> None:
    names = [f"vm{number}" for number in range(7)]
    docs = [vm_doc(name, priority=10 - number) for number, name in enumerate(names)]
    docs = [replace(doc, spec=replace(doc.spec, live=False)) for doc in docs]
    look = view(
        T0, hosts=["h1", "h2"], beats=[beat("h1", T0 - 0.1, runs=dict.fromkeys(names, 7)), beat("h2", T0 - 0.1)],
        records=[host_record("h1", HostState.EVACUATING), host_record("h2")], docs=[EMPTIED],
        vms=[(doc, vm_record(doc.spec.id, "h1", 7)) for doc in docs],
    )  # fmt: skip
    subjects = [a.operation.subject for a in decided(look, policy=STOPS).actions if isinstance(a, OpenOperation)]
    assert subjects == ["vm6", "vm5", "vm4", "vm3"]


def test_a_stop_that_came_to_nothing_is_named_and_tried_again_later() -> None:
    lately, before = Instant(T0 - 10), Instant(T0 - 61)
    assert (opened(seen(doc=NAMED, tried_at=lately)), documents(seen(doc=NAMED, tried_at=lately))) == ([], [])
    assert "web: its stop came to nothing" in left(seen(doc=NAMED, tried_at=lately))
    assert opened(seen(doc=NAMED, tried_at=before)) == [OperationKind.STOP]
    assert "web: its stop came to nothing" in left(seen(doc=NAMED, state=VmState.STOPPING, tries=1))
    assert "its stop" not in left(seen(doc=NAMED, state=VmState.STOPPING))


def test_a_report_from_before_the_stop_ended_makes_nothing_of_it() -> None:
    look = seen(doc=NAMED, released=7, state=VmState.STOPPING)
    actions = decided(look, policy=STOPS).actions
    assert [one for one in actions if isinstance(one, OpenOperation | PutVm)] == []
    assert documents(look) == []
    assert "its stop came" not in left(look)


# --- it stays down -----------------------------------------------------------------------------------------------


def down(**more: Any) -> ClusterView:
    doc = more.pop("doc", replace(NAMED, maintenance=True))
    return seen(
        **{"host": HostState.MAINTENANCE, "state": VmState.STOPPING, "runs": False, "released": 7, **more}, doc=doc
    )


def test_it_waits_and_the_sentence_says_what_starts_it() -> None:
    (put,) = [action for action in decided(down(), policy=STOPS).actions if isinstance(action, PutVm)]
    assert (put.record.state, put.record.failures) == (VmState.WAITING, 0)
    for words in ("h1 was emptied", "`fangnetz host activate h1`", "`fangnetz vm start web`"):
        assert words in put.record.reason
    assert opened(down()) == []


def test_a_host_is_in_maintenance_once_all_that_is_left_is_stopped() -> None:
    empty = down(doc=NAMED, host=HostState.EVACUATING, state=VmState.WAITING)
    (doc,) = documents(empty)
    assert (doc.maintenance, doc.stopped, "web stopped until" in doc.reason) == (True, (WEB,), True)
    assert documents(down(doc=NAMED, host=HostState.EVACUATING)) == [], "it may be there still"


WORLDS = {
    "its host lives": down(),
    "its host has booted anew": down(boot="i2", released=0),
    "its host is proven off": replace(
        down(),
        host_records={
            **down().host_records,
            H1: replace(host_record("h1", HostState.FENCED), proof=off_proof("h1", T0 - 5)),
        },
    ),
    "it has no owner any more": down(owner=None, generation=Generation(0)),
}


@pytest.mark.parametrize("world", WORLDS)
def test_no_plan_of_a_start_gives_it_to_anybody_while_a_document_names_it(world: str) -> None:
    look = WORLDS[world]
    assert OperationKind.START not in opened(look)
    found = plan_starts({WEB: ()}, look, watched(look), verdicts_of(look), STOPS)
    (unassigned,) = found.unassigned
    assert (found.assignments, unassigned.state) == ((), VmState.WAITING)
    free = replace(look, host_docs={**look.host_docs, H1: replace(look.host_docs[H1], stopped=())})
    found = plan_starts({WEB: ()}, free, watched(free), verdicts_of(free), STOPS)
    assert len(found.assignments) == 1, "or the world itself kept it from starting"


def test_nothing_waits_for_a_host_that_is_in_the_cluster_no_more() -> None:
    look = down()
    hosts = {name: one for name, one in look.hosts.items() if name != H1}
    assert opened(replace(look, hosts=hosts)) == [OperationKind.START]


# --- what starts it again ----------------------------------------------------------------------------------------


def test_activate_starts_it() -> None:
    look = down(state=VmState.WAITING, tries=3)
    settled, actions = asked(look, WishKind.HOST_ACTIVATE, "h1")
    (doc,) = [action.doc for action in actions if isinstance(action, PutHostDoc)]
    (put,) = [action.record for action in actions if isinstance(action, PutVm)]
    assert (settled.granted, "web" in settled.sentence, doc.stopped, doc.evacuate) == (True, True, (), False)
    assert (put.reason, put.tries) == ("h1 was activated", 0)
    then = down(doc=doc, host=HostState.ONLINE, state=VmState.WAITING)
    assert opened(then) == [OperationKind.START]


def test_a_person_starts_it_elsewhere() -> None:
    settled, actions = asked(down(state=VmState.WAITING), WishKind.VM_START, "web")
    (doc,) = [action.doc for action in actions if isinstance(action, PutHostDoc)]
    assert (settled.granted, doc.stopped, doc.maintenance) == (True, (), True)
    assert opened(down(doc=doc, state=VmState.WAITING)) == [OperationKind.START]


def test_one_that_somebody_started_by_hand_is_not_waited_for_any_more() -> None:
    look = down(state=VmState.RUNNING, runs=True, released=0)
    assert [doc.stopped for doc in documents(look)] == [()]


def test_emptying_it_anew_tries_a_live_migration_first_and_saying_it_twice_does_not() -> None:
    for doc, tried in ((HostDoc(id=H1, incarnation=I1), True), (EMPTIED, False)):
        look = seen(doc=doc, host=HostState.ONLINE, live=True, stuck_at=Instant(T0 - 100), tried_at=Instant(T0 - 100))
        _, actions = asked(look, WishKind.HOST_EVACUATE, "h1")
        (put,) = [action.record for action in actions if isinstance(action, PutVm)]
        assert (put.tried_at, put.stuck_at == 0) == (0, tried)


# --- hosts in quarantine -----------------------------------------------------------------------------------------


def test_a_host_in_quarantine_is_emptied_and_its_quarantine_lasts() -> None:
    doc = replace(EMPTIED, quarantine="it went down too often")
    look = seen(doc=doc, host=HostState.QUARANTINED)
    hosts = [
        one.record.state
        for one in decided(look, policy=STOPS).actions
        if hasattr(one, "record") and one.record.id == H1
    ]
    assert hosts == [HostState.EVACUATING]
    assert documents(seen(doc=doc)) == [replace(doc, stopped=(WEB,))]
    assert not [one for one in decided(seen(doc=doc), policy=STOPS).actions if isinstance(one, EndOperation)]
