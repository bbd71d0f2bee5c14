"""A host that goes down in order, and what of its VMs is stopped for it: its state, and which stop has its turn. Pure.

Never calls a host left before every VM of ours is released there; until then it is judged as any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from fangnetz.core.actions import EndOperation, PutVm
from fangnetz.core.decide.arrivals import NOTHING, Arrival
from fangnetz.core.detector import Finding, Verdict, heard
from fangnetz.core.leaving import Parting, deadline_over, leaving, parting, said_goodbye, stays_with, told
from fangnetz.core.lifecycle import HostEvent, next_state
from fangnetz.core.model import ClusterView, HostDoc, HostRecord, HostState, VmRecord, VmSighting, VmState
from fangnetz.core.operations import OperationKind, OperationState, StepKind, StepState
from fangnetz.core.ownership import Granted, owner_let_go
from fangnetz.core.policy import Policy
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, VmId

_OUT_ALREADY = frozenset({HostState.MAINTENANCE, HostState.FENCED, HostState.QUARANTINED})
"""What is said of such a host does not change because it is switched off."""
_MEMBERS = frozenset({HostState.ONLINE, HostState.EVACUATING, HostState.SUSPECT, HostState.UNKNOWN, HostState.DEGRADED})


def followed(
    record: HostRecord, verdict: Verdict, view: ClusterView, verdicts: Mapping[HostId, Verdict], policy: Policy
) -> HostRecord | None:
    """Return the record of a host that goes down in order, as it should be; None: it is judged as any other."""
    host, beat = record.id, leaving(view, record.id)
    doc = view.doc_of(host)
    if beat is None:
        return _called_off(record, doc, view) if verdict.fresh and record.leaving_at else None
    if doc.maintenance or record.state in _OUT_ALREADY or _being_fenced(record, view):
        return None
    sentence = told(host, beat.leaving)
    since = record.leaving_at or view.now
    if said_goodbye(view, host):
        if record.state is HostState.LEFT:
            return record
        accepted = beat.incarnation if verdict.fresh else record.incarnation
        reason = f"{sentence}: it has let go what it ran, and is not missed"
        left = replace(record, incarnation=accepted, leaving_at=since, suspected_at=None)
        return _in_state(left, HostEvent.LEAVES, reason, view)
    if verdict.finding is not Finding.ALIVE or record.state not in _MEMBERS:
        return None
    moves = parting(view, host, verdicts, policy) is Parting.EVACUATE
    known = _in_state(record, HostEvent.EVACUATE if moves else HostEvent.HEARD, doc.reason or sentence, view)
    if not record.leaving_at:
        known = replace(known, leaving_at=since, reason=sentence)
    return replace(known, suspected_at=None)


def _being_fenced(record: HostRecord, view: ClusterView) -> bool:
    """Whether a failover is at work on it. One that was cancelled, as the host had spoken, leaves its word behind."""
    return record.state is HostState.FENCING and any(
        op.kind is OperationKind.FAILOVER and op.subject == record.id for op in view.operations.values()
    )


def _called_off(record: HostRecord, doc: HostDoc, view: ClusterView) -> HostRecord:
    """It reports and announces nothing any more: it has booted, or the shutdown was called off."""
    there = replace(record, leaving_at=Instant(0.0))
    if record.state is HostState.EVACUATING and not doc.evacuate:
        return _in_state(there, HostEvent.ACCEPTED, f"{record.id} stays: its shutdown was called off", view)
    if record.state is HostState.ONLINE:
        return replace(there, reason=f"{record.id} stays: its shutdown was called off")
    return there


def _in_state(record: HostRecord, event: HostEvent, reason: str, view: ClusterView) -> HostRecord:
    state = next_state(record.state, event)
    if state is record.state:
        return record
    return replace(record, state=state, since=view.now, reason=reason)


class Partings:
    """What is decided in one tick about VMs whose host goes down in order."""

    def __init__(self, view: ClusterView, verdicts: Mapping[HostId, Verdict], policy: Policy) -> None:
        self._view, self._verdicts, self._policy = view, verdicts, policy
        self._of = {host: parting(view, host, verdicts, policy) for host in view.hosts}
        self._to_stop: list[tuple[VmRecord, HostId]] = []
        self.generation: dict[VmId, Generation] = {}
        """Of the copies that are to be stopped."""

    def staying(self) -> dict[HostId, Incarnation]:
        """Return the hosts heard that do not go down, each with its boot."""
        view = self._view
        beats = ((host, heard(view, host)) for host, going in self._of.items() if going is Parting.NONE)
        return {host: beat.incarnation for host, beat in beats if beat is not None}

    def of_seen(self, record: VmRecord, host: HostId, seen: VmSighting) -> Arrival:
        """A VM that runs: it moves, or is stopped when it has its turn."""
        if seen.held or record.state is VmState.NEEDS_PERSON:
            return NOTHING
        going, beat = self._of[host], leaving(self._view, host)
        if going is Parting.EVACUATE:
            return NOTHING
        if going is Parting.NONE or beat is None:
            # One that runs on is not kept: the shutdown was called off before it was stopped.
            return _put(replace(record, kept=Generation(0))) if record.kept else NOTHING
        generation = seen.generation or record.generation
        if beat.promised(record.id) < generation:  # else it was stopped a moment ago
            self._to_stop.append((record, host))
            self.generation[record.id] = generation
        return Arrival(settled=True)

    def turns(self) -> Iterator[tuple[VmRecord, HostId, str]]:
        """Return the VMs to stop, the least important first, each with its host and why; kept, if it is to be."""
        for record, host in sorted(self._to_stop, key=lambda one: (self._view.vms[one[0].id].spec.priority, one[0].id)):
            beat, keep = leaving(self._view, host), self._of[host] is Parting.KEEP
            if beat is not None:
                where = "again with it" if keep else "elsewhere"
                kept = replace(record, kept=record.generation if keep else Generation(0))
                yield kept, host, f"{told(host, beat.leaving)}: it is stopped, and starts {where}"

    def of_gone(self, record: VmRecord, owner: HostId, *, to_run: bool) -> Arrival:
        """A VM that its living owner, on its way down, does not run: settled if it is to be asked for its promise."""
        going, beat = self._of.get(owner, Parting.NONE), leaving(self._view, owner)
        same_boot = beat is not None and beat.incarnation == record.owner_incarnation
        if going is Parting.NONE or not same_boot or self._verdicts[owner].finding is not Finding.ALIVE:
            return NOTHING
        if isinstance(owner_let_go(self._view, record), Granted):
            return NOTHING
        if going is Parting.KEEP and to_run and record.kept != record.generation:
            return _put(replace(record, kept=record.generation))
        return Arrival(settled=True)

    def lets_go(self, record: VmRecord, owner: HostId) -> bool:
        """Whether a host on its way down, or down, released it; or it is to start with that host, which has booted."""
        beat = leaving(self._view, owner)
        of_this_boot = beat is not None and beat.incarnation == record.owner_incarnation
        let_go = isinstance(owner_let_go(self._view, record), Granted)
        return let_go and (of_this_boot or stays_with(self._view, record) is not None)

    def of_moving(self, record: VmRecord) -> Arrival:
        """End a move that a host on its way down does not wait for; what has left its host arrives.

        One to such a host ends at once, one away from it once the deadline has passed.
        """
        vm, view = record.id, self._view
        found = (op for op in view.operations.values() if op.kind is OperationKind.MIGRATE and op.subject == vm)
        operation = next(found, None)
        if operation is None or any(s.kind is StepKind.MIGRATE and s.state is StepState.DONE for s in operation.steps):
            return NOTHING
        owner, to = record.owner, record.moving.host if record.moving is not None else operation.target
        coming = leaving(view, to) if to is not None else None
        going = leaving(view, owner) if owner is not None else None
        if to is not None and coming is not None:
            why = f"{told(to, coming.leaving)}: {vm} stays where it runs"
        elif owner is not None and going is not None and deadline_over(view, owner, self._policy):
            why = f"{told(owner, going.leaving)}: {vm} has not moved within {self._policy.evacuate_deadline_s:g} s"
        else:
            return NOTHING
        end = EndOperation(id=operation.id, state=OperationState.CANCELLED, sentence=why)
        return Arrival(actions=[end], settled=True)


def _put(record: VmRecord) -> Arrival:
    return Arrival(actions=[PutVm(record=record, expected=record.generation)], settled=True)
