"""Operators' wishes: granted or refused once, with a sentence, and never in the way of everything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.actions import (
    Action,
    AskPower,
    EndOperation,
    ForgetVm,
    OpenOperation,
    PutHost,
    PutHostDoc,
    PutVm,
    PutVmDoc,
    SettleWish,
)
from fangnetz.core.model import (
    UNKNOWN_BOOT,
    ClusterView,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostState,
    HypervisorHealth,
    Power,
    ProofKind,
    Sighting,
    VmState,
    VmWish,
    WishKind,
)
from fangnetz.core.operations import Operation, OperationKind, failover_steps, start_steps
from fangnetz.core.units import Epoch, HostId, Incarnation, Instant, OperationId
from tests.core.world import (
    T0,
    beat,
    binding,
    decided,
    guid_of,
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

BOUND = [binding(h) for h in ("h1", "h2", "h3")]


def dark(age: float = 60.0, record: HostRecord | None = None, **more: object) -> ClusterView:
    """h1 is silent and nothing of it answers."""
    probes = tuple(probe_round(T0 - n, {"h1": False, "h2": True, "h3": True}) for n in (1.1, 0.1))
    base = {"bindings": BOUND, "probes": probes, **more}
    records = [record or host_record("h1", HostState.NEEDS_PERSON), host_record("h2"), host_record("h3")]
    beats = [beat("h1", T0 - age), beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)]
    return view(T0, beats=beats, records=records, **base)  # type: ignore[arg-type]


def answer(seen: ClusterView, kind: WishKind, subject: str = "h1", **more: object) -> tuple[SettleWish, list[Action]]:
    actions = decided(replace(seen, wishes=(wish(kind, subject, **more),))).actions  # type: ignore[arg-type]
    (settled,) = [a for a in actions if isinstance(a, SettleWish)]
    assert settled.sentence
    about = actions[: actions.index(settled)]
    return settled, [a for a in about if not isinstance(a, AskPower)]


# --- confirm-off -------------------------------------------------------------------------------------------------


def test_a_person_may_confirm_a_dark_host_off_for_the_boot_last_heard() -> None:
    settled, actions = answer(dark(), WishKind.HOST_CONFIRM_OFF)
    assert settled.granted
    (operation,) = [a.operation for a in actions if isinstance(a, OpenOperation)]
    assert operation.proof is not None
    assert (operation.proof.kind, operation.proof.incarnation) == (ProofKind.OPERATOR, "i1")
    assert "ada" in operation.proof.sentence
    assert settled.operation == operation.id


SIGNS = {
    "it reports": dark(0.2),
    "its window is not over": dark(2.0),
    "it answered a probe": dark(probes=(probe_round(T0 - 1, {"h1": True}, by="c2"),)),
    "its device reads ON": dark(readings=[reading("h1", Power.ON, T0 - 0.5)]),
    "its device read ON before the next question was due": dark(readings=[reading("h1", Power.ON, T0 - 11)]),
    "it was heard after the wish": dark(60.0),
}


@pytest.mark.parametrize("sign", list(SIGNS))
def test_confirm_off_is_refused_on_any_sign_of_life(sign: str) -> None:
    at = T0 - 70 if sign == "it was heard after the wish" else T0
    settled, actions = answer(SIGNS[sign], WishKind.HOST_CONFIRM_OFF, at=at)
    assert not settled.granted
    assert actions == []


def test_an_error_of_its_device_is_no_sign_of_life() -> None:
    assert answer(dark(readings=[reading("h1", Power.UNKNOWN, T0 - 1)]), WishKind.HOST_CONFIRM_OFF)[0].granted


def test_what_another_hosts_device_reads_is_no_sign_of_life() -> None:
    """Two BMCs wired crosswise: at its address answers that of a host that runs."""
    crosswise = dark(readings=[reading("h1", Power.ON, T0 - 0.5, guid=guid_of("h2"))])
    assert answer(crosswise, WishKind.HOST_CONFIRM_OFF)[0].granted
    nobodys = dark(readings=[reading("h1", Power.ON, T0 - 0.5, guid="a new mainboard's")])
    assert not answer(nobodys, WishKind.HOST_CONFIRM_OFF)[0].granted, "it may be its own"
    twins = [beat("h2", T0 - 0.1, guids=(guid_of("h1"),)), beat("h3", T0 - 0.1), beat("h1", T0 - 20)]
    shared = dark(readings=[reading("h1", Power.ON, T0 - 0.5, guid=guid_of("h1"))])
    both = replace(shared, heartbeats={one.host: one for one in twins})
    unheard = replace(both, heartbeats={one.host: one for one in twins[:2]})
    for look in (both, unheard):
        assert not answer(look, WishKind.HOST_CONFIRM_OFF)[0].granted, "a GUID that two hosts carry is also its own"


def test_there_is_nothing_to_confirm_for_a_host_never_heard_or_proven_off_already() -> None:
    never = view(T0, records=())
    proven = dark(record=host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 5)))
    assert not answer(never, WishKind.HOST_CONFIRM_OFF)[0].granted
    assert not answer(proven, WishKind.HOST_CONFIRM_OFF)[0].granted


def test_a_failover_that_found_no_proof_gives_way_to_the_persons() -> None:
    stuck = Operation(
        id=OperationId("stuck"), kind=OperationKind.FAILOVER, subject="h1", epoch=Epoch(7), opened_at=Instant(T0),
        reason="", steps=failover_steps(), incarnation=Incarnation("i1"),
    )  # fmt: skip
    settled, actions = answer(dark(operations=[stuck]), WishKind.HOST_CONFIRM_OFF)
    assert settled.granted
    assert [a.id for a in actions if isinstance(a, EndOperation)] == ["stuck"]


# --- fence, activate, maintenance --------------------------------------------------------------------------------


def test_a_host_is_fenced_by_wish_in_any_state_even_alive_and_the_person_is_named() -> None:
    for state in HostState:
        settled, actions = answer(dark(0.2, record=host_record("h1", state)), WishKind.HOST_FENCE)
        assert settled.granted
        (operation,) = [a.operation for a in actions if isinstance(a, OpenOperation)]
        assert operation.forced_by == "ada"


POWER = pytest.mark.parametrize("kind", [WishKind.HOST_FENCE, WishKind.HOST_CONFIRM_OFF])


@POWER
@pytest.mark.parametrize("boot", ["", "i1"], ids=["none known", "the last one"])
def test_a_wish_about_power_is_granted_for_the_boot_it_means(kind: WishKind, boot: str) -> None:
    settled, actions = answer(dark(), kind, boot=boot)
    assert settled.granted, settled.sentence
    (operation,) = [a.operation for a in actions if isinstance(a, OpenOperation)]
    assert operation.incarnation == "i1"


@POWER
def test_a_wish_about_power_is_refused_once_the_host_has_booted_anew(kind: WishKind) -> None:
    """It was slow: the host came back meanwhile and fell silent again, and nobody meant that boot."""
    seen = dark()
    beats = {**seen.heartbeats, HostId("h1"): beat("h1", T0 - 60, boot="i2")}
    settled, actions = answer(replace(seen, heartbeats=beats), kind, boot="i1")
    assert (settled.granted, actions) == (False, [])
    assert "boot i1 of h1" in settled.sentence
    assert "i2" in settled.sentence


@POWER
def test_a_wish_about_power_is_refused_once_nobody_can_tell_the_last_boot(kind: WishKind) -> None:
    seen = dark(docs=[HostDoc(id=HostId("h1"), incarnation=UNKNOWN_BOOT)])
    beats = {host: said for host, said in seen.heartbeats.items() if host != "h1"}
    settled, actions = answer(replace(seen, heartbeats=beats), kind, boot="i1")
    assert (settled.granted, actions) == (False, [])
    assert "nobody can tell" in settled.sentence


def back(said: Heartbeat, record: HostRecord, **more: object) -> ClusterView:
    beats = [said, beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)]
    records = [record, host_record("h2"), host_record("h3")]
    return view(T0, beats=beats, records=records, bindings=BOUND, **more)  # type: ignore[arg-type]


def test_a_host_that_waits_is_activated_as_its_present_boot() -> None:
    record = host_record("h1", HostState.RETURNING, proof=off_proof("h1", T0 - 60))
    settled, actions = answer(back(beat("h1", T0 - 0.1, boot="i2"), record), WishKind.HOST_ACTIVATE)
    assert settled.granted
    (put,) = [a.record for a in actions if isinstance(a, PutHost)]
    assert (put.state, put.incarnation, put.proof) == (HostState.ONLINE, "i2", None)


@pytest.mark.parametrize(
    "seen",
    [
        dark(),
        back(beat("h1", T0 - 0.1), host_record("h1")),
        back(beat("h1", T0 - 0.1, hypervisor=HypervisorHealth.HUNG), host_record("h1", HostState.RETURNING)),
        back(beat("h1", T0 - 0.1, boot="i2", hypervisor=HypervisorHealth.DOWN), host_record("h1", HostState.RETURNING)),
        back(beat("h1", T0 - 0.1), host_record("h1", HostState.RETURNING, cut_possible_until=T0 + 5)),
    ],
    ids=["silent", "online already", "libvirt hung", "new boot, libvirt down", "a cut may come"],
)
def test_a_host_is_not_activated_while_something_speaks_against_it(seen: ClusterView) -> None:
    settled, actions = answer(seen, WishKind.HOST_ACTIVATE)
    assert not settled.granted
    assert actions == []


def test_activating_ends_maintenance() -> None:
    doc = HostDoc(id=HostId("h1"), maintenance=True)
    seen = back(beat("h1", T0 - 0.1), host_record("h1", HostState.MAINTENANCE), docs=[doc])
    settled, actions = answer(seen, WishKind.HOST_ACTIVATE)
    assert settled.granted
    assert [a.doc.maintenance for a in actions if isinstance(a, PutHostDoc)] == [False]


def test_maintenance_is_remembered_with_its_person() -> None:
    settled, actions = answer(back(beat("h1", T0 - 0.1), host_record("h1")), WishKind.HOST_MAINTENANCE)
    assert settled.granted
    (doc,) = [a.doc for a in actions if isinstance(a, PutHostDoc)]
    assert doc.maintenance
    assert "ada" in doc.reason


# --- VMs ---------------------------------------------------------------------------------------------------------


def with_vm(state: VmState = VmState.RUNNING, wanted: VmWish = VmWish.RUNNING, **more: object) -> ClusterView:
    vms = [(vm_doc("web", wish=wanted), vm_record("web", "h2", 5, state=state))]
    return back(beat("h1", T0 - 0.1), host_record("h1"), vms=vms, **more)


@pytest.mark.parametrize("state", [VmState.FAILED, VmState.NEEDS_PERSON, VmState.STOPPED])
def test_vm_start_tries_again_and_keeps_owner_and_number(state: VmState) -> None:
    settled, actions = answer(with_vm(state), WishKind.VM_START, "web")
    assert settled.granted
    (put,) = [a for a in actions if isinstance(a, PutVm)]
    assert (put.record.state, put.record.owner, put.record.generation) == (VmState.WAITING, "h2", 5)


def test_stop_and_start_are_wishes_written_to_the_definition() -> None:
    for kind, state, wanted, result in (
        (WishKind.VM_STOP, VmState.RUNNING, VmWish.RUNNING, VmWish.STOPPED),
        (WishKind.VM_START, VmState.STOPPED, VmWish.STOPPED, VmWish.RUNNING),
        (WishKind.VM_IGNORE, VmState.RUNNING, VmWish.RUNNING, VmWish.IGNORED),
        (WishKind.VM_START, VmState.UNMANAGED, VmWish.IGNORED, VmWish.RUNNING),
    ):
        _, actions = answer(with_vm(state, wanted), kind, "web")
        assert [a.doc.wish for a in actions if isinstance(a, PutVmDoc)] == [result]


def test_what_is_so_already_or_not_known_is_refused() -> None:
    assert not answer(with_vm(), WishKind.VM_START, "web")[0].granted
    assert not answer(with_vm(wanted=VmWish.STOPPED), WishKind.VM_STOP, "web")[0].granted
    assert not answer(with_vm(wanted=VmWish.IGNORED), WishKind.VM_IGNORE, "web")[0].granted
    for kind in WishKind:
        if kind is not WishKind.VM_ADD:
            assert not answer(with_vm(), kind, "nobody")[0].granted


def test_a_vm_no_host_could_ever_take_is_not_added() -> None:
    assert not answer(with_vm(), WishKind.VM_ADD, "big", doc=vm_doc("big", memory=4097))[0].granted
    assert answer(with_vm(), WishKind.VM_ADD, "big", doc=vm_doc("big", memory=4096))[0].granted
    assert not answer(with_vm(), WishKind.VM_ADD, "web", doc=vm_doc("web", memory=1024))[0].granted
    assert not answer(with_vm(), WishKind.VM_ADD, "none")[0].granted


def test_remove_forgets_but_not_while_something_works_on_it_nor_what_the_file_declares() -> None:
    settled, actions = answer(with_vm(), WishKind.VM_REMOVE, "web")
    assert settled.granted
    assert any(isinstance(a, ForgetVm) for a in actions)
    busy = Operation(
        id=OperationId("op"), kind=OperationKind.START, subject="web", epoch=Epoch(7), opened_at=Instant(T0),
        reason="", steps=start_steps(),
    )  # fmt: skip
    assert not answer(with_vm(operations=[busy]), WishKind.VM_REMOVE, "web")[0].granted
    seen = with_vm()
    declared = {vm: replace(doc, source="file") for vm, doc in seen.vms.items()}
    assert not answer(replace(seen, vms=declared), WishKind.VM_REMOVE, "web")[0].granted


# --- beside everything else --------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["nobody", "h2"], ids=["refused", "granted"])
def test_a_stream_of_wishes_keeps_no_lost_host_from_being_recovered(subject: str) -> None:
    seen = dark(record=host_record("h1"))
    seen = replace(seen, wishes=(wish(WishKind.HOST_MAINTENANCE, subject),) * 3)
    actions = decided(seen).actions
    assert [a.operation.subject for a in actions if isinstance(a, OpenOperation)] == ["h1"]
    assert any(isinstance(a, AskPower) and a.host == "h1" for a in actions)
    assert len([a for a in actions if isinstance(a, SettleWish)]) == 1


def test_a_refused_wish_about_a_lost_host_does_not_even_delay_its_recovery() -> None:
    seen = replace(dark(record=host_record("h1")), wishes=(wish(WishKind.HOST_ACTIVATE, "h1"),))
    assert [a.operation.subject for a in decided(seen).actions if isinstance(a, OpenOperation)] == ["h1"]


def test_a_granted_wish_and_the_tick_do_not_write_the_same_record() -> None:
    seen = replace(dark(record=host_record("h1")), wishes=(wish(WishKind.HOST_CONFIRM_OFF, "h1"),))
    actions = decided(seen).actions
    assert len([a for a in actions if isinstance(a, OpenOperation)]) == 1
    assert len([a for a in actions if isinstance(a, PutHost) and a.record.id == "h1"]) == 1


@pytest.mark.parametrize("kind", [WishKind.HOST_FENCE, WishKind.HOST_CONFIRM_OFF])
def test_a_wish_about_power_that_nobody_answered_for_a_minute_is_not_carried_out_later(kind: WishKind) -> None:
    old = replace(wish(kind, "h1"), at=Instant(T0 - 61))
    settled = [a for a in decided(dark(wishes=(old,))).actions if isinstance(a, SettleWish)]
    assert [s.granted for s in settled] == [False]
    assert "old" in settled[0].sentence


def test_a_vm_whose_owner_is_silent_is_not_forgotten_it_may_run_there() -> None:
    vms = [(vm_doc("web"), vm_record("web", "h1", 5, state=VmState.LOST))]
    settled, actions = answer(dark(vms=vms), WishKind.VM_REMOVE, "web")
    assert not settled.granted
    assert actions == []
    proven = host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 30))
    assert answer(dark(vms=vms, record=proven), WishKind.VM_REMOVE, "web")[0].granted


@pytest.mark.parametrize("owner", ["h1", "h2", None])
@pytest.mark.parametrize("mark", [True, False], ids=["held", "paused by a person"])
def test_a_start_over_a_copy_that_was_the_later_of_two_is_refused_and_says_what_to_do(
    owner: str | None, mark: bool
) -> None:
    copy = replace(sighting("web", 5, Sighting.PAUSED), held=mark)
    record = replace(vm_record("web", owner, 5, state=VmState.NEEDS_PERSON), reason="end it: `fangnetz vm stop web`")
    beats = [beat("h1", T0 - 0.1), beat("h2", T0 - 0.1, seen=(copy,)), beat("h3", T0 - 0.1)]
    seen = view(T0, beats=beats, vms=[(vm_doc("web"), record)], wishes=(wish(WishKind.VM_START, "web"),))
    (settled,) = [a for a in decided(seen).actions if isinstance(a, SettleWish)]
    assert not settled.granted
    assert "fangnetz vm stop web" in settled.sentence
    off = [host_record("h1"), host_record("h2", HostState.FENCED, proof=off_proof("h2", T0 - 0.05)), host_record("h3")]
    gone = replace(seen, host_records={r.id: r for r in off})
    assert [a.granted for a in decided(gone).actions if isinstance(a, SettleWish)] == [True]


@pytest.mark.parametrize("state", [VmState.WAITING, VmState.STOPPED, VmState.FAILED, VmState.LOST])
def test_a_start_over_a_held_copy_is_refused_whatever_the_record_says(state: VmState) -> None:
    copy = replace(sighting("web", 5, Sighting.PAUSED), held=True)
    beats = [beat("h1", T0 - 0.1), beat("h2", T0 - 0.1, seen=(copy,)), beat("h3", T0 - 0.1)]
    vms = [(vm_doc("web", wish=VmWish.STOPPED), vm_record("web", None, 0, state=state))]
    seen = view(T0, beats=beats, vms=vms, wishes=(wish(WishKind.VM_START, "web"),))
    assert [a.granted for a in decided(seen).actions if isinstance(a, SettleWish)] == [False]
