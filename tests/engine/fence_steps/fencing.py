"""A host that is lost, its devices, and what the fence steps make of it: shared by the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from fangnetz.core.model import OffProof, Power
from fangnetz.core.units import DeviceName, HostId, OperationId, Seconds
from fangnetz.engine import execute
from fangnetz.engine.execute import Done
from fangnetz.engine.steps.failover import PROOF
from fangnetz.ports import PowerAnswer
from tests.contract.fence_devices import ScriptedDevice
from tests.contract.subjects import OP
from tests.core.world import spec
from tests.engine.bench import CUT, Bench


def lost_host(bench: Bench, *levels: tuple[str, ...], bound: bool = True, forced_by: str = "") -> list[ScriptedDevice]:
    """h1 is lost and about to be fenced. Return its devices."""
    wanted = levels or (("ipmi",),)
    bench.hosts[HostId("h1")] = spec("h1", levels=wanted)
    bench.members()
    made = [ScriptedDevice(name=DeviceName(d), guid=f"guid-of-{d}") for level in wanted for d in dict.fromkeys(level)]
    for device in made:
        bench.devices[device.name] = device
        if bound:
            bench.bind("h1", device.name, guid=device.guid)
    bench.lose("h1")
    bench.failover("h1", forced_by=forced_by)
    bench.skip_to("fence")
    bench.lose("h1")
    return made


def fence(bench: Bench) -> Done:
    return bench.do(bench.fencing(), "fence")


def proof(bench: Bench) -> OffProof | None:
    text = bench.step("fence").facts.get("proof")
    return PROOF.validate_json(text) if isinstance(text, str) else None


def before_the_cut(bench: Bench, device: ScriptedDevice, change: Callable[[], object]) -> None:
    """Let something happen after the last question and before the order."""
    asked = device.status

    def status(bound: Seconds) -> PowerAnswer:
        answer = asked(bound)
        device.status = asked
        change()
        return answer

    device.status = status


def held_up(monkeypatch: pytest.MonkeyPatch, at: str, seconds: float) -> None:
    """Let the executor's own thread stand still at a point or a stage, as a stopped process does."""
    thread = threading.current_thread()

    def wait(name: str) -> None:
        if name == at and threading.current_thread() is thread:
            threading.Event().wait(seconds)

    monkeypatch.setattr(execute, "point", lambda name, _subject: wait(name))
    monkeypatch.setattr(execute, "step_point", lambda _kind, stage, _subject: wait(stage))


def cut_by_us(bench: Bench) -> bool:
    """Whether h1's record names the operation under test as the one that cut it."""
    record = bench.host("h1")
    assert record is not None
    return record.cut_by == OP


def return_of(bench: Bench, **changed: object) -> ScriptedDevice:
    from fangnetz.core.operations import OperationKind, return_steps

    bench.members()
    bench.fenced("h1")
    old = bench.host("h1")
    assert old is not None
    assert bench.store.put_host(replace(old, **changed), old, bench.epoch)
    ipmi = ScriptedDevice(name=DeviceName("ipmi"), power=Power.OFF)
    bench.devices[ipmi.name] = ipmi
    made = replace(bench.operation(*return_steps(), kind=OperationKind.RETURN, subject="h1"), incident=CUT)
    assert bench.store.open_operation(made)
    return ipmi


def intend(bench: Bench, operation: str) -> None:
    """Leave in h1's record that an operation was about to cut it."""
    old = bench.host("h1")
    assert old is not None
    assert bench.store.put_host(replace(old, cut_by=OperationId(operation)), old, bench.epoch)
