"""What a command sees of the cluster: one view, the verdicts of whoever decides, brakes, alarms. Only reads.

The command line watches nothing itself: without a controller's published watch no host is called alive or lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fangnetz.cli._session import Session
from fangnetz.core.actions import Alarm
from fangnetz.core.decide.mending import how_to_mend
from fangnetz.core.decide.outside import last_boot
from fangnetz.core.decide.questions import ASK_PAUSE_MAX_S
from fangnetz.core.demand import Demand, Demands, demands, total
from fangnetz.core.detector import Finding, Verdict, Watch, heard, known_incarnation
from fangnetz.core.errors import StoredContentError
from fangnetz.core.fencing import BindingState, binding_state, holds, proof_from_readings, protection
from fangnetz.core.model import UNKNOWN_BOOT, ClusterView, ControlLease, HostRecord, HostState, Power, VmRecord
from fangnetz.core.pause import told
from fangnetz.core.policy import Policy, RankBy
from fangnetz.core.quorum import Brake, brakes
from fangnetz.core.rooms import TAKES_ROOM
from fangnetz.core.units import HostId, Incarnation, Instant, VmId
from fangnetz.engine.observe import overlook

READING_WORTH_S = 3 * ASK_PAUSE_MAX_S
"""A silent host's devices are asked at least every ASK_PAUSE_MAX_S; answers this old mean that nobody asks any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster at `view.now`. `verdicts` is empty and `unwatched` says why while nobody watches."""

    cluster: str
    policy: Policy
    view: ClusterView
    lease: ControlLease | None
    alarms: tuple[Alarm, ...]
    watch: Watch | None
    verdicts: Mapping[HostId, Verdict]
    unwatched: str
    demand: Demands
    """What VMs take of their hosts; empty unless that is measured."""

    @property
    def held(self) -> bool:
        """Whether somebody holds the control lease right now."""
        return self.lease is not None and self.lease.until > self.view.now

    def host(self, host: HostId) -> HostRecord:
        return self.view.record_of(host)

    def vm_names(self) -> tuple[VmId, ...]:
        """Every VM that is defined or still on record, readable or not."""
        return tuple(sorted({*self.view.vms, *self.view.vm_records, *self.view.unreadable_vms}))

    def vms_on(self, host: HostId) -> tuple[VmRecord, ...]:
        """The VMs that run there or may run there, by name."""
        owned = (vm for vm in self.view.vm_records.values() if vm.owner == host and vm.state in TAKES_ROOM)
        return tuple(sorted(owned, key=lambda vm: vm.id))

    def memory_used(self, host: HostId) -> int:
        """MiB promised to VMs there."""
        return sum(self.view.vms[vm.id].spec.memory_mib for vm in self.vms_on(host) if vm.id in self.view.vms)

    def used(self, host: HostId) -> Demand | None:
        """What VMs there take of it; None unless that is measured."""
        return total(self.demand[vm.id] for vm in self.vms_on(host) if vm.id in self.demand) if self.demand else None

    def incarnation(self, host: HostId) -> Incarnation:
        beat = heard(self.view, host)
        return beat.incarnation if beat else known_incarnation(self.view, host)

    def boot_seen(self, host: HostId) -> Incarnation:
        """The boot that whoever looks at this means when they speak of the host; empty where nobody can tell."""
        boot = last_boot(self.view, host) if host in self.view.outside else self.incarnation(host)
        return Incarnation("") if boot == UNKNOWN_BOOT else boot

    def brakes(self, host: HostId) -> tuple[Brake, ...]:
        """What would hold back a cut of this host now; empty also while nobody watches."""
        if self.watch is None:
            return ()
        return brakes(host, self.view, self.watch, self.verdicts, self.policy)

    def reports(self, host: HostId) -> bool:
        """Whether the host is alive as far as anybody can tell from here."""
        verdict = self.verdicts.get(host)
        if verdict is not None:
            return verdict.fresh
        beat = heard(self.view, host)
        return beat is not None and self.view.now - beat.received_at < self.policy.window_s

    def power(self, host: HostId) -> Power:
        """What is known of its power: who reports has it; else its proof, its devices' answers, or nothing.

        Only a device bound to its last boot is asked. A level that reads OFF outranks another that reads ON: an outlet
        stays on when a BMC switches its machine off.
        """
        if self.reports(host):
            return Power.ON
        view, incarnation, proof = self.view, self.incarnation(host), self.host(host).proof
        proven = proof if proof is not None and holds(view, proof, incarnation) else None
        on_since = proven.proven_at if proven else Instant(0.0)
        about = {reading.device for reading in proven.evidence} if proven else set()
        beat = heard(view, host)
        worth = [
            reading
            for reading in view.readings.get(host, ())
            if view.now - reading.answered_at <= READING_WORTH_S
            and binding_state(view.bindings.get((host, reading.device)), incarnation) is BindingState.BOUND
        ]
        heard_at = beat.received_at if beat else Instant(0.0)
        life = view.life.incarnation
        if proof_from_readings(view.hosts[host], incarnation, heard_at, worth, view.bindings, now=view.now, life=life):
            return Power.OFF
        if any(
            reading.power is Power.ON and reading.asked_at > on_since and (not about or reading.device in about)
            for reading in worth
        ):
            return Power.ON
        return Power.OFF if proven else Power.UNKNOWN

    def protection_word(self, host: HostId) -> str:
        """`protected`, `binding not tested` or `not protected`."""
        spec, incarnation = self.view.hosts[host], self.incarnation(host)
        if protection(self.view, spec, incarnation).protected:
            return "protected"
        usable = {BindingState.BOUND, BindingState.NOT_TESTED}
        for level in spec.fencing:
            states = {binding_state(self.view.bindings.get((host, device)), incarnation) for device in level}
            if states and states <= usable:
                return str(BindingState.NOT_TESTED)
        return "not protected"


def take(session: Session, *, holes: bool = False) -> Snapshot:
    """Read the cluster once. StoredContentError if something of it cannot be read, unless `holes` are no matter: for a
    wish they are none, the controller answers it.
    """
    policy = session.settings.policy
    with session.asking() as store:
        lease = store.control_lease()
        seen = overlook(store, session.hosts, policy)
    view = seen.view
    if view.unreadable and not holes:  # controllers go on without it; a list with a hole in it would mislead
        raise StoredContentError("; ".join((*view.unreadable, *how_to_mend(view).values())))
    return Snapshot(
        cluster=session.settings.cluster,
        policy=policy,
        view=view,
        lease=lease,
        alarms=tuple(sorted(seen.alarms, key=lambda alarm: (not alarm.highest, alarm.kind, alarm.subject))),
        watch=seen.watch,
        verdicts=seen.verdicts,
        unwatched=seen.unwatched,
        demand=demands(view) if policy.rank_by is RankBy.MEASURED else {},
    )


def why_not_fenced(snapshot: Snapshot, host: HostId) -> str:  # noqa: PLR0911 - one sentence a case
    """Return, in one sentence, why the host is fenced or why it is not."""
    record, verdict = snapshot.host(host), snapshot.verdicts.get(host)
    incarnation = snapshot.incarnation(host)
    if record.proof is not None and holds(snapshot.view, record.proof, incarnation):
        return f"It is fenced: {record.proof.sentence}."
    if record.state is HostState.FENCING and snapshot.view.paused is not None:
        return f"Its fence does not go on: {told(snapshot.view.paused)}."
    if record.state is HostState.FENCING:
        return f"It is being fenced: {record.reason}."
    if record.state is HostState.NEEDS_PERSON:
        return f"It is not proven off, and a person is asked: {record.reason}."
    if verdict is None:
        return f"It is not fenced: {snapshot.unwatched}."
    held = snapshot.brakes(host)
    match verdict.finding:
        case Finding.LOST | Finding.ISOLATED if held:
            return "It is not fenced: " + "; ".join(brake.sentence for brake in held) + "."
        case Finding.LOST | Finding.ISOLATED:
            return f"It is about to be fenced: {verdict.sentence}."
        case Finding.ALIVE | Finding.REBOOTED | Finding.DEGRADED:
            return "It is not fenced: it reports."
        case Finding.SUSPECT:
            return "It is not fenced: it answers probes, so its VMs may well run; only its worker is silent."
        case Finding.OVERDUE:
            return f"It is not fenced: {verdict.sentence}."
        case Finding.UNKNOWN | Finding.UNHEARD:
            return f"It is not fenced: {verdict.sentence}; silence alone is no evidence."
