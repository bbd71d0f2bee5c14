"""A prober: each host answers for itself, in the order asked; silence costs one wait, a refusal is a sign of life."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol, cast

import pytest

from fangnetz.adapters.probes import NetworkProber
from fangnetz.core.model import Answer
from fangnetz.core.units import HostId, Seconds
from fangnetz.ports import Prober, ProbeReply, ProbeTarget
from fangnetz.sim.libvirtd import Libvirtd, Times
from fangnetz.sim.machine import Machine
from fangnetz.sim.network import CLUSTER, Network
from fangnetz.sim.prober import SimProber
from tests.adapters.conftest import silent_peer
from tests.contract.simulated import Driven, Driver

__all__ = ["silent_peer"]
YES, NO = Answer.YES, Answer.NO
TIMEOUT = Seconds(0.6)


class ProbeSubject(Protocol):
    """A prober and hosts to ask."""

    prober: Prober

    def now(self) -> float:
        """Seconds of the prober's own clock."""
        ...

    def well(self) -> ProbeTarget: ...

    def without_libvirt(self) -> ProbeTarget:
        """A host whose kernel lives and whose libvirt is gone."""
        ...

    def with_hung_libvirt(self) -> ProbeTarget:
        """A host whose libvirt accepts and never speaks."""
        ...

    def silent(self) -> ProbeTarget:
        """A host that does not answer anything."""
        ...


class RealHosts:
    """Loopback and, for silence, a peer that drops everything."""

    def __init__(self, stack: ExitStack, request: pytest.FixtureRequest) -> None:
        self._stack, self._request = stack, request
        self.prober: Prober = NetworkProber()

    def now(self) -> float:
        return time.monotonic()

    def _listening(self, name: str) -> ProbeTarget:
        server = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        return ProbeTarget(host=HostId(name), address="127.0.0.1", libvirt_port=int(server.getsockname()[1]))

    def well(self) -> ProbeTarget:
        return self._listening("well")

    def with_hung_libvirt(self) -> ProbeTarget:
        return self._listening("hung")  # nobody ever accepts

    def without_libvirt(self) -> ProbeTarget:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = int(server.getsockname()[1])
        return ProbeTarget(host=HostId("without"), address="127.0.0.1", libvirt_port=port)

    def silent(self) -> ProbeTarget:
        address = self._request.getfixturevalue("silent_peer")
        return ProbeTarget(host=HostId("silent"), address=address, libvirt_port=16509)


class SimHosts:
    """Simulated ones; the silent one is silent for the given reason."""

    def __init__(self, why_silent: str) -> None:
        self._driver, self._why, self._network = Driver(), why_silent, Network()
        here = self._driver.machine("c1")
        self._hosts: dict[HostId, Machine] = {}
        self._libvirt: dict[HostId, Libvirtd] = {}
        process = self._driver.process(here)
        twin = SimProber(process, here, self._hosts, self._libvirt, self._network)
        self.prober: Prober = cast("Prober", Driven(self._driver, process, twin))

    def now(self) -> float:
        return self._driver.kernel.now

    def _host(self, name: str, libvirt: str = "ok") -> Machine:
        machine = self._driver.machine(name)
        daemon = Libvirtd(
            self._driver.kernel, machine, self._network, lambda _vm: Times(), lambda _copy: None, lambda _copy: None
        )
        daemon.become(libvirt)
        self._hosts[HostId(name)], self._libvirt[HostId(name)] = machine, daemon
        return machine

    @staticmethod
    def _target(name: str) -> ProbeTarget:
        return ProbeTarget(host=HostId(name), address="", libvirt_port=16509)

    def well(self) -> ProbeTarget:
        return self._target(self._host("well").name)

    def with_hung_libvirt(self) -> ProbeTarget:
        return self._target(self._host("hung", "hung").name)

    def without_libvirt(self) -> ProbeTarget:
        return self._target(self._host("without", "dead").name)

    def silent(self) -> ProbeTarget:
        machine = self._host("silent")
        match self._why:
            case "off":
                machine.switch_off("test")
            case "frozen":
                machine.freeze()
            case "cut in" | "cut out":
                self._network.cut(machine.name, (CLUSTER,), self._why.removeprefix("cut "))
        return self._target(machine.name)


@pytest.fixture(params=["network", "twin, off", "twin, frozen", "twin, cut in", "twin, cut out"])
def subject(request: pytest.FixtureRequest) -> Iterator[ProbeSubject]:
    if request.param != "network":
        yield SimHosts(request.param.removeprefix("twin, "))
        return
    with ExitStack() as stack:
        yield RealHosts(stack, request)


def said(reply: ProbeReply) -> tuple[Answer, Answer, Answer]:
    return reply.ping, reply.kernel, reply.libvirt


def test_a_living_host_with_libvirt_says_yes_three_times(subject: ProbeSubject) -> None:
    (reply,) = subject.prober.probe([subject.well()], TIMEOUT)
    assert (reply.host, *said(reply)) == ("well", YES, YES, YES)


def test_a_host_without_libvirt_is_a_living_kernel_and_a_dead_service(subject: ProbeSubject) -> None:
    (reply,) = subject.prober.probe([subject.without_libvirt()], TIMEOUT)
    assert said(reply) == (YES, YES, NO)


def test_a_hung_libvirt_is_not_told_from_one_that_is_well(subject: ProbeSubject) -> None:
    """The kernel connects for it; what it says is the heartbeat's matter."""
    (reply,) = subject.prober.probe([subject.with_hung_libvirt()], TIMEOUT)
    assert said(reply) == (YES, YES, YES)


def test_silence_is_no_three_times_and_costs_one_wait(subject: ProbeSubject) -> None:
    target, began = subject.silent(), subject.now()
    (reply,) = subject.prober.probe([target], TIMEOUT)
    assert said(reply) == (NO, NO, NO)
    assert TIMEOUT * 0.9 <= subject.now() - began < TIMEOUT + 1.0


def test_one_silent_host_does_not_hide_the_others(subject: ProbeSubject) -> None:
    targets = [subject.silent(), subject.well(), subject.without_libvirt()]
    replies = subject.prober.probe(targets, TIMEOUT)
    assert [reply.host for reply in replies] == ["silent", "well", "without"]
    assert [said(reply) for reply in replies] == [(NO, NO, NO), (YES, YES, YES), (YES, YES, NO)]


def test_answers_come_at_once_where_nobody_is_silent(subject: ProbeSubject) -> None:
    targets, began = [subject.well(), subject.without_libvirt()], subject.now()
    subject.prober.probe(targets, Seconds(5.0))
    assert subject.now() - began < 2.5


def test_nothing_to_ask_is_no_round(subject: ProbeSubject) -> None:
    assert subject.prober.probe([], TIMEOUT) == ()
    assert subject.prober.reach([], TIMEOUT) == ()


def test_a_silent_reference_is_not_reached(subject: ProbeSubject) -> None:
    assert subject.prober.reach([subject.silent().address], TIMEOUT) == ()
