"""A cluster on a real store for tests of the engine: hosts report when told to, messages are only kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

import redis

from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.adapters.redis.keys import Keys
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.detector import Watch, look
from fangnetz.core.model import (
    Answer,
    Binding,
    HostRecord,
    HostSpec,
    HostState,
    OffProof,
    Power,
    PowerReading,
    ProbeAnswer,
    ProbeRound,
    ProofKind,
    VmRecord,
    VmState,
    VmWish,
)
from fangnetz.core.operations import Operation, OperationKind, Outcome, Step, StepKind, StepState, failover_steps
from fangnetz.core.policy import Policy
from fangnetz.core.units import (
    DeviceName,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    Seconds,
    VmId,
)
from fangnetz.engine.execute import Done, Effect, Executor
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.steps.failover import FailoverSteps
from fangnetz.engine.steps.fence import FenceSteps
from fangnetz.ports import FenceDevice
from tests.contract.subjects import C1, OP, Cluster, RedisSubject, StoreSubject
from tests.core.world import beat, host_record, spec, vm_doc

QUICK = Policy(
    step_lease_s=Seconds(1.0),
    power_ask_s=Seconds(0.4),
    fence_bound_s=Seconds(2.0),
    fence_retry_s=Seconds(1.0),
    fence_attempts_max=2,
)


CUT = OperationId("op-cut")
"""The operation that cut whom `Bench.fenced` made a fenced host."""


class Recorder:
    """`ports.Dispatcher` that keeps what it was asked to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[OperationId, tuple[str, ...]]] = []
        self.asked: list[tuple[HostId, tuple[DeviceName, ...]]] = []
        self.nudges = 0

    def dispatch(self, operation: Operation, chains: Sequence[Sequence[str]]) -> None:
        self.sent.extend((operation.id, tuple(chain)) for chain in chains)

    def ask_power(self, host: HostId, devices: Sequence[DeviceName]) -> None:
        self.asked.append((host, tuple(devices)))

    def nudge(self) -> None:
        self.nudges += 1


class Bench(Cluster):
    """Hosts h1..h3, c1 in charge."""

    def __init__(self, subject: StoreSubject, folder: Path, policy: Policy = QUICK) -> None:
        super().__init__(subject)
        self.policy = policy
        self.hosts: dict[HostId, HostSpec] = {HostId(h): spec(h) for h in ("h1", "h2", "h3")}
        self.dispatcher = Recorder()
        self.files = LedgerFolder(folder / "ledger")
        self.ledger = Ledger(self.store, self.files, SystemProcess())
        self.devices: dict[DeviceName, FenceDevice] = {}
        self.boots: dict[HostId, str] = dict.fromkeys(self.hosts, "i1")
        self.sequence = 0

    # -- what hosts say --

    def report(self, *hosts: str, runs: Mapping[str, int | None] | None = None, **more: object) -> None:
        """One fresh report of each host."""
        self.sequence += 1
        for host in hosts or tuple(self.hosts):
            self.store.put_heartbeat(
                replace(beat(host, 1.0, boot=self.boots[HostId(host)], runs=runs, **more), sequence=self.sequence)  # type: ignore[arg-type]
            )

    def members(self, *hosts: str, state: HostState = HostState.ONLINE) -> None:
        """Make the hosts accepted members that report."""
        for host in hosts or tuple(self.hosts):
            record = host_record(host, state, boot=self.boots[HostId(host)])
            assert self.store.put_host(record, self.host(host), self.epoch)
            self.report(host)

    def reboot(self, host: str) -> None:
        self.boots[HostId(host)] += "+"
        self.report(host)

    def host(self, host: str) -> HostRecord | None:
        return self.store.view(self.hosts, None).host_records.get(HostId(host))

    def watch(self, **silent: float) -> None:
        """Publish what c1 has watched for an hour; `silent`: seconds without a report, of whom."""
        self.store.put_watch(C1, self.seen(**silent))

    def seen(self, **silent: float) -> Watch:
        """What c1 has seen, had it watched for an hour."""
        view = self.store.view(self.hosts, C1)
        seen = look(None, view, self.policy)
        hosts = {
            h: replace(w, back_at=Instant(0.0), silent_for=Seconds(silent.get(h, 0.0))) for h, w in seen.hosts.items()
        }
        hour = Instant(view.now - 3600)
        return replace(seen, hosts=hosts, started_at=hour, since=hour, gap="")

    def lose(self, host: str) -> None:
        """All the evidence that calls a host lost: its silence, and probes that reached everybody else."""
        others = [h for h in self.hosts if h != host]
        self.report(*others)
        for _ in range(self.policy.silent_rounds):
            self.probed({host})
        self.watch(**{host: 60.0})

    def probed(self, silent: Set[str]) -> None:
        """A probe round of c1 that reached everybody but these."""
        now = self.store.now()
        self.store.put_probe_round(
            ProbeRound(
                prober=C1,
                started_at=now,
                ended_at=now,
                answers=tuple(
                    ProbeAnswer(host=h, ping=said, kernel=said, libvirt=said)
                    for h in self.hosts
                    for said in [Answer.NO if h in silent else Answer.YES]
                ),
            )
        )

    def bind(self, host: str, device: str = "ipmi", *, guid: str = "", matches: bool | None = True) -> None:
        """Remember that this plug was seen ON while the host's present boot was alive."""
        self.ledger.write(
            [
                Binding(
                    host=HostId(host),
                    device=DeviceName(device),
                    incarnation=Incarnation(self.boots[HostId(host)]),
                    seen_on_at=Instant(self.store.now() - 60),
                    guid=guid or f"guid-of-{host}",
                    guid_matches=matches,
                )
            ]
        )

    def proof(self, host: str) -> OffProof:
        now = self.store.now()
        evidence = PowerReading(
            host=HostId(host), device=DeviceName("ipmi"), power=Power.OFF, asked_at=now, answered_at=now
        )
        return OffProof(
            host=HostId(host),
            incarnation=Incarnation(self.boots[HostId(host)]),
            kind=ProofKind.READ_BACK_OFF,
            proven_at=now,
            sentence=f"{host} is off",
            evidence=(evidence,),
        )

    def fenced(self, host: str) -> None:
        """Make the host one that was proven off."""
        old = self.host(host)
        record = replace(
            host_record(host, HostState.FENCED, boot=self.boots[HostId(host)]), proof=self.proof(host), cut_by=CUT
        )
        assert self.store.put_host(record, old, self.epoch)

    # -- VMs and operations --

    def define(
        self, name: str, owner: str | None = None, *, generation: int = 7, state: VmState = VmState.RUNNING,
        memory: int = 512, wish: VmWish = VmWish.RUNNING,
    ) -> VmRecord:  # fmt: skip
        self.ledger.write([vm_doc(name, memory=memory, wish=wish)])
        record = VmRecord(
            id=VmId(name),
            state=state,
            owner=HostId(owner) if owner else None,
            owner_incarnation=Incarnation(self.boots[HostId(owner)] if owner else ""),
            generation=Generation(generation),
            since=self.store.now(),
        )
        assert self.store.put_vm(record, None, self.epoch)
        return record

    def failover(self, host: str = "h1", *, identity: str = OP, forced_by: str = "", **more: object) -> Operation:
        made = replace(
            self.operation(*failover_steps(), identity=identity, kind=OperationKind.FAILOVER, subject=host),
            incarnation=Incarnation(self.boots[HostId(host)]),
            forced_by=forced_by,
            **more,
        )
        assert self.store.open_operation(made)
        return made

    def skip_to(self, key: str, identity: str = OP) -> None:
        """Settle, as done, all that stands before a step."""
        for step in self.steps(identity):
            if step.key == key:
                return
            if not step.settled:
                claim = self.claim(step.key, identity=identity, token=f"skip {step.key}")
                self.store.settle(claim, Outcome(state=StepState.DONE, sentence="by the test"))

    def steps(self, identity: str = OP) -> tuple[Step, ...]:
        found = self.store.operation(OperationId(identity))
        assert found is not None
        return found.steps

    def found(self, identity: str = OP) -> Operation:
        found = self.store.operation(OperationId(identity))
        assert found is not None
        return found

    @property
    def raw(self) -> redis.Redis:
        """Behind the store's back."""
        subject = self.subject
        assert isinstance(subject, RedisSubject)
        return subject.raw

    def step_key(self, key: str, identity: str = OP) -> str:
        return Keys("test").step(OperationId(identity), key)

    def events(self) -> list[str]:
        return [event.kind for event in self.store.events("", 100, Seconds(0))]

    # -- executors --

    def executor(
        self, effects: Mapping[StepKind, Effect], *, name: str = "e1", boot: str = "", policy: Policy | None = None
    ) -> Executor:
        return Executor(
            name=name,
            journal=self.subject.another(),
            dispatcher=self.dispatcher,
            process=SystemProcess(),
            policy=policy or self.policy,
            effects=effects,
            incarnation=Incarnation(boot),
        )

    def deciding(self) -> Executor:
        steps = FailoverSteps(self.subject.another(), self.hosts, self.policy, self.ledger)
        return self.executor(
            {
                StepKind.CONFIRM: steps.confirm,
                StepKind.PROVE: steps.prove,
                StepKind.PLAN: steps.plan,
                StepKind.SEE_RUNNING: steps.see_running,
                StepKind.CLOSE: steps.close,
            }
        )

    def fencing(self) -> Executor:
        steps = FenceSteps(self.store, self.hosts, self.policy, lambda _host: self.devices)
        return self.executor({StepKind.FENCE: steps.fence, StepKind.POWER_ON: steps.power_on})

    def do(self, executor: Executor, key: str, identity: str = OP) -> Done:
        return executor.carry_out(OperationId(identity), key, self.step(key, identity).kind)


__all__ = ["CUT", "QUICK", "Bench", "Recorder"]
