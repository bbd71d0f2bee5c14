"""A host's report: it never waits for libvirt, says how old its inventory is, and goes on through every loss."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.host_load import read_load
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.errors import HypervisorUnreachable
from fangnetz.core.model import Heartbeat, HypervisorHealth, Sighting
from fangnetz.core.units import Generation, HostId, Seconds, VmId
from fangnetz.engine import report
from fangnetz.engine.report import Inventory, InventoryKeeper, Reporter
from fangnetz.ports import Domain
from tests.engine.bench import Bench
from tests.redis_server import RedisServer, wait_for

H1 = HostId("h1")
WEB = VmId("web-report")
FAST = Seconds(0.05)


class Switchable:
    """`ports.Hypervisor` as the inventory sees it: the real one, hung, or gone, as told."""

    def __init__(self, boot: BootFilesOnDisk) -> None:
        self.real = LibvirtHypervisor("test:///default", boot)
        self.gate = threading.Event()
        self.gate.set()
        self.gone = False
        self.asked = 0

    def domains(self) -> tuple[Domain, ...]:
        self.asked += 1
        self.gate.wait()
        if self.gone:
            raise HypervisorUnreachable("libvirt is gone")
        return self.real.domains()

    def settle(self) -> None:
        self.real.settle()


class Host:
    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.boot = BootFilesOnDisk(folder / "run")
        self.hypervisor = Switchable(self.boot)
        self.troubles: list[object] = []
        self.orders: set[str] = set()
        self.inventory = InventoryKeeper(self.hypervisor, FAST, lambda: None, SystemProcess())  # type: ignore[arg-type]
        self.reporter = self.make(lambda: self.inventory.latest, FAST)

    def make(self, inventory: Callable[[], Inventory], interval: Seconds) -> Reporter:
        return Reporter(
            host=H1,
            store=self.bench.subject.another(),
            boot=self.boot,
            inventory=inventory,
            orders=lambda: self.orders,
            unanswered=lambda: self.hypervisor.real.unanswered_since(inventory().taken_at),
            interval=interval,
            guids=lambda: ("c0ffee",),
            load=read_load,
            worker="1",
            process=SystemProcess(),
            sent=self.troubles.append,
        )

    def start(self) -> None:
        self.inventory.start()
        self.reporter.start()
        assert wait_for(lambda: self.heard() and self.heard().inventory)  # type: ignore[union-attr]

    def heard(self) -> Heartbeat | None:
        return self.bench.store.view(self.bench.hosts, None).heartbeats.get(H1)

    def goes_on(self, beats: int = 5) -> bool:
        last = self.heard()
        sequence = last.sequence if last else 0
        seen: set[int] = set()

        def look() -> bool:
            now = self.heard()
            if now is not None and now.sequence > sequence:
                seen.add(now.sequence)
            return len(seen) >= beats

        return wait_for(look)


@pytest.fixture
def host(bench: Bench, tmp_path: Path) -> Iterator[Host]:
    made = Host(bench, tmp_path)
    made.hypervisor.real.create(
        WEB,
        f"<domain type='test'><name>{WEB}</name><memory>4096</memory><os><type>hvm</type></os></domain>",
        Generation(7),
    )
    yield made
    made.hypervisor.gate.set()
    made.reporter.stop()
    made.inventory.stop()
    made.hypervisor.real.destroy(WEB)
    made.hypervisor.real.close()


def test_a_report_says_what_runs_what_was_released_and_what_is_in_hand(host: Host) -> None:
    host.boot.release(VmId("db"), Generation(5))
    host.orders.add("op-1/start/web/1")
    host.start()
    beat = host.heard()
    assert beat is not None
    seen = beat.sees(WEB)
    assert seen is not None
    assert (seen.state, seen.generation) == (Sighting.RUNNING, 7)
    assert (beat.incarnation, beat.hypervisor) == (host.boot.incarnation, HypervisorHealth.OK)
    assert [(r.vm, r.generation) for r in beat.releases] == [("db", 5)]
    assert "op-1/start/web/1" in beat.orders
    assert beat.bmc_guids == ("c0ffee",)
    assert beat.memory_free_mib > 0
    assert host.goes_on()


def test_a_hung_libvirt_never_delays_a_report_and_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "HUNG_AFTER_S", 0.3)
    host.start()
    host.hypervisor.gate.clear()
    assert host.goes_on(beats=8)
    assert wait_for(lambda: host.heard().hypervisor is HypervisorHealth.HUNG)  # type: ignore[union-attr]
    beat = host.heard()
    assert beat is not None
    assert beat.sees(WEB) is not None, "the last inventory is told as what it is: old"
    assert beat.inventory_age_s >= 0.3
    host.hypervisor.gate.set()
    assert wait_for(lambda: host.heard().hypervisor is HypervisorHealth.OK)  # type: ignore[union-attr]


def test_a_libvirt_that_is_gone_is_no_empty_inventory(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "HUNG_AFTER_S", 0.3)
    host.start()
    host.hypervisor.gone = True
    assert wait_for(lambda: host.heard().hypervisor is HypervisorHealth.HUNG)  # type: ignore[union-attr]
    assert host.heard().sees(WEB) is not None  # type: ignore[union-attr]


def test_before_libvirt_was_ever_asked_nothing_is_known(host: Host) -> None:
    host.hypervisor.gate.clear()
    host.inventory.start()
    host.reporter.start()
    assert wait_for(lambda: host.heard() is not None)
    beat = host.heard()
    assert beat is not None
    assert (beat.hypervisor, beat.inventory) == (HypervisorHealth.DOWN, ())
    assert beat.inventory_age_s > 3600


def test_an_inventory_is_as_old_as_the_question(host: Host) -> None:
    host.start()
    host.hypervisor.gate.clear()
    asked = host.hypervisor.asked
    assert wait_for(lambda: host.hypervisor.asked > asked)
    taken = host.inventory.latest.taken_at
    threading.Event().wait(0.3)
    host.hypervisor.gate.set()
    assert wait_for(lambda: host.inventory.latest.taken_at > taken)
    # The answer to the question that hung is dated from before it was asked.
    assert host.goes_on()


def test_a_change_and_a_kick_are_told_at_once(host: Host) -> None:
    told = threading.Event()
    keeper = InventoryKeeper(host.hypervisor, Seconds(3600.0), told.set, SystemProcess())  # type: ignore[arg-type]
    keeper.start()
    assert told.wait(10)
    told.clear()
    host.hypervisor.real.destroy(WEB)
    keeper.kick()
    assert told.wait(10)
    told.clear()
    keeper.kick()
    assert told.wait(10), "whoever kicks has something to tell, be it no domain"
    keeper.stop()
    slow = host.make(lambda: keeper.latest, Seconds(3600.0))
    slow.start()
    assert wait_for(lambda: host.heard() is not None)
    first = host.heard()
    assert first is not None
    slow.kick()
    assert wait_for(lambda: host.heard().sequence > first.sequence)  # type: ignore[union-attr]
    slow.stop()


def test_reports_go_on_after_the_store_was_away(host: Host, own_redis: RedisServer) -> None:
    from fangnetz.adapters.redis import RedisStore, connect

    store = RedisStore(connect(own_redis.url, name="t", timeout_s=0.2), "test")
    reporter = Reporter(
        host=H1, store=store, boot=host.boot, inventory=lambda: host.inventory.latest,
        orders=lambda: (), unanswered=lambda: (), interval=FAST, guids=lambda: (), load=read_load,
        worker="1", process=SystemProcess(), sent=host.troubles.append,
    )  # fmt: skip
    reporter.start()
    raw = own_redis.client()
    assert wait_for(lambda: raw.exists("fn:{test}:hb:h1"))
    own_redis.kill()
    before = len(host.troubles)
    assert wait_for(lambda: len(host.troubles) >= before + 2)
    own_redis.restart()
    assert wait_for(lambda: own_redis.client().exists("fn:{test}:hb:h1"))
    reporter.stop()


def test_an_order_that_ends_while_the_report_is_made_is_still_in_it(host: Host) -> None:
    """Else its VM is in neither: the inventory is from before the step ended."""
    host.orders = {"op-1/start/web/1"}

    def as_it_was_before_the_step_ended() -> Inventory:
        host.orders = set()
        return Inventory(domains=(), taken_at=0.0, error="")

    assert "op-1/start/web/1" in host.make(as_it_was_before_the_step_ended, FAST).beat().orders


def test_a_held_copy_is_reported_as_such(host: Host) -> None:
    host.start()
    host.hypervisor.real.suspend(WEB, Generation(7))

    def told() -> bool:
        beat = host.heard()
        seen = beat.sees(WEB) if beat is not None else None
        return seen is not None and seen.held

    assert wait_for(told)
