"""Builders of views that read like a sentence, and a little scripted world that runs look and decide over time.

`World` plays hosts, links, fence devices and probers by the clock; it applies what `decide` asks for and, where a story
needs it, carries operations out in the plainest way. It judges nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
from fangnetz.core.detector import Finding, Verdict, Watch, judge, look
from fangnetz.core.fencing import proof_from_readings
from fangnetz.core.invariants import Assigned, Evidence, RunningCopy, Truth, must_hold, silence_is_named
from fangnetz.core.model import (
    FROM_CLI,
    FROM_FILE,
    NO_RULES,
    Answer,
    Binding,
    ClusterView,
    ControlLease,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostSpec,
    HostState,
    HypervisorHealth,
    OffProof,
    PauseDoc,
    Power,
    PowerReading,
    ProbeAnswer,
    ProbeRound,
    ProofKind,
    Release,
    Rules,
    Sighting,
    StoreLife,
    VmDoc,
    VmRecord,
    VmSighting,
    VmSpec,
    VmState,
    VmWish,
    Wish,
    WishKind,
)
from fangnetz.core.operations import Operation, OperationKind, Order
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
    MiB,
    OperationId,
    Seconds,
    StoreIncarnation,
    VmId,
    next_number,
)

T0 = 1_000_000.0
"""When stories begin; the store's life began an hour before."""
LIFE = StoreIncarnation("life-1")
IPMI = DeviceName("ipmi")


# --- single facts ------------------------------------------------------------------------------------------------


def guid_of(host: str) -> str:
    return f"guid-of-{host}"


def spec(
    name: str, *, memory: int = 4096, cpus: int = 8, levels: tuple[tuple[str, ...], ...] = (("ipmi",),)
) -> HostSpec:
    fencing = tuple(tuple(DeviceName(d) for d in level) for level in levels)
    return HostSpec(id=HostId(name), cpus=cpus, memory_mib=MiB(memory), fencing=fencing)


def beat(
    host: str,
    at: float,
    *,
    boot: str = "i1",
    seq: int | None = None,
    runs: Mapping[VmId, Generation] | Mapping[str, int | None] | None = None,
    seen: tuple[VmSighting, ...] = (),
    releases: Mapping[VmId, Generation] | Mapping[str, int] | None = None,
    hypervisor: HypervisorHealth = HypervisorHealth.OK,
    age: float = 0.1,
    guids: tuple[str, ...] | None = None,
    orders: tuple[str, ...] = (),
) -> Heartbeat:
    """A report received at `at`; `runs`: VM -> generation. A new instant is a new sequence number."""
    inventory = tuple(sighting(vm, generation) for vm, generation in (runs or {}).items())
    return Heartbeat(
        host=HostId(host),
        incarnation=Incarnation(boot),
        sequence=round(at * 1000) if seq is None else seq,
        hypervisor=hypervisor,
        inventory=inventory + seen,
        inventory_age_s=Seconds(age),
        releases=tuple(Release(vm=VmId(v), generation=Generation(g)) for v, g in (releases or {}).items()),
        bmc_guids=(guid_of(host),) if guids is None else guids,
        orders=orders,
        received_at=Instant(at),
    )


def sighting(vm: str, generation: int | None, state: Sighting = Sighting.RUNNING) -> VmSighting:
    return VmSighting(vm=VmId(vm), state=state, generation=None if generation is None else Generation(generation))


def reading(
    host: str,
    power: Power,
    asked: float,
    *,
    device: str = "ipmi",
    boot: str = "",
    guid: str | None = None,
    took: float = 0.05,
) -> PowerReading:
    return PowerReading(
        host=HostId(host),
        device=DeviceName(device),
        power=power,
        asked_at=Instant(asked),
        answered_at=Instant(asked + took),
        incarnation=Incarnation(boot),
        guid=guid_of(host) if guid is None else guid,
    )


def binding(
    host: str, *, device: str = "ipmi", boot: str = "i1", seen_on: float = T0 - 100, matches: bool | None = True,
    guid: str | None = None,
) -> Binding:  # fmt: skip
    return Binding(
        host=HostId(host),
        device=DeviceName(device),
        incarnation=Incarnation(boot),
        seen_on_at=Instant(seen_on),
        guid=guid_of(host) if guid is None else guid,
        guid_matches=matches,
    )


def off_proof(
    host: str, at: float, *, boot: str = "i1", void: bool = False, evidence: tuple[PowerReading, ...] = ()
) -> OffProof:
    return OffProof(
        host=HostId(host),
        incarnation=Incarnation(boot),
        kind=ProofKind.READ_BACK_OFF,
        proven_at=Instant(at),
        sentence=f"{host} is off",
        evidence=evidence,
        void=void,
    )


def host_record(
    name: str, state: HostState = HostState.ONLINE, *, boot: str = "i1", proof: OffProof | None = None,
    suspected_at: float | None = None, cut_by: str | None = None, cut_possible_until: float = 0.0,
    since: float = T0 - 500,
) -> HostRecord:  # fmt: skip
    return HostRecord(
        id=HostId(name),
        state=state,
        since=Instant(since),
        reason="as the test says",
        incarnation=Incarnation(boot),
        proof=proof,
        suspected_at=None if suspected_at is None else Instant(suspected_at),
        cut_by=None if cut_by is None else OperationId(cut_by),
        cut_possible_until=Instant(cut_possible_until),
    )


def vm_doc(
    name: str, *, memory: int = 512, cpus: int = 1, priority: int = 0, wish: VmWish = VmWish.RUNNING,
    disks: tuple[str, ...] = (), uuid: str = "", source: str = FROM_CLI, declared: VmWish | None = None,
    rules: Rules = NO_RULES,
) -> VmDoc:  # fmt: skip
    wanted = VmSpec(
        id=VmId(name), memory_mib=MiB(memory), cpus=cpus, priority=priority, uuid=uuid, disks=disks, rules=rules
    )
    return VmDoc(spec=wanted, xml="<domain/>", wish=wish, source=source, declared=declared)


def vm_record(
    name: str, owner: str | None, generation: int = 1, *, boot: str = "i1", state: VmState = VmState.RUNNING,
    since: float = T0 - 500, failures: int = 0, operation: str | None = None, tries: int = 0,
    tried_at: float = 0.0,
) -> VmRecord:  # fmt: skip
    return VmRecord(
        id=VmId(name),
        state=state,
        owner=None if owner is None else HostId(owner),
        owner_incarnation=Incarnation(boot if owner is not None else ""),
        generation=Generation(generation),
        since=Instant(since),
        reason="as the test says",
        failures=failures,
        tries=tries,
        tried_at=Instant(tried_at),
        operation=None if operation is None else OperationId(operation),
    )


def probe_round(
    at: float, answers: Mapping[str, bool | None], *, by: str = "c1", references: tuple[str, ...] = ()
) -> ProbeRound:
    """A round that ended at `at`: True answered, False did not, None = the probe itself failed here."""
    words = {True: Answer.YES, False: Answer.NO, None: Answer.UNKNOWN}
    return ProbeRound(
        prober=ControllerId(by),
        started_at=Instant(at - 0.1),
        ended_at=Instant(at),
        answers=tuple(
            ProbeAnswer(host=HostId(h), ping=words[said], kernel=words[said], libvirt=words[said])
            for h, said in answers.items()
        ),
        references=references,
    )


def wish(
    kind: WishKind, subject: str, *, at: float = T0, by: str = "ada", doc: VmDoc | None = None, boot: str = ""
) -> Wish:
    return Wish(
        id=f"{kind}-{subject}", kind=kind, subject=subject, by=by, at=Instant(at), doc=doc, boot=Incarnation(boot)
    )


def view(
    now: float,
    *,
    hosts: Iterable[HostSpec | str] = ("h1", "h2", "h3"),
    beats: Iterable[Heartbeat] = (),
    records: Iterable[HostRecord] | None = None,
    readings: Iterable[PowerReading] = (),
    bindings: Iterable[Binding] = (),
    probes: tuple[ProbeRound, ...] = (),
    vms: Iterable[tuple[VmDoc, VmRecord | None]] = (),
    operations: Iterable[Operation] = (),
    docs: Iterable[HostDoc] = (),
    wishes: tuple[Wish, ...] = (),
    life_since: float = T0 - 3600,
    life: StoreIncarnation = LIFE,
    lease: bool = True,
    proofs: Iterable[OffProof] = (),
    files: Mapping[str, str] | None = None,
    looked: Mapping[str, float] | None = None,
    holder: str | None = "c1",
    unreadable: tuple[str, ...] = (),
    unreadable_vms: Iterable[str] = (),
    unreadable_records: Iterable[str] = (),
    pause: PauseDoc | None = None,
) -> ClusterView:
    """One look at `now`. Without `records` every host is an accepted, online member in boot i1."""
    specs = [spec(h) if isinstance(h, str) else h for h in hosts]
    known = [host_record(s.id) for s in specs] if records is None else list(records)
    kept: dict[HostId, tuple[PowerReading, ...]] = {}
    for item in readings:
        kept[item.host] = (*kept.get(item.host, ()), item)
    defined = list(vms)
    return ClusterView(
        now=Instant(now),
        life=StoreLife(incarnation=life, since=Instant(life_since)),
        lease=ControlLease(holder=ControllerId("c1"), epoch=Epoch(7), until=Instant(now + 3)) if lease else None,
        hosts={s.id: s for s in specs},
        host_records={r.id: r for r in known},
        host_docs={d.id: d for d in docs},
        heartbeats={b.host: b for b in beats},
        probes=probes,
        readings=kept,
        bindings={(b.host, b.device): b for b in bindings},
        vms={doc.spec.id: doc for doc, _ in defined},
        vm_records={record.id: record for _, record in defined if record is not None},
        operations={o.id: o for o in operations},
        wishes=wishes,
        proofs={p.host: p for p in proofs},
        files={ControllerId(c): digest for c, digest in (files or {}).items()},
        controllers={ControllerId(c): Instant(at) for c, at in (looked or {}).items()},
        holder=None if holder is None else ControllerId(holder),
        unreadable=unreadable,
        unreadable_vms=tuple(map(VmId, (*unreadable_vms, *unreadable_records))),
        unreadable_records=tuple(map(VmId, unreadable_records)),
        pause=pause,
    )


def watched(seen: ClusterView, silent: Mapping[str, float] | None = None, *, started: float = T0 - 3000) -> Watch:
    """A long watch without a gap: each host has been silent for as long as its report is old, or as `silent` says."""
    first = look(None, seen, Policy())
    hosts = {}
    for host, state in first.hosts.items():
        age = seen.now - state.heard_at if state.heard_at else seen.now - seen.life.since
        hosts[host] = replace(state, silent_for=Seconds((silent or {}).get(host, age)), back_at=Instant(0))
    return replace(first, started_at=Instant(started), since=Instant(started), hosts=hosts, gap="")


def verdicts_of(
    seen: ClusterView, silent: Mapping[str, float] | None = None, policy: Policy | None = None
) -> dict[HostId, Verdict]:
    return judge_all(seen, watched(seen, silent), policy or Policy())


def decided(
    seen: ClusterView, *, started: float = T0 - 3000, policy: Policy | None = None,
    declared: Iterable[VmDoc] | None = None,
) -> Decision:  # fmt: skip
    file = None if declared is None else {doc.spec.id: doc for doc in declared}
    return decide(seen, watched(seen, started=started), policy or Policy(), file)


def verdict(
    seen: ClusterView, host: str, silent: Mapping[str, float] | None = None, *, policy: Policy | None = None
) -> Verdict:
    return judge(HostId(host), seen, watched(seen, silent), policy or Policy())


def finding(
    seen: ClusterView, host: str, silent: Mapping[str, float] | None = None, *, policy: Policy | None = None
) -> Finding:
    return verdict(seen, host, silent, policy=policy).finding


# --- a world that moves ------------------------------------------------------------------------------------------


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


def start_order(vm: str, host: str, generation: int, *, boot: str = "i1") -> Order:
    return Order(
        vm=VmId(vm),
        host=HostId(host),
        incarnation=Incarnation(boot),
        generation=Generation(generation),
        life=LIFE,
        deadline=Instant(T0 + 60),
    )
