"""What a host says its VMs use: a mean over the last minute, per copy, never made up, and told with its age."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fangnetz.core.errors import HypervisorUnreachable
from fangnetz.core.model import VmUse
from fangnetz.core.units import MiB, Seconds, VmId
from fangnetz.engine.measuring import AT_FIRST_S, EVERY_S, NOTHING, Meter
from fangnetz.ports import Consumed
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.process import Process

WEB = VmId("web")


class Counted:
    """A hypervisor whose one guest has consumed what the test says."""

    def __init__(self) -> None:
        self.cpu_s = 100.0
        self.memory_mib: float | None = 300.4
        self.there = True
        self.gone = False
        self.asked = 0

    def consumed(self) -> tuple[Consumed, ...]:
        self.asked += 1
        if self.gone:
            raise HypervisorUnreachable("libvirt is gone")
        if not self.there:
            return ()
        return (Consumed(vm=WEB, cpu_s=Seconds(self.cpu_s), memory_mib=self.memory_mib),)


class Host:
    def __init__(self) -> None:
        self.kernel, self.guest = Kernel(0), Counted()
        self.process = Process(self.kernel, "host", lambda where, error: pytest.fail(f"{where}: {error}"))
        self.meter = Meter(self.guest, self.process)

    def after(self, span: float, cpus: float = 0.0) -> VmUse | None:
        """Look `span` seconds later, in which the guest kept so many cpus busy."""
        self.kernel.run(self.kernel.now + span)
        self.guest.cpu_s += span * cpus
        self.meter.measure()
        return self.meter.latest.uses[0] if self.meter.latest.uses else None


@pytest.fixture
def host() -> Host:
    return Host()


def test_one_look_is_no_rate_and_the_second_is(host: Host) -> None:
    assert host.after(0) is None
    assert host.meter.latest.age_s(99.0) == 0
    assert host.after(10, cpus=1.5) == VmUse(WEB, 1.5, MiB(300))
    assert host.meter.latest.age_s(host.kernel.now + 7) == 7


def test_a_steady_load_is_told_as_it_is_and_a_burst_fades_within_minutes(host: Host) -> None:
    host.after(0)
    for _ in range(12):
        steady = host.after(10, cpus=0.5)
    assert steady == VmUse(WEB, 0.5, MiB(300))
    burst = host.after(10, cpus=8.0)
    assert burst is not None
    assert 1.0 < burst.cpus < 2.5, "one look does not make a busy guest"
    for _ in range(24):
        last = host.after(10, cpus=0.5)
    assert last is not None
    assert last.cpus < 0.6


def test_the_looks_of_the_first_minute_count_by_their_length(host: Host) -> None:
    host.after(0)
    host.after(1, cpus=8.0)
    assert host.after(9, cpus=0.0) == VmUse(WEB, 0.8, MiB(300))


def test_a_long_pause_counts_as_the_mean_over_it(host: Host) -> None:
    host.after(0)
    host.after(10, cpus=4.0)
    assert host.after(600, cpus=0.1) == VmUse(WEB, 0.1, MiB(300))


def test_another_copy_of_the_same_name_begins_anew(host: Host) -> None:
    host.after(0)
    host.after(10, cpus=4.0)
    host.guest.cpu_s = 2.0
    assert host.after(10) is None
    assert host.after(10, cpus=0.1) == VmUse(WEB, 0.1, MiB(300))


def test_a_guest_that_is_not_there_is_not_told_of(host: Host) -> None:
    host.after(0)
    assert host.after(10) is not None
    host.guest.there = False
    assert host.after(10) is None
    host.guest.there = True
    assert host.after(10) is None, "it may be another copy"


def test_memory_that_cannot_be_told_is_what_it_was_and_never_nothing(host: Host) -> None:
    host.guest.memory_mib = None
    host.after(0)
    assert host.after(10) is None
    host.guest.memory_mib = 500.0
    assert host.after(10) == VmUse(WEB, 0.0, MiB(500))
    host.guest.memory_mib = None
    assert host.after(10) == VmUse(WEB, 0.0, MiB(500))


def test_what_cannot_be_measured_grows_old_and_is_asked_again(host: Host) -> None:
    host.meter.start()
    host.kernel.run(AT_FIRST_S + 0.5)
    assert host.guest.asked == 2
    known = host.meter.latest
    assert known.uses
    host.guest.gone = True
    host.kernel.run(5 * EVERY_S)
    assert host.meter.latest is known
    assert known.age_s(host.kernel.now) > 4 * EVERY_S
    host.guest.gone = False
    host.kernel.run(7 * EVERY_S)
    assert host.meter.latest.age_s(host.kernel.now) <= EVERY_S


def test_it_asks_seldom_and_ends_when_told(host: Host) -> None:
    host.meter.start()
    host.kernel.run(100.0)
    assert 10 <= host.guest.asked <= 12
    host.meter.stop()
    host.kernel.run(120.0)
    asked = host.guest.asked
    host.kernel.run(300.0)
    assert host.guest.asked == asked


def test_nothing_has_no_age() -> None:
    age: Callable[[float], float] = NOTHING.age_s
    assert (NOTHING.uses, age(5.0)) == ((), 0)
