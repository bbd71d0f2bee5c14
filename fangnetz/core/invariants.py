"""What must hold at every instant, as predicates over the truth and what the cluster believes. For simulator and lab.

Written from SAFETY's rules and not from the code that keeps them; decides nothing and repairs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fangnetz.core.actions import Decision, OpenOperation, PutHost
from fangnetz.core.detector import Finding
from fangnetz.core.errors import InvariantBroken
from fangnetz.core.model import ClusterView, HostState, OffProof, Release, Rules, VmState, VmWish
from fangnetz.core.operations import OperationState
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, Seconds, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """One rule that does not hold now, about whom, and what was seen."""

    rule: str
    subject: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCopy:
    """One QEMU that has the VM's disk open for writing, as the world (not the store) knows it. No incoming ones."""

    vm: VmId
    host: HostId
    incarnation: Incarnation


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The world as it is. `last_copy_ended_at`: when a VM that runs nowhere stopped doing so."""

    copies: tuple[RunningCopy, ...]
    last_copy_ended_at: Mapping[VmId, Instant] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A line of a VM's history: from `at` on it belonged to this boot of this host at this number."""

    vm: VmId
    host: HostId
    incarnation: Incarnation
    generation: Generation
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """That boot of that host had reported this promise, and its inventory was without the VM, at `at`."""

    host: HostId
    incarnation: Incarnation
    release: Release
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class BootedWithout:
    """A later boot `incarnation` of the host had reported, libvirt well, an inventory without `vm` at `at`."""

    host: HostId
    incarnation: Incarnation
    vm: VmId
    at: Instant


Evidence = OffProof | Released | BootedWithout


def one_writer(truth: Truth) -> tuple[Broken, ...]:
    """Rule 1: at no instant two running copies of a VM."""
    where: dict[VmId, list[str]] = {}
    for copy in truth.copies:
        where.setdefault(copy.vm, []).append(f"{copy.host} (boot {copy.incarnation})")
    return tuple(
        Broken(rule="one_writer", subject=vm, sentence=f"{vm} runs on {' and '.join(sorted(places))}")
        for vm, places in where.items()
        if len(places) > 1
    )


def no_start_without_proof(history: Iterable[Assigned], evidence: Iterable[Evidence]) -> tuple[Broken, ...]:
    """Rule 2: each change of owner was preceded by positive evidence about the very boot that owned the VM before."""
    known = tuple(evidence)
    broken: list[Broken] = []
    for before, after in _changes(history):
        if (before.host, before.incarnation) == (after.host, after.incarnation):
            continue
        if not any(_frees(item, before, after.at) for item in known):
            sentence = (
                f"{after.vm} went from {before.host} (boot {before.incarnation}, generation {before.generation}) to "
                f"{after.host} without evidence that the former could not write any more"
            )
            broken.append(Broken(rule="no_start_without_proof", subject=after.vm, sentence=sentence))
    return tuple(broken)


def _changes(history: Iterable[Assigned]) -> tuple[tuple[Assigned, Assigned], ...]:
    last: dict[VmId, Assigned] = {}
    changes: list[tuple[Assigned, Assigned]] = []
    for line in history:
        if line.vm in last:
            changes.append((last[line.vm], line))
        last[line.vm] = line
    return tuple(changes)


def _frees(item: Evidence, owner: Assigned, by: Instant) -> bool:
    """Whether `item`, known at `by`, is evidence that this owner cannot write. Older than the ownership is none."""
    if item.host != owner.host:
        return False
    match item:
        case OffProof():
            return item.incarnation == owner.incarnation and not item.void and owner.at <= item.proven_at <= by
        case Released():
            promise = item.release
            return (
                item.incarnation == owner.incarnation
                and promise.vm == owner.vm
                and promise.generation >= owner.generation
                and item.at <= by
            )
        case BootedWithout():
            return item.incarnation != owner.incarnation and item.vm == owner.vm and owner.at <= item.at <= by


def generations_never_repeat(history: Iterable[Assigned]) -> tuple[Broken, ...]:
    """Rule 4: a VM's numbers only ever grow."""
    return tuple(
        Broken(
            rule="generations_never_repeat",
            subject=after.vm,
            sentence=f"{after.vm} got generation {after.generation} after {before.generation}",
        )
        for before, after in _changes(history)
        if after.generation <= before.generation
    )


def put_by_the_rules(
    vm: VmId, host: HostId, rules: Mapping[VmId, Rules], at: Mapping[VmId, HostId]
) -> tuple[Broken, ...]:
    """Nothing is put where its rules keep it from. `at`: where each VM runs at that moment and goes on running.

    Of `together` only what is said of the two: that it holds by way of a third one as well, a third one would say.
    """
    own = rules.get(vm, Rules())
    broken: list[str] = []
    if own.strict and own.allowed and host not in own.allowed:
        broken.append(f"{vm} was put on {host}, which is not allowed for it")
    for other, where in at.items():
        its = rules.get(other, Rules())
        if other != vm and where == host and (other in own.apart or vm in its.apart):
            broken.append(f"{vm} was put on {host}, where {other} runs, and they are to run apart")
        if other != vm and where != host and (other in own.together or vm in its.together):
            broken.append(f"{vm} was put on {host}, and {other} runs on {where}: they are to run together")
    return tuple(Broken(rule="put_by_the_rules", subject=vm, sentence=sentence) for sentence in broken)


def one_open_operation(view: ClusterView) -> tuple[Broken, ...]:
    """At most one open operation of a kind on a subject."""
    seen: dict[tuple[str, str], str] = {}
    broken: list[Broken] = []
    for operation in view.operations.values():
        if operation.state is not OperationState.OPEN:
            continue
        key = (operation.kind, operation.subject)
        if key in seen:
            sentence = f"{seen[key]} and {operation.id} are open at once"
            broken.append(Broken(rule="one_open_operation", subject=operation.subject, sentence=sentence))
        seen[key] = operation.id
    return tuple(broken)


_EXPLAINED = frozenset({HostState.MAINTENANCE, HostState.FENCED, HostState.LEFT})


def silence_is_named(view: ClusterView, decision: Decision) -> tuple[Broken, ...]:
    """Rules 6 and 9: a lost host is being dealt with, is proven off, or has an alarm that says why nothing happens.

    `decision`: what was decided from this very view by a holder of the control lease that had no wish to settle.
    """
    alarmed = {alarm.subject for alarm in decision.alarms}
    worked_on = {operation.subject for operation in view.operations.values()}
    worked_on |= {action.operation.subject for action in decision.actions if isinstance(action, OpenOperation)}
    written = {action.record.id: action.record for action in decision.actions if isinstance(action, PutHost)}
    broken: list[Broken] = []
    for verdict in decision.verdicts:
        if verdict.finding not in (Finding.LOST, Finding.ISOLATED):
            continue
        record = written.get(verdict.host) or view.host_records.get(verdict.host)
        if verdict.host in alarmed or verdict.host in worked_on or (record and record.state in _EXPLAINED):
            continue
        new = written.get(verdict.host)
        if verdict.finding is Finding.ISOLATED and new is not None and new.state is HostState.ISOLATED:
            continue  # a person is told of it from the next tick on
        broken.append(Broken(rule="silence_is_named", subject=verdict.host, sentence=verdict.sentence))
    return tuple(broken)


def wished_vms_run_or_say_why(truth: Truth, view: ClusterView, bound_s: Seconds) -> tuple[Broken, ...]:
    """Rule 9: each VM wished to run runs, or within `bound_s` after it ended its record says what it waits for."""
    running = {copy.vm for copy in truth.copies}
    broken: list[Broken] = []
    for vm, doc in view.vms.items():
        if doc.wish is not VmWish.RUNNING or vm in running:
            continue
        ended_at = truth.last_copy_ended_at.get(vm)
        if ended_at is not None and view.now - ended_at <= bound_s:
            continue
        record = view.vm_records.get(vm)
        believed = record is None or record.state in (VmState.RUNNING, VmState.STOPPED)
        if record is None or believed or not record.reason:
            state = f"recorded as {record.state}, reason {record.reason!r}" if record else "not recorded"
            sentence = f"{vm} is wished to run, runs nowhere, and is {state}"
            broken.append(Broken(rule="wished_vms_run_or_say_why", subject=vm, sentence=sentence))
    return tuple(broken)


def must_hold(broken: Iterable[Broken]) -> None:
    """Raise InvariantBroken with every sentence, if there is one."""
    found = tuple(broken)
    if found:
        raise InvariantBroken("; ".join(f"{item.rule}: {item.sentence}" for item in found))
