"""Questions to fence devices and probes: written down as answered, bound to the boot that was alive, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.model import Answer, Power, PowerReading
from fangnetz.core.units import DeviceName, HostId, Seconds
from fangnetz.engine.watching import PowerAsker, probe_hosts
from fangnetz.ports import PowerAnswer, ProbeReply, ProbeTarget
from tests.contract.fence_devices import ScriptedDevice
from tests.contract.subjects import C1, H1
from tests.engine.bench import Bench
from tests.redis_server import wait_for

IPMI = DeviceName("ipmi")


def asker(bench: Bench, *devices: ScriptedDevice, **more: object) -> PowerAsker:
    known = {device.name: device for device in devices}
    return PowerAsker(
        bench.store, bench.hosts, bench.policy, lambda _host: known, bench.dispatcher, SystemProcess(), **more
    )  # type: ignore[arg-type]


def reading(bench: Bench, device: str = "ipmi") -> PowerReading:
    found = {r.device: r for r in bench.store.view(bench.hosts, None).readings[H1]}
    return found[DeviceName(device)]


def test_an_answer_is_written_down_with_the_boot_that_was_alive_and_the_tick_is_nudged(bench: Bench) -> None:
    bench.report()
    device = ScriptedDevice(name=IPMI)
    asker(bench, device).ask(H1, [IPMI])
    found = reading(bench)
    assert (found.power, found.incarnation, found.guid) == (Power.ON, "i1", "guid-of-h1")
    assert found.asked_at <= found.answered_at
    assert (bench.dispatcher.nudges, device.orders) == (1, [])


def test_a_reading_of_a_silent_host_binds_nothing(bench: Bench) -> None:
    asker(bench, ScriptedDevice(name=IPMI)).ask(H1, [IPMI])
    assert reading(bench).incarnation == ""
    bench.report()
    bench.raw.hset("fn:{test}:hb:h1", "at", str(int((bench.store.now() - 5) * 1_000_000)))
    asker(bench, ScriptedDevice(name=IPMI)).ask(H1, [IPMI])
    assert reading(bench).incarnation == ""


@pytest.mark.parametrize("mode", ["dark", "refuses"])
def test_no_answer_is_written_down_as_unknown(bench: Bench, mode: str) -> None:
    asker(bench, ScriptedDevice(name=IPMI, power=Power.OFF, mode=mode)).ask(H1, [IPMI])
    found = reading(bench)
    assert (found.power, found.guid) == (Power.UNKNOWN, "")
    assert "ipmi" in found.raw


def test_all_devices_are_asked_at_once(bench: Bench) -> None:
    together = threading.Barrier(3, timeout=10)

    class Waits(ScriptedDevice):
        def status(self, bound: Seconds) -> PowerAnswer:
            together.wait()
            return super().status(bound)

    devices = [Waits(name=DeviceName(name)) for name in "abc"]
    asker(bench, *devices).ask(H1, [d.name for d in devices])
    assert {reading(bench, name).power for name in "abc"} == {Power.ON}


def test_a_device_is_asked_one_question_at_a_time(bench: Bench) -> None:
    gate = threading.Event()

    class Slow(ScriptedDevice):
        def status(self, bound: Seconds) -> PowerAnswer:
            gate.wait(10)
            return super().status(bound)

    device = Slow(name=IPMI)
    one = asker(bench, device)
    first = threading.Thread(target=one.ask, args=(H1, [IPMI]))
    first.start()
    assert wait_for(lambda: one._asking)
    one.ask(H1, [IPMI])
    assert device.questions == 0
    gate.set()
    first.join()
    assert device.questions == 1
    one.ask(H1, [IPMI])
    assert device.questions == 2


def test_a_device_nobody_knows_is_not_asked(bench: Bench) -> None:
    asker(bench).ask(H1, [IPMI])
    assert bench.store.view(bench.hosts, None).readings[H1] == ()


class Prober:
    def probe(self, targets: Sequence[ProbeTarget], timeout: Seconds) -> tuple[ProbeReply, ...]:
        return tuple(
            ProbeReply(host=t.host, ping=Answer.YES, kernel=Answer.NO, libvirt=Answer.UNKNOWN) for t in targets
        )

    def reach(self, addresses: Sequence[str], timeout: Seconds) -> tuple[str, ...]:
        return tuple(addresses)[:1]


def test_a_probe_round_is_written_down_as_it_was(bench: Bench) -> None:
    targets = [ProbeTarget(host=HostId(h), address="127.0.0.1", libvirt_port=1) for h in ("h1", "h2")]
    before = bench.store.now()
    made = probe_hosts(bench.store, Prober(), C1, targets, ["10.0.0.1", "10.0.0.2"], bench.policy)
    bench.store.view(bench.hosts, C1)
    assert bench.store.view(bench.hosts, None).probes == (made,)
    assert before <= made.started_at <= made.ended_at <= bench.store.now()
    assert made.references == ("10.0.0.1",)
    answer = made.answer(HostId("h2"))
    assert answer is not None
    assert (answer.ping, answer.kernel, answer.libvirt) == (Answer.YES, Answer.NO, Answer.UNKNOWN)
