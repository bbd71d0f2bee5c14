"""The cluster file against what runs: renamed, dropped, changed and differing definitions, and disks with two names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core import invariants
from fangnetz.core.actions import Decision, Define, ForgetVm, OpenOperation, PutVm, SettleWish
from fangnetz.core.identity import marks, rivals, shared
from fangnetz.core.model import (
    DROPPED,
    FROM_CLI,
    FROM_FILE,
    REMOVED,
    ClusterView,
    Heartbeat,
    VmDoc,
    VmRecord,
    VmState,
    VmWish,
    WishKind,
)
from fangnetz.core.operations import OperationKind
from fangnetz.core.units import HostId, StoreIncarnation, VmId
from tests.core.moving_world import World
from tests.core.world import T0, beat, binding, decided, view, vm_doc, vm_record, wish

BOUND = [binding(h) for h in ("h1", "h2", "h3")]
H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
WEB, WEB2 = VmId("web"), VmId("web2")
DISK = ("iscsi iqn.2026-11.net.example:web/1",)
STOPPED = vm_doc("web", disks=DISK, wish=VmWish.STOPPED)


def file_doc(name: str, *, disks: tuple[str, ...] = DISK, **more: object) -> VmDoc:
    return vm_doc(name, disks=disks, source=FROM_FILE, declared=VmWish.RUNNING, **more)  # type: ignore[arg-type]


def seen(*vms: tuple[VmDoc, VmRecord | None], beats: Iterable[Heartbeat] = (), **more: object) -> ClusterView:
    said = {b.host: b for b in (*(beat(h, T0 - 0.1) for h in ("h1", "h2", "h3")), *beats)}
    return view(T0, vms=vms, beats=said.values(), bindings=BOUND, **more)  # type: ignore[arg-type]


def defined(decision: Decision) -> dict[str, VmDoc]:
    return {doc.spec.id: doc for a in decision.actions if isinstance(a, Define) for doc in a.docs}


def forgotten(decision: Decision) -> list[str]:
    return [a.vm for a in decision.actions if isinstance(a, ForgetVm)]


def opened(decision: Decision) -> list[tuple[OperationKind, str]]:
    return [(a.operation.kind, a.operation.subject) for a in decision.actions if isinstance(a, OpenOperation)]


def states(decision: Decision) -> dict[str, VmState]:
    return {a.record.id: a.record.state for a in decision.actions if isinstance(a, PutVm)}


def alarmed(decision: Decision, kind: str) -> dict[str, str]:
    return {a.subject: a.sentence for a in decision.alarms if a.kind == kind}


# --- what makes two definitions one VM ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ({"disks": DISK}, {"disks": DISK}, True),
        ({"disks": ("a", "b")}, {"disks": ("c", "b")}, True),
        ({"uuid": "ab" * 16}, {"uuid": "ab" * 16}, True),
        ({"disks": ("a",)}, {"disks": ("b",)}, False),
        ({"uuid": "ab" * 16, "disks": ("a",)}, {"uuid": "cd" * 16, "disks": ("b",)}, False),
        ({}, {}, False),
    ],
)
def test_a_shared_disk_or_uuid_makes_rivals(one: dict[str, object], two: dict[str, object], same: bool) -> None:
    docs = {WEB: vm_doc("web", **one), WEB2: vm_doc("web2", **two)}  # type: ignore[arg-type]
    assert bool(shared(docs[WEB].spec, docs.values())) is same
    assert set(rivals(docs)) == (set(docs) if same else set())


NAMES = st.sampled_from(["a", "b", "c"])
SPECS = st.builds(
    lambda disks, uuid: (tuple(sorted(disks)), uuid), st.sets(NAMES, max_size=2), st.sampled_from(["", "x", "y"])
)


@given(st.lists(SPECS, max_size=5))
def test_rivals_are_mutual_and_exactly_those_that_share_a_mark(drawn: list[tuple[tuple[str, ...], str]]) -> None:
    docs = {VmId(f"vm{n}"): vm_doc(f"vm{n}", disks=disks, uuid=uuid) for n, (disks, uuid) in enumerate(drawn)}
    found = rivals(docs)
    for one, here in docs.items():
        for two, there in docs.items():
            both = one != two and bool(set(marks(here.spec)) & set(marks(there.spec)))
            assert (two in found.get(one, {})) is both
            assert (one in found.get(two, {})) is both


# --- renamed in the file -----------------------------------------------------------------------------------------


def test_a_renamed_vm_does_not_become_a_second_one() -> None:
    decision = decided(
        seen((file_doc("web"), vm_record("web", "h1", 5)), beats=[beat("h1", T0 - 0.1, runs={"web": 5})]),
        declared=[file_doc("web2")],
    )
    assert set(defined(decision)) == {"web"}
    assert defined(decision)["web"].source == DROPPED
    said = alarmed(decision, "same_disk")["web2"]
    assert "web2" in said
    assert DISK[0] in said
    assert opened(decision) == []


def test_a_renamed_vm_takes_the_place_of_the_former_only_once_that_one_is_stopped_for_good() -> None:
    world = World(3, vms={})
    world.each_tick = one_writer_of_the_disk
    world.declare(file_doc("web"))
    world.until(lambda: running(world, WEB), within=120)
    world.declare(file_doc("web2"))
    world.run(20)
    assert running(world, WEB)
    assert WEB2 not in world.view.vms
    assert world.view.vm_records[WEB].state is VmState.UNMANAGED
    assert {"vm_dropped", "same_disk"} <= {a.kind for a in world.alarms}
    world.wish(WishKind.VM_STOP, "web")
    world.until(lambda: running(world, WEB2), within=20)
    assert WEB not in world.view.vms
    assert not {"vm_dropped", "same_disk"} & {a.kind for a in world.alarms}


def running(world: World, vm: VmId) -> list[str]:
    return [machine.name for machine in world.machines.values() if vm in machine.runs]


def one_writer_of_the_disk(world: World, _decision: Decision) -> None:
    invariants.must_hold(invariants.one_writer(world.truth))
    writers = [copy.vm for copy in world.truth.copies if copy.vm in (WEB, WEB2)]
    assert len(writers) <= 1, f"one disk, two writers: {writers}"


def test_of_two_declared_vms_with_one_disk_only_the_first_is_taken_up() -> None:
    decision = decided(seen(), declared=[file_doc("web2"), file_doc("web")])
    assert set(defined(decision)) == {"web"}
    assert set(alarmed(decision, "same_disk")) == {"web2"}


def test_a_known_vm_does_not_get_the_disk_of_another_by_an_edit_of_the_file() -> None:
    vms = [(file_doc("web"), vm_record("web", None)), (file_doc("web2", disks=("other",)), vm_record("web2", None))]
    decision = decided(seen(*vms), declared=[file_doc("web"), file_doc("web2")])
    assert "web2" not in defined(decision)
    assert set(alarmed(decision, "same_disk")) == {"web2"}


# --- two names of one disk that are known all the same -----------------------------------------------------------


def rivalry(one: VmRecord, two: VmRecord, *beats: Heartbeat) -> ClusterView:
    return seen((vm_doc("web", disks=DISK), one), (vm_doc("web2", disks=DISK), two), beats=beats)


def test_of_two_vms_with_one_disk_only_one_is_ever_started() -> None:
    assert len(opened(decided(rivalry(vm_record("web", None), vm_record("web2", None))))) == 1
    owned = vm_record("web", "h1", 5)
    decision = decided(rivalry(owned, vm_record("web2", None), beat("h1", T0 - 0.1, runs={"web": 5})))
    assert opened(decision) == []
    assert states(decision)["web2"] is VmState.WAITING
    assert "web, web2" in alarmed(decision, "same_disk")


@pytest.mark.parametrize(
    ("record", "said", "free"),
    [
        (vm_record("web", "h1", 5, state=VmState.STOPPED), beat("h1", T0 - 0.1, releases={"web": 5}), True),
        (vm_record("web", "h1", 5, state=VmState.STOPPED), beat("h1", T0 - 0.1), False),
        (vm_record("web", "h1", 5, state=VmState.STOPPED), beat("h1", T0 - 0.1, releases={"web": 4}), False),
        (vm_record("web", None), beat("h1", T0 - 0.1, orders=("op/start/web/1",)), False),
        (vm_record("web", None), beat("h1", T0 - 0.1), True),
    ],
    ids=["released", "not released", "released at another number", "being started", "never started"],
)
def test_a_disk_is_free_for_its_other_name_only_on_proof(record: VmRecord, said: Heartbeat, free: bool) -> None:
    docs = (
        (vm_doc("web", disks=DISK, wish=VmWish.STOPPED), record),
        (vm_doc("web2", disks=DISK), vm_record("web2", None)),
    )
    starts = [subject for kind, subject in opened(decided(seen(*docs, beats=[said]))) if kind is OperationKind.START]
    assert starts == (["web2"] if free else [])


def test_a_stopped_vm_whose_disk_another_wants_is_asked_to_promise_it() -> None:
    record = vm_record("web", "h1", 5, state=VmState.STOPPED)
    docs = (
        (vm_doc("web", disks=DISK, wish=VmWish.STOPPED), record),
        (vm_doc("web2", disks=DISK), vm_record("web2", None)),
    )
    assert opened(decided(seen(*docs))) == [(OperationKind.STOP, "web")]
    assert opened(decided(seen(docs[0]))) == []


def test_both_running_is_the_highest_alarm() -> None:
    decision = decided(
        rivalry(
            vm_record("web", "h1", 5),
            vm_record("web2", "h2", 6),
            beat("h1", T0 - 0.1, runs={"web": 5}),
            beat("h2", T0 - 0.1, runs={"web2": 6}),
        )
    )
    assert [a.highest for a in decision.alarms if a.kind == "same_disk"] == [True]


# --- dropped from the file ---------------------------------------------------------------------------------------


def test_a_running_vm_that_is_dropped_from_the_file_is_left_alone_named_and_not_recovered() -> None:
    world = World(3, vms={})
    world.declare(file_doc("web"))
    world.until(lambda: running(world, WEB), within=120)
    world.run(60)
    (host,) = running(world, WEB)
    world.declare()
    world.run(20)
    assert running(world, WEB) == [host]
    assert world.view.vm_records[WEB].state is VmState.UNMANAGED
    assert "vm_dropped" in {a.kind for a in world.alarms}
    world.power_off(host)
    world.run(60)
    assert running(world, WEB) == []
    assert WEB not in world.view.vms, "its host is proven off: nothing of it runs, so it is forgotten"
    world.declare(file_doc("web"))
    world.until(lambda: running(world, WEB), within=20)


def test_a_vm_that_is_put_back_into_the_file_is_managed_again_with_its_wish() -> None:
    doc = vm_doc("web", disks=DISK, source=DROPPED, wish=VmWish.STOPPED, declared=VmWish.RUNNING)
    decision = decided(seen((doc, vm_record("web", "h1", 5))), declared=[file_doc("web")])
    assert (defined(decision)["web"].source, defined(decision)["web"].wish) == (FROM_FILE, VmWish.STOPPED)


def test_nothing_is_forgotten_while_a_host_is_unheard() -> None:
    doc = vm_doc("web", source=DROPPED)
    beats = [beat(h, T0 - 0.1) for h in ("h2", "h3")]
    held = view(T0, vms=[(doc, vm_record("web", None))], beats=beats, bindings=BOUND)
    assert forgotten(decided(held, declared=[])) == []
    assert forgotten(decided(seen((doc, vm_record("web", None))), declared=[])) == ["web"]


def test_a_vm_is_not_started_in_the_very_tick_that_drops_it() -> None:
    waiting = seen((file_doc("web"), vm_record("web", None)))
    assert opened(decided(waiting, declared=[file_doc("web")])) == [(OperationKind.START, "web")]
    assert opened(decided(waiting, declared=[])) == []


def test_a_vm_added_by_an_operator_is_never_dropped_with_the_file() -> None:
    decision = decided(seen((vm_doc("web"), vm_record("web", None))), declared=[])
    assert defined(decision) == {}
    assert forgotten(decision) == []


def test_an_operators_definition_is_not_replaced_by_the_file_but_the_difference_is_said() -> None:
    decision = decided(seen((vm_doc("web"), vm_record("web", None))), declared=[file_doc("web")])
    assert defined(decision) == {}
    assert set(alarmed(decision, "declared_twice")) == {"web"}


def test_what_may_only_be_unreadable_is_not_declared_anew() -> None:
    """Its wish may be `stopped`, and would come back as `running`."""
    assert defined(decided(seen(unreadable=("fn:x:vm:web: damaged",)), declared=[file_doc("web")])) == {}
    lost_doc = seen()
    lost_doc = replace(lost_doc, vm_records={WEB: vm_record("web", "h1", 5)})
    assert defined(decided(lost_doc, declared=[file_doc("web")])) == {}


# --- wishes of the file and of operators -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "operators", "becomes"),
    [
        (VmWish.RUNNING, VmWish.STOPPED, VmWish.RUNNING, VmWish.STOPPED),
        (VmWish.RUNNING, VmWish.RUNNING, VmWish.STOPPED, VmWish.STOPPED),
        (VmWish.STOPPED, VmWish.RUNNING, VmWish.STOPPED, VmWish.RUNNING),
        (None, VmWish.RUNNING, VmWish.STOPPED, VmWish.STOPPED),
    ],
    ids=["the file changed", "an operator changed it", "the file changed back", "never compared"],
)
def test_the_last_word_counts_be_it_the_files_or_an_operators(
    before: VmWish | None, now: VmWish, operators: VmWish, becomes: VmWish
) -> None:
    old = vm_doc("web", source=FROM_FILE, wish=operators, declared=before)
    decision = decided(seen((old, vm_record("web", "h1", 5))), declared=[vm_doc("web", source=FROM_FILE, wish=now)])
    doc = defined(decision).get("web", old)
    assert (doc.wish, doc.declared) == (becomes, now)


def test_an_unchanged_file_writes_nothing() -> None:
    old = file_doc("web", wish=VmWish.STOPPED)
    assert defined(decided(seen((old, vm_record("web", None))), declared=[file_doc("web")])) == {}


# --- two controllers, two files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "looked", "differ"),
    [
        ({"c1": "a", "c2": "b"}, {"c1": T0, "c2": T0 - 1}, True),
        ({"c1": "a", "c2": "a"}, {"c1": T0, "c2": T0 - 1}, False),
        ({"c1": "a", "c2": "b"}, {"c1": T0, "c2": T0 - 61}, False),
        ({"c1": "a", "c2": "b"}, {"c1": T0}, False),
        ({"c1": "a", "c2": ""}, {"c1": T0, "c2": T0 - 1}, False),
        ({"c1": "a"}, {"c1": T0}, False),
    ],
    ids=["another file", "the same", "long gone", "never looked", "it has left", "alone"],
)
def test_while_living_controllers_read_different_files_nothing_is_taken_from_them(
    files: dict[str, str], looked: dict[str, float], differ: bool
) -> None:
    known = (file_doc("old"), vm_record("old", "h1", 5))
    decision = decided(seen(known, files=files, looked=looked), declared=[file_doc("new", disks=("new",))])
    assert (defined(decision) == {}) is differ
    assert [a.subject for a in decision.alarms if a.kind == "files_differ"] == (["c1, c2"] if differ else [])


# --- add and remove ----------------------------------------------------------------------------------------------


def settled(decision: Decision) -> SettleWish:
    (one,) = [a for a in decision.actions if isinstance(a, SettleWish)]
    return one


def test_a_vm_with_the_disk_of_another_is_not_added_whoever_forces_it() -> None:
    asked = replace(wish(WishKind.VM_ADD, "web2", doc=vm_doc("web2", disks=DISK)), force=True)
    answer = settled(decided(seen((file_doc("web"), vm_record("web", None)), wishes=(asked,))))
    assert not answer.granted
    assert "web" in answer.sentence


def test_a_removed_vm_that_runs_keeps_its_disk_from_others_until_it_is_gone() -> None:
    world = World(3, vms={"web": "h1"})
    world.view = replace(world.view, vms={WEB: vm_doc("web", disks=DISK)})
    world.each_tick = one_writer_of_the_disk
    world.declare()
    world.run(100)
    world.wish(WishKind.VM_REMOVE, "web")
    world.run(5)
    assert world.settled[-1].granted
    assert running(world, WEB) == ["h1"], "it is not stopped"
    assert world.view.vms[WEB].source == REMOVED
    asked = wish(WishKind.VM_ADD, "web2", at=world.now, doc=vm_doc("web2", disks=DISK))
    world.view = replace(world.view, wishes=(asked,))
    world.run(2)
    assert not world.settled[-1].granted
    del world.machines[H1].runs[WEB]  # somebody ends it by hand
    world.until(lambda: WEB not in world.view.vms, within=5)
    world.view = replace(world.view, wishes=(asked,))
    world.until(lambda: running(world, WEB2), within=10)


def test_a_removed_vm_may_be_added_again_while_its_copy_runs() -> None:
    doc = vm_doc("web", disks=DISK, source=REMOVED, wish=VmWish.IGNORED)
    again = vm_doc("web", disks=DISK)
    at = seen((doc, vm_record("web", "h1", 5)), wishes=(wish(WishKind.VM_ADD, "web", doc=again),))
    assert settled(decided(at)).granted
    assert again.source == FROM_CLI


def test_a_dropped_vm_may_be_removed_and_stopped_but_not_started() -> None:
    doc, record = vm_doc("web", source=DROPPED), vm_record("web", "h1", 5)
    beats = [beat("h1", T0 - 0.1, runs={"web": 5})]
    for kind, granted in ((WishKind.VM_REMOVE, True), (WishKind.VM_STOP, True), (WishKind.VM_START, False)):
        assert settled(decided(seen((doc, record), beats=beats, wishes=(wish(kind, "web"),)))).granted is granted


def test_after_a_wipe_a_dropped_vm_is_adopted_as_what_it_is() -> None:
    doc = vm_doc("web", source=DROPPED)
    at = seen((doc, None), beats=[beat("h1", T0 - 0.1, runs={"web": 5})], life=StoreIncarnation("life-2"))
    decision = decided(at, declared=[])
    assert forgotten(decision) == []
    assert opened(decision) == []
