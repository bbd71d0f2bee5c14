"""A cluster in a real Redis, written through the real store: hosts that beat, VMs, operations, a controller."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.adapters.redis import RedisStore, connect
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.cli.main import main
from fangnetz.core.detector import HostWatch, Watch
from fangnetz.core.model import (
    Answer,
    Binding,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostSpec,
    HostState,
    HypervisorHealth,
    Power,
    PowerReading,
    ProbeAnswer,
    ProbeRound,
    Sighting,
    SlotSeen,
    VmDoc,
    VmRecord,
    VmSighting,
    VmState,
    VmUse,
    VmWish,
)
from fangnetz.core.operations import Fact, Operation, OperationState, Outcome, Step, StepState
from fangnetz.core.policy import Policy
from fangnetz.core.units import (
    ControllerId,
    DeviceName,
    Epoch,
    Generation,
    HostId,
    Incarnation,
    Instant,
    OperationId,
    Seconds,
    VmId,
)
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.tick import Controller
from fangnetz.ports import Claim
from fangnetz.settings import load_settings, vm_doc_from_xml

C1 = ControllerId("c1")
IPMI = DeviceName("ipmi")
GUID = "0" * 31 + "1"
FILE = """\
cluster: demo
redis: {{url: "redis://127.0.0.1:{port}/0"}}
controllers: {{c1: {{address: 127.0.0.1}}}}
hosts:
  host1:
    address: 127.0.1.1
    cpus: 4
    memory_mib: 4096
    fencing: [[{{name: ipmi, driver: ipmi, address: 127.0.2.1, username: admin, password_file: secrets/none}}]]
  host2:
    address: 127.0.1.2
    cpus: 4
    memory_mib: 4096
    fencing: [[{{name: ipmi, driver: ipmi, address: 127.0.2.2, username: admin, password_file: secrets/none}}]]
  host3:
    address: 127.0.1.3
    cpus: 4
    memory_mib: 2048
"""
XML = """\
<domain type='kvm'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='iscsi' name='iqn.2026-11.net.example:{disk}/1'><host name='127.0.0.1' port='3260'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>
    {more}
  </devices>
</domain>
"""


def domain(name: str, *, disk: str = "", memory: int = 512, more: str = "") -> str:
    """The XML of a VM that is fit, unless `more` devices make it unfit."""
    return XML.format(name=name, uuid=uuid.uuid5(uuid.NAMESPACE_DNS, name), memory=memory, disk=disk or name, more=more)


@dataclass(frozen=True)
class Said:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class NoMessages:
    """A dispatcher that loses every message, as any may: what the tick decides is only written down."""

    def dispatch(self, operation: Operation, chains: Sequence[Sequence[str]]) -> None: ...

    def ask_power(self, host: HostId, devices: Sequence[DeviceName]) -> None: ...

    def nudge(self) -> None: ...


@dataclass
class Board:
    """The cluster file, the store, and pens for everything that stands in it."""

    folder: Path
    port: int
    capsys: pytest.CaptureFixture[str]
    file: Path = field(init=False)
    raw: redis.Redis = field(init=False)
    store: RedisStore = field(init=False)
    epoch: Epoch = Epoch(0)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.file = self.folder / "cluster.yaml"
        self.file.write_text(FILE.format(port=self.port))
        self.raw = connect(f"redis://127.0.0.1:{self.port}/0", name="test", timeout_s=5.0)
        self.raw.flushall()
        self.store = RedisStore(self.raw, "demo")

    # -- the command line --

    def run(self, *words: str) -> Said:
        self.capsys.readouterr()
        code = main(["--config", str(self.file), *words])
        said = self.capsys.readouterr()
        return Said(code, said.out, said.err)

    # -- pens --

    @property
    def hosts(self) -> dict[HostId, HostSpec]:
        return {host: it.spec for host, it in load_settings(self.file, "host").hosts.items()}

    @property
    def now(self) -> float:
        return float(self.store.now())

    def live(self, *, since_s: float = 7200.0, lease_s: float = 3600.0) -> None:
        """A store that has lived for two hours, and c1 in charge."""
        self.store.meet()
        key = "fn:{demo}:life"
        self.raw.hset(key, "since", str(int((self.now - since_s) * 1_000_000)))
        lease = self.store.take_lease(C1, Seconds(lease_s))
        assert lease is not None
        self.epoch = lease.epoch

    def watch(self, silent: Mapping[str, float] | None = None) -> None:
        """Publish what c1 has watched up to this moment: every host heard, but for the silent ones."""
        view = self.store.view(self.hosts, C1)
        seen = {
            host: HostWatch(
                incarnation=beat.incarnation,
                sequence=beat.sequence,
                heard_at=beat.received_at,
                silent_for=Seconds((silent or {}).get(host, 0.0)),
            )
            for host, beat in view.heartbeats.items()
        }
        began = Instant(view.now - 600)
        self.store.put_watch(
            C1,
            Watch(started_at=began, since=began, looked_at=view.now, life=view.life.incarnation, hosts=seen),
        )

    def beat(
        self,
        host: str,
        vms: Mapping[str, int] | None = None,
        *,
        boot: str = "",
        health: HypervisorHealth = HypervisorHealth.OK,
        ago_s: float = 0.0,
        uses: tuple[VmUse, ...] = (),
        slot_waits_s: float | None = None,
        slots: tuple[SlotSeen, ...] = (),
    ) -> None:
        """A heartbeat with an inventory of VM -> generation, received `ago_s` seconds ago."""
        self.sequence += 1
        at = self.store.put_heartbeat(
            Heartbeat(
                host=HostId(host),
                incarnation=Incarnation(boot or f"boot-of-{host}"),
                sequence=self.sequence,
                hypervisor=health,
                inventory=tuple(
                    VmSighting(vm=VmId(vm), state=Sighting.RUNNING, generation=Generation(generation))
                    for vm, generation in (vms or {}).items()
                ),
                inventory_age_s=Seconds(0.1),
                load=0.25,
                memory_free_mib=2048,  # type: ignore[arg-type]
                uses=uses,
                slot_waits_s=None if slot_waits_s is None else Seconds(slot_waits_s),
                slots=slots,
                bmc_guids=(GUID,),
            )
        )
        if ago_s:
            self.raw.hset(f"fn:{{demo}}:hb:{host}", "at", str(int((at - ago_s) * 1_000_000)))

    def host(self, host: str, state: HostState = HostState.ONLINE, reason: str = "reports", **more: Any) -> None:
        record = HostRecord(
            id=HostId(host),
            state=state,
            since=Instant(self.now - 240),
            reason=reason,
            incarnation=Incarnation(f"boot-of-{host}"),
        )
        known = self.store.view(self.hosts, None).host_records.get(HostId(host))
        assert self.store.put_host(replace(record, **more), known, self.epoch)

    def vm(
        self,
        vm: str,
        state: VmState = VmState.RUNNING,
        host: str | None = None,
        *,
        reason: str = "",
        wish: VmWish = VmWish.RUNNING,
        memory: int = 512,
        generation: int = 7,
        source: str = "cli",
    ) -> None:
        """A VM's definition and record."""
        self.documents(vm_doc_from_xml(domain(vm, memory=memory), wish=wish, source=source))
        record = VmRecord(
            id=VmId(vm),
            state=state,
            owner=HostId(host) if host else None,
            owner_incarnation=Incarnation(f"boot-of-{host}" if host else ""),
            generation=Generation(generation),
            since=Instant(self.now - 60),
            reason=reason,
        )
        known = self.store.view(self.hosts, None).vm_records.get(VmId(vm))
        assert self.store.put_vm(record, known.generation if known else None, self.epoch)

    def documents(self, *documents: VmDoc | HostDoc | Binding) -> None:
        Ledger(self.store, LedgerFolder(self.folder / "ledger"), SystemProcess()).write(documents)

    def bound(self, host: str, *, matches: bool | None = True, power: Power = Power.ON, ago_s: float = 2.0) -> None:
        """The host's IPMI device was seen ON while its boot lived, and says `power` now."""
        at = Instant(self.now - 300)
        self.documents(
            Binding(
                host=HostId(host),
                device=IPMI,
                incarnation=Incarnation(f"boot-of-{host}"),
                seen_on_at=at,
                guid=GUID,
                guid_matches=matches,
            )
        )
        self.reading(host, power, ago_s=ago_s)

    def reading(self, host: str, power: Power, *, ago_s: float = 0.0, raw: str = "") -> PowerReading:
        asked = Instant(self.now - ago_s)
        made = PowerReading(
            host=HostId(host),
            device=IPMI,
            power=power,
            asked_at=asked,
            answered_at=Instant(asked + 0.05),
            guid=GUID,
            raw=raw or f"chassis power is {power}",
        )
        self.store.put_reading(made)
        return made

    def probe(self, **answers: Answer) -> None:
        """A finished probe round of c1: each host answers everything, nothing, or nobody knows."""
        self.store.put_probe_round(
            ProbeRound(
                prober=C1,
                started_at=Instant(self.now - 0.3),
                ended_at=Instant(self.now - 0.1),
                answers=tuple(
                    ProbeAnswer(host=HostId(host), ping=answer, kernel=answer, libvirt=answer)
                    for host, answer in answers.items()
                ),
            )
        )

    def well(self) -> None:
        """Three hosts that report and four VMs; host1 protected, host2 not tested, host3 without a device."""
        self.live()
        for number, host in enumerate(("host1", "host2", "host3")):
            self.beat(host, {f"web{number + 1}": 7})
            self.host(host)
        self.bound("host1")
        self.bound("host2", matches=None)
        for number, host in enumerate(("host1", "host2", "host3")):
            self.vm(f"web{number + 1}", host=host)
        self.vm("db1", VmState.WAITING, reason="host3 has 1536 MiB free of 2048, db1 needs 4000", memory=4000)
        self.watch()

    # -- operations, step by step --

    def open(self, operation: Operation) -> Operation:
        assert self.store.open_operation(replace(operation, epoch=self.epoch))
        return operation

    def settle(
        self,
        identity: str,
        key: str,
        sentence: str = "",
        *,
        state: StepState = StepState.DONE,
        facts: Mapping[str, Fact] | None = None,
        adds: tuple[Step, ...] = (),
        skips: tuple[str, ...] = (),
        closes: OperationState | None = None,
        boot: str = "",
    ) -> None:
        """Claim one step and write how it ended, as its executor does."""
        claim = self.store.claim(
            OperationId(identity),
            key,
            token=uuid.uuid4().hex,
            executor="c1:work",
            incarnation=Incarnation(boot),
            lease=Seconds(4.0),
        )
        assert isinstance(claim, Claim), claim
        outcome = Outcome(state=state, sentence=sentence, facts=facts or {}, adds=adds, skips=skips, closes=closes)
        self.store.settle(claim, outcome)

    # -- a controller --

    def controller(self) -> Controller:
        """The real one, whose messages get lost."""
        return Controller(
            me=C1,
            store=self.store,
            dispatcher=NoMessages(),
            ledger=Ledger(self.store, LedgerFolder(self.folder / "ledger"), SystemProcess()),
            hosts=self.hosts,
            declared={},
            policy=Policy(),
        )


class Ticking:
    """Ticks a controller in the background, with hosts that go on beating, until the block is left."""

    def __init__(
        self,
        board: Board,
        beats: Mapping[str, Mapping[str, int]],
        *,
        boots: Mapping[str, str] | None = None,
        hand: Callable[[], None] = lambda: None,
    ) -> None:
        """`boots`: of hosts that are not in their first one; `hand`: called before each round of reports."""
        self._board, self._beats, self._boots, self._hand = board, beats, {} if boots is None else boots, hand
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failure: BaseException | None = None

    def _run(self) -> None:
        try:
            controller = self._board.controller()
            while not self._end.is_set():
                self._hand()
                for host, vms in self._beats.items():
                    self._board.beat(host, vms, boot=self._boots.get(host, ""))
                controller.tick()
                self._end.wait(0.1)
        except BaseException as error:
            self.failure = error
            raise

    def __enter__(self) -> Ticking:
        self._thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=10)
        assert self.failure is None, self.failure
