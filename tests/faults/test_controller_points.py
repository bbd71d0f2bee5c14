"""A tick that fails at any of its own writes is followed by one that finishes: one operation, one way to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.operations import Operation, OperationKind
from fangnetz.core.units import VmId
from fangnetz.engine import faults
from fangnetz.engine.faults import FaultInjected
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.marked import marked_dispatcher, marked_files, marked_store
from fangnetz.engine.tick import Controller
from tests.contract.subjects import C1
from tests.core.world import vm_doc
from tests.engine.bench import Bench, Recorder
from tests.redis_server import wait_for

PASSED = [
    "life.before_meet", "life.met", "lease.before_take", "lease.taken", "watch.before_put", "watch.put",
    "ledger.before_files", "ledger.in_files", "ledger.before_store", "ledger.in_store",
    "operation.before_open", "operation.opened", "operation.before_mark", "operation.marked",
    "operation.before_dispatch", "operation.dispatched", "alarms.before_put", "alarms.put",
    "events.before_log", "events.logged",
]  # fmt: skip
"""What a controller passes on its way from a VM in the cluster file to a start that is under way."""


class Machine:
    """One controller whose every write lies between points."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.recorder = bench, Recorder()
        store = marked_store(bench.subject.another())
        self.controller = Controller(
            me=C1,
            store=store,
            dispatcher=marked_dispatcher(self.recorder),
            ledger=Ledger(store, marked_files(LedgerFolder(folder / "c1")), SystemProcess()),
            hosts=bench.hosts,
            declared={VmId("web"): replace(vm_doc("web"), source="file")},
            policy=bench.policy,
        )
        self.failures = 0

    def tick(self) -> None:
        """What the tasks do: a round that fails is over, and the next one comes."""
        for round_ in (self.controller.tick, self.controller.sweep):
            try:
                round_()
            except FaultInjected:
                self.failures += 1

    def under_way(self) -> tuple[Operation, ...]:
        """Tick once more; return the starts there are, if one of them was sent."""
        self.bench.report()
        self.tick()
        found = self.bench.store.view({}, None).operations.values()
        starts = tuple(each for each in found if each.kind is OperationKind.START)
        return starts if starts and self.recorder.sent else ()


@pytest.mark.parametrize("point", PASSED)
def test_a_tick_that_fails_anywhere_is_made_good_by_the_next(bench: Bench, tmp_path: Path, point: str) -> None:
    bench.members()
    bench.store.drop_lease(C1)
    machine = Machine(bench, tmp_path)
    deafen = faults.listen(tmp_path, "test", f"{point}:raise")
    try:
        assert wait_for(machine.under_way)
    finally:
        deafen()
    assert machine.failures == 1, f"no tick passed {point}"
    (start,) = machine.under_way()
    assert {(identity, keys) for identity, keys in machine.recorder.sent} == {(start.id, ("plan/1",))}
