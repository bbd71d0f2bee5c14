"""The ports: what engine and core need from the world. Real adapters and the simulator play them alike.

A call may raise the `WorldError` family from core.errors and nothing else; no answer is never a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from fangnetz.core.actions import Alarm, Happened
from fangnetz.core.convergence import Advice, Progress
from fangnetz.core.detector import Watch
from fangnetz.core.model import (
    Answer,
    ClusterView,
    ControlLease,
    Destination,
    Heartbeat,
    HostRecord,
    HostSpec,
    Leaving,
    Power,
    PowerReading,
    ProbeRound,
    Release,
    Reports,
    Sighting,
    StoreLife,
    VmDoc,
    VmRecord,
    VmState,
    Wish,
)
from fangnetz.core.operations import Operation, OperationState, Outcome, Step
from fangnetz.core.policy import Compression
from fangnetz.core.roll.values import Roll
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
    VmId,
)

T = TypeVar("T")


class Clock(Protocol):
    """Monotonic seconds of this process: for its own deadlines only, never compared between machines."""

    def monotonic(self) -> float: ...

    def sleep(self, span: Seconds) -> None: ...


class Flag(Protocol):
    """Something that one thread of a process raises and others wait for."""

    def set(self) -> None: ...

    def clear(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, for ever if `timeout` is None; return whether it is."""
        ...


class Process(Clock, Protocol):
    """What a process has of its own: its time, threads, what they wait for, and chance. All that ends with it."""

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of this process, which ends with the process at the latest."""
        ...

    def flag(self) -> Flag: ...

    def lock(self) -> AbstractContextManager[object]:
        """Return a new lock against the other threads of this process; it cannot be taken twice."""
        ...

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make all calls at once and return their answers in order, when the last one has come; raises what one did."""
        ...

    def token(self) -> str:
        """Return a name that nobody else has."""
        ...

    def chance(self) -> float:
        """Return any number from 0 up to 1."""
        ...


# --- fencing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerAnswer:
    """A device's answer to a question. `raw`: its literal words; `guid`: its own identity, lower case, no dashes."""

    power: Power
    guid: str
    raw: str


class FenceDevice(Protocol):
    """One plug of one host. Every call returns within `bound` seconds or raises FenceUnreachable/FenceRefused.

    `status` never changes anything. `switch` only sends the command: success is what `status` reads afterwards.
    """

    @property
    def name(self) -> DeviceName: ...

    def status(self, bound: Seconds) -> PowerAnswer: ...

    def switch(self, wanted: Power, bound: Seconds, until: float = math.inf) -> str:
        """Send off or on; return the device's literal answer.

        Nothing is sent after `until` (monotonic), however late this call is made: a frozen caller cuts nobody.
        """
        ...


# --- the hypervisor of this host ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One domain on this host with what only the start check needs."""

    vm: VmId
    state: Sighting
    generation: Generation | None
    uuid: str
    start_sent_at: Instant | None = None
    """When its start was sent, by the store's clock; None if nobody wrote it down."""
    held: bool = False
    """Paused, and marked by `suspend`: the later of two running copies, out of date since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumed:
    """What one domain has consumed since it began: CPU time; and what it holds of the host's memory now."""

    vm: VmId
    cpu_s: Seconds
    memory_mib: float | None
    """None: that cannot be told at the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A live migration to be sent: which copy, and where to. `downtime_s`: the guest stands still so long at first.

    `connections`: it is sent over so many at once.
    """

    vm: VmId
    generation: Generation
    to: Destination
    downtime_s: Seconds
    bound_s: Seconds
    connections: int = 1
    compression: Compression = Compression.NONE


class Departure(StrEnum):
    """What became of the copy that a migration was to take away."""

    LEFT = "left"
    """It has left: libvirt says that it was migrated, and no such domain is here."""
    STAYED = "stayed"
    """It is here and no migration of it is under way."""
    ENDED = "ended"
    """It is not here, and libvirt does not say that it was migrated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departed:
    """How a migration ended, by libvirt's own word, and the reason it gave."""

    how: Departure
    sentence: str


class Hypervisor(Protocol):
    """libvirt on this host. Calls raise HypervisorUnreachable (nothing known) or HypervisorRefused (it said no)."""

    def domains(self) -> tuple[Domain, ...]:
        """All active domains; persistent ones that are shut off do not count."""
        ...

    def consumed(self) -> tuple[Consumed, ...]:
        """What each domain that runs has consumed; one that is paused or still arriving is left out.

        Has a limit of its own for calls that hang: it never keeps anybody from `domains`, nor waits for a busy domain.
        """
        ...

    def create(
        self,
        vm: VmId,
        xml: str,
        generation: Generation,
        still: Callable[[], object] = lambda: None,
        *,
        start_sent_at: Instant | None = None,
    ) -> None:
        """Start a transient domain with generation and instant in its metadata. StorageLeaseHeld if its lease is taken.

        `still` is called after every question of its own, right before the effect; what it raises prevents it.
        StartNotSent (a kind of HypervisorUnreachable): nothing was sent.
        """
        ...

    def shutdown(self, vm: VmId, still: Callable[[], object] = lambda: None) -> None:
        """Ask the guest to switch off; returns at once. One that is not there, or paused, is not asked: success.

        `still`: as in `create`.
        """
        ...

    def destroy(self, vm: VmId, still: Callable[[], object] = lambda: None) -> None:
        """End the domain; returns when it is gone. A domain that is not there is success. `still`: as in `create`."""
        ...

    def suspend(self, vm: VmId, generation: Generation, still: Callable[[], object] = lambda: None) -> None:
        """Mark the copy of this generation as held, then pause it; returns when it is paused, by its state.

        One that is paused already is marked, too: success.
        HypervisorRefused if no such copy is there. `still`: as in `create`.
        """
        ...

    def receivable(self, vm: VmId, xml: str) -> None:
        """Return if this host could run the VM now; HypervisorRefused with what it lacks. Changes nothing."""
        ...

    def migrate(
        self,
        migration: Migration,
        still: Callable[[], object],
        advise: Callable[[Progress], Advice],
    ) -> Departed:
        """Move a running domain away, or go on watching a move that is under way; return once it has ended.

        The copy that arrives is marked with the new generation and never runs by itself. `advise` is told how it comes
        on several times a second and may help it on or end it; `still`: as in `create`, before anything is sent.
        HypervisorUnreachable: not known, it may be under way still; ask again.
        """
        ...

    def resume(self, vm: VmId, generation: Generation, still: Callable[[], object] = lambda: None) -> None:
        """Let an arrived copy of this generation run; returns when it does. One that runs already: success.

        HypervisorRefused if no such copy is there, or its memory has not arrived yet. `still`: as in `create`.
        """
        ...

    def settled(self, vm: VmId) -> None:
        """Return if every start of the VM sent in this boot has ended, else HypervisorUnreachable.

        Also those of a worker that was killed meanwhile. Only then may a promise rest on "no such domain is there".
        """
        ...

    def settle(self) -> None:
        """Find out which unanswered starts have ended and drop their notes. Cheap while there is none."""
        ...

    def unanswered_since(self, at: float) -> frozenset[VmId]:
        """VMs of which a start may still come, or the end of one became known at `at` (monotonic) or later.

        Never waits for libvirt. OSError: not known.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """How busy a host is: its load average and the memory that new processes could have now."""

    load: float
    memory_free_mib: MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class UnansweredStart:
    """A start that was sent to the hypervisor, or was just about to be, and whose end is not known.

    `note` tells it from every other start of this VM; `damage` says why its file cannot be read, empty if it can.
    """

    vm: VmId
    note: str
    generation: Generation | None = None
    """None only in a damaged one."""
    damage: str = ""


class BootFiles(Protocol):
    """Files that live as long as the host's boot: incarnation, promises, unanswered starts, per-VM locks."""

    @property
    def incarnation(self) -> Incarnation: ...

    def lock(self, vm: VmId, bound: Seconds) -> AbstractContextManager[None]:
        """Hold the VM's lock against every process of this host; TimeoutError after `bound` seconds."""
        ...

    def released(self, vm: VmId) -> Generation:
        """The promise for this VM: the highest released generation, 0 if none."""
        ...

    def release(self, vm: VmId, generation: Generation, left_for: Generation = Generation(0)) -> None:
        """Write the promise durably before returning. A promise never shrinks.

        `left_for`: the copy that the VM left for by a migration; of promises of one generation the first one stays.
        """
        ...

    def releases(self) -> tuple[Release, ...]: ...

    def note_start(self, vm: VmId, generation: Generation) -> str:
        """Write durably that a start of the VM is being sent; return the note. OSError: not written, send nothing."""
        ...

    def forget_start(self, vm: VmId, note: str) -> None:
        """Remove the note of a start whose end is known. Another start's note stays."""
        ...

    def unanswered_starts(self) -> tuple[UnansweredStart, ...]:
        """Every noted start of this boot, by whichever process. A damaged note is one, too."""
        ...

    def leaving(self) -> Leaving:
        """Whether this host was said to go down in order, and how. A damaged note announces nothing."""
        ...

    def leave(self, how: Leaving) -> None:
        """Note that this host goes down in order; `Leaving.NO`: that it stays after all."""
        ...


# --- probes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    host: HostId
    address: str
    libvirt_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReply:
    """`ping`, and what the TCP connect to the libvirt port said; UNKNOWN if the probe itself failed locally."""

    host: HostId
    ping: Answer
    kernel: Answer
    libvirt: Answer


class Prober(Protocol):
    def probe(self, targets: Sequence[ProbeTarget], timeout: Seconds) -> tuple[ProbeReply, ...]:
        """Ask all targets at once; returns within about `timeout`."""
        ...

    def reach(self, addresses: Sequence[str], timeout: Seconds) -> tuple[str, ...]:
        """Return those reference addresses that answered a ping."""
        ...


# --- slots on the shared storage -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMark:
    """What a host writes into its own slot: which boot it is, and a number that grows with every mark of that boot."""

    host: HostId
    incarnation: Incarnation
    sequence: int


class DiskSlots(Protocol):
    def exchange(self, mine: SlotMark, others: Sequence[HostId], bound: Seconds) -> Mapping[HostId, SlotMark]:
        """Write one's own mark through to the storage, then read those of `others`; what has none is left out.

        Returns or raises within about `bound` seconds. StorageUnreachable: the storage did not answer; the mark may
        have been written, or be written yet.
        """
        ...


# --- the store ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A granted claim of a step. `until` is the lease's end by the store's clock; renew well before it."""

    operation: Operation
    step: Step
    token: str
    now: Instant
    until: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class NotClaimed:
    """Why a step was not granted: a code for the program and a sentence for the log."""

    code: str
    sentence: str
    wait_s: Seconds = Seconds(0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """Give a VM to a host as part of settling a plan step. The store makes the generation, in the same script.

    `expected`: the generation the plan was made from; `floor`: the highest generation any host ever reported.
    `steps`: keys of the added steps whose order carries the new generation.
    `moving`: the VM keeps its owner and its generation; `owner` is where it is being moved, at the new generation.
    """

    vm: VmId
    expected: Generation
    floor: Generation
    owner: HostId
    incarnation: Incarnation
    reason: str
    steps: tuple[str, ...]
    moving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One versioned document (SAFETY rule 8). `body` is its JSON; an empty body is a tombstone."""

    key: str
    version: int
    body: str


PAUSE_KEY = "pause/cluster"
"""The ledger's document of the pause of the whole cluster: claims of steps are refused while it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    id: str
    at: Instant
    kind: str
    subject: str
    sentence: str
    facts: Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WishResult:
    id: str
    granted: bool
    sentence: str
    operation: OperationId | None


class Journal(Protocol):
    """What an executor needs of the store. Each call is one atomic script; StoreUnreachable if it did not answer."""

    def now(self) -> Instant: ...

    def operation(self, identity: OperationId) -> Operation | None: ...

    def claim(
        self, identity: OperationId, key: str, *, token: str, executor: str, incarnation: Incarnation, lease: Seconds
    ) -> Claim | NotClaimed:
        """Claim a ready step; while the cluster is paused only one that `core.pause.may_be_claimed`. Asking again with
        the same token is granted again. StoreUnreachable also if it might be
        forgotten again: then nobody holds it, and it counts as no attempt where that could be written."""
        ...

    def renew(self, claim: Claim, lease: Seconds, progress: Progress | None = None, *, begins: bool = False) -> Instant:
        """Extend the lease and check again all a claim checks; StaleToken if any of it no longer holds. `progress` is
        written into the step with it, or not at all; without one the last stays. `begins`: an effect is about to
        begin; Paused if the cluster is, and the step does not bring to its end what had begun before."""
        ...

    def settle(self, claim: Claim, outcome: Outcome, assigns: Sequence[Assign] = (), placements: int = 0) -> Operation:
        """Write the outcome (with its assignments, all or none) and return the operation after it. StaleToken if the
        step was claimed by somebody else meanwhile, or if more than its own line would change under an epoch that is
        over; Conflict if a VM to assign has moved on or others were placed since `placements` was read. Asking again
        with the same token is harmless."""
        ...

    def log(self, events: Sequence[Happened]) -> None: ...


class LedgerFiles(Protocol):
    """The versioned files of this machine. Damaged files are reported by name and never read as absent."""

    def load(self) -> tuple[LedgerEntry, ...]: ...

    def write(self, entries: Sequence[LedgerEntry]) -> None:
        """Write durably each entry that is newer than its file; returns once they are on disk."""
        ...


class Store(Journal, Protocol):
    """The cluster's shared memory. Everything with an epoch is refused with StaleToken under another one."""

    def meet(self) -> StoreLife:
        """Register the store's present life; a changed run id begins a new one."""
        ...

    def take_lease(self, controller: ControllerId, ttl: Seconds) -> ControlLease | None:
        """Take or renew the control lease; None while another holds it or the store's life is younger than `ttl`."""
        ...

    def drop_lease(self, controller: ControllerId) -> None: ...

    def view(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId | None) -> ClusterView:
        """Read everything in one go. `lease` is set only if `controller` holds it. Records, heartbeats and readings
        are also those of hosts that are only remembered; what cannot be read is named in `unreadable` and left out."""
        ...

    def reports(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId) -> Reports:
        """Read what `controller` watches while another is in charge. As `view`, it writes down that it looked."""
        ...

    def unfinished(self, controller: ControllerId) -> bool:
        """Whether `controller` was the last to take the control lease and operations are open."""
        ...

    def put_watch(self, controller: ControllerId, watch: Watch) -> None: ...

    def holder_watch(self) -> Watch | None:
        """Return the published watch of whoever holds the control lease."""
        ...

    def put_files(self, controller: ControllerId, digest: str) -> None:
        """Say by its digest which cluster file a controller reads."""
        ...

    def put_heartbeat(self, beat: Heartbeat) -> Instant: ...

    def put_probe_round(self, probe: ProbeRound) -> None: ...

    def put_reading(self, reading: PowerReading) -> None: ...

    def put_host(self, record: HostRecord, expected: HostRecord | None, epoch: Epoch) -> bool:
        """Write the record if it is still `expected` (None: not there yet); False if somebody changed it."""
        ...

    def put_vm(self, record: VmRecord, expected: Generation | None, epoch: Epoch) -> bool:
        """Write the record if its generation is still `expected`; False if it is not."""
        ...

    def mark_vm(self, vm: VmId, generation: Generation, state: VmState, reason: str, epoch: Epoch) -> bool:
        """Change state and reason only, if the generation is still this one."""
        ...

    def forget_vm(self, vm: VmId, epoch: Epoch) -> None: ...

    def open_operation(self, operation: Operation) -> bool:
        """Journal a new operation; False if one of its kind and subject is open, or one of its id ever was."""
        ...

    def adopt_operation(self, identity: OperationId, epoch: Epoch) -> None: ...

    def end_operation(self, identity: OperationId, state: OperationState, sentence: str, epoch: Epoch) -> None: ...

    def give_up(
        self, operation: Operation, step: Step, skips: Sequence[str], sentence: str, *, void: bool = False
    ) -> bool:
        """Settle as failed a step that nobody holds and whose deadline passed or whose order is void; else False."""
        ...

    def archive(self) -> None:
        """Drop the oldest closed operations beyond the bound."""
        ...

    def mark_dispatched(self, identity: OperationId, keys: Sequence[str]) -> None: ...

    def alarms(self) -> tuple[Alarm, ...]: ...

    def put_alarms(self, alarms: Sequence[Alarm], epoch: Epoch) -> None: ...

    def ledger(self, known: int) -> tuple[int, tuple[LedgerEntry, ...]] | None:
        """Return (version, all documents) if the ledger's version is not `known`, else None."""
        ...

    def put_ledger(self, entries: Sequence[LedgerEntry]) -> None:
        """Write documents that are newer than what is there."""
        ...

    def definition(self, vm: VmId) -> VmDoc | None:
        """Return a VM's present definition."""
        ...

    def settle_wish(self, wish: Wish, result: WishResult, epoch: Epoch) -> None: ...


class Operators(Protocol):
    """What the command line and the public tasks need of the store."""

    def now(self) -> Instant: ...

    def control_lease(self) -> ControlLease | None:
        """Return who holds the control lease, also when it ran out; None if nobody does. Refuses another layout."""
        ...

    def add_wish(self, wish: Wish) -> None:
        """Write a wish down; nothing happens if one of its id was answered already."""
        ...

    def wishes_waiting(self) -> int:
        """Return how many wishes nobody has answered yet; one cheap question."""
        ...

    def wish_result(self, identity: str) -> WishResult | None: ...

    def alarms(self) -> tuple[Alarm, ...]: ...

    def roll(self) -> Roll | None:
        """Return the last roll over hosts, finished or not; StoredContentError if it cannot be read."""
        ...

    def put_roll(self, roll: Roll, expected: Roll | None) -> bool:
        """Write the roll if what stands there is still `expected` (None: nothing); False if it is not."""
        ...

    def drop_roll(self) -> None:
        """Forget the roll, readable or not."""
        ...

    def operations(self, limit: int) -> tuple[Operation, ...]:
        """Return open ones and the latest closed ones, newest first."""
        ...

    def events(self, after: str, limit: int, block: Seconds) -> tuple[LoggedEvent, ...]: ...


class Dispatcher(Protocol):
    """Carries messages; may lose, delay or repeat any of them."""

    def dispatch(self, operation: Operation, chains: Sequence[Sequence[str]]) -> None:
        """Send each chain of step keys on its way."""
        ...

    def ask_power(self, host: HostId, devices: Sequence[DeviceName]) -> None: ...

    def nudge(self) -> None:
        """Let every controller tick now."""
        ...
