"""A live migration that does not come to an end is helped on step by step, then ended with its reason; never early."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.convergence import Course, Progress, go_on, ladder
from fangnetz.core.policy import Policy, PolicyRefused
from fangnetz.core.units import Seconds

POLICY = Policy()


def progress(at: float, left: float, *, sent: float = 0.0) -> Progress:
    return Progress(
        elapsed_s=Seconds(at), total_mib=1000.0, sent_mib=sent, remaining_mib=left, speed_mib_s=110.0, dirty_mib_s=140.0
    )


def course(*looks: Progress, policy: Policy = POLICY) -> Course:
    seen = Course()
    for one in looks:
        seen = go_on(seen, one, policy)
    return seen


def test_a_migration_that_comes_nearer_is_left_alone() -> None:
    looks = [progress(at, 1000.0 - at * 10) for at in range(1, 90)]
    assert course(*looks).advice.end == ""
    assert all(course(*looks[:count]).advice.downtime_s is None for count in range(1, len(looks)))


def test_the_allowed_downtime_doubles_up_to_the_most() -> None:
    assert ladder(POLICY) == (0.3, 0.6, 1.2, 2.4, 3.0)
    assert ladder(replace(POLICY, migrate_downtime_max_s=Seconds(0.3))) == (0.3,)


def test_one_that_comes_no_nearer_is_allowed_more_downtime_step_by_step_and_then_ended() -> None:
    seen, given_at = Course(), {}
    for tenth in range(1, 900):
        seen = go_on(seen, progress(tenth / 10, 500.0), POLICY)
        if seen.advice.downtime_s is not None:
            given_at[seen.advice.downtime_s] = tenth / 10
        if seen.advice.end:
            break
    assert list(given_at) == [0.6, 1.2, 2.4, 3.0]
    assert seen.advice.end == (
        "it came no nearer to its end for 60 s; the guest writes 140 MiB/s and 110 MiB/s are sent, "
        "500 of 1000 MiB remain"
    )
    assert tenth / 10 == pytest.approx(60.0, abs=1.0)


def test_what_goes_up_and_down_by_little_is_no_progress() -> None:
    looks = [progress(at, 500.0 - at * 0.1) for at in range(1, 200)]
    assert any(course(*looks[:count]).advice.end for count in range(len(looks)))


def test_its_bound_is_the_policys_and_its_own_size() -> None:
    assert "migrate_bound_s" in course(progress(3601.0, 1.0)).advice.end
    assert "20 times over" in course(progress(30.0, 1.0, sent=20_001.0)).advice.end
    assert course(progress(30.0, 1.0, sent=19_999.0)).advice.end == ""


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=60))
def test_it_is_never_ended_before_it_stood_still_for_the_whole_span(left: list[float]) -> None:
    seen = Course()
    for at, remaining in enumerate(left, start=1):
        seen = go_on(seen, progress(float(at), remaining), POLICY)
        assert not seen.advice.end or at >= POLICY.migrate_stall_s


@pytest.mark.parametrize(
    ("remaining", "total", "share"), [(0.0, 100.0, 1.0), (100.0, 100.0, 0.0), (150.0, 100.0, 0.0), (5.0, 0.0, 0.0)]
)
def test_how_far_it_is_lies_between_nothing_and_all(remaining: float, total: float, share: float) -> None:
    now = Progress(elapsed_s=Seconds(1.0), total_mib=total, sent_mib=0.0, remaining_mib=remaining)
    assert now.share == share


@pytest.mark.parametrize(
    ("key", "value"),
    [("migrate_bound_s", 5.0), ("migrate_stall_s", 1.0), ("migrate_downtime_s", 0.0), ("migrate_downtime_max_s", 0.1)],
)
def test_a_policy_that_makes_no_sense_is_refused_by_its_key(key: str, value: float) -> None:
    with pytest.raises(PolicyRefused, match=key):
        Policy(**{key: Seconds(value)})
