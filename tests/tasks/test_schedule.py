"""The beat's schedule: right under any policy, each controller's matters on its own queues, no wall clock in it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from beat.schedule import beat_schedule
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, Seconds
from tasks.names import PROBE, SWEEP, TICK


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    tick = draw(st.floats(0.2, 8))
    heartbeat = draw(st.floats(0.4, 10))
    return Policy(
        tick_s=Seconds(tick),
        heartbeat_s=Seconds(heartbeat),
        probe_timeout_s=Seconds(heartbeat * draw(st.floats(0.2, 0.9))),
        control_lease_s=Seconds(min(30.0, 3 * tick + draw(st.floats(0.1, 5)))),
        startup_grace_s=Seconds(60.0),
    )


@settings(max_examples=100, deadline=None)
@given(policies(), st.sampled_from(["c1", "c2"]))
def test_no_message_expires_and_all_is_in_time(policy: Policy, controller: str) -> None:
    schedule = beat_schedule(policy, ControllerId(controller))
    for entry in schedule.values():
        assert set(entry["options"]) == {"queue"}
    assert {entry["task"] for entry in schedule.values()} == {TICK, SWEEP, PROBE}
    every = {entry["task"]: entry["schedule"].total_seconds() for entry in schedule.values()}
    assert 3 * every[TICK] <= policy.control_lease_s + 1e-5, "one late tick must not lose the lease"
    assert every[PROBE] * policy.silent_rounds <= policy.window_s + policy.heartbeat_s


@given(st.sampled_from(["c1", "c2"]))
def test_a_controllers_own_matters_are_on_its_own_queue(controller: str) -> None:
    schedule = beat_schedule(Policy(), ControllerId(controller))
    for entry in schedule.values():
        own = "control" if entry["task"] in (TICK, SWEEP) else "probe"
        assert entry["options"]["queue"] == f"{own}.{controller}"
