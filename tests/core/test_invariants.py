"""The predicates themselves: each is broken by the smallest world that breaks its rule, and by no sound one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core import invariants as inv
from fangnetz.core.actions import Alarm, Decision
from fangnetz.core.errors import InvariantBroken
from fangnetz.core.model import ClusterView, HostState, Release, VmRecord, VmState, VmWish
from fangnetz.core.operations import Operation, OperationKind, OperationState, start_steps
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, OperationId, Seconds, VmId
from tests.core.world import T0, beat, decided, host_record, off_proof, probe_round, view, vm_doc, vm_record

WEB = VmId("web")
A, B = HostId("h1"), HostId("h2")


def copy(host: HostId, vm: VmId = WEB) -> inv.RunningCopy:
    return inv.RunningCopy(vm=vm, host=host, incarnation=Incarnation("i1"))


def line(host: HostId, generation: int, at: float, boot: str = "i1") -> inv.Assigned:
    return inv.Assigned(
        vm=WEB, host=host, incarnation=Incarnation(boot), generation=Generation(generation), at=Instant(at)
    )


def test_two_copies_of_one_vm_break_one_writer_and_one_each_does_not() -> None:
    assert inv.one_writer(inv.Truth(copies=(copy(A), copy(B, VmId("db"))))) == ()
    (broken,) = inv.one_writer(inv.Truth(copies=(copy(A), copy(B))))
    assert broken.subject == "web"
    assert "h1" in broken.sentence
    assert "h2" in broken.sentence


MOVE = (line(A, 5, T0), line(B, 6, T0 + 60))


def test_a_move_without_evidence_breaks_no_start_without_proof() -> None:
    assert len(inv.no_start_without_proof(MOVE, ())) == 1
    assert inv.no_start_without_proof(MOVE[:1], ()) == ()
    assert inv.no_start_without_proof((line(A, 5, T0), line(A, 6, T0 + 1)), ()) == ()


def released(**changes: object) -> inv.Released:
    base = inv.Released(
        host=A, incarnation=Incarnation("i1"), release=Release(vm=WEB, generation=Generation(5)), at=Instant(T0 + 9)
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def booted(**changes: object) -> inv.BootedWithout:
    base = inv.BootedWithout(host=A, incarnation=Incarnation("i2"), vm=WEB, at=Instant(T0 + 9))
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("evidence", [off_proof("h1", T0 + 9), released(), booted()], ids=["off", "released", "booted"])
def test_each_way_of_the_rule_frees_it(evidence: inv.Evidence) -> None:
    assert inv.no_start_without_proof(MOVE, [evidence]) == ()


@pytest.mark.parametrize(
    "evidence",
    [
        off_proof("h1", T0 + 61),
        off_proof("h1", T0 - 1),
        off_proof("h2", T0 + 9),
        off_proof("h1", T0 + 9, boot="i0"),
        off_proof("h1", T0 + 9, void=True),
        released(at=Instant(T0 + 61)),
        released(host=B),
        released(incarnation=Incarnation("i0")),
        released(release=Release(vm=WEB, generation=Generation(4))),
        released(release=Release(vm=VmId("db"), generation=Generation(5))),
        booted(incarnation=Incarnation("i1")),
        booted(vm=VmId("db")),
        booted(at=Instant(T0 + 61)),
        booted(at=Instant(T0 - 1)),
    ],
)
def test_evidence_too_late_too_old_or_about_something_else_does_not(evidence: inv.Evidence) -> None:
    assert len(inv.no_start_without_proof(MOVE, [evidence])) == 1


@pytest.mark.parametrize(("first", "second", "whole"), [(5, 6, True), (5, 5, False), (6, 5, False)])
def test_generations_only_grow(first: int, second: int, whole: bool) -> None:
    assert (inv.generations_never_repeat((line(A, first, T0), line(B, second, T0 + 1))) == ()) == whole


def open_start(identity: str, state: OperationState = OperationState.OPEN) -> Operation:
    return Operation(
        id=OperationId(identity), kind=OperationKind.START, subject="web", epoch=Epoch(1), opened_at=Instant(T0),
        reason="", steps=start_steps(), state=state,
    )  # fmt: skip


def test_two_open_operations_of_a_kind_on_one_subject_break_the_rule() -> None:
    assert inv.one_open_operation(view(T0, operations=[open_start("a")])) == ()
    assert inv.one_open_operation(view(T0, operations=[open_start("a"), open_start("b", OperationState.DONE)])) == ()
    assert len(inv.one_open_operation(view(T0, operations=[open_start("a"), open_start("b")]))) == 1


def lost_view(state: HostState = HostState.LOST) -> ClusterView:
    probes = tuple(probe_round(T0 - n, {"h1": False, "h2": False, "h3": True}) for n in (1.1, 0.1))
    beats = [beat("h1", T0 - 9), beat("h2", T0 - 9), beat("h3", T0)]
    records = [host_record("h1", state), host_record("h2", HostState.MAINTENANCE), host_record("h3")]
    return view(T0, beats=beats, records=records, probes=probes)


def test_a_lost_host_nobody_speaks_of_breaks_silence_is_named() -> None:
    seen = lost_view()
    decision = decided(seen)
    assert inv.silence_is_named(seen, decision) == ()
    mute = Decision(actions=(), verdicts=decision.verdicts, alarms=(), next_due=None)
    assert [b.subject for b in inv.silence_is_named(seen, mute)] == ["h1"]
    told = replace(mute, alarms=(Alarm(kind="braked", subject="h1", sentence="why"),))
    assert inv.silence_is_named(seen, told) == ()
    assert inv.silence_is_named(lost_view(HostState.FENCED), mute) == ()


def whys(
    record: VmRecord | None, *copies: inv.RunningCopy, ended: float | None = None, wish: VmWish = VmWish.RUNNING
) -> int:
    truth = inv.Truth(copies=copies, last_copy_ended_at={} if ended is None else {WEB: Instant(ended)})
    seen = view(T0, vms=[(vm_doc("web", wish=wish), record)])
    return len(inv.wished_vms_run_or_say_why(truth, seen, Seconds(60.0)))


def test_a_wished_vm_runs_or_has_a_reason_within_its_bound() -> None:
    stale = vm_record("web", "h1")
    waits = vm_record("web", "h1", state=VmState.WAITING)
    assert whys(stale, copy(A)) == 0
    assert whys(stale) == 1
    assert whys(stale, ended=T0 - 59) == 0
    assert whys(stale, ended=T0 - 61) == 1
    assert whys(stale, wish=VmWish.STOPPED) == 0
    assert whys(waits) == 0
    assert whys(replace(waits, reason="")) == 1
    assert whys(replace(waits, state=VmState.STOPPED)) == 1
    assert whys(None) == 1


def test_must_hold_is_loud_with_every_sentence_and_quiet_without_one() -> None:
    inv.must_hold(())
    both = inv.one_writer(inv.Truth(copies=(copy(A), copy(B), copy(A, VmId("db")), copy(B, VmId("db")))))
    with pytest.raises(InvariantBroken, match=r"web.*db"):
        inv.must_hold(both)
