"""A start that libvirt never answered is told in every report until it has ended: real files, libvirt's test driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.host_load import read_load
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.adapters.libvirt.domain_xml import Mark, with_mark
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.actions import OpenOperation
from fangnetz.core.errors import HypervisorUnreachable
from fangnetz.core.model import VmRecord
from fangnetz.core.operations import StepKind
from fangnetz.core.units import Generation, HostId, Seconds
from fangnetz.engine.report import Inventory, InventoryKeeper, Reporter
from fangnetz.engine.tick import Controller
from tests.contract.subjects import C1
from tests.core.world import spec, vm_doc
from tests.engine.bench import Bench
from tests.engine.vm_steps.vm_host import Host, lose_a_start, xml
from tests.redis_server import wait_for


@pytest.fixture
def host(bench: Bench, tmp_path: Path) -> Iterator[Host]:
    made = Host(bench, tmp_path / "run")
    yield made
    for domain in libvirt.open("test:///default").listAllDomains():
        if domain.name() == made.vm:
            domain.destroy()


class NextWorker:
    """The worker of h1 that is started after the first was killed: what it has comes from the files alone."""

    def __init__(self, host: Host, settle: float, orders: Callable[[], frozenset[str]] = frozenset) -> None:
        self.vm, self.boot = host.vm, BootFilesOnDisk(host.run_dir)
        self.hypervisor = LibvirtHypervisor("test:///default", self.boot, settle_inherited=Seconds(settle))
        self.keeper = InventoryKeeper(self.hypervisor, Seconds(0.05), lambda: None, SystemProcess())
        self.reporter = Reporter(
            host=HostId("h1"), store=host.bench.subject.another(), boot=self.boot,
            inventory=lambda: self.keeper.latest, orders=orders,
            unanswered=lambda: self.hypervisor.unanswered_since(self.keeper.latest.taken_at),
            interval=Seconds(1.0), guids=lambda: (), load=read_load, worker="2", process=SystemProcess(),
        )  # fmt: skip

    def told(self) -> tuple[str, ...]:
        return tuple(order for order in self.reporter.beat().orders if f"/{self.vm}/" in order)

    def sees(self) -> bool:
        return self.reporter.beat().sees(self.vm) is not None

    def before_now(self) -> None:
        """An empty inventory was taken just now."""
        self.keeper.latest = Inventory(domains=(), taken_at=time.monotonic(), error="")

    def asked_anew(self) -> bool:
        """Wait for two more inventories: the first one's look at what is open has ended with the second."""
        for _ in range(2):
            before = self.keeper.latest.taken_at
            assert wait_for(lambda at=before: self.keeper.latest.taken_at > at)  # type: ignore[misc]
        return True


@pytest.fixture
def worker(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], NextWorker]]:
    made: list[NextWorker] = []

    def start(settle: float) -> NextWorker:
        lose_a_start(host, monkeypatch, 7)
        made.append(NextWorker(host, settle))
        return made[-1]

    yield start
    for each in made:
        each.keeper.stop()
        each.hypervisor.close()


def carry_out(host: Host, generation: int = 7) -> None:
    """What libvirtd was sent before, it does now."""
    document = with_mark(xml(host.vm), host.vm, Mark(generation=Generation(generation), start_sent_at=None))
    libvirt.open("test:///default").createXML(document, 0)


def test_the_first_report_of_a_new_worker_tells_its_predecessors_start(
    host: Host, worker: Callable[[float], NextWorker]
) -> None:
    new = worker(60.0)
    assert new.told() == (f"unanswered/start/{host.vm}/-",), "before libvirt was ever asked"
    new.keeper.start()
    assert new.asked_anew()
    assert new.told() == (f"unanswered/start/{host.vm}/-",)


def test_a_damaged_note_is_told_by_its_files_name(host: Host, worker: Callable[[float], NextWorker]) -> None:
    new = worker(1.0)
    (note,) = host.run_dir.rglob(f"starts/{host.vm}.json")
    note.write_bytes(b"\xff{")
    new = NextWorker(host, 1.0)
    assert new.told() == (f"unanswered/start/{host.vm}/-",)
    new.keeper.start()
    assert new.asked_anew()
    assert new.told() == (f"unanswered/start/{host.vm}/-",)
    assert wait_for(lambda: not new.told())
    assert not note.exists()
    new.keeper.stop()


def test_a_start_that_did_not_come_while_libvirt_answered_for_long_leaves_the_report(
    host: Host, worker: Callable[[float], NextWorker]
) -> None:
    new = worker(0.5)
    new.keeper.start()
    assert new.told()
    assert wait_for(lambda: not new.told()), "nobody asked for this VM: the inventory's thread saw to it"
    new.hypervisor.settled(host.vm)


def test_a_start_whose_copy_is_seen_leaves_the_report_only_with_an_inventory_that_shows_it(
    host: Host, worker: Callable[[float], NextWorker]
) -> None:
    new = worker(60.0)
    assert new.told()
    carry_out(host)
    new.before_now()
    new.hypervisor.settle()
    assert not host.boot.unanswered_starts()
    assert new.told(), "the latest inventory is from before it was carried out"
    assert not new.sees()
    new.keeper.start()
    assert wait_for(lambda: not new.told(), every=0.001)
    assert new.sees()
    new.hypervisor.settled(host.vm)


@pytest.mark.parametrize("generation", [6, 8])
def test_a_copy_of_another_generation_answers_no_start(
    host: Host, worker: Callable[[float], NextWorker], generation: int
) -> None:
    new = worker(60.0)
    carry_out(host, generation)
    new.keeper.start()
    assert new.asked_anew()
    assert new.told()


def test_a_note_that_another_process_drops_is_told_until_the_next_inventory(
    host: Host, worker: Callable[[float], NextWorker]
) -> None:
    new = worker(60.0)
    assert new.told()
    new.before_now()
    (start,) = host.boot.unanswered_starts()
    host.boot.forget_start(host.vm, start.note)
    assert new.told(), "the latest inventory is from before it ended"
    new.keeper.start()
    assert wait_for(lambda: not new.told())


def test_a_start_under_way_is_told_by_its_step_alone(host: Host, worker: Callable[[float], NextWorker]) -> None:
    """Else a refusal in the journal would be waited on until the host's next report."""
    worker(60.0)
    step = f"op-1/start/{host.vm}/1"
    assert NextWorker(host, 60.0, lambda: frozenset({step})).told() == (step,)


def test_after_a_silence_of_libvirt_the_settle_time_begins_anew(
    host: Host, worker: Callable[[float], NextWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It froze with the start in hand, and what it answers first when it thaws says nothing about that start."""
    from fangnetz.adapters.libvirt import unanswered

    monkeypatch.setattr(unanswered, "SILENT_AFTER_S", 0.3)
    new = worker(0.6)
    new.hypervisor.domains()
    threading.Event().wait(0.7)
    with pytest.raises(HypervisorUnreachable, match="never answered"):
        new.hypervisor.settled(host.vm)
    assert wait_for(lambda: (new.hypervisor.settle(), not host.boot.unanswered_starts())[1])


def test_after_a_wipe_no_host_gets_a_vm_that_a_killed_workers_start_may_still_bring_up(
    host: Host, worker: Callable[[float], NextWorker]
) -> None:
    """h1's worker sent it and was killed; Redis begins empty; libvirt on h1 carries the start out long after."""
    bench = host.bench
    bench.boots[HostId("h1")] = host.boot.incarnation
    bench.hosts[HostId("h1")] = spec("h1", memory=1024)  # it goes elsewhere if anything lets it
    bench.members()
    bench.ledger.write([vm_doc(host.vm)])
    new = worker(60.0)
    new.keeper.start()
    assert new.asked_anew()
    bench.subject.wipe()
    controller = Controller(
        me=C1, store=bench.store, dispatcher=bench.dispatcher, ledger=bench.ledger, hosts=bench.hosts, declared={},
        policy=bench.policy,
    )  # fmt: skip
    deciding = bench.deciding()

    def record_after_a_tick() -> VmRecord | None:
        bench.store.put_heartbeat(new.reporter.beat())
        bench.report("h2", "h3")
        decision = controller.tick().decision
        assert decision is not None
        for action in decision.actions:
            if isinstance(action, OpenOperation):
                for step in action.operation.of_kind(StepKind.PLAN):
                    bench.do(deciding, step.key, action.operation.id)
        found = bench.store.view(bench.hosts, None).vm_records.get(host.vm)
        assert found is None or found.owner in (None, "h1"), f"given to {found.owner}: {found.reason}"
        return found

    def held() -> bool:
        found = record_after_a_tick()
        return found is not None and "h1 is carrying out a start" in found.reason

    assert wait_for(held, 30)
    carry_out(host)
    assert wait_for(lambda: (found := record_after_a_tick()) is not None and found.owner == "h1", 30)
