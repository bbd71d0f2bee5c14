"""A roll over hosts that tests play look by look: its cluster, and whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fangnetz.core.actions import Alarm
from fangnetz.core.model import Heartbeat, HostDoc, HostState, HypervisorHealth, VmDoc, VmRecord, VmState, VmWish
from fangnetz.core.operations import Operation, OperationKind, migrate_steps
from fangnetz.core.policy import Policy
from fangnetz.core.roll.begin import begun
from fangnetz.core.roll.going import STEADY_ANEW_S, Act, Activate, Evacuate, Keep, Pace, Run, Stop, next_act
from fangnetz.core.roll.values import Limits, Roll, Seen, answered, commanded
from fangnetz.core.units import Epoch, HostId, Instant, OperationId, Seconds, VmId
from tests.core.world import T0, beat, host_record, spec, verdicts_of, view, vm_doc, vm_record, watched

H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
LIMITS = Limits(return_s=Seconds(600.0), moves_s=Seconds(900.0), command_s=Seconds(60.0))


def a_roll(*hosts: str, **more: Any) -> Roll:
    return Roll(
        id="r1",
        by="ada",
        began_at=Instant(T0),
        hosts=tuple(map(HostId, hosts or ("h1", "h2", "h3"))),
        command=("patch", "{host}"),
        limits=LIMITS,
        token="t1",
        until=Instant(T0 + 15),
        **more,
    )


@dataclass
class Cluster:
    """What a look shows, changed by hand between two looks: each host runs one VM that is named after it."""

    now: float = T0
    hosts: tuple[Any, ...] = ("h1", "h2", "h3")
    states: dict[str, HostState] = field(default_factory=dict)
    docs: dict[str, HostDoc] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=lambda: {"a1": "h1", "a2": "h2", "a3": "h3"})
    vms: dict[str, VmState] = field(default_factory=dict)
    wishes: dict[str, VmWish] = field(default_factory=dict)
    boots: dict[str, str] = field(default_factory=dict)
    boot_since: dict[str, float] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    silent: dict[str, float] = field(default_factory=dict)
    health: dict[str, HypervisorHealth] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()
    moving: tuple[str, ...] = ()
    unwatched: str = ""
    memory: int = 512

    def seen(self) -> Seen:
        names = [spec(name) if isinstance(name, str) else name for name in self.hosts]
        known = view(
            self.now,
            hosts=names,
            beats=[self._beat(host.id) for host in names],
            records=[
                host_record(h.id, self.states.get(h.id, HostState.ONLINE), boot=self.boots.get(h.id, "i1"))
                for h in names
            ],
            docs=[self.docs.get(h.id, HostDoc(id=h.id)) for h in names],
            vms=[self._vm(vm, host) for vm, host in self.homes.items()],
            operations=[
                Operation(
                    id=OperationId(f"migrate-{vm}-1"), kind=OperationKind.MIGRATE, subject=vm, epoch=Epoch(1),
                    opened_at=Instant(self.now), reason="as the test says", steps=migrate_steps(),
                )
                for vm in self.moving
            ],
            unreadable=self.unreadable,
        )  # fmt: skip
        watch = None if self.unwatched else watched(known, self.silent)
        return Seen(
            view=known,
            watch=watch,
            unwatched=self.unwatched,
            verdicts={} if watch is None else verdicts_of(known, self.silent),
            alarms=self.alarms,
            policy=Policy(),
        )

    def _beat(self, host: str) -> Heartbeat:
        runs = {VmId(vm): 7 for vm, home in self.homes.items() if home == host}
        made = beat(
            host, self.now - self.silent.get(host, 0.1), boot=self.boots.get(host, "i1"), runs=runs,
            hypervisor=self.health.get(host, HypervisorHealth.OK),
        )  # fmt: skip
        return replace(made, boot_since=Instant(self.boot_since.get(host, 0.0)))

    def _vm(self, vm: str, host: str) -> tuple[VmDoc, VmRecord]:
        doc = vm_doc(vm, memory=self.memory, wish=self.wishes.get(vm, VmWish.RUNNING))
        boot = self.boots.get(host, "i1")
        return doc, vm_record(vm, host, 7, boot=boot, state=self.vms.get(vm, VmState.RUNNING))

    # -- what controllers and hosts do --

    def emptied(self, host: str, *, to: str) -> None:
        away = tuple(VmId(vm) for vm, home in self.homes.items() if home == host)
        self.homes.update(dict.fromkeys(away, to))
        self.docs[host] = HostDoc(id=HostId(host), evacuate=True, maintenance=True, away=away)
        self.states[host] = HostState.MAINTENANCE

    def activated(self, host: str) -> None:
        self.docs[host] = replace(self.docs[host], evacuate=False, maintenance=False, failback=True)
        self.states[host] = HostState.ONLINE

    def home(self, host: str) -> None:
        self.homes.update(dict.fromkeys(self.docs[host].away, host))
        self.docs[host] = HostDoc(id=HostId(host))


@dataclass
class Driven:
    """A roll carried on by hand: `ask` looks once, `on` looks until something is to be done."""

    roll: Roll
    cluster: Cluster
    pace: Pace = field(default_factory=Pace)
    kept: list[str] = field(default_factory=list)

    def ask(self) -> Act:
        self.pace, act = next_act(self.roll, self.pace, self.cluster.seen())
        return act

    def on(self) -> Act:
        while isinstance(act := self.ask(), Keep):
            self.roll = act.roll
            self.kept.append(act.sentence)
        match act:
            case Evacuate(hosts=hosts) | Activate(hosts=hosts):
                self.roll = answered(self.roll, hosts)
            case Run(roll=roll):
                self.roll = roll
        return act

    def ran(self, host: str, code: int = 0, output: str = "") -> None:
        self.roll = commanded(self.roll, HostId(host), code, output, Instant(self.cluster.now))

    def after(self, span: float) -> Act:
        self.cluster.now += span
        return self.on()


def driven(*hosts: str, cluster: Cluster | None = None, **more: Any) -> Driven:
    cluster = cluster or Cluster()
    return Driven(begun(a_roll(*hosts, **more), cluster.seen()), cluster)


def at_the_command(*hosts: str, **more: Any) -> Driven:
    made = driven(*hosts, **more)
    assert made.on() == Evacuate(hosts=(H1,))
    made.cluster.docs["h1"] = HostDoc(id=H1, evacuate=True)
    made.cluster.emptied("h1", to="h2")
    return made


def at_the_return(*hosts: str, **more: Any) -> Driven:
    made = at_the_command(*hosts, **more)
    assert isinstance(made.on(), Run)
    made.ran("h1")
    made.cluster.now += 0.5
    return made


def at_home(*hosts: str, **more: Any) -> Driven:
    made = at_the_return(*hosts, **more)
    made.cluster.boots["h1"] = "i2"
    made.on()
    assert made.after(STEADY_ANEW_S) == Activate(hosts=(H1,))
    made.cluster.activated("h1")
    return made


def because(act: Act) -> str:
    assert isinstance(act, Stop), act
    return act.because
