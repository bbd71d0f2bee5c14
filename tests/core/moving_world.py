"""A cluster that goes on in time: machines that report, lose their power and are cut, and the decisions on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from fangnetz.core.actions import (
    AdoptOperation,
    Alarm,
    AskPower,
    Decision,
    Define,
    EndOperation,
    ForgetVm,
    Happened,
    OpenOperation,
    PutHost,
    PutHostDoc,
    PutPause,
    PutVm,
    PutVmDoc,
    Remember,
    RememberProof,
    SettleWish,
)
from fangnetz.core.decide import decide, judge_all
from fangnetz.core.detector import Finding, Watch, look
from fangnetz.core.fencing import proof_from_readings
from fangnetz.core.invariants import Assigned, Evidence, RunningCopy, Truth, must_hold, silence_is_named
from fangnetz.core.model import (
    FROM_FILE,
    ControlLease,
    HostRecord,
    HostState,
    HypervisorHealth,
    OffProof,
    Power,
    ProofKind,
    StoreLife,
    VmDoc,
    VmRecord,
    VmState,
    WishKind,
)
from fangnetz.core.operations import Operation, OperationKind
from fangnetz.core.policy import Policy
from fangnetz.core.recovery import plan_recovery
from fangnetz.core.units import (
    ControllerId,
    DeviceName,
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    VmId,
    next_number,
)
from tests.core.world import IPMI, LIFE, T0, beat, guid_of, probe_round, reading, spec, view, vm_doc, wish


@dataclass
class Machine:
    """One host as it really is. `phase`: when within a second it reports; `device`: how its BMC behaves."""

    name: HostId
    phase: float
    powered: bool = True
    linked: bool = True
    reports: bool = True
    boots: int = 1
    sequence: int = 0
    device: str = "ok"
    guid: str = ""
    runs: dict[VmId, Generation] = field(default_factory=dict)
    promised: dict[VmId, Generation] = field(default_factory=dict)
    hypervisor: HypervisorHealth = HypervisorHealth.OK
    inventory_age: float = 0.1
    next_report: float = 0.0

    @property
    def boot(self) -> Incarnation:
        return Incarnation(f"{self.name}-boot{self.boots}")


class World:
    """Hosts h1..hn with VMs, a store, two probers, and one controller that looks and decides every `tick_s`."""

    STEP = 0.1

    def __init__(self, hosts: int = 3, *, vms: Mapping[str, str] | None = None, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.now = T0
        specs = [spec(f"h{n}") for n in range(1, hosts + 1)]
        self.machines = {s.id: Machine(name=s.id, phase=0.37 * n % 1, guid=guid_of(s.id)) for n, s in enumerate(specs)}
        docs = [vm_doc(vm) for vm in (vms or {})]
        self.view = replace(
            view(T0, hosts=specs, records=()),
            vms={doc.spec.id: doc for doc in docs},
            life=StoreLife(incarnation=LIFE, since=Instant(T0)),
        )
        for vm, host in (vms or {}).items():
            self.machines[HostId(host)].runs[VmId(vm)] = Generation(1)
        self.watch: Watch | None = None
        self.store_up = self.controller_up = True
        self.references: tuple[str, ...] = ()
        self.declared: dict[VmId, VmDoc] | None = None
        self.executor = True
        self.opened: list[Operation] = []
        self.alarms: tuple[Alarm, ...] = ()
        self.every_alarm: list[Alarm] = []
        self.settled: list[SettleWish] = []
        self.states: dict[HostId, list[HostState]] = {host: [] for host in self.machines}
        self.findings: dict[HostId, list[Finding]] = {host: [] for host in self.machines}
        self.next_due: Instant | None = None
        self.asked: list[tuple[float, HostId]] = []
        self.history: list[Assigned] = []
        self.evidence: list[Evidence] = []
        self.ended_at: dict[VmId, Instant] = {}
        self.each_tick: Callable[[World, Decision], None] | None = None
        self._next_probe = self._next_tick = T0
        for machine in self.machines.values():
            machine.next_report = T0 + machine.phase * self.policy.heartbeat_s

    # -- what happens to the world --

    def power_off(self, host: str) -> None:
        machine = self.machines[HostId(host)]
        self.ended_at.update(dict.fromkeys(machine.runs, Instant(self.now)))
        machine.powered, machine.runs, machine.promised = False, {}, {}

    def power_on(self, host: str, *, after: float = 1.0) -> None:
        machine = self.machines[HostId(host)]
        machine.powered, machine.boots, machine.sequence = True, machine.boots + 1, 0
        machine.next_report = self.now + after

    def cut(self, *hosts: str) -> None:
        for host in hosts:
            self.machines[HostId(host)].linked = False

    def heal(self, *hosts: str) -> None:
        for host in hosts:
            self.machines[HostId(host)].linked = True

    def take_out(self, host: str) -> None:
        """Its lines are gone from the cluster file; the machine knows nothing of that."""
        hosts = {name: spec for name, spec in self.view.hosts.items() if name != host}
        self.view = replace(self.view, hosts=hosts)

    def declare(self, *docs: VmDoc) -> None:
        """The cluster file holds these VMs from now on, and no others."""
        self.declared = {doc.spec.id: replace(doc, source=FROM_FILE) for doc in docs}

    def new_controller(self) -> None:
        self.watch = None

    def wish(self, kind: WishKind, subject: str) -> None:
        asked = wish(kind, subject, at=self.now)
        self.view = replace(self.view, wishes=(*self.view.wishes, asked))

    @property
    def truth(self) -> Truth:
        return Truth(
            copies=tuple(
                RunningCopy(vm=vm, host=m.name, incarnation=m.boot) for m in self.machines.values() for vm in m.runs
            ),
            last_copy_ended_at=dict(self.ended_at),
        )

    # -- time --

    def run(self, seconds: float) -> World:
        until = self.now + seconds
        while self.now < until - self.STEP / 2:
            self.now = round(self.now + self.STEP, 3)
            if self.store_up:
                self._report()
                self._probe()
                if self.controller_up and self.now >= self._next_tick:
                    self._next_tick = self.now + self.policy.tick_s
                    self._tick()
        return self

    def until(self, condition: Callable[[], object], *, within: float) -> float:
        """Run until the condition holds and return how long it took; AssertionError if it does not in time."""
        begun = self.now
        while not condition():
            assert self.now - begun < within, f"not within {within} s; operations {self.opened}, alarms {self.alarms}"
            self.run(self.STEP)
        return self.now - begun

    def _report(self) -> None:
        for machine in self.machines.values():
            if not machine.powered or self.now < machine.next_report:
                continue
            machine.next_report = self.now + self.policy.heartbeat_s
            if not (machine.linked and machine.reports):
                continue
            machine.sequence += 1
            said = beat(
                machine.name, self.now, boot=machine.boot, seq=machine.sequence,
                runs=dict(machine.runs.items()), releases=dict(machine.promised.items()),
                hypervisor=machine.hypervisor, age=machine.inventory_age,
            )  # fmt: skip
            self.view = replace(self.view, heartbeats={**self.view.heartbeats, machine.name: said})

    def _probe(self) -> None:
        if self.now < self._next_probe:
            return
        self._next_probe = self.now + self.policy.heartbeat_s
        answers: dict[str, bool | None] = {m.name: m.powered and m.linked for m in self.machines.values()}
        rounds = [probe_round(self.now, answers, by=prober, references=self.references) for prober in ("c1", "c2")]
        kept = [r for r in self.view.probes if self.now - r.ended_at < 10]
        self.view = replace(self.view, probes=(*kept, *rounds))

    def _tick(self) -> None:
        self.view = replace(
            self.view,
            now=Instant(self.now),
            lease=ControlLease(holder=ControllerId("c1"), epoch=Epoch(7), until=Instant(self.now + 4)),
        )
        self.watch = look(self.watch, self.view, self.policy)
        decision = decide(self.view, self.watch, self.policy, self.declared)
        if not self.view.wishes:
            must_hold(silence_is_named(self.view, decision))
        self.alarms, self.next_due = decision.alarms, decision.next_due
        self.every_alarm.extend(decision.alarms)
        for verdict in decision.verdicts:
            if self.findings[verdict.host][-1:] != [verdict.finding]:
                self.findings[verdict.host].append(verdict.finding)
        for action in decision.actions:
            self._apply(action)
        if self.executor:
            for operation in tuple(self.view.operations.values()):
                self._carry_out(operation)
        if decision.next_due is not None:  # a nudge: the tick does not wait for its turn
            self._next_tick = min(self._next_tick, max(decision.next_due, self.now + self.STEP))
        if self.each_tick is not None:
            self.each_tick(self, decision)

    def _apply(self, action: object) -> None:
        now = self.view
        match action:
            case PutHost(record=host):
                if self.states[host.id][-1:] != [host.state]:
                    self.states[host.id].append(host.state)
                self.view = replace(now, host_records={**now.host_records, host.id: host})
            case PutVm(record=vm, expected=expected):
                stored = now.vm_records.get(vm.id)
                if (stored.generation if stored else None) == expected:
                    self.view = replace(now, vm_records={**now.vm_records, vm.id: vm})
                    self._note(vm)
            case ForgetVm(vm=gone):
                self.view = replace(
                    now,
                    vms={k: v for k, v in now.vms.items() if k != gone},
                    vm_records={k: v for k, v in now.vm_records.items() if k != gone},
                )
            case PutVmDoc(doc=doc):
                self.view = replace(now, vms={**now.vms, doc.spec.id: doc})
            case Define(docs=docs):
                self.view = replace(now, vms={**now.vms, **{doc.spec.id: doc for doc in docs}})
            case RememberProof(proof=proof):
                self._remember_proof(proof)
            case PutHostDoc(doc=host_doc):
                self.view = replace(now, host_docs={**now.host_docs, host_doc.id: host_doc})
            case PutPause(doc=pause_doc):
                self.view = replace(now, pause=pause_doc)
            case Remember(binding=made):
                self.view = replace(now, bindings={**now.bindings, (made.host, made.device): made})
            case AskPower(host=name, devices=devices):
                self.asked.append((self.now, name))
                self._ask(name, devices)
            case OpenOperation(operation=operation):
                self.opened.append(operation)
                self.view = replace(now, operations={**now.operations, operation.id: operation})
            case EndOperation(id=identity):
                self._close(identity)
            case SettleWish() as settled:
                self.settled.append(settled)
                self.view = replace(now, wishes=tuple(w for w in now.wishes if w.id != settled.wish.id))
            case AdoptOperation() | Happened():
                pass
            case _:
                raise AssertionError(action)

    # -- the world's answers --

    def _ask(self, host: HostId, devices: tuple[DeviceName, ...]) -> None:
        machine = self.machines[host]
        heard = self.view.heartbeats.get(host)
        fresh = heard is not None and self.now - heard.received_at < self.policy.overdue_s
        power = {
            "ok": Power.ON if machine.powered else Power.OFF,
            "dark": Power.UNKNOWN,
            "lies_off": Power.OFF,
        }[machine.device]
        answers = tuple(
            reading(host, power, self.now, device=device, boot=heard.incarnation if heard and fresh else "",
                    guid=machine.guid if power is not Power.UNKNOWN else "")
            for device in devices
        )  # fmt: skip
        self.view = replace(self.view, readings={**self.view.readings, host: answers})
        self._next_tick = min(self._next_tick, self.now + 2 * self.STEP)  # an answer nudges the tick

    def _close(self, identity: OperationId) -> None:
        self.view = replace(self.view, operations={k: v for k, v in self.view.operations.items() if k != identity})

    def _put_host(self, record: HostRecord) -> None:
        self.view = replace(self.view, host_records={**self.view.host_records, record.id: record})

    def _remember_proof(self, proof: OffProof) -> None:
        self.view = replace(self.view, proofs={**self.view.proofs, proof.host: proof})

    def _put_vm(self, record: VmRecord) -> None:
        self.view = replace(self.view, vm_records={**self.view.vm_records, record.id: record})
        self._note(record)

    def _note(self, record: VmRecord) -> None:
        if record.owner is None:
            return
        before = next((line for line in reversed(self.history) if line.vm == record.id), None)
        if before is None or (before.host, before.generation) != (record.owner, record.generation):
            self.history.append(
                Assigned(vm=record.id, host=record.owner, incarnation=record.owner_incarnation,
                         generation=record.generation, at=Instant(self.now))
            )  # fmt: skip

    def _carry_out(self, operation: Operation) -> None:
        """The plainest executor: prove or cut, plan, start at once on whatever host is really there."""
        match operation.kind:
            case OperationKind.FAILOVER:
                if not self._proven(operation):
                    return
                self._start(operation)
            case OperationKind.START:
                self._start(operation)
            case OperationKind.STOP:
                for order in (s.order for s in operation.steps if s.order is not None):
                    machine = self.machines[order.host]
                    machine.runs.pop(order.vm, None)
                    machine.promised[order.vm] = order.generation
            case OperationKind.RETURN:
                self.power_on(operation.subject)
                host = self.view.host_records[HostId(operation.subject)]
                self._put_host(replace(host, cut_by=None))
        self._close(operation.id)

    def _proven(self, operation: Operation) -> bool:
        """Set the host's proof from what its device says, after cutting it if it says ON. Reboots need none."""
        host = HostId(operation.subject)
        machine, record = self.machines[host], self.view.host_records[host]
        heard = self.view.heartbeats.get(host)
        if heard is not None and heard.incarnation != operation.incarnation:
            return True
        proof = operation.proof
        cut = False
        if proof is None and machine.device == "ok" and machine.powered:
            self.power_off(host)
            cut = True
        if proof is None:
            self._ask(host, (IPMI,))
            proof = proof_from_readings(
                self.view.hosts[host], operation.incarnation, heard.received_at if heard else self.view.life.since,
                self.view.readings[host], self.view.bindings, now=Instant(self.now), life=LIFE,
                kind=ProofKind.READ_BACK_OFF,
            )  # fmt: skip
        if proof is None:
            done = replace(
                record, state=HostState.NEEDS_PERSON, since=Instant(self.now), reason="its device is no proof"
            )
            self.view = replace(self.view, host_records={**self.view.host_records, host: done})
            self._close(operation.id)
            return False
        self.evidence.append(proof)
        self._remember_proof(proof)
        cut_by = operation.id if cut else None
        self._put_host(replace(record, state=HostState.FENCED, since=Instant(self.now), proof=proof, cut_by=cut_by))
        return True

    def _start(self, operation: Operation) -> None:
        watch = self.watch
        assert watch is not None
        plan = plan_recovery(operation, self.view, watch, judge_all(self.view, watch, self.policy), self.policy)
        for to in plan.assignments:
            old = self.view.vm_records[to.vm]
            number = Generation(next_number(old.generation, now=Instant(self.now)))
            machine = self.machines[to.host]
            there = machine.powered and machine.boot == to.incarnation
            self._put_vm(
                replace(old, owner=to.host, owner_incarnation=to.incarnation, generation=number,
                        since=Instant(self.now), reason=to.because,
                        state=VmState.RUNNING if there else VmState.STARTING)
            )  # fmt: skip
            if there:
                machine.runs[to.vm] = number
        for left in plan.unassigned:
            old = self.view.vm_records[left.vm]
            self._put_vm(replace(old, state=left.state, since=Instant(self.now), reason=left.reason))
