"""Of two copies the later one is paused, and never the only one."""

from __future__ import annotations

import pytest

from fangnetz.core.copies import is_to_pause
from fangnetz.core.model import Answer, Sighting, VmSighting
from fangnetz.core.operations import (
    Step,
    StepKind,
    StepState,
)
from fangnetz.core.units import Generation, HostId, Instant
from fangnetz.engine.execute import Done, Next
from tests.contract.subjects import C2
from tests.engine.vm_steps.vm_host import Host, xml
from tests.redis_server import wait_for

PAUSE = "op-pause"


class Twice:
    """h1 runs the later started copy, h2 the earlier one, and h1 is ordered to pause its own."""

    def __init__(self, host: Host, *, started: float = 20.0) -> None:
        self.host, self.bench = host, host.bench
        self.key = f"pause/{host.vm}"
        self.started = started
        self.bench.boots[HostId("h1")] = host.boot.incarnation
        self.bench.vm(host.vm, HostId("h2"), 7)
        host.hypervisor.create(host.vm, xml(host.vm), Generation(7), start_sent_at=Instant(started))

    def order(self, generation: int = 7) -> None:
        step = Step(key=self.key, kind=StepKind.PAUSE, order=self.host.order(generation))
        close = Step(key="close", kind=StepKind.CLOSE, after=("*",))
        self.bench.open(step, close, identity=PAUSE, subject=f"{self.host.vm} pause")

    def report(self, host: str = "h2", *, state: Sighting = Sighting.RUNNING, age: float = 0.0) -> None:
        started = Instant(self.started if host == "h1" else 10.0)
        seen = VmSighting(vm=self.host.vm, state=state, generation=Generation(7), start_sent_at=started)
        self.bench.report(host, seen=(seen,), age=age)

    def report_both(self) -> None:
        self.report("h1")
        self.report("h2")

    def pause(self) -> Done:
        return self.bench.do(self.host.executor(), self.key, PAUSE)

    @property
    def state(self) -> Sighting:
        (copy,) = [domain for domain in self.host.hypervisor.domains() if domain.vm == self.host.vm]
        return copy.state

    @property
    def step(self) -> Step:
        return self.bench.step(self.key, PAUSE)


@pytest.fixture
def twice(host: Host) -> Twice:
    return Twice(host)


def test_the_later_copy_is_paused_and_not_released(twice: Twice) -> None:
    twice.order()
    twice.report_both()
    assert twice.pause().next is Next.GO_ON
    assert (twice.state, twice.step.state) == (Sighting.PAUSED, StepState.DONE)
    assert twice.host.boot.released(twice.host.vm) == 0
    assert "vm_paused" in twice.bench.events()
    assert twice.host.reports == 1


def test_a_copy_paused_already_is_the_answer(twice: Twice) -> None:
    twice.host.hypervisor.suspend(twice.host.vm, Generation(7))
    twice.order()
    assert twice.pause().next is Next.GO_ON
    assert (twice.state, twice.step.state) == (Sighting.PAUSED, StepState.DONE)


def test_what_was_said_before_the_order_pauses_nothing(twice: Twice) -> None:
    twice.report_both()
    twice.order()
    assert twice.pause().next is Next.AGAIN

    def tried_again() -> bool:
        twice.report("h1")
        twice.report("h2", age=1000.0)  # a report from now, with a list from before: its libvirt hangs
        return twice.pause().next is Next.AGAIN and twice.step.attempt > 1

    assert wait_for(tried_again)
    assert twice.state is Sighting.RUNNING
    assert wait_for(lambda: (twice.report_both(), twice.pause().next is Next.GO_ON)[1])
    assert twice.state is Sighting.PAUSED


@pytest.mark.parametrize("other", ["gone", "paused", "silent"])
def test_the_only_copy_is_never_paused(twice: Twice, other: str) -> None:
    twice.report_both()  # so it was when the order was written
    twice.order()
    twice.report("h1")
    if other == "gone":
        twice.bench.report("h2")
    elif other == "paused":
        twice.report("h2", state=Sighting.PAUSED)
    assert twice.pause().next is (Next.AGAIN if other == "silent" else Next.STOP)
    assert twice.state is Sighting.RUNNING
    assert twice.step.state is (StepState.READY if other == "silent" else StepState.FAILED)


def test_the_earlier_copy_is_not_paused(host: Host) -> None:
    twice = Twice(host, started=5.0)
    twice.order()
    twice.report_both()
    assert twice.pause().next is Next.STOP
    assert twice.state is Sighting.RUNNING


@pytest.mark.parametrize("generation", [6, 8])
def test_a_copy_of_another_generation_is_not_paused(twice: Twice, generation: int) -> None:
    twice.order(generation)
    twice.report_both()
    assert twice.pause().next is Next.STOP
    assert twice.state is Sighting.RUNNING


def test_nothing_is_paused_once_the_order_no_longer_holds(twice: Twice, monkeypatch: pytest.MonkeyPatch) -> None:
    twice.order()
    twice.report_both()

    def overthrown(*what: object) -> tuple[Answer, str]:
        twice.bench.lead(C2)
        return is_to_pause(*what)

    monkeypatch.setattr("fangnetz.engine.steps.vm.is_to_pause", overthrown)
    assert twice.pause().next is Next.STOP
    assert twice.state is Sighting.RUNNING


def test_a_libvirt_that_does_not_answer_is_asked_to_pause_again(twice: Twice, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    twice.order()
    twice.report_both()
    with monkeypatch.context() as deaf:
        deaf.setattr(libvirt.virDomain, "suspend", lambda _domain: 0)  # says yes and does nothing
        assert twice.pause().next is Next.AGAIN
    assert (twice.state, twice.step.state) == (Sighting.RUNNING, StepState.READY)
    twice.report_both()
    assert wait_for(lambda: twice.pause().next is Next.GO_ON)
    assert twice.state is Sighting.PAUSED
