"""The pause of the whole cluster: nothing is ordered, alarms go on, and what has begun is brought to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.actions import Decision, OpenOperation, PutHost, PutPause, PutVm, SettleWish
from fangnetz.core.decide.openings import order_to
from fangnetz.core.model import (
    ClusterView,
    Destination,
    HostDoc,
    HostState,
    PauseDoc,
    Power,
    Sighting,
    VmState,
    VmWish,
    WishKind,
)
from fangnetz.core.operations import OperationKind, StepKind, StepState, start_steps, vm_start_steps
from fangnetz.core.pause import CLUSTER, may_be_claimed, to_be_withdrawn
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, VmId
from tests.core.moving_world import World
from tests.core.world import (
    T0,
    beat,
    binding,
    decided,
    host_record,
    off_proof,
    probe_round,
    reading,
    sighting,
    view,
    vm_doc,
    vm_record,
    wish,
)

LASTS = PauseDoc(on=True, by="ada", reason="new switch", since=Instant(T0 - 50))
SILENT_FOR = 60.0


def lost_host(**more: object) -> ClusterView:
    beats = [beat("h1", T0 - SILENT_FOR, runs={"web": 1}), beat("h2", T0 - 0.2), beat("h3", T0 - 0.2)]
    answers = {"h1": False, "h2": True, "h3": True}
    probes = (probe_round(T0 - 1.2, answers), probe_round(T0 - 0.2, answers))
    return view(T0, beats=beats, probes=probes, vms=[(vm_doc("web"), vm_record("web", "h1"))], **more)


def read_off() -> ClusterView:
    return lost_host(readings=[reading("h1", Power.OFF, T0 - 1)], bindings=[binding("h1")])


def well(**more: object) -> ClusterView:
    beats = [beat("h1", T0 - 0.2, runs={"web": 1}), beat("h2", T0 - 0.2), beat("h3", T0 - 0.2)]
    vms = more.pop("vms", [(vm_doc("web"), vm_record("web", "h1"))])
    return view(T0, beats=more.pop("beats", beats), vms=vms, **more)


def rebooted() -> ClusterView:
    return well(beats=[beat("h1", T0 - 0.2, boot="i2"), beat("h2", T0 - 0.2), beat("h3", T0 - 0.2)])


def rebooted_and_settled() -> ClusterView:
    seen = rebooted()
    settled = replace(seen.heartbeats[HostId("h1")], boot_since=Instant(T0 - 30))
    return replace(seen, heartbeats={**seen.heartbeats, HostId("h1"): settled})


def cut_by_us() -> ClusterView:
    beats = [beat("h1", T0 - 90), beat("h2", T0 - 0.2), beat("h3", T0 - 0.2)]
    fenced = host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 80), cut_by="op-cut", since=T0 - 80)
    return well(beats=beats, vms=[], records=[fenced, host_record("h2"), host_record("h3")])


def evacuating() -> ClusterView:
    docs = [HostDoc(id=HostId("h1"), evacuate=True, reason="ada asked to empty it", incarnation=Incarnation("i1"))]
    records = [host_record("h1", HostState.EVACUATING), host_record("h2"), host_record("h3")]
    return well(docs=docs, records=records)


def runs_twice() -> ClusterView:
    beats = [beat("h1", T0 - 0.2, runs={"web": 1}), beat("h2", T0 - 0.2, runs={"web": 1}), beat("h3", T0 - 0.2)]
    later = [replace(seen, start_sent_at=Instant(T0 - 30)) for seen in beats[1].inventory]
    beats[1] = replace(beats[1], inventory=tuple(later))
    return well(beats=beats)


def left_over_of_a_move() -> ClusterView:
    beats = [
        beat("h1", T0 - 0.2, runs={"web": 1}),
        beat("h2", T0 - 0.2, seen=(sighting("web", 9, Sighting.INCOMING),)),
        beat("h3", T0 - 0.2),
    ]
    there = Destination(host=HostId("h2"), incarnation=Incarnation("i1"), generation=Generation(9))
    return well(beats=beats, vms=[(vm_doc("web"), replace(vm_record("web", "h1"), moving=there))])


def never_started() -> ClusterView:
    return well(vms=[(vm_doc("new"), vm_record("new", None, 0, state=VmState.WAITING))])


WOULD_ORDER: dict[str, Callable[[], ClusterView]] = {
    "a lost host": lost_host,
    "a host that was read off": read_off,
    "a host that booted anew": rebooted_and_settled,
    "a host that we cut": cut_by_us,
    "a host that is emptied": evacuating,
    "a VM that was never started": lambda: well(
        vms=[(vm_doc("new"), vm_record("new", None, 0, state=VmState.WAITING))]
    ),
    "a VM that ended": lambda: well(vms=[(vm_doc("web2"), vm_record("web2", "h1"))]),
    "a VM that is to stop": lambda: well(vms=[(vm_doc("web", wish=VmWish.STOPPED), vm_record("web", "h1"))]),
    "what is left of a move": left_over_of_a_move,
}


def opened(decision: Decision) -> list[OperationKind]:
    return [action.operation.kind for action in decision.actions if isinstance(action, OpenOperation)]


@pytest.mark.parametrize("world", WOULD_ORDER.values(), ids=WOULD_ORDER.keys())
def test_what_is_ordered_otherwise_is_not_ordered_in_a_pause(world: Callable[[], ClusterView]) -> None:
    seen = world()
    assert opened(decided(seen)), "this example orders nothing anyhow"
    decision = decided(replace(seen, pause=LASTS))
    assert opened(decision) == []
    assert [alarm.subject for alarm in decision.alarms if alarm.kind == "paused"] == [CLUSTER]
    fencing = [a for a in decision.actions if isinstance(a, PutHost) and a.record.state is HostState.FENCING]
    tried = [a for a in decision.actions if isinstance(a, PutVm) and a.record.tried_at]
    assert (fencing, tried) == ([], []), "nothing is written down as if it were under way"
    over = replace(LASTS, until=Instant(T0 - 1))
    assert opened(decided(replace(seen, pause=over)))
    assert opened(decided(replace(seen, pause=replace(LASTS, on=False))))


@given(
    chosen=st.lists(st.sampled_from(sorted(WOULD_ORDER)), min_size=1, max_size=3),
    kind=st.sampled_from(list(WishKind)),
    subject=st.sampled_from(["h1", "h2", "web", "new", CLUSTER]),
    until=st.none() | st.floats(T0 + 0.1, T0 + 1e6),
)
def test_whatever_is_so_and_whatever_is_wished_nothing_is_opened_in_a_pause(
    chosen: list[str], kind: WishKind, subject: str, until: float | None
) -> None:
    seen = WOULD_ORDER[chosen[0]]()
    for name in chosen[1:]:
        more = WOULD_ORDER[name]()
        seen = replace(
            seen,
            vms={**more.vms, **seen.vms},
            vm_records={**more.vm_records, **seen.vm_records},
            heartbeats={**seen.heartbeats, **more.heartbeats},
            host_records={**seen.host_records, **more.host_records},
            host_docs={**seen.host_docs, **more.host_docs},
        )
    pause = replace(LASTS, until=None if until is None else Instant(until))
    asked = replace(wish(kind, subject), doc=vm_doc(subject) if kind is WishKind.VM_ADD else None)
    decision = decided(replace(seen, pause=pause, wishes=(asked,)))
    assert set(opened(decision)) <= {OperationKind.PAUSE}, "worlds joined by chance may hold a VM twice"
    assert any(alarm.kind == "paused" for alarm in decision.alarms)


def test_a_guest_that_has_arrived_and_stands_still_is_let_run_in_a_pause() -> None:
    seen = well(
        beats=[
            beat("h1", T0 - 0.2, seen=(sighting("web", 1, Sighting.INCOMING),)), beat("h2", T0 - 0.2),
            beat("h3", T0 - 0.2),
        ],
        pause=LASTS,
    )  # fmt: skip
    assert opened(decided(seen)) == [OperationKind.RESUME]


def test_the_later_of_two_running_copies_is_held_in_a_pause() -> None:
    assert opened(decided(replace(runs_twice(), pause=LASTS))) == [OperationKind.PAUSE]


def test_a_lost_host_is_named_with_the_pause_as_its_brake() -> None:
    alarms = {alarm.kind: alarm.sentence for alarm in decided(replace(lost_host(), pause=LASTS)).alarms}
    assert "h1 is not fenced" in alarms["braked_paused"]
    assert "ada" in alarms["braked_paused"]
    assert "new switch" in alarms["paused"]


# --- wishes ------------------------------------------------------------------------------------------------------


def answer(seen: ClusterView, kind: WishKind, subject: str = CLUSTER, **more: object) -> tuple[SettleWish, Decision]:
    asked = replace(wish(kind, subject), **more)
    decision = decided(replace(seen, wishes=(asked,)))
    return next(a for a in decision.actions if isinstance(a, SettleWish)), decision


def written(decision: Decision) -> list[PauseDoc]:
    return [action.doc for action in decision.actions if isinstance(action, PutPause)]


def test_a_pause_holds_for_all_that_its_own_tick_decides() -> None:
    settled, decision = answer(lost_host(), WishKind.CLUSTER_PAUSE, reason="new switch")
    assert settled.granted
    assert [(doc.on, doc.by, doc.reason, doc.since, doc.until) for doc in written(decision)] == [
        (True, "ada", "new switch", T0, None)
    ]
    assert opened(decision) == []


def test_what_ends_a_pause_orders_nothing_in_its_own_tick() -> None:
    settled, decision = answer(replace(lost_host(), pause=LASTS), WishKind.CLUSTER_RESUME)
    assert settled.granted
    assert [doc.on for doc in written(decision)] == [False]
    assert opened(decision) == []


def test_there_must_be_a_pause_to_end() -> None:
    settled, decision = answer(well(), WishKind.CLUSTER_RESUME)
    assert (settled.granted, settled.sentence, written(decision)) == (False, "the cluster is not paused", [])


def test_a_pause_that_would_be_over_is_refused() -> None:
    settled, decision = answer(well(), WishKind.CLUSTER_PAUSE, until=Instant(T0))
    assert not settled.granted
    assert "is over already" in settled.sentence
    assert written(decision) == []


def test_a_later_word_changes_the_end_and_not_the_beginning() -> None:
    settled, decision = answer(well(pause=LASTS), WishKind.CLUSTER_PAUSE, until=Instant(T0 + 60))
    assert settled.granted
    assert [(doc.since, doc.until) for doc in written(decision)] == [(LASTS.since, T0 + 60)]


def test_a_pause_that_ended_by_itself_is_said_once() -> None:
    over = replace(LASTS, until=Instant(T0 - 1))
    decision = decided(well(pause=over))
    assert [doc.on for doc in written(decision)] == [False]
    assert written(decided(well(pause=replace(over, on=False)))) == []
    assert all(alarm.kind != "paused" for alarm in decision.alarms)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [(WishKind.HOST_FENCE, "h1"), (WishKind.VM_MIGRATE, "web")],
)
def test_a_wish_that_would_order_something_at_once_is_refused(kind: WishKind, subject: str) -> None:
    assert answer(well(), kind, subject)[0].granted
    settled, decision = answer(well(pause=LASTS), kind, subject)
    assert not settled.granted
    assert "fangnetz resume" in settled.sentence
    assert [a for a in decision.actions if isinstance(a, PutHost)] == []


@pytest.mark.parametrize(
    ("kind", "subject"),
    [(WishKind.VM_STOP, "web"), (WishKind.HOST_EVACUATE, "h1"), (WishKind.HOST_MAINTENANCE, "h1")],
)
def test_a_wish_that_is_only_written_down_is_kept(kind: WishKind, subject: str) -> None:
    settled, decision = answer(well(pause=LASTS), kind, subject)
    assert settled.granted
    assert "only afterwards" in settled.sentence
    assert opened(decision) == []


# --- orders that had not begun -----------------------------------------------------------------------------------


def test_an_order_nobody_began_is_withdrawn_and_one_that_was_is_not() -> None:
    order = order_to(well(), VmId("web"), HostId("h1"), Generation(1), 60)
    assert order is not None
    fresh = next(step for step in vm_start_steps(order, attempt=1, after="plan") if step.kind is StepKind.START)
    paused = well(pause=LASTS)
    assert "had not begun" in to_be_withdrawn(fresh, paused)
    assert to_be_withdrawn(fresh, well()) == ""
    begun = replace(fresh, attempt=1)
    assert to_be_withdrawn(begun, paused) == ""
    assert may_be_claimed(begun)
    assert to_be_withdrawn(replace(fresh, state=StepState.DONE), paused) == ""
    plan = next(step for step in start_steps() if step.kind is StepKind.PLAN)
    assert (to_be_withdrawn(plan, paused), may_be_claimed(plan)) == ("", False)


# --- over time ---------------------------------------------------------------------------------------------------


def test_a_host_that_dies_in_a_pause_is_recovered_after_it_and_no_vm_runs_twice() -> None:
    world = World(3, vms={"web": "h1"})
    world.run(100)
    world.view = replace(world.view, pause=PauseDoc(on=True, by="ada", since=Instant(world.now)))
    world.machines[HostId("h1")].powered = False
    world.run(200)
    assert world.opened == []
    world.view = replace(world.view, pause=replace(world.view.pause, on=False))
    world.run(60)
    assert OperationKind.FAILOVER in [operation.kind for operation in world.opened]
