"""What the cluster itself wrote, kept over the store's lives: who owned what, the evidence, every number. Pure.

Views and operations go in as they are polled. The law is core's own: no change of owner without evidence about the
very boot that owned the VM before. A life of the store is a chapter; what it knows is told anew by its first view.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fangnetz.core.invariants import Assigned, BootedWithout, Evidence, Released, no_start_without_proof
from fangnetz.core.model import ClusterView, Heartbeat, HypervisorHealth, OffProof, Release
from fangnetz.core.operations import Operation, Order, Step, StepKind, StepState
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, VmId
from fangnetz.engine.steps.failover import PROOF

POLLED_LATE_S = 1.5
"""A report that a plan rested on may have been followed by another before we looked: one heartbeat and a look."""
_NUMBERED_BY_TIME = 1_000_000_000_000_000
"""Generations above this are the store's clock in microseconds at the assignment."""


@dataclass(slots=True)
class _Chapter:
    """One life of the store."""

    lines: dict[VmId, list[Assigned]] = field(default_factory=dict)
    evidence: dict[object, Evidence] = field(default_factory=dict)
    ordered: dict[tuple[VmId, Generation], Assigned] = field(default_factory=dict)
    noted: dict[str, Operation] = field(default_factory=dict)
    proven: set[tuple[VmId, Generation]] = field(default_factory=set)
    """Orders whose evidence was found: what is read later takes none away."""


@dataclass(slots=True)
class Chronicle:
    """Takes in what was read of the store; `unproven` and `repeated` may be asked at any time."""

    operations: dict[str, Operation] = field(default_factory=dict)
    """Every operation as it was last seen, over all lives."""
    seen_last: dict[str, float] = field(default_factory=dict)
    """When each operation was last seen in the store."""
    looked_at: float = 0.0
    """When the store was last read, by its own clock."""
    lives: list[str] = field(default_factory=list)
    numbers: dict[tuple[VmId, Generation], set[tuple[HostId, Incarnation]]] = field(default_factory=dict)
    """Whom each number of each VM was given to or reported by: one boot of one host, or it has come back."""
    _chapters: dict[str, _Chapter] = field(default_factory=dict)

    def read(self, view: ClusterView, operations: Iterable[Operation]) -> None:
        """Take in one look at the store."""
        life = str(view.life.incarnation)
        self.looked_at = view.now
        if not self.lives or self.lives[-1] != life:
            self.lives.append(life)
        chapter = self._chapters.setdefault(life, _Chapter())
        for beat in view.heartbeats.values():
            self._hear(chapter, beat, view)
        for host in view.host_records.values():
            if host.proof is not None and not host.proof.void:
                chapter.evidence[host.id, host.proof.incarnation, host.proof.proven_at] = host.proof
        for record in view.vm_records.values():
            if record.owner is None:
                continue
            line = Assigned(
                vm=record.id,
                host=record.owner,
                incarnation=record.owner_incarnation,
                generation=record.generation,
                at=_assigned_at(record.generation, record.since),
            )
            lines = chapter.lines.setdefault(record.id, [])
            if not lines or _who(lines[-1]) != _who(line):
                lines.append(line)
        for operation in {op.id: op for op in (*operations, *view.operations.values())}.values():
            self._note(chapter, operation, view.now)

    def _hear(self, chapter: _Chapter, beat: Heartbeat, view: ClusterView) -> None:
        for seen in beat.inventory:
            if seen.generation is not None:
                self.numbers.setdefault((seen.vm, seen.generation), set()).add((beat.host, beat.incarnation))
        for release in beat.releases:
            if beat.sees(release.vm) is None:
                key = ("released", beat.host, beat.incarnation, release)
                chapter.evidence.setdefault(
                    key,
                    Released(host=beat.host, incarnation=beat.incarnation, release=release, at=beat.received_at),
                )
        if beat.hypervisor is not HypervisorHealth.OK:
            return
        for vm in view.vm_records:
            if beat.sees(vm) is None:
                second = int(beat.received_at)
                chapter.evidence.setdefault(
                    ("without", beat.host, beat.incarnation, vm, second),
                    BootedWithout(host=beat.host, incarnation=beat.incarnation, vm=vm, at=beat.received_at),
                )

    def _note(self, chapter: _Chapter, operation: Operation, now: float) -> None:
        self.seen_last[operation.id] = now
        if chapter.noted.get(operation.id) == operation:
            return
        chapter.noted[operation.id] = self.operations[operation.id] = operation
        if operation.proof is not None:
            self._prove(chapter, operation.proof)
        for step in operation.steps:
            if step.kind is StepKind.FENCE and isinstance(step.facts.get("proof"), str):
                self._prove(chapter, PROOF.validate_json(str(step.facts["proof"])))
            order = step.order
            if order is None or not order.generation:
                continue
            if step.facts.get("released") and step.state in (StepState.REFUSED, StepState.DONE):
                self._released(chapter, order, step.ended_at)
            if step.kind is StepKind.START or (step.kind is StepKind.RESUME and step.started_at):
                key = (order.vm, order.generation)
                self.numbers.setdefault(key, set()).add((order.host, order.incarnation))
                chapter.ordered.setdefault(
                    key,
                    Assigned(
                        vm=order.vm,
                        host=order.host,
                        incarnation=order.incarnation,
                        generation=order.generation,
                        at=_given_at(step, order, now),
                    ),
                )

    @staticmethod
    def _prove(chapter: _Chapter, proof: OffProof) -> None:
        chapter.evidence.setdefault((proof.host, proof.incarnation, proof.proven_at), proof)

    @staticmethod
    def _released(chapter: _Chapter, order: Order, at: Instant) -> None:
        release = Release(vm=order.vm, generation=order.generation)
        chapter.evidence.setdefault(
            ("refused", order.host, order.incarnation, release),
            Released(host=order.host, incarnation=order.incarnation, release=release, at=at),
        )

    def unproven(self) -> tuple[str, ...]:
        """Return each order to start a VM that was given without evidence about its owner before."""
        found: list[str] = []
        for chapter in self._chapters.values():
            evidence = tuple(chapter.evidence.values())
            for key, after in chapter.ordered.items():
                if key in chapter.proven:
                    continue
                before = [line for line in chapter.lines.get(after.vm, []) if line.generation < after.generation]
                if not before:
                    continue
                known = [_as_of_then(item) for item in evidence if item.host == before[-1].host]
                broken = no_start_without_proof([before[-1], after], known)
                if not broken:
                    chapter.proven.add(key)
                found += [each.sentence for each in broken]
        return tuple(found)

    def repeated(self) -> tuple[str, ...]:
        """Return each number of a VM that two boots were given or reported, in whatever life of the store."""
        return tuple(
            f"generation {generation} of {vm} belongs to {' and '.join(sorted(f'{h} ({i[:8]})' for h, i in whose))}"
            for (vm, generation), whose in self.numbers.items()
            if len(whose) > 1
        )


def _who(line: Assigned) -> tuple[HostId, Incarnation, Generation]:
    return line.host, line.incarnation, line.generation


def _assigned_at(generation: Generation, otherwise: Instant) -> Instant:
    return Instant(min(otherwise, generation / 1e6)) if generation > _NUMBERED_BY_TIME else otherwise


def _given_at(step: Step, order: Order, now: float) -> Instant:
    """A start is given with its number; what arrives by a move has its number before, and is given when it may run."""
    if step.kind is StepKind.RESUME:
        return step.started_at
    return _assigned_at(order.generation, Instant(now))


def _as_of_then(item: Evidence) -> Evidence:
    """Return polled evidence as early as it may have been known; a proof carries its own instant."""
    if isinstance(item, OffProof):
        return item
    return replace(item, at=Instant(item.at - POLLED_LATE_S))
