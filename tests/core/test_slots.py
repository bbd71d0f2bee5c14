"""Slots on the shared storage: who reads whose, what a slot says of a silent host, and what it never says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.actions import SettleWish
from fangnetz.core.decide.fence_wishes import signs_of_life
from fangnetz.core.decide.returns import obstacle_to_return
from fangnetz.core.detector import Finding, still
from fangnetz.core.fencing import holds, remembered_proof, spoke
from fangnetz.core.model import (
    Answer,
    ClusterView,
    Heartbeat,
    HostDoc,
    OffProof,
    ProbeRound,
    ProofKind,
    SlotSeen,
    StoreLife,
    WishKind,
)
from fangnetz.core.policy import IsolatedPolicy, Policy
from fangnetz.core.slots import READERS, evidence_of, stuck_after_s, watched_by
from fangnetz.core.units import HostId, Incarnation, Instant, Seconds, StoreIncarnation
from tests.core.world import T0, beat, decided, finding, host_record, probe_round, spec, verdict, view, watched, wish

H1 = HostId("h1")
I1 = Incarnation("i1")
POLICY = Policy()
LEAVE = Policy(isolated=IsolatedPolicy.LEAVE)
SILENT_FOR = 3.6


def told(
    reader: str, *, written: float | None = None, seen: float | None = None, read: float = 1.2, of: str = "h1",
    boot: str = "i1", at: float = 0.1,
) -> Heartbeat:  # fmt: skip
    """A reader's report of `at` seconds ago. All in seconds ago; `seen`: when the number was first there."""
    first = seen if seen is not None else read if written is None else min(written, read)
    slot = SlotSeen(
        HostId(of), Incarnation(boot), Instant(0.0 if written is None else T0 - written), Instant(T0 - first),
        Instant(T0 - read),
    )  # fmt: skip
    return replace(beat(reader, T0 - at), slot_waits_s=Seconds(0.0), slots=(slot,))


def silent(*readers: Heartbeat, since: float = SILENT_FOR, hosts: int = 3) -> ClusterView:
    """h1 has not reported for `since` seconds and answers no probe; the others report."""
    names = [f"h{n}" for n in range(2, hosts + 1)]
    others = {name: beat(name, T0 - 0.1) for name in names} | {str(r.host): r for r in readers}
    return view(
        T0,
        hosts=[spec("h1"), *(spec(name) for name in names)],
        beats=[beat("h1", T0 - since), *others.values()],
        probes=_silence(names),
    )


def _silence(others: list[str]) -> tuple[ProbeRound, ...]:
    return tuple(probe_round(at, {"h1": False, **dict.fromkeys(others, True)}) for at in (T0 - 1, T0))


# --- who reads whose ----------------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from([f"h{n}" for n in range(30)]), min_size=1))
def test_every_slot_has_as_many_readers_as_there_can_be_and_nobody_reads_his_own(names: set[str]) -> None:
    hosts = {HostId(name) for name in names}
    reads = {host: watched_by(host, hosts) for host in hosts}
    for host in hosts:
        readers = [other for other in hosts if host in reads[other]]
        assert len(readers) == len(reads[host]) == min(READERS, len(hosts) - 1)
        assert host not in reads[host]


def test_where_its_readers_say_nothing_anybody_who_read_it_counts() -> None:
    """[their cluster files are not the same yet, so they read others]"""
    far = silent(told("h3", written=1.2), hosts=9)  # h1 is read by h7, h8 and h9
    assert evidence_of(H1, Instant(T0 - SILENT_FOR), far, POLICY) is not None
    both = silent(told("h9", written=None, seen=9.0), told("h3", written=1.2), hosts=9)
    found = evidence_of(H1, Instant(T0 - SILENT_FOR), both, POLICY)
    assert found is not None
    assert found.answer is not Answer.YES


# --- what a slot says of a silent host -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [POLICY, LEAVE])
def test_a_slot_written_since_the_last_report_makes_it_isolated(policy: Policy) -> None:
    seen = silent(told("h2", written=1.9))
    assert finding(seen, "h1", policy=policy) is Finding.ISOLATED
    (slot,) = [s for s in verdict(seen, "h1").signals if s.source == "disk slot"]
    assert slot.answer is Answer.YES


@pytest.mark.parametrize("policy", [POLICY, LEAVE])
def test_a_slot_in_which_one_number_was_read_for_longer_than_a_window_leaves_it_lost(policy: Policy) -> None:
    assert finding(silent(told("h2", written=9.0, seen=8.0), since=9.0), "h1", policy=policy) is Finding.LOST


@pytest.mark.parametrize(("policy", "found"), [(POLICY, Finding.LOST), (LEAVE, Finding.UNKNOWN)])
def test_only_who_leaves_isolated_hosts_alone_waits_for_the_slot_to_be_read_long_enough(
    policy: Policy, found: Finding
) -> None:
    assert finding(silent(told("h2", written=4.0, seen=3.0)), "h1", policy=policy) is found


def test_what_was_read_before_the_last_report_is_no_silence_of_the_slot() -> None:
    assert finding(silent(told("h2", written=60.0, seen=59.0)), "h1", policy=LEAVE) is Finding.UNKNOWN


def test_a_living_slot_that_is_read_seldom_is_not_called_silent() -> None:
    """[the storage is slow: each look takes longer than a window, and each finds another number]"""
    seen = silent(told("h2", written=7.0, seen=3.5, read=3.5, at=0.1), since=9.0)
    found = evidence_of(H1, Instant(T0 - 9.0), seen, POLICY)
    assert found is not None
    assert found.answer is not Answer.NO


def test_a_slot_that_nobody_reads_any_more_holds_up_nobody_and_speaks_for_nobody() -> None:
    """Its reader has lost the storage itself, or is gone."""
    assert finding(silent(told("h2", written=12.0, read=8.0)), "h1", policy=LEAVE) is Finding.LOST
    gone = silent(told("h2", written=4.0, at=3.0))
    assert finding(gone, "h1", policy=LEAVE) is Finding.LOST
    long_ago = silent(told("h2", written=41.0, read=40.0, at=39.0), since=60.0)
    assert finding(long_ago, "h1", policy=LEAVE) is Finding.LOST


def test_without_slots_a_silent_host_is_lost() -> None:
    assert finding(silent(), "h1", policy=LEAVE) is Finding.LOST
    assert evidence_of(H1, Instant(T0 - SILENT_FOR), silent(), POLICY) is None


def test_a_slot_that_was_never_seen_to_change_speaks_for_nobody() -> None:
    assert finding(silent(told("h2")), "h1") is Finding.LOST


def test_one_reader_that_sees_it_written_is_enough() -> None:
    seen = silent(told("h2", written=40.0, seen=39.0), told("h3", written=1.9))
    assert finding(seen, "h1", policy=LEAVE) is Finding.ISOLATED


def test_a_host_that_answers_probes_is_a_suspect_whatever_its_slot_says() -> None:
    seen = silent(told("h2", written=1.9))
    answers = probe_round(T0, {"h1": True, "h2": True, "h3": True})
    assert finding(replace(seen, probes=(answers,)), "h1") is Finding.SUSPECT


def test_where_the_prober_is_cut_off_a_written_slot_decides_nothing() -> None:
    seen = silent(told("h2", written=1.9))
    cut_off = tuple(probe_round(at, dict.fromkeys(("h1", "h2", "h3"), False)) for at in (T0 - 1, T0))
    assert finding(replace(seen, probes=cut_off), "h1") is Finding.UNKNOWN


def test_what_was_told_in_another_life_of_the_store_does_not_count() -> None:
    life = StoreLife(incarnation=StoreIncarnation("new"), since=Instant(T0 - 0.05))
    seen = replace(silent(told("h2", written=1.9)), life=life)
    assert evidence_of(H1, Instant(T0 - SILENT_FOR), seen, POLICY) is None


@given(
    stopped=st.floats(0.0, 1.0),
    interval=st.floats(0.05, 1.0),
    reads=st.lists(st.tuples(st.floats(0.3, 2.5), st.floats(0.0, 1.5)), min_size=3, max_size=20),
    lag=st.floats(0.0, 5.0),
    step=st.floats(0.0, 3600.0),
)
def test_a_host_that_fell_silent_with_its_power_is_never_called_isolated(
    stopped: float, interval: float, reads: list[tuple[float, float]], lag: float, step: float
) -> None:
    """Written until it stops, within an interval of its last report, and read whenever: no reader makes it live.

    Nor does a report that arrives late, nor a store whose clock is set forward meanwhile.
    """
    written = [stopped - n * interval for n in range(400) if stopped - n * interval > -20]
    at, before, tags, changed_after = -15.0, None, (-15.0, -15.0), 0.0
    for span, behind in reads:
        at += span
        mark = max((w for w in written if w <= at), default=None)
        tag = max(tags[1], at - behind)  # the store's last answer before this look
        if before is not None and mark != before:
            changed_after = T0 + tags[1]
        if mark != before:
            tags = (tag, tag)
        before, tags = mark, (tags[0], tag)
    now = T0 + max(at + lag, 3.0) + step
    slot = SlotSeen(H1, I1, Instant(changed_after), Instant(T0 + tags[0]), Instant(T0 + tags[1]))
    reader = replace(beat("h2", now), slot_waits_s=Seconds(0.0), slots=(slot,))
    seen = replace(silent(), now=Instant(now), heartbeats={HostId("h2"): reader})
    evidence = evidence_of(H1, Instant(T0), seen, POLICY)
    assert evidence is not None
    assert evidence.answer is not Answer.YES


# --- a host that has lost its storage ------------------------------------------------------------------------------


def waits(span: float | None, *, at: float = T0 - 0.2) -> Heartbeat:
    return replace(beat("h1", at), slot_waits_s=None if span is None else Seconds(span))


@pytest.mark.parametrize(
    ("span", "found"),
    [(None, Finding.ALIVE), (-1.0, Finding.ALIVE), (0.0, Finding.ALIVE), (4.9, Finding.ALIVE), (5.1, Finding.DEGRADED)],
)
def test_a_host_that_cannot_write_its_slot_is_degraded(span: float | None, found: Finding) -> None:
    assert finding(view(T0, beats=[waits(span)]), "h1") is found


def test_the_longer_the_interval_the_later_a_host_without_a_written_slot_is_degraded() -> None:
    slow = Policy(heartbeat_s=Seconds(10.0))
    assert stuck_after_s(slow) == pytest.approx(30.0)
    assert finding(view(T0, beats=[waits(29.0)]), "h1", policy=slow) is Finding.ALIVE
    assert finding(view(T0, beats=[waits(31.0)]), "h1", policy=slow) is Finding.DEGRADED


@pytest.mark.parametrize(("span", "may"), [(None, True), (0.0, True), (-1.0, False), (9.0, False)])
def test_a_host_rejoins_only_once_it_has_written_its_slot(span: float | None, *, may: bool) -> None:
    seen = view(T0, beats=[waits(span)])
    said = obstacle_to_return(H1, seen.heartbeats[H1], host_record("h1"), seen, POLICY)
    assert (said == "") is may, said


def test_between_beats_nothing_is_still_once_a_slot_cannot_be_written() -> None:
    before = view(T0, hosts=["h1"], beats=[waits(4.5)])
    watch = watched(before)
    for span, calm in ((4.6, True), (5.5, False)):
        after = replace(before, now=Instant(T0 + 0.5), heartbeats={H1: waits(span, at=T0 + 0.4)})
        assert (still(before, after, replace(watch, looked_at=after.now), POLICY) is not None) is calm


# --- a slot that contradicts a proof -------------------------------------------------------------------------------


def proof(at: float, *, boot: str = "i1", life: str | None = None) -> OffProof:
    return OffProof(
        host=H1, incarnation=Incarnation(boot), kind=ProofKind.OPERATOR, proven_at=Instant(at),
        sentence="as the test says", life=StoreIncarnation("") if life is None else StoreIncarnation(life),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "boot", "voids"),
    [(0.5, "i1", True), (3.0, "i1", False), (None, "i1", False), (0.5, "i2", False)],
)
def test_a_boot_that_writes_its_slot_after_it_was_proven_off_voids_the_proof(
    written: float | None, boot: str, *, voids: bool
) -> None:
    seen = silent(told("h2", written=written, boot=boot), since=6.0)
    found = proof(T0 - 2.0)
    assert bool(spoke(found, seen)) is voids
    assert holds(seen, found, I1) is not voids


@pytest.mark.parametrize("step", [3.0, 60.0, 3600.0])
def test_a_step_of_the_stores_clock_makes_no_old_write_a_new_one(step: float) -> None:
    """[each report told how long ago it was, and the store's clock went on by a minute: every proof was void]"""
    found, reader = proof(T0 - 2.0), told("h2", written=2.4, seen=2.1, read=1.0)
    for later in (0.0, step):
        seen = silent(replace(reader, received_at=Instant(T0 + later)), since=6.0)
        assert spoke(found, replace(seen, now=Instant(T0 + later + 0.1))) == ""


def test_a_proof_kept_in_files_is_void_once_that_boot_is_seen_to_write_in_a_later_life() -> None:
    seen = silent(told("h2", written=0.5), since=6.0)
    life = StoreLife(incarnation=StoreIncarnation("second"), since=Instant(T0 - 3.0))
    for written, kept in ((0.5, False), (4.0, True)):
        reader = told("h2", written=written)
        later = replace(
            seen, life=life, heartbeats={**seen.heartbeats, HostId("h2"): reader},
            proofs={H1: proof(T0 + 900.0, life="first")}, host_docs={H1: HostDoc(id=H1, incarnation=I1)},
        )  # fmt: skip
        assert (remembered_proof(later, H1) is not None) is kept


@pytest.mark.parametrize(("written", "may"), [(1.9, False), (9.0, True), (None, True)])
def test_nobody_confirms_a_host_off_whose_slot_is_written(written: float | None, *, may: bool) -> None:
    seen = silent(told("h2", written=written, seen=8.0 if may else None), since=9.0)
    said = signs_of_life(H1, seen, {H1: verdict(seen, "h1")}, POLICY)
    assert (said == "") is may, said


@pytest.mark.parametrize(("written", "granted"), [(1.9, False), (9.0, True)])
def test_nor_one_that_is_not_in_the_cluster_file_any_more(written: float, *, granted: bool) -> None:
    seen = silent(told("h2", written=written, seen=8.0 if granted else None), since=9.0)
    gone = replace(
        seen, hosts={name: spec for name, spec in seen.hosts.items() if name != H1},
        host_docs={H1: HostDoc(id=H1, incarnation=I1)}, wishes=(wish(WishKind.HOST_CONFIRM_OFF, "h1", at=T0 - 1),),
    )  # fmt: skip
    (settled,) = [action for action in decided(gone).actions if isinstance(action, SettleWish)]
    assert settled.granted is granted, settled.sentence
    assert granted or "writes its slot" in settled.sentence
