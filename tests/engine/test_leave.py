"""A host's goodbye on a real store: it waits for the controllers' work, and no longer than somebody can do it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.model import ClusterView, HostSpec, Leaving
from fangnetz.core.units import ControllerId, HostId, Seconds
from fangnetz.engine.leave import Goodbye, LeaveHost
from tests.core.world import beat
from tests.engine.bench import Bench
from tests.redis_server import wait_for

H1 = HostId("h1")


class Leaver:
    """One host that says goodbye in a thread of its own."""

    def __init__(self, bench: Bench, folder: Path, **policy: float) -> None:
        self.bench = bench
        self.boot = BootFilesOnDisk(folder / "run")
        bench.boots[H1] = self.boot.incarnation
        self.told: list[str] = []
        self.said: list[Goodbye] = []
        self.goodbye = LeaveHost(
            host=H1, hosts=bench.hosts, store=bench.store, boot=self.boot,
            policy=replace(bench.policy, **policy), process=SystemProcess(), tell=self.told.append,
        )  # fmt: skip
        bench.members()
        bench.define("web", owner="h1")

    def begin(self, how: Leaving = Leaving.SHUTDOWN) -> None:
        threading.Thread(target=lambda: self.said.append(self.goodbye.leave(how)), daemon=True).start()

    def report(self, how: Leaving, **more: object) -> None:
        self.bench.sequence += 1
        report = replace(beat("h1", 1.0, boot=self.boot.incarnation, **more), leaving=how)
        self.bench.store.put_heartbeat(replace(report, sequence=self.bench.sequence))


@pytest.fixture
def leaver(bench: Bench, tmp_path: Path) -> Leaver:
    return Leaver(bench, tmp_path)


def test_it_waits_until_every_vm_is_released(leaver: Leaver) -> None:
    generation = leaver.bench.store.view(leaver.bench.hosts, None).vm_records["web"].generation
    leaver.begin()
    wait_for(lambda: leaver.boot.leaving() is Leaving.SHUTDOWN)
    leaver.report(Leaving.SHUTDOWN, runs={"web": generation})
    wait_for(lambda: any("web" in sentence for sentence in leaver.told))
    assert leaver.said == []
    leaver.report(Leaving.SHUTDOWN, releases={"web": generation})
    wait_for(lambda: leaver.said)
    assert (leaver.said[0].complete, leaver.said[0].left) == (True, ())


def test_what_the_worker_has_not_announced_yet_is_no_goodbye(leaver: Leaver) -> None:
    leaver.report(Leaving.NO, releases={"web": 10**15})
    leaver.begin()
    wait_for(lambda: leaver.boot.leaving() is Leaving.SHUTDOWN)
    threading.Event().wait(1.2)  # two looks
    assert leaver.said == []
    leaver.report(Leaving.SHUTDOWN, releases={"web": 10**15})
    wait_for(lambda: leaver.said)


def test_the_last_word_of_an_earlier_boot_is_not_taken_for_this_ones_goodbye(leaver: Leaver) -> None:
    record = leaver.bench.record("web")
    elsewhere = replace(record, owner=HostId("h2"))
    assert leaver.bench.store.put_vm(elsewhere, record.generation, leaver.bench.epoch)
    leaver.bench.sequence += 1
    earlier = replace(beat("h1", 1.0, boot="another"), leaving=Leaving.SHUTDOWN)
    leaver.bench.store.put_heartbeat(replace(earlier, sequence=leaver.bench.sequence))
    leaver.begin()
    threading.Event().wait(1.2)  # two looks
    assert leaver.said == []
    leaver.goodbye.stay()
    wait_for(lambda: leaver.said)
    assert not leaver.said[0].complete


def test_it_ends_when_it_is_taken_back(leaver: Leaver) -> None:
    leaver.begin()
    wait_for(lambda: leaver.boot.leaving() is Leaving.SHUTDOWN)
    leaver.goodbye.stay()
    wait_for(lambda: leaver.said)
    assert not leaver.said[0].complete
    assert "stays" in leaver.said[0].sentence


class Clock(SystemProcess):
    """Sleeps take no time, and are counted."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, span: Seconds) -> None:
        self.now += span


class Away:
    """A store of which nothing is heard."""

    def view(self, _hosts: dict[HostId, HostSpec], _controller: ControllerId | None) -> ClusterView:
        raise StoreUnreachable("no answer")


def test_it_waits_no_longer_than_a_grace_for_a_store_that_does_not_answer(leaver: Leaver) -> None:
    clock = Clock()
    policy = leaver.bench.policy
    alone = LeaveHost(
        host=H1, hosts=leaver.bench.hosts, store=Away(), boot=leaver.boot, policy=policy, process=clock,
    )  # fmt: skip
    said = alone.leave(Leaving.REBOOT)
    assert not said.complete
    assert "watched as any other" in said.sentence
    assert policy.startup_grace_s <= clock.now <= policy.startup_grace_s + 1
    assert leaver.boot.leaving() is Leaving.REBOOT, "what it has announced stands"


def test_it_has_an_end_though_a_vm_is_never_released(leaver: Leaver) -> None:
    generation = leaver.bench.store.view(leaver.bench.hosts, None).vm_records["web"].generation
    leaver.report(Leaving.SHUTDOWN, runs={"web": generation})
    clock = Clock()
    policy = replace(leaver.bench.policy, evacuate_deadline_s=Seconds(5.0), startup_grace_s=Seconds(3000.0))
    slow = LeaveHost(
        host=H1, hosts=leaver.bench.hosts, store=leaver.bench.store, boot=leaver.boot, policy=policy, process=clock,
    )  # fmt: skip
    said = slow.leave(Leaving.SHUTDOWN)
    assert (said.complete, said.left) == (False, ("web",))
    assert 5 + policy.stop_bound_s <= clock.now
