"""What a contract suite needs of an implementation beside the port itself: to pass time, to age, to lose memory.

Each suite asks its factory fixture for one of these; the simulator's twins are further params of the same fixtures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import redis

from fangnetz.adapters.redis import RedisStore
from fangnetz.core.model import StoreLife, VmRecord, VmState
from fangnetz.core.operations import Operation, OperationKind, Order, Step, StepKind, start_steps
from fangnetz.core.units import (
    ControllerId,
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
from fangnetz.ports import Claim, NotClaimed, Operators, Store
from fangnetz.sim.store.memory import Memory
from fangnetz.sim.store.twin import StoreTwin
from tests.redis_server import RedisServer

C1, C2 = ControllerId("c1"), ControllerId("c2")
H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
WEB, DB = VmId("web"), VmId("db")
BOOT = Incarnation("i1")
OP = OperationId("op-1")
LEASE = Seconds(4.0)
HOUR = Seconds(3600.0)


class WholeStore(Store, Operators, Protocol):
    """What controllers, hosts and operators share."""


class StoreSubject(Protocol):
    """A store under test."""

    @property
    def store(self) -> WholeStore: ...

    def another(self) -> WholeStore:
        """Return another process's handle on the same store."""
        ...

    def pass_time(self, span: Seconds) -> None: ...

    def step_clock(self, span: Seconds) -> None:
        """Set the store's machine's clock forward, or back with a negative span."""
        ...

    def spoil_clock(self, field: str, value: str) -> None:
        """Write nonsense where the store keeps its clock."""
        ...

    def wipe(self) -> None:
        """Forget everything."""
        ...

    def age(self) -> None:
        """Make the present life of the store an hour old."""
        ...

    def begin_new_life(self) -> None:
        """What a restart with its memory kept looks like: another run id."""
        ...

    def lose_lease(self) -> None:
        """Forget the control lease and its epoch, as a store rolled back to before it does."""
        ...

    def lose_vm(self, vm: VmId, back_to: VmRecord | None) -> None:
        """Roll one VM's record back."""
        ...


class RedisSubject:
    """The real one."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.raw: redis.Redis = server.client()
        self.store = self.another()
        self.prefix = "fn:{test}:"

    def another(self) -> RedisStore:
        return RedisStore(self._server.client(), "test")

    def pass_time(self, span: Seconds) -> None:
        time.sleep(span)

    def step_clock(self, span: Seconds) -> None:
        """Redis TIME cannot be set: what the store adds to it changes instead, which it cannot tell from the former."""
        self.raw.hincrby(self.prefix + "clock", "ahead", int(span * 1_000_000))

    def spoil_clock(self, field: str, value: str) -> None:
        self.raw.hset(self.prefix + "clock", field, value)

    def wipe(self) -> None:
        self.raw.flushall()

    def age(self) -> None:
        since = int((self.store.now() - HOUR) * 1_000_000)
        self.raw.hset(self.prefix + "life", "since", str(since))

    def begin_new_life(self) -> None:
        for key, field in (("life", "run_id"), ("lease", "memory")):
            if self.raw.exists(self.prefix + key):
                self.raw.hset(self.prefix + key, field, "another server")

    def lose_lease(self) -> None:
        self.raw.delete(self.prefix + "lease")

    def lose_vm(self, vm: VmId, back_to: VmRecord | None) -> None:
        if back_to is None:
            self.raw.delete(f"{self.prefix}vm:{vm}")
        else:
            self.raw.hset(f"{self.prefix}vm:{vm}", "generation", str(back_to.generation))

    def close(self) -> None:
        self.raw.close()


class _Direct:
    """A client's way to a twin that runs in this very process: one script at a time."""

    def __init__(self, subject: TwinSubject) -> None:
        self._subject = subject

    def __call__(self, script: Callable[..., Any], *args: Any, confirmed: bool = False) -> Any:
        with self._subject.lock:
            return script(self._subject.memory, *args)


class TwinSubject:
    """The simulator's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._us = 1_700_000_000_000_000
        self.memory = Memory(raw_us=self._raw_us, identity="server 1")
        self.store = self.another()

    def _raw_us(self) -> int:
        self._us += 100
        return self._us

    def another(self) -> StoreTwin:
        return StoreTwin(_Direct(self))

    def pass_time(self, span: Seconds) -> None:
        self._us += int(span * 1_000_000)

    def step_clock(self, span: Seconds) -> None:
        self.memory.ahead = int(self.memory.ahead) + int(span * 1_000_000)

    def spoil_clock(self, field: str, value: str) -> None:
        setattr(self.memory, field, value)

    def wipe(self) -> None:
        self.memory = Memory(raw_us=self._raw_us, identity=self.memory.identity)

    def age(self) -> None:
        assert self.memory.life is not None
        run_id, incarnation, _ = self.memory.life
        self.memory.life = (run_id, incarnation, int((self.store.now() - HOUR) * 1_000_000))

    def begin_new_life(self) -> None:
        if self.memory.life is not None:
            self.memory.life = ("another server", *self.memory.life[1:])
        if self.memory.lease_memory is not None:
            self.memory.lease_memory = "another server"

    def lose_lease(self) -> None:
        memory = self.memory
        memory.holder, memory.epoch, memory.lease_until, memory.lease_memory = None, 0, 0, None

    def lose_vm(self, vm: VmId, back_to: VmRecord | None) -> None:
        if back_to is None:
            del self.memory.vms[vm]
        else:
            self.memory.vms[vm] = replace(self.memory.vms[vm], generation=back_to.generation)


class Cluster:
    """A store in charge of c1 and words for what tests do with it."""

    def __init__(self, subject: StoreSubject) -> None:
        self.subject = subject
        self.store: WholeStore = subject.store
        self.life: StoreLife = self.store.meet()
        subject.age()
        self.epoch: Epoch = self.lead()

    def lead(self, controller: ControllerId = C1, ttl: Seconds = HOUR) -> Epoch:
        """Take the lease by force: whoever had it gives it back first."""
        for other in (C1, C2):
            self.store.drop_lease(other)
        lease = self.store.take_lease(controller, ttl)
        assert lease is not None
        return lease.epoch

    @property
    def incarnation(self) -> StoreIncarnation:
        return self.store.meet().incarnation

    def operation(
        self,
        *steps: Step,
        identity: str = OP,
        kind: OperationKind = OperationKind.START,
        subject: str = WEB,
        epoch: Epoch | None = None,
    ) -> Operation:
        return Operation(
            id=OperationId(identity),
            kind=kind,
            subject=subject,
            epoch=self.epoch if epoch is None else epoch,
            opened_at=self.store.now(),
            reason="a test wants it",
            steps=steps or start_steps(),
        )

    def open(self, *steps: Step, identity: str = OP, subject: str = WEB) -> Operation:
        made = self.operation(*steps, identity=identity, subject=subject)
        assert self.store.open_operation(made)
        found = self.store.operation(made.id)
        assert found is not None
        return found

    def vm(self, name: VmId = WEB, owner: HostId | None = H1, generation: int = 7, boot: str = BOOT) -> VmRecord:
        record = VmRecord(
            id=name,
            state=VmState.STARTING,
            owner=owner,
            owner_incarnation=Incarnation(boot if owner else ""),
            generation=Generation(generation),
            since=Instant(1000.0),
            reason="a test wants it",
        )
        assert self.store.put_vm(record, None, self.epoch)
        return record

    def order(self, vm: VmId = WEB, *, generation: int = 7, host: HostId = H1, for_s: float = 60.0) -> Order:
        return Order(
            vm=vm,
            host=host,
            incarnation=BOOT,
            generation=Generation(generation),
            life=self.incarnation,
            deadline=Instant(self.store.now() + for_s),
        )

    def start_step(self, order: Order | None = None, key: str = "start/web/1") -> Step:
        return Step(key=key, kind=StepKind.START, order=order or self.order())

    def try_claim(
        self,
        key: str,
        *,
        token: str = "t1",
        identity: str = OP,
        boot: str = BOOT,
        lease: float = LEASE,
        store: Store | None = None,
    ) -> Claim | NotClaimed:
        return (store or self.store).claim(
            OperationId(identity),
            key,
            token=token,
            executor=f"executor of {token}",
            incarnation=Incarnation(boot),
            lease=Seconds(lease),
        )

    def claim(self, key: str, *, token: str = "t1", identity: str = OP, lease: float = LEASE) -> Claim:
        claim = self.try_claim(key, token=token, identity=identity, lease=lease)
        assert isinstance(claim, Claim), claim
        return claim

    def refused(self, key: str, *, token: str = "t2", boot: str = BOOT) -> str:
        answer = self.try_claim(key, token=token, boot=boot)
        assert isinstance(answer, NotClaimed), answer
        return answer.code

    def step(self, key: str, identity: str = OP) -> Step:
        found = self.store.operation(OperationId(identity))
        step = found.step(key) if found else None
        assert step is not None
        return step

    def generation(self, vm: VmId = WEB) -> Generation:
        return self.record(vm).generation

    def record(self, vm: VmId = WEB) -> VmRecord:
        return self.store.view({}, None).vm_records[vm]


__all__ = ["Cluster", "RedisSubject", "StoreSubject", "TwinSubject"]
