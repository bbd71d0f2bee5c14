"""The twin's own numbers are the real store's. That it behaves alike is proven by tests/contract: both are params."""

from __future__ import annotations

import pytest

from fangnetz.adapters.libvirt import hypervisor
from fangnetz.adapters.libvirt import unanswered as real_unanswered
from fangnetz.adapters.redis import client, journal, keys, view
from fangnetz.sim import bus, libvirtd, unanswered
from fangnetz.sim.store import journal as twin_journal
from fangnetz.sim.store import line, memory
from tasks import dispatcher, names, steps
from workers import celery_settings, launch


@pytest.mark.parametrize(
    "name", ["CLOSED_MAX", "EVENTS_MAX", "PAST_BOOTS_MAX", "PROBE_ROUNDS_MAX", "WATCH_TTL_S", "WISH_RESULT_TTL_S"]
)
def test_the_twin_keeps_as_much_and_as_long_as_the_store(name: str) -> None:
    assert getattr(memory, name) == getattr(keys, name)


def test_what_is_not_kept_in_keys_is_the_same_too() -> None:
    assert memory.SANE_US == view.SANE_US
    assert twin_journal.WHY == journal.WHY
    assert line.CONNECT_TIMEOUT_S == client.CONNECT_TIMEOUT_S


def test_messages_go_by_the_same_names_and_bounds() -> None:
    real = [names.TICK, names.SWEEP, names.PROBE, names.READ_POWER]
    assert [f"fangnetz.{task}" for task in (bus.TICK, bus.SWEEP, bus.PROBE, bus.READ_POWER)] == real
    assert (bus.control_queue("c1"), bus.probe_queue("c1")) == (names.control_queue("c1"), names.probe_queue("c1"))
    assert names.QUEUE_PROBE == bus.QUEUE_PROBE
    assert (bus.PAUSE_S, bus.RETRY_MAX_S) == (dispatcher.PAUSE_S, steps.RETRY_MAX_S)
    assert (bus.OWN.length_max, bus.OWN.idle_s) == (celery_settings.STEPS_MAX, celery_settings.OWN_QUEUE_IDLE_S)
    assert bus.SHARED.idle_s == celery_settings.SHARED_QUEUE_IDLE_S
    assert (bus.TICKS.length_max, bus.PROBES.length_max) == (celery_settings.TICKS_MAX, celery_settings.PROBES_MAX)


def test_workers_have_as_many_slots() -> None:
    from fangnetz.sim import controller, host_worker
    from workers import controller as real_controller
    from workers import host as real_host

    assert {**controller.SLOTS, "host": host_worker.SLOTS} == launch.POOL
    assert controller.CONTRADICTION_S == real_controller.CONTRADICTION_S
    assert host_worker.LEDGER_EVERY_S == real_host.LEDGER_EVERY_S


def test_libvirt_is_given_the_same_time() -> None:
    assert libvirtd.QUESTION_BOUND_S == hypervisor.QUESTION_BOUND
    assert (libvirtd.EFFECT_BOUND_S, libvirtd.SUSPEND_BOUND_S) == (hypervisor.CREATE_BOUND, hypervisor.SUSPEND_BOUND)
    assert unanswered.SETTLE_S == hypervisor.SETTLE
    assert unanswered.SETTLE_INHERITED_S == hypervisor.SETTLE_INHERITED
    assert unanswered.NOTE_BOUND_S == real_unanswered.NOTE_BOUND_S
    assert unanswered.SILENT_AFTER_S == real_unanswered.SILENT_AFTER_S
    assert libvirtd.WATCH_EVERY_S == hypervisor.WATCH_EVERY
