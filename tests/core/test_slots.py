"""Slots on the shared storage: who reads whose, what a slot says of a silent host, and what it never says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
)
from fangnetz.core.policy import IsolatedPolicy, Policy
from fangnetz.core.slots import READERS, evidence_of, stuck_after_s, watched_by
from fangnetz.core.units import HostId, Incarnation, Instant, Seconds, StoreIncarnation
from tests.core.world import T0, beat, finding, host_record, probe_round, spec, verdict, view, watched

H1 = HostId("h1")
I1 = Incarnation("i1")
POLICY = Policy()
LEAVE = Policy(isolated=IsolatedPolicy.LEAVE)
SILENT_FOR = 3.6


def told(reader: str, *, written_ago: float, read_ago: float = 0.2, of: str = "h1", boot: str = "i1") -> Heartbeat:
    """A reader's report of just now."""
    seen = SlotSeen(HostId(of), Incarnation(boot), written_ago, read_ago)
    return replace(beat(reader, T0 - 0.1), slot_waits_s=Seconds(0.0), slots=(seen,))


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


def test_what_a_reader_says_of_a_host_that_is_not_its_to_read_does_not_count() -> None:
    far = silent(told("h3", written_ago=0.5), hosts=9)  # h1 is read by h7, h8 and h9
    assert evidence_of(H1, Instant(T0 - SILENT_FOR), far, POLICY) is None
    near = silent(told("h9", written_ago=0.5), hosts=9)
    assert evidence_of(H1, Instant(T0 - SILENT_FOR), near, POLICY) is not None


# --- what a slot says of a silent host -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [POLICY, LEAVE])
def test_a_slot_written_since_the_last_report_makes_it_isolated(policy: Policy) -> None:
    seen = silent(told("h2", written_ago=1.2))
    assert finding(seen, "h1", policy=policy) is Finding.ISOLATED
    (slot,) = [s for s in verdict(seen, "h1").signals if s.source == "disk slot"]
    assert slot.answer is Answer.YES


@pytest.mark.parametrize("policy", [POLICY, LEAVE])
def test_a_slot_that_was_read_for_a_window_and_not_written_leaves_it_lost(policy: Policy) -> None:
    assert finding(silent(told("h2", written_ago=4.6)), "h1", policy=policy) is Finding.LOST


@pytest.mark.parametrize(("policy", "found"), [(POLICY, Finding.LOST), (LEAVE, Finding.UNKNOWN)])
def test_only_who_leaves_isolated_hosts_alone_waits_for_the_slot_to_be_read_long_enough(
    policy: Policy, found: Finding
) -> None:
    assert finding(silent(told("h2", written_ago=4.0, read_ago=0.9)), "h1", policy=policy) is found


def test_a_slot_that_nobody_reads_any_more_holds_up_nobody() -> None:
    """Its reader has lost the storage itself, or is gone."""
    assert finding(silent(told("h2", written_ago=12.0, read_ago=8.0)), "h1", policy=LEAVE) is Finding.LOST
    gone = silent(replace(told("h2", written_ago=4.0), received_at=Instant(T0 - 3.0)))
    assert finding(gone, "h1", policy=LEAVE) is Finding.LOST


def test_without_slots_a_silent_host_is_lost() -> None:
    assert finding(silent(), "h1", policy=LEAVE) is Finding.LOST
    assert evidence_of(H1, Instant(T0 - SILENT_FOR), silent(), POLICY) is None


def test_a_slot_that_was_never_seen_to_change_speaks_for_nobody() -> None:
    seen = silent(told("h2", written_ago=-1.0))
    assert finding(seen, "h1") is Finding.LOST


def test_one_reader_that_sees_it_written_is_enough() -> None:
    seen = silent(told("h2", written_ago=40.0), told("h3", written_ago=1.0))
    assert finding(seen, "h1", policy=LEAVE) is Finding.ISOLATED


def test_a_host_that_answers_probes_is_a_suspect_whatever_its_slot_says() -> None:
    seen = silent(told("h2", written_ago=1.0))
    answers = probe_round(T0, {"h1": True, "h2": True, "h3": True})
    assert finding(replace(seen, probes=(answers,)), "h1") is Finding.SUSPECT


def test_where_the_prober_is_cut_off_a_written_slot_decides_nothing() -> None:
    seen = silent(told("h2", written_ago=1.0))
    cut_off = tuple(probe_round(at, dict.fromkeys(("h1", "h2", "h3"), False)) for at in (T0 - 1, T0))
    assert finding(replace(seen, probes=cut_off), "h1") is Finding.UNKNOWN


def test_what_was_told_in_another_life_of_the_store_does_not_count() -> None:
    life = StoreLife(incarnation=StoreIncarnation("new"), since=Instant(T0 - 0.05))
    seen = replace(silent(told("h2", written_ago=1.0)), life=life)
    assert evidence_of(H1, Instant(T0 - SILENT_FOR), seen, POLICY) is None


@given(
    stopped=st.floats(0.0, 1.0),
    interval=st.floats(0.05, 1.0),
    reads=st.lists(st.floats(0.3, 2.5), min_size=3, max_size=20),
    lag=st.floats(0.0, 1.0),
)
def test_a_host_that_fell_silent_with_its_power_is_never_called_isolated(
    stopped: float, interval: float, reads: list[float], lag: float
) -> None:
    """Written until it stops, within an interval of its last report, and read whenever: no reader makes it live."""
    written = [stopped - n * interval for n in range(200) if stopped - n * interval > -20]
    at, before, changed_after, asked = -10.0, None, None, None
    for span in reads:
        at += span
        mark = max(w for w in written if w <= at) if any(w <= at for w in written) else None
        if before is not None and mark != before:
            changed_after = asked
        before, asked = mark, at
    assert asked is not None
    now = max(asked + lag, 3.0)
    ago = -1.0 if changed_after is None else now - changed_after
    heard_at = T0 - now  # its last report, at 0
    reader = replace(told("h2", written_ago=ago, read_ago=now - asked), received_at=Instant(T0))
    evidence = evidence_of(H1, Instant(heard_at), silent(reader, since=now), POLICY)
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
    ("written_ago", "boot", "voids"),
    [(0.5, "i1", True), (3.0, "i1", False), (-1.0, "i1", False), (0.5, "i2", False)],
)
def test_a_boot_that_writes_its_slot_after_it_was_proven_off_voids_the_proof(
    written_ago: float, boot: str, *, voids: bool
) -> None:
    seen = silent(told("h2", written_ago=written_ago, boot=boot), since=6.0)
    found = proof(T0 - 2.0)
    assert bool(spoke(found, seen)) is voids
    assert holds(seen, found, I1) is not voids


def test_a_proof_kept_in_files_is_void_once_that_boot_is_seen_to_write_in_a_later_life() -> None:
    seen = silent(told("h2", written_ago=0.5), since=6.0)
    life = StoreLife(incarnation=StoreIncarnation("second"), since=Instant(T0 - 3.0))
    for written_ago, kept in ((0.5, False), (4.0, True)):
        reader = told("h2", written_ago=written_ago)
        later = replace(
            seen, life=life, heartbeats={**seen.heartbeats, HostId("h2"): reader},
            proofs={H1: proof(T0 + 900.0, life="first")}, host_docs={H1: HostDoc(id=H1, incarnation=I1)},
        )  # fmt: skip
        assert (remembered_proof(later, H1) is not None) is kept
