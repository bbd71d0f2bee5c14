"""A real move, sent by a real executor: the journal holds how it comes on while it does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.core.convergence import Progress
from fangnetz.core.model import Destination
from fangnetz.core.operations import Order, Step, StepKind, StepState, vm_move_steps
from fangnetz.core.units import Generation, HostId, Incarnation, Instant
from fangnetz.engine.execute import Next
from fangnetz.engine.steps.move import MoveAtHost
from tests.adapters.conftest import Libvirtd, libvirtd, neighbour
from tests.contract.movers import THERE, RealMovers
from tests.contract.subjects import OP
from tests.core.world import spec
from tests.engine.bench import Bench
from tests.redis_server import wait_for

__all__ = ["libvirtd", "neighbour"]
H1, BOOT_THERE = HostId("h1"), Incarnation("boot-of-there")


@pytest.fixture
def movers(libvirtd: Libvirtd, neighbour: Libvirtd, tmp_path: Path) -> Iterator[RealMovers]:
    made = RealMovers(libvirtd, neighbour, tmp_path)
    yield made
    made.close()


def at_host(bench: Bench, movers: RealMovers) -> MoveAtHost:
    return MoveAtHost(
        journal=bench.store,
        hypervisor=movers.here,
        boot=movers.boot,
        definition=lambda _vm: "<domain/>",
        policy=bench.policy,
        report=lambda: None,
    )


@pytest.mark.lab
def test_how_a_real_move_comes_on_is_in_the_journal_while_it_is_under_way(bench: Bench, movers: RealMovers) -> None:
    bench.hosts[THERE] = spec(THERE)
    vm, here = movers.new_vm(), movers.boot.incarnation
    large = movers.xml(vm).replace(
        "'MiB'>32<", "'MiB'>1536<"
    )  # mostly empty, yet each page is told: seconds at 1 MiB/s
    movers.here.create(vm, large, Generation(7))
    movers.slowly(vm)
    to = Destination(host=THERE, incarnation=BOOT_THERE, generation=Generation(10**16))
    bench.vm(vm, H1, 7, boot=here)
    record = replace(bench.record(vm), moving=to)
    assert bench.store.put_vm(record, record.generation, bench.epoch)
    leaves = Order(
        vm=vm, host=H1, incarnation=here, generation=Generation(7), life=bench.incarnation,
        deadline=Instant(bench.store.now() + 60), to=to,
    )  # fmt: skip
    move = replace(vm_move_steps(leaves, leaves, attempt=1, after="")[1], after=())
    bench.open(move, Step(key="close", kind=StepKind.CLOSE, after=("*",)))
    told: list[Progress] = []
    executor = bench.executor({StepKind.MIGRATE: at_host(bench, movers).migrate}, boot=here)
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(executor.carry_out, OP, move.key, StepKind.MIGRATE, told.append)
        assert wait_for(lambda: (told_of := bench.step(move.key).progress) is not None and told_of.total_mib > 0, 10)
        under_way = bench.step(move.key)
        assert moving.result(60).next is Next.GO_ON
    assert under_way.state is StepState.RUNNING
    assert under_way.progress is not None
    assert under_way.progress.elapsed_s > 0
    assert told
    assert told[0].elapsed_s <= under_way.progress.elapsed_s
    after = bench.step(move.key)
    assert (after.state, after.facts["released"]) == (StepState.DONE, 7)
    assert after.progress is not None
    assert after.progress.total_mib >= 32
