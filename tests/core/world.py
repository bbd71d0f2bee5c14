"""Builders of views that read like a sentence, and a little scripted world that runs look and decide over time.

`World` plays hosts, links, fence devices and probers by the clock; it applies what `decide` asks for and, where a story
needs it, carries operations out in the plainest way. It judges nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fangnetz.core.actions import (
    Decision,
)
from fangnetz.core.decide import decide, judge_all
from fangnetz.core.detector import Finding, Verdict, Watch, judge, look
from fangnetz.core.model import (
    FROM_CLI,
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
from fangnetz.core.operations import Operation, Order
from fangnetz.core.policy import Policy
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


def start_order(vm: str, host: str, generation: int, *, boot: str = "i1") -> Order:
    return Order(
        vm=VmId(vm),
        host=HostId(host),
        incarnation=Incarnation(boot),
        generation=Generation(generation),
        life=LIFE,
        deadline=Instant(T0 + 60),
    )
