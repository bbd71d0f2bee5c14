"""Timing and limits: every inequality a policy must keep, written a second time, and every refusal with its reason."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangnetz.core.policy import PROFILES, Compression, Fault, Policy, PolicyRefused
from fangnetz.core.units import Instant, next_number

NUMBERS = {
    f.name: getattr(Policy(), f.name) for f in fields(Policy) if isinstance(getattr(Policy(), f.name), int | float)
}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_shipped_profiles_load(profile: str) -> None:
    replace(Policy(), **PROFILES[profile])  # type: ignore[arg-type]  # a table of overrides is untyped


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("misses", {"misses": 2}),
        ("misses", {"misses": 1}),
        ("misses", {"heartbeat_s": 0.2, "probe_timeout_s": 0.1}),
        ("probe_timeout_s", {"probe_timeout_s": 1.0}),
        ("control_lease_s", {"control_lease_s": 2.9}),
        ("control_lease_s", {"tick_s": 1.4}),
        ("step_lease_s", {"step_lease_s": 4.1}),
        ("step_lease_s", {"step_lease_s": 0.9}),
        ("fence_bound_s", {"fence_bound_s": 7.9}),
        ("fence_bound_s", {"power_ask_s": 9.0}),
        ("startup_grace_s", {"startup_grace_s": 2.9}),
        ("max_lost_share", {"max_lost_share": 0.51}),
        ("max_lost_share", {"max_lost_share": 0.0}),
        ("cpu_overcommit", {"cpu_overcommit": 0.9}),
        ("heartbeat_s", {"heartbeat_s": 0.1, "probe_timeout_s": 0.05, "misses": 20}),
    ],
)
def test_an_unsafe_setting_is_refused_by_its_key(key: str, changes: dict[str, float]) -> None:
    with pytest.raises(PolicyRefused) as refused:
        replace(Policy(), **changes)  # type: ignore[arg-type]
    assert key in {fault.key for fault in refused.value.faults}


def test_moves_are_sent_as_qemu_does_by_itself_unless_somebody_asks_for_more() -> None:
    assert (Policy().migrate_connections, Policy().migrate_compression) == (1, Compression.NONE)


@pytest.mark.parametrize(
    ("connections", "compression", "key"),
    [
        (1, "none", ""), (8, "none", ""), (1, "xbzrle", ""), (2, "zstd", ""), (4, "zlib", ""),
        (4, "xbzrle", "migrate_compression"), (1, "zstd", "migrate_compression"), (1, "zlib", "migrate_compression"),
        (0, "none", "migrate_connections"), (65, "none", "migrate_connections"),
    ],
)  # fmt: skip
def test_a_compression_that_would_compress_nothing_or_move_nothing_is_refused(
    connections: int, compression: str, key: str
) -> None:
    try:
        replace(Policy(), migrate_connections=connections, migrate_compression=Compression(compression))
        refused: tuple[Fault, ...] = ()
    except PolicyRefused as error:
        refused = error.faults
    assert [fault.key for fault in refused] == ([key] if key else [])
    assert all(str(connections) in f"{fault.value} {fault.rule}" for fault in refused)


def test_all_faults_are_told_at_once_each_with_key_and_value() -> None:
    with pytest.raises(PolicyRefused) as refused:
        replace(Policy(), misses=1, step_lease_s=9.0, max_lost_share=2.0)  # type: ignore[arg-type]
    told = {fault.key: fault.value for fault in refused.value.faults}
    assert told.items() >= {"misses": 1, "step_lease_s": 9.0, "max_lost_share": 2.0}.items()


policies = st.fixed_dictionaries(
    {},
    optional={
        name: st.integers(-1, 30)
        if isinstance(value, int)
        else st.floats(-1, 100) | st.sampled_from([value, value / 2])
        for name, value in NUMBERS.items()
    },
)


def built(changes: dict[str, float]) -> tuple[Policy | None, tuple[Fault, ...]]:
    try:
        return replace(Policy(), **changes), ()  # type: ignore[arg-type]
    except PolicyRefused as refused:
        return None, refused.faults


@settings(max_examples=1500)
@given(policies)
def test_a_policy_is_refused_with_reasons_or_keeps_every_sum(changes: dict[str, float]) -> None:
    policy, faults = built(changes)
    for fault in faults:
        assert fault.key in NUMBERS
        assert fault.rule
    if policy is None:
        assert faults
        return
    assert policy.probe_timeout_s < policy.heartbeat_s
    window = policy.heartbeat_s * policy.misses
    assert window >= 1.0
    # When all are cut at once the last report of another may be a whole interval younger: it must be overdue by then.
    assert window - policy.heartbeat_s >= 1.5 * policy.heartbeat_s - 1e-9
    assert policy.overdue_s < window
    assert policy.control_lease_s >= 3 * policy.tick_s
    assert 1 <= policy.step_lease_s <= 4
    assert policy.fence_bound_s >= 2 * policy.power_ask_s + policy.step_lease_s
    assert policy.startup_grace_s >= window
    assert 0 < policy.max_lost_share <= 0.5
    assert policy.gap_s >= 2 * max(policy.tick_s, policy.heartbeat_s)
    assert policy.start_attempts_max >= 1
    assert policy.fence_attempts_max >= 1


@given(st.lists(st.integers(0, 10**17), min_size=1), st.floats(0, 4e9))
def test_numbers_never_come_back(seen: list[int], now: float) -> None:
    number = next_number(*seen, now=Instant(now))
    assert number > max(seen)
    assert number >= int(now * 1_000_000)
