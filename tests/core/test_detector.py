"""Evidence about a host becomes a verdict: row by row of the table, and what never counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.detector import Finding, Watch, judge, look
from fangnetz.core.model import Answer, HypervisorHealth
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Instant, StoreIncarnation
from tests.core.world import T0, beat, binding, finding, host_record, probe_round, view, watched

H1 = HostId("h1")
POLICY = Policy()
OTHERS = (beat("h2", T0), beat("h3", T0))


def rounds(*said: bool | None, others: bool | None = True, now: float = T0) -> tuple:  # type: ignore[type-arg]
    """Rounds that ended one second apart, the last one just now, and what h1 answered in each."""
    return tuple(
        probe_round(now - (len(said) - 1 - n), {"h1": answer, "h2": others, "h3": others})
        for n, answer in enumerate(said)
    )


def test_a_host_that_reports_is_alive() -> None:
    assert finding(view(T0, beats=[beat("h1", T0 - 0.9)]), "h1") is Finding.ALIVE


def test_a_report_of_another_boot_than_the_accepted_one_is_a_reboot() -> None:
    assert finding(view(T0, beats=[beat("h1", T0 - 0.2, boot="i2")]), "h1") is Finding.REBOOTED


@pytest.mark.parametrize("health", [HypervisorHealth.HUNG, HypervisorHealth.DOWN])
def test_a_report_without_a_working_libvirt_is_degraded(health: HypervisorHealth) -> None:
    assert finding(view(T0, beats=[beat("h1", T0 - 0.2, hypervisor=health)]), "h1") is Finding.DEGRADED


@pytest.mark.parametrize(("age", "found"), [(1.4, Finding.ALIVE), (1.6, Finding.OVERDUE), (2.9, Finding.OVERDUE)])
def test_one_missing_report_is_overdue_and_no_more(age: float, found: Finding) -> None:
    seen = view(T0, beats=[beat("h1", T0 - age), *OTHERS], probes=rounds(False, False))
    assert finding(seen, "h1") is found


def test_silence_of_reports_and_of_two_probe_rounds_is_lost() -> None:
    assert finding(view(T0, beats=[beat("h1", T0 - 3.5), *OTHERS], probes=rounds(False, False)), "h1") is Finding.LOST


def test_one_silent_probe_round_is_not_silence() -> None:
    assert finding(view(T0, beats=[beat("h1", T0 - 3.5), *OTHERS], probes=rounds(False)), "h1") is Finding.UNKNOWN


def test_without_any_probe_nothing_is_known() -> None:
    assert finding(view(T0, beats=[beat("h1", T0 - 99), *OTHERS]), "h1") is Finding.UNKNOWN


def test_any_answer_makes_it_a_suspect_whoever_else_hears_nothing() -> None:
    probes = (*rounds(False, False), probe_round(T0 - 0.5, {"h1": True, "h2": True}, by="c2"))
    assert finding(view(T0, beats=[beat("h1", T0 - 9)], probes=probes), "h1") is Finding.SUSPECT


def test_a_refused_connection_is_the_kernel_speaking() -> None:
    (silent,) = rounds(False)
    refused = replace(silent.answers[0], kernel=Answer.YES, libvirt=Answer.NO)
    probe = replace(silent, answers=(refused, *silent.answers[1:]))
    assert finding(view(T0, beats=[beat("h1", T0 - 9)], probes=(probe, probe)), "h1") is Finding.SUSPECT


def test_a_prober_that_reaches_nothing_else_proves_nothing() -> None:
    seen = view(T0, beats=[beat("h1", T0 - 9)], probes=rounds(False, False, False, others=False))
    assert finding(seen, "h1") is Finding.UNKNOWN


def test_a_prober_that_reaches_only_its_router_counts() -> None:
    probes = tuple(replace(r, references=("router",)) for r in rounds(False, False, others=False))
    assert finding(view(T0, beats=[beat("h1", T0 - 9)], probes=probes), "h1") is Finding.LOST


def test_a_probe_that_failed_at_our_end_is_no_silence() -> None:
    assert finding(view(T0, beats=[beat("h1", T0 - 9)], probes=rounds(None, None)), "h1") is Finding.UNKNOWN


def test_an_old_round_says_nothing_about_now() -> None:
    probes = rounds(False, False, now=T0 - 2.8)
    assert finding(view(T0, beats=[beat("h1", T0 - 9)], probes=probes), "h1") is Finding.UNKNOWN


def test_a_round_begun_before_the_last_report_says_nothing() -> None:
    seen = view(T0, beats=[beat("h1", T0 - 0.55)], probes=rounds(False, False))
    silent_rounds = [s for s in judge(H1, seen, watched(seen, {"h1": 3.5}), POLICY).signals if s.answer is Answer.NO]
    assert len([s for s in silent_rounds if s.source.startswith("probe")]) == 1


def test_a_host_nobody_ever_heard_is_unheard_and_not_lost() -> None:
    seen = view(T0, records=(), probes=rounds(False, False))
    assert finding(seen, "h1", {"h1": 999.0}) is Finding.UNHEARD


def test_a_host_only_memory_knows_is_judged_by_its_remembered_boot() -> None:
    seen = view(T0, records=(), bindings=[binding("h1", boot="i4")], probes=rounds(False, False), life_since=T0 - 60)
    verdict = judge(H1, seen, watched(seen), POLICY)
    assert (verdict.finding, verdict.incarnation) == (Finding.LOST, "i4")


def test_the_record_is_the_first_memory_and_the_newest_binding_the_second() -> None:
    bound = [binding("h1", boot="old", seen_on=T0 - 900), binding("h1", device="pdu", boot="new", seen_on=T0 - 9)]
    with_record = view(T0, records=[host_record("h1", boot="accepted")], bindings=bound)
    without = view(T0, records=(), bindings=bound)
    assert judge(H1, with_record, watched(with_record), POLICY).incarnation == "accepted"
    assert judge(H1, without, watched(without), POLICY).incarnation == "new"


def test_a_report_of_a_former_life_of_the_store_is_not_heard() -> None:
    seen = view(T0, beats=[beat("h1", T0 - 0.1)], life_since=T0)
    assert finding(seen, "h1", {"h1": 0.0}) is Finding.OVERDUE


# --- watching ----------------------------------------------------------------------------------------------------


def watch_over(*views_: tuple[float, float]) -> Watch:
    """Look at (now, last report of h1) one after the other."""
    watch: Watch | None = None
    for now, heard_at in views_:
        watch = look(watch, view(now, beats=[beat("h1", heard_at)]), POLICY)
    assert watch is not None
    return watch


def test_silence_adds_up_over_looks() -> None:
    assert watch_over((T0, T0), (T0 + 1, T0), (T0 + 2.5, T0)).hosts[H1].silent_for == pytest.approx(2.5)


def test_silence_begins_at_the_report_and_not_at_the_look() -> None:
    assert watch_over((T0, T0), (T0 + 1, T0 + 0.4)).hosts[H1].silent_for == pytest.approx(0.6)


@pytest.mark.parametrize("gap", [40.0, 2.1])
def test_a_gap_between_two_looks_starts_every_window_anew(gap: float) -> None:
    watch = watch_over((T0, T0), (T0 + 1, T0), (T0 + 1 + gap, T0))
    assert watch.hosts[H1].silent_for == 0
    assert watch.since == T0 + 1 + gap
    assert watch.started_at == T0


def test_a_clock_that_goes_back_is_a_gap() -> None:
    assert watch_over((T0, T0 - 1), (T0 + 1, T0 - 1), (T0 - 5, T0 - 9)).hosts[H1].silent_for == 0


def test_a_new_life_of_the_store_starts_every_window_anew() -> None:
    first = look(None, view(T0, beats=[beat("h1", T0 - 1)]), POLICY)
    second = look(first, view(T0 + 1, beats=[beat("h1", T0 - 1)]), POLICY)
    after = look(second, view(T0 + 2, beats=[beat("h1", T0 - 1)], life=StoreIncarnation("life-2")), POLICY)
    assert after.hosts[H1].silent_for == 0


def test_what_a_new_watch_finds_stale_is_not_alive_and_not_lost() -> None:
    seen = view(T0, beats=[beat("h1", T0 - 600), *OTHERS], probes=rounds(False, False))
    assert judge(H1, seen, look(None, seen, POLICY), POLICY).finding is Finding.OVERDUE


def test_a_restarted_worker_counts_as_a_report_although_its_numbers_begin_anew() -> None:
    watch = look(None, view(T0, beats=[beat("h1", T0, seq=500)]), POLICY)
    watch = look(watch, view(T0 + 1, beats=[beat("h1", T0 + 1, seq=1)]), POLICY)
    assert watch.hosts[H1].silent_for == 0


@given(
    spans=st.lists(st.floats(0.05, 6.0), min_size=1, max_size=30),
    speaks=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_silence_never_exceeds_what_was_watched_without_a_gap_nor_the_age_of_the_report(
    spans: list[float], speaks: list[bool]
) -> None:
    now, heard_at, watched_for = T0, T0, 0.0
    watch = look(None, view(now, beats=[beat("h1", heard_at)]), POLICY)
    for n, (span, speak) in enumerate(zip(spans, speaks, strict=False)):
        now += span
        heard_at = now if speak else heard_at
        watched_for = 0.0 if span > POLICY.gap_s else watched_for + span
        watch = look(watch, view(now, beats=[beat("h1", heard_at, seq=n if speak else None)]), POLICY)
        silent = watch.hosts[H1].silent_for
        assert silent <= watched_for + 1e-6
        assert silent <= now - heard_at + 1e-3
        assert watch.looked_at == Instant(now)
