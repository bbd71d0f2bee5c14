"""Failovers written into the journal step by step, as the engine's executors write them."""

from __future__ import annotations

from dataclasses import replace

from fangnetz.core.model import Destination, HostState, Power, VmState
from fangnetz.core.operations import (
    Operation,
    OperationKind,
    OperationState,
    Order,
    Step,
    failover_steps,
    migrate_steps,
    start_steps,
    vm_move_steps,
    vm_start_steps,
)
from fangnetz.core.units import (
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    Seconds,
    StoreIncarnation,
    VmId,
)
from fangnetz.ports import Claim

from .board import Board

FAILOVER = "failover-host2-1"


def order(board: Board, vm: str, host: str, generation: int = 7) -> Order:
    life = StoreIncarnation(str(board.raw.hget("fn:{demo}:life", "incarnation")))
    return Order(
        vm=VmId(vm),
        host=HostId(host),
        incarnation=Incarnation(f"boot-of-{host}"),
        generation=Generation(generation),
        life=life,
        deadline=Instant(board.now + 60),
    )


def failover(board: Board, *, identity: str = FAILOVER, heard_s: float = 6.0) -> Operation:
    """An open failover of host2, last heard `heard_s` seconds ago and suspected 1.5 s later."""
    now = board.now
    return board.open(
        Operation(
            id=OperationId(identity),
            kind=OperationKind.FAILOVER,
            subject="host2",
            epoch=Epoch(0),
            opened_at=Instant(now),
            reason="host2 has not reported for 3.1 s and answers no probe, while others answer the same prober",
            steps=failover_steps(),
            incarnation=Incarnation("boot-of-host2"),
            incident=OperationId(identity),
            suspected_at=Instant(now - heard_s + 1.5),
            last_heard_at=Instant(now - heard_s),
        )
    )


def fenced(board: Board, identity: str = FAILOVER) -> None:
    """Confirmed, cut through IPMI and read back OFF."""
    board.settle(
        identity,
        "confirm",
        "host2 has not reported for 3.1 s and answers no probe, while others answer the same prober",
        facts={"finding": "lost", "signal_1": "heartbeat: no (none for 3.1 s)", "signal_2": "probe by c1: no (silent)"},
    )
    now = board.now
    board.settle(
        identity,
        "fence",
        "host2 is off: ipmi was switched off and read back OFF",
        facts={
            "fence_sent_at": now - 0.2,
            "fence_proven_at": now,
            "answer/ipmi": "chassis control accepted",
            "read/ipmi": "off: chassis power is off",
            "proof": '{"kind": "read_back_off"}',
        },
    )
    board.settle(identity, "prove", "host2 is off: ipmi was switched off and read back OFF",
                 facts={"fence_proven_at": now})  # fmt: skip


def planned(board: Board, *, identity: str = FAILOVER) -> tuple[Step, Step]:
    """web2 goes to host1, db2 fits nowhere."""
    steps = vm_start_steps(order(board, "web2", "host1"), attempt=1, after="plan/1")
    board.settle(
        identity,
        "plan/1",
        "1 to start, 1 left",
        facts={
            "to/web2": "host1",
            "from/web2": "host2",
            "because/web2": "host2 is off; host1: it has the most room of 2 that fit (3584 MiB free before)",
            "left/db2": "host1 has 3584 MiB free of 4096, db2 needs 4000",
            "left_state/db2": "waiting",
        },
        adds=steps,
    )
    return steps


def started(board: Board, identity: str = FAILOVER) -> None:
    """web2 was started on host1 and is seen there; the failover is closed."""
    board.vm("web2", VmState.STARTING, host="host1")
    board.settle(identity, "start/web2/1", "libvirt started web2", facts={"start_sent_at": board.now},
                 boot="boot-of-host1")  # fmt: skip
    board.settle(identity, "running/web2/1", "web2 runs on host1", facts={"running_at": board.now + 1.25})
    board.settle(
        identity,
        "close",
        "1 of 2 VMs run; left: db2: host1 has 3584 MiB free of 4096, db2 needs 4000",
        closes=OperationState.DONE,
    )


def finished_later(board: Board) -> None:
    """Room appeared: db2 was started on host3 by an operation of its own."""
    board.vm("db2", VmState.STARTING, host="host3")
    identity = "start-db2-1"
    board.open(
        Operation(
            id=OperationId(identity),
            kind=OperationKind.START,
            subject="db2",
            epoch=Epoch(0),
            opened_at=Instant(board.now),
            reason="room has appeared",
            steps=start_steps(),
        )
    )
    steps = vm_start_steps(order(board, "db2", "host3"), attempt=1, after="plan/1")
    board.settle(identity, "plan/1", "1 to start, 0 left", facts={"to/db2": "host3"}, adds=steps)
    board.settle(identity, "start/db2/1", "started", facts={"start_sent_at": board.now + 19}, boot="boot-of-host3")
    board.settle(identity, "running/db2/1", "db2 runs on host3", facts={"running_at": board.now + 20})
    board.settle(identity, "close", "1 of 1 VMs run", closes=OperationState.DONE)


def on_the_move(board: Board, vm: str, source: str = "host1", target: str = "host2") -> Claim:
    """The VM is being sent; return its sender's hold of the step, by which it tells how that comes on."""
    identity, to = (
        OperationId(f"migrate-{vm}-1"),
        Destination(host=HostId(target), incarnation=Incarnation(f"boot-of-{target}"), generation=Generation(9)),
    )
    leaves, arrives = replace(order(board, vm, source), to=to), order(board, vm, target, 9)
    board.open(
        Operation(
            id=identity,
            kind=OperationKind.MIGRATE,
            subject=vm,
            epoch=Epoch(0),
            opened_at=Instant(board.now),
            reason="ada wants it",
            steps=migrate_steps(),
        )
    )
    board.settle(identity, "plan/1", adds=vm_move_steps(leaves, arrives, attempt=1, after="plan/1"))
    record = board.store.view(board.hosts, None).vm_records[VmId(vm)]
    moving = replace(record, state=VmState.MOVING, moving=to, operation=identity)
    assert board.store.put_vm(moving, record.generation, board.epoch)
    board.settle(identity, f"prepare/{vm}/1", boot=f"boot-of-{target}")
    claim = board.store.claim(
        identity,
        f"migrate/{vm}/1",
        token=vm,
        executor=f"host-{source}",
        incarnation=Incarnation(f"boot-of-{source}"),
        lease=Seconds(4.0),
    )
    assert isinstance(claim, Claim), claim
    return claim


def lost(board: Board, *, silent_s: float = 6.0) -> None:
    """host2 has been silent, its plug reads ON; the others report."""
    board.live()
    board.beat("host1", {"web1": 7})
    board.beat("host2", {"web2": 7}, ago_s=silent_s)
    board.beat("host3")
    board.host("host1")
    board.host("host2", HostState.LOST, "host2 has not reported for 3.1 s and answers no probe")
    board.host("host3")
    board.bound("host1")
    board.bound("host2")
    board.reading("host2", Power.ON)
    board.vm("web1", host="host1")
    board.vm("web2", VmState.LOST, host="host2", reason="it starts elsewhere only once its host is proven off")
    board.watch({"host2": silent_s})
