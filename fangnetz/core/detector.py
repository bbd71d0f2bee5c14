"""Evidence about a host -> verdict, with every signal kept and one plain sentence.

Liveness is judged by change of a sequence number that this controller itself observed, never by written clocks; a gap
of the store or of this controller is subtracted and never counted as a host's silence. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter

from fangnetz.core.model import Answer, ClusterView, Heartbeat, HostState, HypervisorHealth, ProbeRound, Reports
from fangnetz.core.policy import IsolatedPolicy, Policy
from fangnetz.core.slots import evidence_of, stuck
from fangnetz.core.units import HostId, Incarnation, Instant, Seconds, StoreIncarnation


@dataclass(frozen=True, slots=True, kw_only=True)
class HostWatch:
    """What one controller saw of one host: the last report and for how long it has seen none since."""

    incarnation: Incarnation
    sequence: int
    heard_at: Instant
    silent_for: Seconds
    back_at: Instant = Instant(0.0)
    """When it was heard again after a silence so long that others may still be in theirs; or first watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One controller's own observation. `since` starts anew after every gap, `started_at` never does."""

    started_at: Instant
    since: Instant
    looked_at: Instant
    life: StoreIncarnation
    hosts: Mapping[HostId, HostWatch]
    gap: str = ""
    """Why `since` last started anew."""


def heard(view: Reports, host: HostId) -> Heartbeat | None:
    """Return the host's last heartbeat if this life of the store heard it, else None."""
    beat = view.heartbeats.get(host)
    return beat if beat is not None and beat.received_at >= view.life.since else None


def known_incarnation(view: ClusterView, host: HostId) -> Incarnation:
    """Return the last incarnation remembered of a host, or an empty one.

    Files come first: they name a member before the store does, and a store that was rolled back names an older one.
    """
    doc = view.host_docs.get(host)
    if doc is not None and doc.incarnation:
        return doc.incarnation
    record = view.host_records.get(host)
    if record is not None and record.incarnation:
        return record.incarnation
    bound = [b for (owner, _), b in view.bindings.items() if owner == host]
    return max(bound, key=lambda b: b.seen_on_at).incarnation if bound else Incarnation("")


def look(previous: Watch | None, view: Reports, policy: Policy) -> Watch:
    """Return the observation after one more look. A pause longer than `policy.gap_s` starts every window anew."""
    span = 0.0 if previous is None else view.now - previous.looked_at
    gap = ""
    if previous is None:
        gap = "this controller has just begun to watch"
    elif previous.life != view.life.incarnation:
        gap = "the store has begun a new life"
    elif span > policy.gap_s or span < 0:
        gap = f"the store or this controller was away for {span:.1f} s"
    hosts: dict[HostId, HostWatch] = {}
    for host in view.hosts:
        beat = heard(view, host)
        before = None if previous is None or gap else previous.hosts.get(host)
        incarnation = beat.incarnation if beat else Incarnation("")
        sequence = beat.sequence if beat else 0
        heard_at = beat.received_at if beat else Instant(0.0)
        back_at = view.now if before is None else before.back_at
        if before is None:
            silent = 0.0
        elif (incarnation, sequence) != (before.incarnation, before.sequence):
            silent = min(max(0.0, view.now - heard_at), span)
            if before.silent_for + span - silent > policy.window_s - policy.heartbeat_s:
                back_at = view.now
        else:
            silent = before.silent_for + span
        hosts[host] = HostWatch(
            incarnation=incarnation, sequence=sequence, heard_at=heard_at, silent_for=Seconds(silent), back_at=back_at
        )
    started = view.now if previous is None else previous.started_at
    since = view.now if gap or previous is None else previous.since
    return Watch(
        started_at=started,
        since=since,
        looked_at=view.now,
        life=view.life.incarnation,
        hosts=hosts,
        gap=gap or (previous.gap if previous else ""),
    )


_PASSING = frozenset(
    {
        "sequence",
        "received_at",
        "inventory_age_s",
        "load",
        "memory_free_mib",
        "uses",
        "uses_age_s",
        "slot_waits_s",
        "slots",
    }
)
_word_of = attrgetter(*(field.name for field in fields(Heartbeat) if field.name not in _PASSING))
"""What a host says of itself, without what is another with every report."""
_KNOWN_OFF = frozenset({HostState.FENCED, HostState.LEFT})


def still(before: ClusterView, reports: Reports, watch: Watch, policy: Policy) -> Seconds | None:
    """Return in how many seconds silence alone may cross a threshold; None unless all is as it was `before`.

    As it was: each host reports in time and says the same, or was known to be off and is still silent.
    """
    due: list[float] = []
    for host, seen in watch.hosts.items():
        beat, earlier, record = heard(reports, host), heard(before, host), before.host_records.get(host)
        if beat is None or earlier is None or record is None:
            return None
        silent_before, silent = before.now - earlier.received_at, max(seen.silent_for, reports.now - beat.received_at)
        same = _word_of(beat) == _word_of(earlier) and stuck(beat, policy) == stuck(earlier, policy)
        if record.state in _KNOWN_OFF and same and min(silent_before, seen.silent_for) >= policy.window_s:
            continue
        if not same or max(silent_before, silent) >= policy.overdue_s:
            return None
        due.append(policy.overdue_s - silent + 0.01)
    return Seconds(min(due)) if due else None


class Finding(StrEnum):
    """What the evidence says of a host (SAFETY's table, and two finer grains of it)."""

    ALIVE = "alive"
    REBOOTED = "rebooted"
    DEGRADED = "degraded"
    OVERDUE = "overdue"
    """One report is late: the fence device is asked, nothing else."""
    SUSPECT = "suspect"
    """No reports, but its kernel answers: the worker is down, the VMs are fine."""
    ISOLATED = "isolated"
    LOST = "lost"
    UNKNOWN = "unknown"
    UNHEARD = "unheard"
    """Never heard, by anyone, ever."""


_FRESH = (Finding.ALIVE, Finding.REBOOTED, Finding.DEGRADED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One piece of evidence: what was asked, the answer, and the detail that a person wants to see."""

    source: str
    answer: Answer
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    host: HostId
    finding: Finding
    incarnation: Incarnation
    """The incarnation the finding is about: the one last heard, else the one remembered."""
    silent_for: Seconds
    signals: tuple[Signal, ...]
    sentence: str

    @property
    def fresh(self) -> bool:
        """Whether its reports arrive."""
        return self.finding in _FRESH

    @property
    def silent(self) -> bool:
        """Whether at least one report is missing and nothing of it answers."""
        return self.finding in (Finding.OVERDUE, Finding.LOST, Finding.ISOLATED, Finding.UNKNOWN)


def _probe_signals(
    rounds: tuple[ProbeRound, ...], host: HostId, last_heard: Instant, now: Instant, policy: Policy
) -> tuple[tuple[Signal, ...], int, int, bool]:
    """Return (signals, silent rounds, rounds whose prober was cut off, whether anything answered)."""
    signals: list[Signal] = []
    silent = cut_off = 0
    answered = False
    for probe in rounds:
        if probe.started_at <= last_heard or now - probe.ended_at > policy.window_s:
            continue
        answer = probe.answer(host)
        if answer is None:
            continue
        said = f"ping {answer.ping}, kernel {answer.kernel}, libvirt {answer.libvirt}"
        source = f"probe by {probe.prober}"
        if answer.alive:
            if now - probe.ended_at <= policy.probe_fresh_s:
                answered = True
            signals.append(Signal(source=source, answer=Answer.YES, detail=said))
        elif not probe.reached_other_than(host):
            cut_off += 1
            signals.append(Signal(source=source, answer=Answer.UNKNOWN, detail=f"{said}; reached nothing else either"))
        elif Answer.UNKNOWN in (answer.ping, answer.kernel):
            cut_off += 1
            signals.append(Signal(source=source, answer=Answer.UNKNOWN, detail=said))
        else:
            if now - probe.ended_at <= policy.probe_fresh_s:
                silent += 1
            signals.append(Signal(source=source, answer=Answer.NO, detail=said))
    return tuple(signals), silent, cut_off, answered


def judge(host: HostId, view: ClusterView, watch: Watch, policy: Policy) -> Verdict:
    """Return the verdict on `host`: SAFETY's evidence table, row by row."""
    seen = watch.hosts.get(host)
    beat = heard(view, host)
    record = view.host_records.get(host)
    silent = seen.silent_for if seen else Seconds(0.0)
    incarnation = beat.incarnation if beat else known_incarnation(view, host)
    signals: tuple[Signal, ...] = ()

    if seen is None or (beat is None and not incarnation):
        finding, sentence = Finding.UNHEARD, f"{host} has never been heard"
    elif beat is not None and silent < policy.overdue_s and view.now - beat.received_at < policy.overdue_s:
        finding, sentence = _of_reports(beat, record.incarnation if record else Incarnation(""), policy)
    elif silent < policy.overdue_s:
        since = "this controller watches without a gap" if beat else "the store's life began"
        finding, sentence = Finding.OVERDUE, f"{host} has not reported since {since}"
    else:
        last_heard = beat.received_at if beat else view.life.since
        finding, sentence, signals = _of_silence(host, silent, last_heard, view, policy)
    heartbeat = Signal(
        source="heartbeat",
        answer=Answer.YES if finding in _FRESH else Answer.NO,
        detail=f"none for {silent:.1f} s" if beat else "none in this life of the store",
    )
    return Verdict(
        host=host,
        finding=finding,
        incarnation=incarnation,
        silent_for=silent,
        signals=(heartbeat, *signals),
        sentence=sentence,
    )


def _of_reports(beat: Heartbeat, accepted: Incarnation, policy: Policy) -> tuple[Finding, str]:
    """Return what a host is whose reports arrive; `accepted`: the boot that is a member."""
    host = beat.host
    if accepted and beat.incarnation != accepted:
        return Finding.REBOOTED, f"{host} reports as a new boot"
    if beat.hypervisor is not HypervisorHealth.OK:
        return Finding.DEGRADED, f"{host} reports, but its libvirt is {beat.hypervisor}"
    if stuck(beat, policy):
        return Finding.DEGRADED, (
            f"{host} reports, but has not written its slot on the shared storage for {beat.slot_waits_s:.0f} s: "
            "its VMs may stand still"
        )
    return Finding.ALIVE, f"{host} reports"


def _of_silence(
    host: HostId, silent: Seconds, last_heard: Instant, view: ClusterView, policy: Policy
) -> tuple[Finding, str, tuple[Signal, ...]]:
    """Return what a host is whose reports are missing, and what was asked about it."""
    signals, silent_rounds, cut_off, answered = _probe_signals(view.probes, host, last_heard, view.now, policy)
    slot = evidence_of(host, last_heard, view, policy)
    if slot is not None:
        signals = (*signals, Signal(source="disk slot", answer=slot.answer, detail=slot.detail))
    missing = f"{host} has not reported for {silent:.1f} s"
    silence = f"{missing} and answers no probe, while others answer the same prober"
    if silent < policy.window_s:
        finding, sentence = Finding.OVERDUE, f"{missing}; its window of {policy.window_s:g} s is not over"
    elif answered:
        finding, sentence = Finding.SUSPECT, f"{missing}, but it answers probes: its worker is down, its VMs are not"
    elif silent_rounds < policy.silent_rounds:
        asked = "no prober that reaches others could ask it" if cut_off else "too few probe rounds have asked it since"
        finding, sentence = Finding.UNKNOWN, f"{missing}, and {asked}"
    elif slot is not None and slot.answer is Answer.YES:
        finding, sentence = (
            Finding.ISOLATED,
            (f"{silence}, yet its slot on the shared storage is written: its VMs may run, and nobody can talk to it"),
        )
    elif slot is not None and slot.awaited and policy.isolated is IsolatedPolicy.LEAVE:
        finding, sentence = (
            Finding.UNKNOWN,
            f"{silence}; whether its slot on the storage is written is looked at",
        )
    else:
        finding, sentence = Finding.LOST, silence
    return finding, sentence, signals
