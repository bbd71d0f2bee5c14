"""Between two beats only reports are read, and only while they could change no verdict and say nothing new."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fangnetz.core.detector import judge, look, still
from fangnetz.core.model import ClusterView, Heartbeat, HostState, HypervisorHealth, Leaving
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Instant, Seconds
from tests.core.world import T0, beat, host_record, view

POLICY = Policy()
HOSTS = ("h1", "h2", "h3")
AGES = st.lists(st.floats(0, 1.6) | st.floats(0, 8), min_size=3, max_size=3)


def seen_at(at: float, beats: list[Heartbeat], states: tuple[HostState, ...] = ()) -> ClusterView:
    records = [
        host_record(host, state) for host, state in zip(HOSTS, states or (HostState.ONLINE,) * len(HOSTS), strict=True)
    ]
    return view(at, beats=beats, records=records)


def beats(at: float, ages: list[float], **more: object) -> list[Heartbeat]:
    return [beat(host, at - age, **more) for host, age in zip(HOSTS, ages, strict=True)]


@example(before=[0.0] * 3, silent=[False] * 3, after=[0.0, 0.0, 1.0], span=3.0, states=(HostState.ONLINE,) * 3)
@given(before=AGES, silent=st.lists(st.booleans(), min_size=3, max_size=3), after=AGES, span=st.floats(0.01, 3),
       states=st.tuples(*[st.sampled_from(HostState)] * 3))  # fmt: skip
def test_nobodys_verdict_has_changed_where_all_is_still(
    before: list[float], silent: list[bool], after: list[float], span: float, states: tuple[HostState, ...]
) -> None:
    first = seen_at(T0, beats(T0, before), states)
    now = T0 + span
    heard = [
        old if mute or age > span else new
        for old, new, mute, age in zip(first.heartbeats.values(), beats(now, after), silent, after, strict=True)
    ]
    then = seen_at(now, heard, states)
    watched = look(None, first, POLICY)
    hour = {
        host: replace(seen, silent_for=Seconds(age))
        for (host, seen), age in zip(watched.hosts.items(), before, strict=True)
    }
    watched = replace(watched, hosts=hour)
    again = look(watched, then, POLICY)
    due = still(first, then, again, POLICY)
    if due is None:
        return
    for host in then.hosts:
        assert judge(host, then, again, POLICY).finding == judge(host, first, watched, POLICY).finding
    later = seen_at(now + due - 0.02, heard, states)
    assert 0 < due <= POLICY.overdue_s + 0.01
    if due > 0.02:
        at_last = look(again, later, POLICY)
        assert all(
            judge(host, later, at_last, POLICY).fresh
            for host in later.hosts
            if again.hosts[host].silent_for < POLICY.overdue_s
        )


def quiet(*, later: list[Heartbeat] | None = None, states: tuple[HostState, ...] = ()) -> Seconds | None:
    """All report at T0; half a second later `later` is what is heard, by default new reports of the same."""
    first = seen_at(T0, beats(T0, [0.1] * 3, runs={"web": 7}), states)
    then = seen_at(T0 + 0.5, beats(T0 + 0.5, [0.1] * 3, runs={"web": 7}) if later is None else later, states)
    return still(first, then, look(look(None, first, POLICY), then, POLICY), POLICY)


def test_reports_that_say_the_same_are_no_news() -> None:
    assert quiet() is not None
    passing = [
        replace(one, load=3.0, inventory_age_s=Seconds(0.7), memory_free_mib=77)
        for one in beats(T0 + 0.5, [0.1] * 3, runs={"web": 7})
    ]
    assert quiet(later=passing) is not None


@pytest.mark.parametrize(
    "news",
    [
        {"incarnation": "i2"}, {"inventory": ()}, {"hypervisor": HypervisorHealth.HUNG}, {"leaving": Leaving.REBOOT},
        {"orders": ("op/start",)}, {"contested_at": Instant(T0)}, {"worker": "another"}, {"bmc_guids": ("other",)},
    ],
)  # fmt: skip
def test_whatever_else_a_host_says_is_news(news: dict[str, object]) -> None:
    first, *others = beats(T0 + 0.5, [0.1] * 3, runs={"web": 7})
    assert quiet(later=[replace(first, **news), *others]) is None


def test_a_host_that_is_late_is_news_unless_it_is_known_to_be_off() -> None:
    gone = beat("h1", T0 - 60, runs={"web": 7})
    for state, off in ((HostState.FENCED, True), (HostState.LEFT, True), (HostState.LOST, False)):
        states = (state, HostState.ONLINE, HostState.ONLINE)
        first = seen_at(T0, [gone, *beats(T0, [0.1] * 3)[1:]], states)
        watched = look(None, first, POLICY)
        silent = {**watched.hosts, HostId("h1"): replace(watched.hosts[HostId("h1")], silent_for=Seconds(60.0))}
        then = seen_at(T0 + 0.5, [gone, *beats(T0 + 0.5, [0.1] * 3)[1:]], states)
        again = look(replace(watched, hosts=silent), then, POLICY)
        assert (still(first, then, again, POLICY) is not None) is off
        back = seen_at(T0 + 0.5, beats(T0 + 0.5, [0.1] * 3), states)
        assert still(first, back, look(replace(watched, hosts=silent), back, POLICY), POLICY) is None or not off


def test_a_host_never_heard_is_news() -> None:
    first = seen_at(T0, beats(T0, [0.1] * 3)[1:])
    assert still(first, first, look(None, first, POLICY), POLICY) is None
