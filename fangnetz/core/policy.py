"""Timing and limits of a cluster. Every inequality between them is checked here, with its reason and its sum.

Never holds a value without a unit in its name. `settings` reads these keys from the cluster file; docs/timing.md
computes what follows from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fangnetz.core.units import Seconds


class IsolatedPolicy(StrEnum):
    """What happens to a host whose VMs still run although nobody can talk to it."""

    FENCE = "fence"
    LEAVE = "leave"


class AfterFence(StrEnum):
    """What happens to a host after its power was cut by us and its VMs are placed."""

    STAY_OFF = "stay_off"
    POWER_ON = "power_on"


class OnShutdown(StrEnum):
    """What becomes of the VMs of a host that is shut down or rebooted in order."""

    CONDITIONAL = "conditional"
    """A reboot keeps, a shutdown recovers."""
    KEEP = "keep"
    """Stopped, and started again with their host only."""
    RECOVER = "recover"
    """Stopped, and started elsewhere at once."""
    EVACUATE = "evacuate"
    """Moved away while they run, and back when the host returns."""


class ReturnPolicy(StrEnum):
    """Whether a fenced host that comes back clean rejoins by itself or waits for `host activate`."""

    AUTO = "auto"
    MANUAL = "manual"


class Compression(StrEnum):
    """How the memory of a VM that moves is made smaller; what libvirt and QEMU know of these is theirs to say."""

    NONE = "none"
    XBZRLE = "xbzrle"
    """Only what changed within a page that is sent again. On one connection."""
    ZLIB = "zlib"
    ZSTD = "zstd"
    """Each page; as zlib, on several connections only."""


class StartOn(StrEnum):
    """Which host a VM that runs nowhere is started on, where rules say nothing and its last host has let it go."""

    RECORDED = "recorded"
    """The one it is recorded on, if it may and fits there."""
    BEST = "best"
    """The one that ranks best, wherever it ran before."""


class Fallback(StrEnum):
    """What an evacuation does about a VM that does not move while it runs: it may not, or its migration failed."""

    STAY = "stay"
    """It stays and runs, and the host is not empty; one that may move is tried again."""
    RELOCATE = "relocate"
    """It is stopped in order, and started elsewhere."""
    STOP = "stop"
    """It is stopped in order, and starts again when its host is activated."""


class Capacity(StrEnum):
    """Whether sizes are a must or only rank hosts."""

    ENFORCE = "enforce"
    RANK = "rank"


class RankBy(StrEnum):
    """By which sizes hosts are ranked; whether a VM fits is a matter of the configured ones either way."""

    CONFIGURED = "configured"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken rule: the key at fault, its value and the rule in a sentence."""

    key: str
    value: object
    rule: str


class PolicyRefused(ValueError):
    """A policy that breaks rules; `faults` holds every one of them."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(f"{fault.key} is {fault.value}: {fault.rule}" for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The cluster's timing and limits, frozen. Spans are seconds."""

    heartbeat_s: Seconds = Seconds(1.0)
    """A host worker reports this often."""
    misses: int = 3
    """So many intervals without a report make a host suspect."""
    probe_timeout_s: Seconds = Seconds(0.7)
    """A ping or a TCP connect unanswered for this long counts as no answer."""
    silent_rounds: int = 2
    """So many probe rounds in a row must be silent before silence counts."""
    tick_s: Seconds = Seconds(1.0)
    control_lease_s: Seconds = Seconds(4.0)
    step_lease_s: Seconds = Seconds(4.0)
    fence_bound_s: Seconds = Seconds(20.0)
    """One attempt to fence a host may take this long; afterwards it counts as failed and cannot cut any more."""
    fence_retry_s: Seconds = Seconds(10.0)
    """Wait between two rounds over all fence levels."""
    fence_attempts_max: int = 3
    """After so many failed rounds a person is asked; the rounds go on in the background of that state."""
    power_ask_s: Seconds = Seconds(2.0)
    """A read-only question for the power status is given up after this long."""
    binding_check_s: Seconds = Seconds(3600.0)
    """A living host's fence path is read this often."""
    start_bound_s: Seconds = Seconds(60.0)
    """A start that has no answer for this long makes the VM's state `needs_person`; its ownership stays."""
    start_attempts_max: int = 5
    """So many typed refusals (or failed starts in a row) and the VM is `failed`."""
    stop_bound_s: Seconds = Seconds(90.0)
    """An orderly guest shutdown may take this long before the VM is switched off."""
    migrate_bound_s: Seconds = Seconds(3600.0)
    """A live migration is ended after this long whatever its progress; the VM stays where it runs."""
    migrate_stall_s: Seconds = Seconds(60.0)
    """A live migration that has come no nearer to its end for this long is helped on, and ended when nothing helps."""
    migrate_downtime_s: Seconds = Seconds(0.3)
    """The guest stands still no longer than this at the end of a live migration, unless that never comes to an end."""
    migrate_downtime_max_s: Seconds = Seconds(3.0)
    """A guest that writes faster than its memory can be sent is given up to this long, step by step."""
    migrate_connections: int = 1
    """A live migration sends over so many connections at once; with 1 over QEMU's ordinary one."""
    migrate_compression: Compression = Compression.NONE
    moves_per_host_max: int = 2
    """So many VMs leave one host or come to one at once in an evacuation."""
    moves_max: int = 4
    """So many VMs of the whole cluster are on the move at once in evacuations."""
    move_again_s: Seconds = Seconds(60.0)
    """A VM that an evacuation could not move is tried again after this long."""
    failback: bool = False
    """Whether VMs go back to a host that they prefer, and home after an evacuation; a VM's own word outranks it."""
    unmovable: Fallback = Fallback.RELOCATE
    """Of one with `live: false`. Relocate: whoever empties a host is about to switch it off, which would stop these VMs
    anyway and start none.
    """
    evacuate_fallback: Fallback = Fallback.STAY
    """Of one whose live migration failed; a VM's own word outranks both. Stay: nobody said that it may be stopped."""
    power_on_after_s: Seconds = Seconds(10.0)
    """A host that we cut is switched on again no sooner: the VMs it lost boot first."""
    startup_grace_s: Seconds = Seconds(60.0)
    max_lost_share: float = 0.34
    isolated: IsolatedPolicy = IsolatedPolicy.FENCE
    after_fence: AfterFence = AfterFence.POWER_ON
    return_: ReturnPolicy = ReturnPolicy.AUTO
    on_shutdown: OnShutdown = OnShutdown.CONDITIONAL
    evacuate_deadline_s: Seconds = Seconds(300.0)
    """What has not moved away this long after a host's orderly shutdown was announced is stopped and recovered."""
    quarantine_exits: int = 3
    """A host that went down so often within an hour, unasked, takes no VMs before it is activated; 0: never."""
    start_on: StartOn = StartOn.RECORDED
    capacity: Capacity = Capacity.ENFORCE
    rank_by: RankBy = RankBy.CONFIGURED
    cpu_overcommit: float = 4.0

    def __post_init__(self) -> None:
        """Refuse an unsafe policy (`PolicyRefused` with every broken rule), whoever built it."""
        faults = policy_faults(self)
        if faults:
            raise PolicyRefused(faults)

    @property
    def window_s(self) -> Seconds:
        """Silence after which a host is suspect: heartbeat_s x misses."""
        return Seconds(self.heartbeat_s * self.misses)

    @property
    def overdue_s(self) -> Seconds:
        """Silence after which the fence device is asked, read-only: 1.5 intervals (SAFETY, ask early)."""
        return Seconds(self.heartbeat_s * 1.5)

    @property
    def gap_s(self) -> Seconds:
        """A longer pause between two looks at the store is a gap: ours or the store's, never a host's silence."""
        return Seconds(max(2.0 * self.tick_s, 2.0 * self.heartbeat_s))

    @property
    def probe_fresh_s(self) -> Seconds:
        """An older probe round says nothing about now."""
        return Seconds(2.0 * self.heartbeat_s + self.probe_timeout_s)

    @property
    def resume_s(self) -> Seconds:
        """After the loss of any one process what it did goes on by then: the longer lease, a late tick, the sweep's."""
        return Seconds(max(self.step_lease_s, self.control_lease_s) + 2.0 * self.tick_s)


PROFILES: dict[str, dict[str, object]] = {
    "default": {},
    "fast": {"heartbeat_s": 0.5, "misses": 3, "tick_s": 0.5, "probe_timeout_s": 0.4},
}
"""Named sets of overrides shipped beside the defaults."""


def policy_faults(policy: Policy) -> tuple[Fault, ...]:
    """Return every rule the policy breaks, with the sum that shows it. Empty means safe."""
    faults: list[Fault] = []

    def must(holds: bool, key: str, rule: str) -> None:
        if not holds:
            faults.append(Fault(key=key.rstrip("_"), value=getattr(policy, key), rule=rule))

    must(0.2 <= policy.heartbeat_s <= 60, "heartbeat_s", "must lie between 0.2 and 60 seconds")
    must(2 <= policy.misses <= 20, "misses", "must lie between 2 and 20: one late report is no evidence")
    must(
        1 <= policy.silent_rounds <= 2,
        "silent_rounds",
        "must be 1 or 2: one prober makes no more rounds in the time a round counts",
    )
    must(0.05 <= policy.probe_timeout_s <= 10, "probe_timeout_s", "must lie between 0.05 and 10 seconds")
    must(
        policy.probe_timeout_s < policy.heartbeat_s,
        "probe_timeout_s",
        f"must be less than heartbeat_s {policy.heartbeat_s:g}, or probe rounds overlap",
    )
    must(0.2 <= policy.tick_s <= 10, "tick_s", "must lie between 0.2 and 10 seconds")
    must(
        policy.window_s >= 1.0,
        "misses",
        f"gives a window of heartbeat_s {policy.heartbeat_s:g} x misses {policy.misses} = {policy.window_s:g} s; "
        "less than 1 s calls a busy host lost",
    )
    must(
        policy.window_s < 1.0 or policy.window_s >= policy.heartbeat_s + policy.overdue_s,
        "misses",
        f"gives a window of {policy.window_s:g} s; it must be at least heartbeat_s {policy.heartbeat_s:g} + overdue "
        f"{policy.overdue_s:g} = {policy.heartbeat_s + policy.overdue_s:g} s, or when all hosts are cut off at once "
        "the first is called lost while the others are not yet overdue, and is fenced",
    )
    must(
        policy.control_lease_s >= 3 * policy.tick_s,
        "control_lease_s",
        f"must be at least 3 x tick_s {policy.tick_s:g} = {3 * policy.tick_s:g} s, or one late tick loses the lease",
    )
    must(
        policy.control_lease_s <= 30,
        "control_lease_s",
        "must be at most 30 s: a dead controller blocks that long",
    )
    must(
        1.0 <= policy.step_lease_s <= 4.0,
        "step_lease_s",
        "must lie between 1 and 4 seconds: a dead executor blocks its step that long",
    )
    must(
        policy.fence_bound_s >= 2 * policy.power_ask_s + policy.step_lease_s,
        "fence_bound_s",
        f"must be at least 2 x power_ask_s {policy.power_ask_s:g} + step_lease_s {policy.step_lease_s:g} = "
        f"{2 * policy.power_ask_s + policy.step_lease_s:g} s: status, cut and read-back must fit",
    )
    must(
        policy.fence_bound_s <= 300,
        "fence_bound_s",
        "must be at most 300 s: a host may not rejoin before it passed",
    )
    must(0.2 <= policy.power_ask_s <= 30, "power_ask_s", "must lie between 0.2 and 30 seconds")
    must(1 <= policy.fence_retry_s <= 600, "fence_retry_s", "must lie between 1 and 600 seconds")
    must(1 <= policy.fence_attempts_max <= 100, "fence_attempts_max", "must lie between 1 and 100")
    must(10 <= policy.binding_check_s <= 86400, "binding_check_s", "must lie between 10 and 86400 seconds")
    must(5 <= policy.start_bound_s <= 3600, "start_bound_s", "must lie between 5 and 3600 seconds")
    must(1 <= policy.moves_per_host_max <= 64, "moves_per_host_max", "must lie between 1 and 64")
    must(1 <= policy.moves_max <= 1024, "moves_max", "must lie between 1 and 1024")
    must(1 <= policy.move_again_s <= 86400, "move_again_s", "must lie between 1 and 86400 seconds")
    must(1 <= policy.start_attempts_max <= 100, "start_attempts_max", "must lie between 1 and 100")
    must(1 <= policy.stop_bound_s <= 3600, "stop_bound_s", "must lie between 1 and 3600 seconds")
    must(10 <= policy.migrate_bound_s <= 86400, "migrate_bound_s", "must lie between 10 and 86400 seconds")
    must(5 <= policy.migrate_stall_s <= 3600, "migrate_stall_s", "must lie between 5 and 3600 seconds")
    must(0.01 <= policy.migrate_downtime_s <= 60, "migrate_downtime_s", "must lie between 0.01 and 60 seconds")
    must(
        policy.migrate_downtime_s <= policy.migrate_downtime_max_s <= 60,
        "migrate_downtime_max_s",
        f"must lie between migrate_downtime_s {policy.migrate_downtime_s:g} and 60 seconds",
    )
    must(1 <= policy.migrate_connections <= 64, "migrate_connections", "must lie between 1 and 64")
    must(
        policy.migrate_compression is not Compression.XBZRLE or policy.migrate_connections <= 1,
        "migrate_compression",
        f"needs migrate_connections 1, and it is {policy.migrate_connections}: QEMU would compress nothing",
    )
    must(
        policy.migrate_compression not in (Compression.ZLIB, Compression.ZSTD) or policy.migrate_connections >= 2,
        "migrate_compression",
        f"needs migrate_connections 2 or more, and it is {policy.migrate_connections}: libvirt refuses each move",
    )
    must(
        policy.startup_grace_s >= policy.window_s,
        "startup_grace_s",
        f"must be at least the window heartbeat_s {policy.heartbeat_s:g} x misses {policy.misses} = "
        f"{policy.window_s:g} s, or a cluster that starts fences hosts that are still starting",
    )
    must(0 <= policy.power_on_after_s <= 3600, "power_on_after_s", "must lie between 0 and 3600 seconds")
    must(1 <= policy.evacuate_deadline_s <= 86400, "evacuate_deadline_s", "must lie between 1 and 86400 seconds")
    must(policy.startup_grace_s <= 3600, "startup_grace_s", "must be at most 3600 seconds")
    must(
        0.0 < policy.max_lost_share <= 0.5,
        "max_lost_share",
        "must lie above 0 and at most at 0.5: more than half lost at once is our own failure",
    )
    must(0 <= policy.quarantine_exits <= 20, "quarantine_exits", "must lie between 0 (never) and 20 an hour")
    must(1.0 <= policy.cpu_overcommit <= 64.0, "cpu_overcommit", "must lie between 1 and 64")
    return tuple(faults)
