"""Frozen facts: what is defined, what was heard, what is recorded, and the one view a decision is made from.

Never holds behaviour beyond questions about itself. Instants are the store's clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from fangnetz.core.policy import Fallback
from fangnetz.core.retries import NO_RETRIES, Retries
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

if TYPE_CHECKING:
    from fangnetz.core.operations import Operation

BOOT_SETTLES_S = 1.5
"""A new boot proves nothing about the one before it until it was heard for this long without contradiction."""
PROTOCOL = 1
"""Version of what host workers and controllers say to each other; another one is refused with a sentence."""


class Answer(StrEnum):
    """Whether something answered. `unknown` is neither yes nor no."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Power(StrEnum):
    """What a fence device said about its plug. An error is `unknown`, never `off`."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class VmWish(StrEnum):
    """What the operator wants of a VM; `ignored` = known but not managed."""

    RUNNING = "running"
    STOPPED = "stopped"
    IGNORED = "ignored"


class VmState(StrEnum):
    """ARCHITECTURE's words for a VM."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    MOVING = "moving"
    WAITING = "waiting"
    FAILED = "failed"
    LOST = "lost"
    UNKNOWN = "unknown"
    NEEDS_PERSON = "needs_person"
    UNMANAGED = "unmanaged"


class HostState(StrEnum):
    """ARCHITECTURE's words for a host."""

    ONLINE = "online"
    SUSPECT = "suspect"
    ISOLATED = "isolated"
    LOST = "lost"
    UNKNOWN = "unknown"
    DEGRADED = "degraded"
    FENCING = "fencing"
    FENCED = "fenced"
    RETURNING = "returning"
    EVACUATING = "evacuating"
    MAINTENANCE = "maintenance"
    LEFT = "left"
    QUARANTINED = "quarantined"
    NEEDS_PERSON = "needs_person"


class Sighting(StrEnum):
    """What a hypervisor says of a domain. `incoming` is a migration's target and no running copy: memory still arrives,
    or all of it has, and it waits to be resumed by us."""

    RUNNING = "running"
    PAUSED = "paused"
    INCOMING = "incoming"
    STOPPING = "stopping"
    CRASHED = "crashed"


class HypervisorHealth(StrEnum):
    OK = "ok"
    HUNG = "hung"
    DOWN = "down"


class Leaving(StrEnum):
    """Whether a host has announced that it goes down in order, and how."""

    NO = "no"
    REBOOT = "reboot"
    SHUTDOWN = "shutdown"


UNKNOWN_BOOT = Incarnation("?")
"""In `HostDoc`: a member whose last boot nobody can tell. No boot has this name, so no proof is about it."""


# --- defined by people -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A host as the cluster file defines it.

    `fencing`: levels in order, each the devices that must all be off. `controllers`: those that run on it themselves.
    `zone`: what fails as one with other hosts, a room or a rack; empty if it is not said.
    """

    id: HostId
    cpus: int
    memory_mib: MiB
    fencing: tuple[tuple[DeviceName, ...], ...] = ()
    controllers: tuple[ControllerId, ...] = ()
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Where one VM may run, as its definition says; `core.rules` joins those of all VMs."""

    allowed: tuple[HostId, ...] = ()
    """Hosts it may run on; empty: any."""
    strict: bool = True
    """Whether `allowed` is a must; else these hosts are preferred by 1."""
    preferred: tuple[tuple[HostId, int], ...] = ()
    """Hosts with their weight: a higher one wins over load, one that is not named has 0."""
    together: tuple[VmId, ...] = ()
    """VMs that run on the same host as this one or not at all."""
    apart: tuple[VmId, ...] = ()
    """VMs that never run on the same host as this one."""
    failback: bool | None = None
    """Whether it goes back to a host that it prefers, and home after an evacuation; None: as the policy says."""

    @property
    def say_something(self) -> bool:
        """Whether they are others than those of a VM of which none are said."""
        bound = self.allowed or self.preferred or self.together or self.apart
        return bool(bound) or not self.strict or self.failback is not None


NO_RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """A VM as placement sees it. `digest` names the exact domain XML it stands for.

    `uuid` is lower case without dashes, empty if the XML gives none; `disks` names every source that it opens for
    writing and shares with nobody, in one spelling per source.
    """

    id: VmId
    memory_mib: MiB
    cpus: int
    priority: int = 0
    digest: str = ""
    uuid: str = ""
    disks: tuple[str, ...] = ()
    rules: Rules = NO_RULES
    live: bool = True
    """Whether it may be moved while it runs; else (a host's device, local state) it is stopped for every move."""
    retries: Retries = NO_RETRIES
    fallback: Fallback | None = None
    """What an evacuation does about it if it does not move while it runs; None: as the policy says."""


FROM_FILE = "file"
"""`VmDoc.source`: declared in the cluster file."""
FROM_CLI = "cli"
"""`VmDoc.source`: added by an operator."""
DROPPED = "dropped"
"""`VmDoc.source`: was declared in the cluster file, and is not any more."""
REMOVED = "removed"
"""`VmDoc.source`: an operator removed it while a copy ran; kept in mind until that copy is known to be gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDoc:
    """One versioned definition with its wish: what files and store remember of a VM (SAFETY rule 8)."""

    spec: VmSpec
    xml: str
    wish: VmWish
    source: str
    """One of FROM_FILE, FROM_CLI, DROPPED, REMOVED."""
    declared: VmWish | None = None
    """The wish the cluster file had when this was last taken from it; None if it never was."""

    @property
    def to_run(self) -> bool:
        """Whether it is ours to keep running: wished to run, and neither dropped from the file nor removed."""
        return self.wish is VmWish.RUNNING and self.source not in (DROPPED, REMOVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDoc:
    """What an operator wished of a host, and its last known boot, remembered in files."""

    id: HostId
    maintenance: bool = False
    evacuate: bool = False
    """Its VMs are to leave while they run; then it is in maintenance. Holds until it is activated."""
    away: tuple[VmId, ...] = ()
    """VMs that an evacuation moved away, and that a failback brings home."""
    failback: bool = False
    """Whether they are on their way home."""
    stopped: tuple[VmId, ...] = ()
    """VMs that were stopped, or are being stopped, as it was emptied: each starts again when it is activated, or when a
    person says `vm start`, and not before."""
    reason: str = ""
    quarantine: str = ""
    """Why it takes no VMs before a person activates it; empty if it may."""
    incarnation: Incarnation = Incarnation("")
    """The last boot that was a member: after a wipe of the store a host unheard may still own VMs.

    Written before that boot is recorded as a member; empty if no boot of it can own anything.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseDoc:
    """An operator's word that nothing is to be ordered in the whole cluster, remembered in files."""

    on: bool
    """False: it was ended, or is over."""
    by: str
    reason: str = ""
    since: Instant = Instant(0.0)
    until: Instant | None = None
    """When it ends by itself; None: only when somebody ends it."""

    def lasts(self, now: Instant) -> bool:
        return self.on and (self.until is None or now < self.until)


# --- heard from hosts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSighting:
    """One domain on one host. `generation` is None for a domain Fangnetz did not start.

    `start_sent_at`: when its start was sent, by the store's clock; None if nobody wrote it down.
    `held`: paused by us as the later of two running copies; what the other wrote since, it does not know. The mark
    stays with the copy, so it outlives every record.
    """

    vm: VmId
    state: Sighting
    generation: Generation | None
    start_sent_at: Instant | None = None
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A promise (SAFETY rule 3): this boot of the host will never again start `vm` at `generation` or less."""

    vm: VmId
    generation: Generation
    left_for: Generation = Generation(0)
    """The number of the copy that it left for by a migration, by libvirt's own word; 0: it did not leave by one."""


class VmUse(NamedTuple):
    """What a VM really uses of its host. A bare row, as a report carries one per VM: three words instead of a group."""

    vm: VmId
    cpus: float
    """So many cpus are busy with it, over the last minute."""
    memory_mib: MiB
    """So much of the host's memory it holds."""


class SlotSeen(NamedTuple):
    """What one host saw of another one's slot on the shared storage. A bare row, as every report carries some.

    Instants are the last ones that the store had answered its reader with before it looked: constants from then on,
    which no step of any clock moves. What is said to be after one may be later by an interval, and never earlier.
    """

    host: HostId
    incarnation: Incarnation
    """The boot that wrote it last."""
    written_after: Instant
    """Its reader still read an older number after this; 0: it was not seen to change."""
    seen_after: Instant
    """The number that lies there was read after this for the first time."""
    read_after: Instant
    """And after this for the last time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a host worker last said. `received_at` is set by the store, never by the host."""

    host: HostId
    incarnation: Incarnation
    sequence: int
    hypervisor: HypervisorHealth
    inventory: tuple[VmSighting, ...]
    inventory_age_s: Seconds
    releases: tuple[Release, ...] = ()
    orders: tuple[str, ...] = ()
    """Steps in hand, as `<operation>/<step>`, and starts that libvirt has not answered: `unanswered/start/<vm>/-`."""
    load: float = 0.0
    memory_free_mib: MiB = MiB(0)
    uses: tuple[VmUse, ...] = ()
    """What was measured of its VMs last; empty where nothing is measured."""
    uses_age_s: Seconds = Seconds(0.0)
    slot_waits_s: Seconds | None = None
    """For how long this worker has been waiting to write the host's slot on the shared storage; 0: it is written; below
    0: not yet for the first time; None where slots are not used.
    """
    slots: tuple[SlotSeen, ...] = ()
    """What it saw of the slots of those it watches (`core.slots.watched_by`)."""
    bmc_guids: tuple[str, ...] = ()
    """GUIDs of this machine's own BMC, read in-band; lower case, no dashes."""
    worker: str = ""
    """Identity of the worker process; changes at its restart."""
    leaving: Leaving = Leaving.NO
    """An orderly shutdown is pending. It proves nothing: what this boot let go stands in its releases."""
    protocol: int = PROTOCOL
    received_at: Instant = Instant(0.0)
    boot_since: Instant = Instant(0.0)
    """When the store first heard this boot."""
    contested_at: Instant = Instant(0.0)
    """When an earlier boot last spoke up after a later one: two machines carry one name. 0 if never."""

    @property
    def settled(self) -> bool:
        """Whether this boot is known to have replaced the one before it, and not to be a second machine of its name.

        An earlier boot that still lives would have spoken up meanwhile.
        """
        return self.received_at - self.boot_since >= BOOT_SETTLES_S and not self.contested

    @property
    def contested(self) -> bool:
        """Whether an earlier boot spoke up after this one began."""
        return self.contested_at > 0 and self.contested_at >= self.boot_since

    def promised(self, vm: VmId) -> Generation:
        """Return the highest generation of `vm` that this boot will never start again, 0 if none."""
        return max((release.generation for release in self.releases if release.vm == vm), default=Generation(0))

    def left_for(self, vm: VmId, generation: Generation) -> Generation:
        """Return which copy `vm` left for when this boot gave up `generation` by a migration, 0 if it did not."""
        mine = (release for release in self.releases if (release.vm, release.generation) == (vm, generation))
        return max((release.left_for for release in mine), default=Generation(0))

    def sees(self, vm: VmId) -> VmSighting | None:
        """Return the sighting of `vm` in this inventory, or None."""
        return next((seen for seen in self.inventory if seen.vm == vm), None)


# --- heard from probes and fence devices -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAnswer:
    """One host in one round: `ping`, and whether its kernel or libvirt answered on the libvirt port.

    A refused connection is `kernel` yes and `libvirt` no: the host lives, the service does not.
    """

    host: HostId
    ping: Answer
    kernel: Answer
    libvirt: Answer

    @property
    def alive(self) -> bool:
        return Answer.YES in (self.ping, self.kernel, self.libvirt)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRound:
    """One prober's round over all hosts. `started_at`/`ended_at` by the store's clock."""

    prober: ControllerId
    started_at: Instant
    ended_at: Instant
    answers: tuple[ProbeAnswer, ...]
    references: tuple[str, ...] = ()
    """Reference addresses (router …) that answered in this round."""

    def answer(self, host: HostId) -> ProbeAnswer | None:
        return next((answer for answer in self.answers if answer.host == host), None)

    def reached_other_than(self, host: HostId) -> bool:
        """Whether this prober reached anything else: only then its silence about `host` counts."""
        return bool(self.references) or any(a.alive for a in self.answers if a.host != host)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """One typed answer of one fence device. `raw` is what it literally said, or why it said nothing."""

    host: HostId
    device: DeviceName
    power: Power
    asked_at: Instant
    answered_at: Instant
    incarnation: Incarnation = Incarnation("")
    """The boot whose heartbeat was fresh right before the question; empty if none was."""
    guid: str = ""
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Memory that a device's plug feeds this host (SAFETY 2a).

    `incarnation` was alive when the plug was read ON at `seen_on_at`; `guid` is what the BMC says of itself over the
    network, `guid_matches` whether the host reads the same in-band (None: not tested).
    """

    host: HostId
    device: DeviceName
    incarnation: Incarnation
    seen_on_at: Instant
    guid: str
    guid_matches: bool | None
    read_off: bool = False
    """Since then the device read OFF while that very boot reported: it lies, or feeds another machine."""


class ProofKind(StrEnum):
    """Ways of SAFETY rule 2 by which an owner's copy is known not to run."""

    READ_BACK_OFF = "read_back_off"
    ALREADY_OFF = "already_off"
    OPERATOR = "operator"
    REBOOTED = "rebooted"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffProof:
    """Evidence that one incarnation of one host cannot write any more. Void once that incarnation speaks again."""

    host: HostId
    incarnation: Incarnation
    kind: ProofKind
    proven_at: Instant
    sentence: str
    evidence: tuple[PowerReading, ...] = ()
    void: bool = False
    life: StoreIncarnation = StoreIncarnation("")
    """The life of the store by whose clock its instants are; empty in proofs of older versions."""


# --- recorded by controllers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """The cluster's own record of a host. `incarnation` is the last one accepted as a member."""

    id: HostId
    state: HostState = HostState.UNKNOWN
    since: Instant = Instant(0.0)
    reason: str = "not heard yet"
    incarnation: Incarnation = Incarnation("")
    proof: OffProof | None = None
    cut_by: OperationId | None = None
    """The operation of ours that cut its power, or is about to: only a cut of the operation that proved it off may be
    undone by us. None: not ours. What another operation left here says nothing about this one.
    """
    suspected_at: Instant | None = None
    cut_possible_until: Instant = Instant(0.0)
    """Until then an executor that lost its lease may still send a cut: no power-on and no rejoin before."""
    exits: tuple[Instant, ...] = ()
    """When it was lost and proven off, or came back as another boot, unasked: of the latest hour, oldest first."""
    leaving_at: Instant = Instant(0.0)
    """When its orderly shutdown was first seen to be pending; 0 if none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a VM is being moved: that boot of that host may hold a copy of it at that generation, which does not run.

    Its number is given before anything is sent there; it becomes the VM's own when the owner has let the VM go.
    """

    host: HostId
    incarnation: Incarnation
    generation: Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRecord:
    """Who owns a VM. No copy may start except by `owner`'s `owner_incarnation` at `generation`.

    `moving`: set while a copy of it may be arriving elsewhere; until that is known to be gone, it is given to nobody.
    """

    id: VmId
    state: VmState
    owner: HostId | None
    owner_incarnation: Incarnation
    generation: Generation
    since: Instant
    reason: str = ""
    operation: OperationId | None = None
    failures: int = 0
    """Unplanned ends and refused starts in a row; cleared when it was seen running for a while."""
    ended_on: HostId | None = None
    """Where the last of them was."""
    moving: Destination | None = None
    tried_at: Instant = Instant(0.0)
    """When the cluster last began a move of it by itself: one that came to nothing is not begun again at once."""
    tries: int = 0
    """Such moves in a row that came to nothing."""
    stuck_at: Instant = Instant(0.0)
    """When a live migration of it last failed, if the policy makes anything of that; one that was cancelled has not."""
    kept: Generation = Generation(0)
    """At this number it was, or is being, stopped with its owner, to start again with it alone. Another: void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLife:
    """The store's incarnation and since when (store's clock). Older heartbeats were heard by another memory."""

    incarnation: StoreIncarnation
    since: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlLease:
    """Who may decide. `epoch` is the token on everything ordered under it."""

    holder: ControllerId
    epoch: Epoch
    until: Instant


class WishKind(StrEnum):
    HOST_FENCE = "host_fence"
    HOST_CONFIRM_OFF = "host_confirm_off"
    HOST_ACTIVATE = "host_activate"
    HOST_MAINTENANCE = "host_maintenance"
    HOST_EVACUATE = "host_evacuate"
    VM_ADD = "vm_add"
    VM_START = "vm_start"
    VM_STOP = "vm_stop"
    VM_IGNORE = "vm_ignore"
    VM_REMOVE = "vm_remove"
    VM_MIGRATE = "vm_migrate"
    VM_RELOCATE = "vm_relocate"
    OPERATION_CANCEL = "operation_cancel"
    CLUSTER_PAUSE = "cluster_pause"
    CLUSTER_RESUME = "cluster_resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an operator asked for; `subject` is a host, a VM, an operation or the cluster. Settled once, with a
    sentence.
    """

    id: str
    kind: WishKind
    subject: str
    by: str
    at: Instant
    force: bool = False
    failback: bool = False
    """For `host_activate`: bring home what an evacuation moved away."""
    doc: VmDoc | None = None
    """For `vm_add`: the definition."""
    boot: Incarnation = Incarnation("")
    """For what touches power: the boot of the host that was meant. Empty: whichever is the last one known."""
    to: HostId | None = None
    """For `vm_migrate` and `vm_relocate`: the host it is to run on. None: whichever has most room."""
    reason: str = ""
    """For `cluster_pause`: what it is for, in the writer's words."""
    until: Instant | None = None
    """For `cluster_pause`: when it ends by itself. None: when somebody ends it."""


# --- the one view ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What hosts say of themselves, read at `now` in one go: all that watching needs. Mappings are never changed."""

    now: Instant
    life: StoreLife
    hosts: Mapping[HostId, HostSpec]
    heartbeats: Mapping[HostId, Heartbeat]
    files: Mapping[ControllerId, str] = field(default_factory=dict)
    """Digest of the cluster file each controller read when it started; empty once it has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView(Reports):
    """All a decision may use, read at `now` in one go.

    `host_records`, `heartbeats` and `readings` also hold those of `outside`.
    """

    lease: ControlLease | None
    """Only if whoever looks holds it."""
    host_records: Mapping[HostId, HostRecord]
    host_docs: Mapping[HostId, HostDoc]
    probes: tuple[ProbeRound, ...]
    """Latest rounds of all probers, oldest first."""
    readings: Mapping[HostId, tuple[PowerReading, ...]]
    """Latest reading of each device of a host."""
    bindings: Mapping[tuple[HostId, DeviceName], Binding]
    vms: Mapping[VmId, VmDoc]
    vm_records: Mapping[VmId, VmRecord]
    operations: Mapping[OperationId, Operation]
    """Open ones only."""
    wishes: tuple[Wish, ...] = ()
    placements: int = 0
    """How often VMs were given to hosts so far: a plan is written only if nobody else placed anything meanwhile."""
    holder: ControllerId | None = None
    """Who holds the control lease now, whoever looks."""
    controllers: Mapping[ControllerId, Instant] = field(default_factory=dict)
    """When each controller last looked at the store."""
    proofs: Mapping[HostId, OffProof] = field(default_factory=dict)
    """The last proof remembered in files of each host: it outlives the store (`fencing.remembered_proof`)."""
    unreadable: tuple[str, ...] = ()
    """What the store holds and nobody can read, a sentence each; it is left out of all else."""
    unreadable_vms: tuple[VmId, ...] = ()
    """VMs whose definition or record is among it: which disks and uuids are theirs is not known."""
    unreadable_records: tuple[VmId, ...] = ()
    """Those of them whose record is: who owns them is not known."""
    set_aside: Mapping[VmId, VmDoc] = field(default_factory=dict)
    """Definitions of those whose record alone cannot be read: not decided on, and their disks are known still."""
    pause: PauseDoc | None = None
    """The last pause of the whole cluster, also one that is over."""

    @property
    def paused(self) -> PauseDoc | None:
        """The pause that lasts now, if there is one."""
        return self.pause if self.pause is not None and self.pause.lasts(self.now) else None

    def doc_of(self, host: HostId) -> HostDoc:
        """Return what was wished of a host; the plain one if nobody ever said anything."""
        doc = self.host_docs.get(host)
        return doc if doc is not None else HostDoc(id=host)

    def record_of(self, host: HostId) -> HostRecord:
        """Return the record of a host; that of one nobody heard yet if there is none."""
        record = self.host_records.get(host)
        return record if record is not None else HostRecord(id=host)

    @property
    def outside(self) -> tuple[HostId, ...]:
        """Hosts that are remembered as members or own a VM, but are not in the cluster file (any more), by name."""
        hosts = self.hosts
        found = {doc.id for doc in self.host_docs.values() if doc.id not in hosts and doc.incarnation}
        found.update(
            owner for record in self.vm_records.values() if (owner := record.owner) not in hosts and owner is not None
        )
        return tuple(sorted(found))
