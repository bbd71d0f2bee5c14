"""Between two beats the alarm clock rings for silence alone: then only reports are read, as long as all is calm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.model import ClusterView, HostSpec, VmState
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, HostId, Instant, Seconds, StoreIncarnation
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.tick import Controller
from fangnetz.ports import Store
from tests.contract.subjects import C1
from tests.engine.bench import Bench
from tests.redis_server import wait_for

LONG = Policy(tick_s=Seconds(10.0), heartbeat_s=Seconds(5.0), control_lease_s=Seconds(30.0))
"""Nothing falls due while a test runs."""


class Looks:
    """A store that counts the looks at everything."""

    def __init__(self, store: Store) -> None:
        self._store, self.count = store, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def view(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId | None) -> ClusterView:
        self.count += 1
        return self._store.view(hosts, controller)


class Machine:
    def __init__(self, bench: Bench, folder: Path, policy: Policy) -> None:
        self.store = Looks(bench.subject.another())
        ledger = Ledger(bench.subject.another(), LedgerFolder(folder / "c1"), SystemProcess())
        self.controller = Controller(
            me=C1, store=self.store, dispatcher=bench.dispatcher, ledger=ledger, hosts=bench.hosts, declared={},
            policy=policy,
        )  # fmt: skip

    def looks(self, *, rung: bool = True) -> int:
        """Tick; return how often it looked at everything."""
        before = self.store.count
        assert self.controller.tick(rung=rung).in_charge
        return self.store.count - before


def calm(bench: Bench, folder: Path, policy: Policy = LONG) -> Machine:
    """Return a controller in charge whose last look called for nothing."""
    bench.store.drop_lease(C1)
    machine = Machine(bench, folder, policy)
    machine.looks(rung=False)
    lease = bench.store.control_lease()
    assert lease is not None
    bench.epoch = lease.epoch
    bench.members()
    for host in bench.hosts:
        bench.bind(host)
    bench.define("web", "h1")
    bench.report("h1", runs={"web": 7})

    def nothing_is_done() -> bool:
        ticked = machine.controller.tick()
        assert ticked.decision is not None
        return not ticked.decision.actions

    assert wait_for(nothing_is_done)
    return machine


def test_only_reports_are_read_while_nothing_is_new(bench: Bench, tmp_path: Path) -> None:
    machine = calm(bench, tmp_path)
    for _ in range(3):
        bench.report("h2", "h3")
        bench.report("h1", runs={"web": 7})
        ticked = machine.controller.tick(rung=True)
        assert ticked.decision is None
        assert ticked.due_in is not None
        assert 0 < ticked.due_in <= LONG.overdue_s + 0.01
    assert machine.looks() == 0


def test_a_beat_looks_at_everything(bench: Bench, tmp_path: Path) -> None:
    assert calm(bench, tmp_path).looks(rung=False) == 1


def stopped(bench: Bench) -> None:
    bench.report("h1", runs={})


def rebooted(bench: Bench) -> None:
    bench.reboot("h2")


@pytest.mark.parametrize("news", [stopped, rebooted])
def test_news_are_looked_at_with_everything_else(bench: Bench, tmp_path: Path, news: Callable[[Bench], None]) -> None:
    machine = calm(bench, tmp_path)
    assert machine.looks() == 0
    news(bench)
    assert machine.looks() == 1


def test_a_store_that_was_wiped_is_not_taken_for_a_calm_one(bench: Bench, tmp_path: Path) -> None:
    machine = calm(bench, tmp_path)
    bench.subject.wipe()
    ticked = machine.controller.tick(rung=True)
    assert not ticked.in_charge or ticked.decision is not None


@pytest.mark.parametrize("what", ["a new life", "a clock set back"])
def test_another_life_or_time_of_the_store_is_looked_into(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    machine = calm(bench, tmp_path)
    now = machine.store.reports(bench.hosts, C1)
    other = replace(now.life, incarnation=StoreIncarnation("another"))
    then = replace(now, life=other) if what == "a new life" else replace(now, now=Instant(now.now - 3600))
    monkeypatch.setattr(machine.store, "reports", lambda *_: then, raising=False)
    assert machine.looks() == 1


def test_what_was_decided_is_looked_at_again(bench: Bench, tmp_path: Path) -> None:
    machine = calm(bench, tmp_path)
    record = bench.store.view(bench.hosts, None).vm_records
    (web,) = record.values()
    assert bench.store.mark_vm(web.id, web.generation, VmState.WAITING, "a test wants it", bench.epoch)
    decided = machine.controller.tick().decision
    assert decided is not None
    assert decided.actions, "it runs, and the record says that it waits"
    assert machine.looks() == 1


def test_while_an_operation_is_open_every_tick_looks_at_everything(bench: Bench, tmp_path: Path) -> None:
    machine = calm(bench, tmp_path)
    bench.open()
    machine.controller.tick()
    assert machine.looks() == 1


def test_a_silence_that_crosses_its_threshold_is_looked_into_at_once(bench: Bench, tmp_path: Path) -> None:
    quick = Policy(tick_s=Seconds(10.0), heartbeat_s=Seconds(1.0), control_lease_s=Seconds(30.0))
    machine = calm(bench, tmp_path, quick)

    def h2_is_late() -> bool:
        bench.report("h3")
        bench.report("h1", runs={"web": 7})
        return machine.looks() == 1

    assert wait_for(h2_is_late)
    assert [host for host, _ in bench.dispatcher.asked] == ["h2"], "its fence device is asked"


def test_where_no_beat_comes_the_lease_is_kept_all_the_same(bench: Bench, tmp_path: Path) -> None:
    no_beat = Policy(tick_s=Seconds(0.2), heartbeat_s=Seconds(5.0), control_lease_s=Seconds(1.0))
    machine = calm(bench, tmp_path, no_beat)

    def looked_although_all_report() -> bool:
        bench.report("h2", "h3")
        bench.report("h1", runs={"web": 7})
        return machine.looks() == 1

    assert wait_for(looked_although_all_report)


def test_a_store_that_is_away_is_said(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = calm(bench, tmp_path)

    def away(*_args: object) -> None:
        raise StoreUnreachable("away")

    monkeypatch.setattr(machine.store, "reports", away, raising=False)
    with pytest.raises(StoreUnreachable):
        machine.controller.tick(rung=True)
