"""The steps of a move: let go, then handed over, then let run; and where it was, whatever breaks before.

The real store and boot files; libvirt's test driver, whose domains cannot migrate: what a migration comes to is played.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.core.convergence import Advice, Progress
from fangnetz.core.errors import HypervisorUnreachable
from fangnetz.core.model import Destination, Leaving
from fangnetz.core.operations import OperationState, Order, Step, StepKind, StepState, vm_move_steps
from fangnetz.core.policy import Compression
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, Seconds, VmId
from fangnetz.engine.execute import Done, Next
from fangnetz.engine.steps.move import MoveAtHost, MoveSteps
from fangnetz.ports import Departed, Departure, Migration
from tests.contract.subjects import OP
from tests.core.world import beat
from tests.engine.bench import Bench

numbers = itertools.count(1)
H1, H2 = HostId("h1"), HostId("h2")
THERE = Incarnation("boot-of-h2")
Advise = Callable[[Progress], Advice]


class Libvirt(LibvirtHypervisor):
    """The test driver, and a migration that ends as the test says."""

    ends: Departure | Exception = Departure.LEFT
    advice: Advice | None = None

    def __init__(self, boot: BootFilesOnDisk) -> None:
        super().__init__("test:///default", boot)
        self.sent: list[Migration] = []

    def migrate(self, migration: Migration, still: Callable[[], object], advise: Advise) -> Departed:
        still()
        self.sent.append(migration)
        now = Progress(elapsed_s=Seconds(1.0), total_mib=100.0, sent_mib=90.0, remaining_mib=10.0)
        self.advice = advise(now)
        if isinstance(self.ends, Exception):
            raise self.ends
        if self.ends is not Departure.STAYED:
            self.destroy(migration.vm)
        return Departed(how=self.ends, sentence="libvirt says so")


class Move:
    """web runs on h1, by the test driver, and an operation moves it to h2."""

    def __init__(self, bench: Bench, run_dir: Path) -> None:
        self.bench, self.vm = bench, VmId(f"moved{next(numbers)}")
        self.boot = BootFilesOnDisk(run_dir)
        self.libvirt = Libvirt(self.boot)
        self.reports = 0
        self.to = Destination(host=H2, incarnation=THERE, generation=Generation(10**16))
        self.keys = {name: f"{name}/{self.vm}/1" for name in ("prepare", "migrate", "hand_over", "resume", "running")}

    def order(self, host: HostId, boot: Incarnation, generation: Generation) -> Order:
        return Order(
            vm=self.vm,
            host=host,
            incarnation=boot,
            generation=generation,
            life=self.bench.incarnation,
            deadline=Instant(self.bench.store.now() + 60),
        )

    def begin(self, *, at: str = "migrate") -> None:
        """Journal the move with all before step `at` left out."""
        here = self.boot.incarnation
        self.bench.vm(self.vm, H1, 7, boot=here)
        record = replace(self.bench.record(self.vm), moving=self.to)
        assert self.bench.store.put_vm(record, record.generation, self.bench.epoch)
        leaves = replace(self.order(H1, here, Generation(7)), to=self.to)
        arrives = self.order(H2, THERE, self.to.generation)
        steps = [*vm_move_steps(leaves, arrives, attempt=1, after="")]
        first = [step.key for step in steps].index(self.keys[at])
        close = Step(key="close", kind=StepKind.CLOSE, after=("*",))
        self.bench.open(replace(steps[first], after=()), *steps[first + 1 :], close)

    def define(self, generation: int = 7) -> None:
        xml = f"<domain type='test'><name>{self.vm}</name><memory>4096</memory><os><type>hvm</type></os></domain>"
        self.libvirt.create(self.vm, xml, Generation(generation))

    def do(self, name: str) -> Done:
        def report() -> None:
            self.reports += 1

        at_host = MoveAtHost(
            journal=self.bench.store,
            hypervisor=self.libvirt,
            boot=self.boot,
            definition=lambda _vm: "<domain type='test'/>",
            policy=self.bench.policy,
            report=report,
        )
        work = MoveSteps(self.bench.store, self.bench.hosts, self.bench.policy)
        effects = {
            StepKind.PREPARE: at_host.prepare,
            StepKind.MIGRATE: at_host.migrate,
            StepKind.RESUME: at_host.resume,
            StepKind.HAND_OVER: work.hand_over,
        }
        boot = Incarnation("") if name == "hand_over" else self.boot.incarnation
        return self.bench.do(self.bench.executor(effects, boot=boot), self.keys[name])

    def step(self, name: str) -> Step:
        return self.bench.step(self.keys[name])

    @property
    def runs_here(self) -> bool:
        return any(domain.vm == self.vm for domain in self.libvirt.domains())


@pytest.fixture
def move(bench: Bench, tmp_path: Path) -> Iterator[Move]:
    made = Move(bench, tmp_path / "run")
    yield made
    made.libvirt.destroy(made.vm)
    made.libvirt.close()


# --- sent --------------------------------------------------------------------------------------------------------


def test_a_vm_that_has_left_is_promised_never_to_start_there_again_before_that_is_said(move: Move) -> None:
    move.begin()
    move.define()
    assert move.do("migrate").next is Next.GO_ON
    assert move.boot.released(move.vm) == 7
    assert [(told.generation, told.left_for) for told in move.boot.releases()] == [(7, move.to.generation)]
    assert (move.step("migrate").state, move.step("migrate").facts["released"]) == (StepState.DONE, 7)
    assert [sent.to for sent in move.libvirt.sent] == [move.to]
    assert move.bench.record(move.vm).owner == H1, "it is handed over by nobody yet"
    assert move.reports == 1


def test_a_move_is_sent_as_the_policy_says(move: Move) -> None:
    move.begin()
    move.define()
    move.bench.policy = replace(
        move.bench.policy, migrate_connections=4, migrate_compression=Compression.ZSTD, migrate_downtime_s=Seconds(0.2)
    )
    move.do("migrate")
    assert [(m.connections, m.compression, m.downtime_s) for m in move.libvirt.sent] == [(4, Compression.ZSTD, 0.2)]


@pytest.mark.parametrize("how", [Departure.STAYED, Departure.ENDED])
def test_a_vm_that_has_not_left_is_neither_promised_nor_handed_over(move: Move, how: Departure) -> None:
    move.begin()
    move.define()
    move.libvirt.ends = how
    assert move.do("migrate").next is Next.STOP
    assert move.boot.released(move.vm) == 0
    assert move.step("migrate").state is StepState.FAILED
    assert {move.step(name).state for name in ("hand_over", "resume", "running")} == {StepState.SKIPPED}
    assert move.runs_here == (how is Departure.STAYED)


def test_a_libvirt_that_does_not_answer_has_said_nothing(move: Move) -> None:
    move.begin()
    move.define()
    move.libvirt.ends = HypervisorUnreachable("libvirt did not answer")
    assert move.do("migrate").next is Next.AGAIN
    assert (move.boot.released(move.vm), move.step("migrate").state) == (0, StepState.READY)


def test_nothing_is_sent_once_the_vm_has_another_number(move: Move) -> None:
    move.begin()
    move.define(generation=6)
    assert move.do("migrate").next is Next.STOP
    assert (move.libvirt.sent, move.runs_here) == ([], True)


def test_nothing_is_sent_for_an_operation_that_has_ended(move: Move) -> None:
    move.begin()
    move.define()
    real = move.libvirt.migrate

    def late(migration: Migration, still: Callable[[], object], advise: Advise) -> Departed:
        move.bench.store.end_operation(OP, OperationState.CANCELLED, "enough", move.bench.epoch)
        return real(migration, still, advise)

    move.libvirt.migrate = late  # type: ignore[method-assign]
    assert move.do("migrate").next is Next.STOP
    assert (move.libvirt.sent, move.runs_here) == ([], True)


# --- handed over -------------------------------------------------------------------------------------------------


def test_a_vm_that_was_let_go_belongs_to_its_new_host(move: Move) -> None:
    move.begin()
    move.define()
    move.do("migrate")
    assert move.do("hand_over").next is Next.GO_ON
    record = move.bench.record(move.vm)
    assert (record.owner, record.owner_incarnation, record.generation) == (H2, THERE, move.to.generation)
    assert record.moving is None
    assert move.do("hand_over").next is Next.GO_ON, "once more is harmless"


def test_a_vm_that_was_not_let_go_is_not_handed_over(move: Move) -> None:
    move.begin(at="hand_over")
    assert move.do("hand_over").next is Next.STOP
    assert move.bench.record(move.vm).owner == H1


def test_a_vm_that_has_moved_on_is_not_handed_over(move: Move) -> None:
    move.begin()
    move.define()
    move.do("migrate")
    record = move.bench.record(move.vm)
    assert move.bench.store.put_vm(replace(record, moving=None), record.generation, move.bench.epoch)
    assert move.do("hand_over").next is Next.STOP
    assert move.step("hand_over").facts["superseded"] is True
    assert move.bench.record(move.vm).owner == H1


def test_handing_over_waits_a_moment_for_the_host_that_was_left_to_say_so(move: Move) -> None:
    move.begin()
    move.define()
    move.do("migrate")
    seen = beat("h1", 0.0, boot=move.boot.incarnation, runs={move.vm: Generation(7)})
    move.bench.store.put_heartbeat(seen)
    assert move.do("hand_over").next is Next.GO_ON
    assert move.bench.record(move.vm).owner == H2, "its promise is in the journal, whatever an old report says"


# --- resumed -----------------------------------------------------------------------------------------------------


def arrived(move: Move) -> None:
    """This host is the destination: it owns the VM at the number that arrived."""
    here = move.boot.incarnation
    move.bench.vm(move.vm, H1, 9, boot=here)
    order = move.order(H1, here, Generation(9))
    resume, running = (s for s in vm_move_steps(order, order, attempt=1, after="")[-2:])
    move.bench.open(replace(resume, after=()), running, Step(key="close", kind=StepKind.CLOSE, after=("*",)))


def test_what_has_arrived_runs(move: Move) -> None:
    arrived(move)
    move.define(generation=9)
    assert move.do("resume").next is Next.GO_ON
    assert move.runs_here


def test_nobody_looks_for_the_next_move_while_a_guest_stands_still(move: Move) -> None:
    move.begin()
    move.define()
    move.do("migrate")
    move.do("hand_over")
    assert (move.step("hand_over").state, move.bench.dispatcher.nudges) == (StepState.DONE, 0)


def test_the_next_move_is_looked_for_once_a_guest_goes_on(move: Move) -> None:
    arrived(move)
    move.define(generation=9)
    move.do("resume")
    assert move.bench.dispatcher.nudges == 1


def test_a_copy_that_does_not_run_yet_makes_no_room(move: Move) -> None:
    arrived(move)
    assert move.do("resume").next is Next.STOP
    assert move.bench.dispatcher.nudges == 0


def test_a_copy_that_is_not_there_is_promised_never_to_run_there(move: Move) -> None:
    arrived(move)
    assert move.do("resume").next is Next.STOP
    assert (move.step("resume").state, move.boot.released(move.vm)) == (StepState.REFUSED, 9)
    assert move.step("running").state is StepState.SKIPPED


def test_a_copy_of_another_number_is_left_alone(move: Move) -> None:
    arrived(move)
    move.define(generation=8)
    assert move.do("resume").next is Next.STOP
    assert (move.runs_here, move.step("resume").state) == (True, StepState.REFUSED)


def test_what_was_promised_never_to_run_does_not(move: Move) -> None:
    arrived(move)
    move.define(generation=9)
    move.boot.release(move.vm, Generation(9))
    assert move.do("resume").next is Next.STOP
    assert move.step("resume").state is StepState.REFUSED


@pytest.mark.parametrize(("how", "state"), [(Leaving.NO, StepState.DONE), (Leaving.REBOOT, StepState.REFUSED)])
def test_a_host_that_goes_down_in_order_lets_no_vm_come(move: Move, how: Leaving, state: StepState) -> None:
    move.boot.leave(how)
    order = move.order(H1, move.boot.incarnation, Generation(8))
    prepare = Step(key=move.keys["prepare"], kind=StepKind.PREPARE, order=order)
    move.bench.vm(move.vm, H2, 7, boot=THERE)
    record = move.bench.record(move.vm)
    to = Destination(host=H1, incarnation=move.boot.incarnation, generation=Generation(8))
    assert move.bench.store.put_vm(replace(record, moving=to), record.generation, move.bench.epoch)
    move.bench.open(prepare, Step(key="close", kind=StepKind.CLOSE, after=("*",)))
    move.do("prepare")
    assert move.step("prepare").state is state
