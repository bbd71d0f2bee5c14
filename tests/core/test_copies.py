"""Of two running copies the later one is named, never the only one, and only from what was said after the order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.copies import is_to_pause, later_copy, listed, paused_later_copy, running
from fangnetz.core.model import Answer, ClusterView, Heartbeat, HostState, Sighting, VmSighting
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Instant, VmId
from tests.core.world import T0, beat, host_record, off_proof, sighting, start_order, view, vm_doc, vm_record

WEB = VmId("web")
POLICY = Policy()


def copy(started: float | None, generation: int | None = 5, state: Sighting = Sighting.RUNNING) -> VmSighting:
    return replace(sighting("web", generation, state), start_sent_at=None if started is None else Instant(started))


def copies(**each: VmSighting) -> dict[HostId, VmSighting]:
    return {HostId(host): seen for host, seen in each.items()}


@pytest.mark.parametrize(
    ("seen", "owner", "later"),
    [
        (copies(h1=copy(10), h2=copy(20)), "h1", "h2"),
        (copies(h1=copy(10), h2=copy(20)), "h2", "h2"),
        (copies(h1=copy(10), h2=copy(20)), None, "h2"),
        (copies(h1=copy(10), h2=copy(10)), "h1", "h2"),
        (copies(h1=copy(10), h2=copy(10)), "h2", "h1"),
        (copies(h1=copy(10), h2=copy(10)), "h3", None),
        (copies(h1=copy(None), h2=copy(10)), "h1", "h2"),
        (copies(h1=copy(None), h2=copy(10)), "h2", "h1"),
        (copies(h1=copy(None), h2=copy(None)), None, None),
        (copies(h1=copy(10, 5), h2=copy(20, 6)), "h1", None),
        (copies(h1=copy(10, None), h2=copy(20, None)), "h1", None),
        (copies(h1=copy(10)), "h2", None),
        (copies(h1=copy(10), h2=copy(20), h3=copy(20)), "h2", "h3"),
        (copies(h1=copy(20), h2=copy(20), h3=copy(10)), "h1", "h2"),
        ({}, "h1", None),
    ],
)
def test_the_later_start_is_the_later_copy_else_the_one_away_from_the_owner(
    seen: dict[HostId, VmSighting], owner: str | None, later: str | None
) -> None:
    assert later_copy(seen, None if owner is None else HostId(owner)) == later


SEEN = st.builds(
    copy, st.sampled_from([None, 1.0, 2.0, 3.0]), st.sampled_from([None, 4, 5]), st.sampled_from(list(Sighting))
)
CLUSTERS = st.dictionaries(st.sampled_from([HostId(f"h{n}") for n in range(5)]), SEEN)


@given(CLUSTERS, st.sampled_from([None, HostId("h0"), HostId("h3")]))
def test_the_only_copy_of_a_generation_is_never_the_later_one(
    seen: Mapping[HostId, VmSighting], owner: HostId | None
) -> None:
    living = running(seen)
    later = later_copy(living, owner)
    if later is not None:
        others = [s for host, s in living.items() if host != later and s.generation == living[later].generation]
        assert others
        mine = living[later].start_sent_at
        times = [other.start_sent_at for other in others]
        assert mine is None or None in times or all(at is not None and at <= mine for at in times)


@given(CLUSTERS, st.sampled_from([None, HostId("h0"), HostId("h3")]))
def test_pausing_the_later_ones_ends_with_one_that_runs(seen: dict[HostId, VmSighting], owner: HostId | None) -> None:
    """However many there are: each pause leaves one of its generation running, and no paused one is named again."""
    before = {s.generation for s in running(seen).values()}
    for _ in range(len(seen) + 1):
        later = later_copy(running(seen), owner)
        if later is None:
            break
        seen = {**seen, later: replace(seen[later], state=Sighting.PAUSED)}
    assert later_copy(running(seen), owner) is None
    assert {s.generation for s in running(seen).values()} == before


def test_a_paused_later_copy_is_known_only_beside_one_that_runs() -> None:
    held = copy(20, state=Sighting.PAUSED)
    assert paused_later_copy(copies(h1=copy(10), h2=held), HostId("h1")) == "h2"
    assert paused_later_copy(copies(h1=copy(10, state=Sighting.PAUSED), h2=copy(20)), HostId("h1")) is None
    assert paused_later_copy(copies(h1=copy(10, state=Sighting.PAUSED), h2=held), HostId("h1")) is None
    assert paused_later_copy(copies(h2=held), HostId("h1")) is None


# --- what was said, and when -------------------------------------------------------------------------------------


def said(*beats: Heartbeat, **more: object) -> ClusterView:
    return view(T0, beats=beats, vms=[(vm_doc("web"), vm_record("web", "h1", 5))], **more)  # type: ignore[arg-type]


def on(host: str, started: float, *, at: float = T0 - 0.1, age: float = 0.1, **more: object) -> Heartbeat:
    return beat(host, at, seen=(copy(started),), age=age, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("report", "counts"),
    [
        (on("h1", 10), True),
        (on("h1", 10, at=T0 - POLICY.window_s - 1), False),
        (on("h1", 10, age=POLICY.window_s + 1), False),
        (on("h1", 10, at=T0 - 3601), False),
        (beat("h1", T0 - 0.1), False),
    ],
    ids=["fresh", "silent", "its libvirt hangs", "another life of the store", "without it"],
)
def test_only_a_fresh_list_shows_a_copy(report: Heartbeat, counts: bool) -> None:
    assert (HostId("h1") in listed(said(report), WEB, POLICY)) == counts


def test_a_list_from_before_the_order_and_a_boot_proven_off_show_nothing() -> None:
    seen = said(on("h1", 10, at=T0 - 1, age=0.5))
    assert listed(seen, WEB, POLICY, Instant(T0 - 2)) != {}
    assert listed(seen, WEB, POLICY, Instant(T0 - 1.2)) == {}
    off = said(on("h1", 10), records=[host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 0.05))])
    assert listed(off, WEB, POLICY) == {}


ORDER = replace(start_order("web", "h2", 5), host=HostId("h2"))
OPENED = Instant(T0 - 1)


@pytest.mark.parametrize(
    ("there", "here", "answer"),
    [
        (on("h1", 10), on("h2", 20), Answer.YES),
        (on("h1", 20), on("h2", 10), Answer.NO),
        (on("h1", 10, at=T0 - 1.5), on("h2", 20), Answer.UNKNOWN),
        (on("h1", 10), on("h2", 20, at=T0 - 1.5), Answer.UNKNOWN),
        (on("h1", 10, at=T0 - 60), on("h2", 20), Answer.UNKNOWN),
        (beat("h1", T0 - 0.1), on("h2", 20), Answer.NO),
        (beat("h1", T0 - 0.1, seen=(copy(10, state=Sighting.PAUSED),)), on("h2", 20), Answer.NO),
        (beat("h1", T0 - 0.1, seen=(copy(10, 4),)), on("h2", 20), Answer.NO),
    ],
    ids=["both", "the earlier", "other list older", "own list older", "silent", "gone", "paused there", "generation"],
)
def test_right_before_the_pause_both_must_have_said_anew_that_they_run_it(
    there: Heartbeat, here: Heartbeat, answer: Answer
) -> None:
    assert is_to_pause(said(there, here), ORDER, POLICY, OPENED)[0] is answer


@given(
    st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.floats(0.0, 5.0), st.sampled_from([None, 10.0, 20.0, 30.0]),
    st.sampled_from(list(Sighting)), st.sampled_from([None, 4, 5]),
)  # fmt: skip
def test_a_yes_rests_on_another_copy_that_was_seen_running_since_the_order(
    heard_ago: float, age: float, opened_ago: float, started: float | None, state: Sighting, generation: int | None
) -> None:
    other = beat("h1", T0 - heard_ago, seen=(copy(started, generation, state),), age=age)
    answer, _ = is_to_pause(said(other, on("h2", 20, at=T0, age=0.0)), ORDER, POLICY, Instant(T0 - opened_ago))
    if answer is Answer.YES:
        assert (state, generation) == (Sighting.RUNNING, 5)
        assert opened_ago > heard_ago + age - 1e-6
        assert heard_ago + age <= POLICY.window_s + 1e-6
        assert started is None or started <= 20


def with_older_file(seen: ClusterView, *, remembered: bool) -> ClusterView:
    """As the worker of h2 sees it, whose cluster file is from before h1 was in it."""
    hosts = {host: spec for host, spec in seen.hosts.items() if host != "h1"}
    beats = {host: said for host, said in seen.heartbeats.items() if remembered or host != "h1"}
    return replace(seen, hosts=hosts, heartbeats=beats)


@pytest.mark.parametrize(
    ("remembered", "there", "answer"),
    [
        (True, on("h1", 10), Answer.YES),
        (True, on("h1", 10, at=T0 - 1.5), Answer.UNKNOWN),
        (True, beat("h1", T0 - 0.1), Answer.NO),
        (False, on("h1", 10), Answer.UNKNOWN),
    ],
    ids=["heard all the same", "not anew", "gone", "not known here"],
)
def test_a_worker_with_an_older_cluster_file_never_says_no_for_want_of_a_host(
    remembered: bool, there: Heartbeat, answer: Answer
) -> None:
    seen = with_older_file(said(there, on("h2", 20)), remembered=remembered)
    assert is_to_pause(seen, replace(ORDER, beside=(HostId("h1"),)), POLICY, OPENED)[0] is answer
