"""A real cluster's view of today as a story, and what no story says: bindings, records, who decides. Reads values only.

What is not known about the cluster is assumed for the worse, and each assumption is a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fangnetz.core.demand import demands
from fangnetz.core.fencing import BindingState, binding_state
from fangnetz.core.model import ClusterView, HostSpec, Power, VmDoc, VmRecord
from fangnetz.core.pause import told
from fangnetz.core.policy import Policy, RankBy
from fangnetz.core.rooms import TAKES_ROOM
from fangnetz.core.units import ControllerId, DeviceName, HostId, Incarnation, VmId
from fangnetz.sim.stories.story import WORLD_TIMES, HostOfStory, Line, Story, VmOfStory
from fangnetz.sim.what_if.measured import Measurements

SETTLES_S = 40.0
"""After the startup grace everybody has been watched for this long before a host is lost."""
AFTERWARDS_S = 1800.0
"""What is still under way so long after the loss is told as it stands then."""


class Loss(StrEnum):
    """How a host is lost."""

    POWER = "power"
    """Its power is gone; its fence devices answer on."""
    NETWORK = "network"
    """Cut off from cluster and storage network, but powered."""
    STORAGE = "storage"
    """Cut off from its storage alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """What is known of a cluster now.

    `reporting`: hosts that are alive as far as anybody can tell; `off`: those proven off; `incarnations`: the boot each
    host is known by; `controllers`: all of the cluster file, each with the host it runs on or None; `sentinels`:
    whether Sentinels say where the store is.
    """

    cluster: str
    view: ClusterView
    policy: Policy
    reporting: frozenset[HostId]
    off: frozenset[HostId]
    incarnations: Mapping[HostId, Incarnation]
    controllers: Mapping[ControllerId, HostId | None]
    store_host: HostId | None = None
    sentinels: bool = False
    measured: Measurements = field(default_factory=Measurements)

    @property
    def lost_at(self) -> float:
        """Seconds from the story's start to the loss: by then every grace is over."""
        return self.policy.startup_grace_s + SETTLES_S

    @property
    def holder(self) -> ControllerId | None:
        return self.view.holder if self.view.holder in self.watching else None

    @property
    def watching(self) -> tuple[ControllerId, ...]:
        """Controllers that look at the store."""
        latest = 2 * self.policy.control_lease_s + self.policy.gap_s
        return tuple(name for name in self.controllers if self.view.now - self.view.controllers.get(name, 0.0) < latest)

    @property
    def vms(self) -> tuple[tuple[VmDoc, VmRecord | None], ...]:
        """VMs that can be played, by name: those that no host outside the cluster file owns."""
        found = ((doc, self.view.vm_records.get(vm)) for vm, doc in sorted(self.view.vms.items()))
        return tuple((doc, record) for doc, record in found if not _is_outside(self.view, record))

    def device(self, host: HostId, device: DeviceName) -> DeviceToday:
        """Return how a fence device stands, and what is assumed of it."""
        binding = binding_state(self.view.bindings.get((host, device)), self.incarnations[host])
        reading = next((r for r in self.view.readings.get(host, ()) if r.device == device), None)
        beat = self.view.heartbeats.get(host) if host in self.reporting else None
        if reading is None:
            return DeviceToday(binding=binding, state=DARK, why="was never asked")
        if reading.power is Power.UNKNOWN:
            return DeviceToday(binding=binding, state=DARK, why="gave no answer when it was last asked")
        if beat is not None and reading.power is Power.OFF and reading.answered_at < beat.boot_since:
            return DeviceToday(binding=binding, state=DARK, why="was not asked since its host booted")
        if beat is not None and reading.power is Power.OFF:
            return DeviceToday(binding=binding, state=LYING, why=f"reads OFF while {host} reports")
        if binding is BindingState.NOT_SEEN_ON and reading.power is Power.ON:
            return DeviceToday(binding=binding, state=DARK, why=f"was not seen ON while this boot of {host} was alive")
        return DeviceToday(binding=binding, state=WELL)


WELL, DARK, LYING = "ok", "dark", "lying"
"""As the verb `bmc` has them."""
TAKEN = {DARK: "it is taken to be dark", LYING: "it is taken to switch nothing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceToday:
    """`state`: one of WELL, DARK, LYING; `why`: what speaks for it, empty where nothing is assumed."""

    binding: BindingState
    state: str
    why: str = ""


def _is_outside(view: ClusterView, record: VmRecord | None) -> bool:
    return record is not None and record.owner is not None and record.owner not in view.hosts


# --- the story ---------------------------------------------------------------------------------------------------


def story_of_today(today: Today, lost: tuple[HostId, ...], loss: Loss) -> Story:
    """Return the cluster as it stands and the loss of hosts, all at one instant."""
    controllers = today.watching or tuple(today.controllers)
    return Story(
        name=f"{today.cluster}: loss of {' and '.join(lost)}",
        hosts=tuple(_host(today, spec) for spec in today.view.hosts.values()),
        controllers={name: today.controllers[name] or "" for name in controllers},
        store_host=today.store_host or "",
        slots=any(beat.slot_waits_s is not None for beat in today.view.heartbeats.values()),
        vms=tuple(_vm(today, doc, record) for doc, record in today.vms),
        times=dict(WORLD_TIMES),
        policy=today.policy,
        timeline=(*_loads(today), *(_line(host, loss, today.lost_at) for host in lost)),
        until=today.lost_at + AFTERWARDS_S,
    )


def _host(today: Today, spec: HostSpec) -> HostOfStory:
    return HostOfStory(
        name=spec.id,
        cpus=spec.cpus,
        memory_mib=spec.memory_mib,
        fencing=spec.fencing,
        powered=spec.id not in today.off,
        zone=spec.zone,
        times={"fence_s": today.measured.fence(spec.id).seconds},
    )


def _vm(today: Today, doc: VmDoc, record: VmRecord | None) -> VmOfStory:
    owner = record.owner if record is not None else None
    return VmOfStory(
        name=doc.spec.id,
        host=owner or next(iter(today.view.hosts)),
        cpus=doc.spec.cpus,
        memory_mib=doc.spec.memory_mib,
        priority=doc.spec.priority,
        wish=doc.wish.value,
        rules=doc.spec.rules,
        live=doc.spec.live,
        retries=doc.spec.retries,
        fallback=doc.spec.fallback,
        running=owner is not None and _runs(today, doc.spec.id, owner),
        times={"start_s": today.measured.start(doc.spec.id).seconds},
    )


def _runs(today: Today, vm: VmId, owner: HostId) -> bool:
    """Whether a copy runs on its owner; of a silent host it is taken for granted where its record does not deny it."""
    beat = today.view.heartbeats.get(owner)
    if beat is not None and owner in today.reporting:
        return beat.sees(vm) is not None
    return today.view.vm_records[vm].state in TAKES_ROOM


def _loads(today: Today) -> Iterator[Line]:
    """Yield what was measured of each VM, as its load from the start; what was not measured uses all it is given."""
    if today.policy.rank_by is not RankBy.MEASURED:
        return
    for vm, demand in sorted(demands(today.view).items()):
        if not _is_outside(today.view, today.view.vm_records.get(vm)):
            more = {"cpus_used": demand.cpus, "memory_used_mib": demand.memory_mib}
            yield Line(at=0.0, verb="load", on=vm, names=(vm,), more=more)


def _line(host: HostId, loss: Loss, at: float) -> Line:
    match loss:
        case Loss.POWER:
            return Line(at=at, verb="power_off", on=host, names=(host,))
        case Loss.NETWORK:
            links: tuple[str, ...] = ("cluster", "storage")
        case Loss.STORAGE:
            links = ("storage",)
    return Line(at=at, verb="cut", on=host, names=(host,), more={"links": links, "direction": "both"})


# --- what is assumed ---------------------------------------------------------------------------------------------


def assumptions(today: Today) -> tuple[str, ...]:
    """Return, in a sentence each, where the played cluster is not simply the real one."""
    parts = (_of_controllers, _of_pause, _of_store, _of_hosts, _of_devices, _of_vms)
    return tuple(sentence for part in parts for sentence in part(today))


def _of_controllers(today: Today) -> Iterator[str]:
    silent = sorted(set(today.controllers) - set(today.watching))
    if not today.watching:
        yield "no controller looks at the store now, so nothing would be done; this is what they would do once started"
    elif silent:
        yield f"without {', '.join(silent)}: it does not look at the store now"
    if today.view.operations:
        yield f"without {len(today.view.operations)} open operations: what they are about is taken as it stands"


def _of_pause(today: Today) -> Iterator[str]:
    if today.view.paused is not None:
        yield told(today.view.paused)


def _of_store(today: Today) -> Iterator[str]:
    if today.sentinels:
        yield "the Sentinels know where the store is: it is taken to outlive the loss"


def _of_hosts(today: Today) -> Iterator[str]:
    for host in today.view.hosts:
        if host not in today.reporting and host not in today.off:
            yield f"{host} does not report now and is not proven off: it is taken to run, cut off from the others"


def _of_devices(today: Today) -> Iterator[str]:
    for host, spec in today.view.hosts.items():
        for name in (name for level in spec.fencing for name in level):
            device = today.device(host, name)
            if device.why:
                yield f"{name} of {host} {device.why}: {TAKEN[device.state]}"


def _of_vms(today: Today) -> Iterator[str]:
    for vm, record in sorted(today.view.vm_records.items()):
        if _is_outside(today.view, record):
            yield f"without {vm}: it is on record on {record.owner}, which is not in the cluster file"
