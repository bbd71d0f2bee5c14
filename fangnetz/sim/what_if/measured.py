"""How long things take in this cluster, by its journal: what closed operations wrote down, as medians."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from fangnetz.core.operations import Operation, Step, StepKind, StepState
from fangnetz.core.units import HostId, Seconds, VmId
from fangnetz.sim.stories.story import WORLD_TIMES

Name = TypeVar("Name", HostId, VmId)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A span that is used. `samples`: the median of so many; 0: nothing was measured yet, a default is used."""

    seconds: Seconds
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Spans in seconds: from a cut to the plug read back OFF by host, from a start to the VM seen running by VM."""

    fences: Mapping[HostId, tuple[float, ...]] = field(default_factory=dict)
    starts: Mapping[VmId, tuple[float, ...]] = field(default_factory=dict)

    def fence(self, host: HostId | None = None) -> Measured:
        """Return this host's own, else the whole cluster's, else the default."""
        return _usual(self.fences, host, "fence_s")

    def start(self, vm: VmId | None = None) -> Measured:
        """Return this VM's own, else the whole cluster's, else the default."""
        return _usual(self.starts, vm, "start_s")


def measure(operations: Iterable[Operation]) -> Measurements:
    """Return what closed operations took; open ones say nothing yet."""
    fences: dict[HostId, tuple[float, ...]] = {}
    starts: dict[VmId, tuple[float, ...]] = {}
    for operation in operations:
        if operation.closed_at is None:
            continue
        for step in operation.of_kind(StepKind.FENCE):
            host = HostId(operation.subject)
            fences[host] = (*fences.get(host, ()), *_span(step, "fence_sent_at", step, "fence_proven_at"))
        for seen in operation.of_kind(StepKind.SEE_RUNNING):
            start = operation.step(seen.after[0]) if seen.after else None
            if seen.order is not None and start is not None:
                vm = seen.order.vm
                starts[vm] = (*starts.get(vm, ()), *_span(start, "start_sent_at", seen, "running_at"))
    return Measurements(fences=fences, starts=starts)


def _span(first: Step, began: str, last: Step, ended: str) -> Iterator[float]:
    """Yield the seconds between two instants that done steps wrote down; nothing if they did not."""
    since, until = first.facts.get(began), last.facts.get(ended)
    if last.state is StepState.DONE and isinstance(since, float) and isinstance(until, float) and since <= until:
        yield until - since


def _usual(known: Mapping[Name, tuple[float, ...]], name: Name | None, key: str) -> Measured:
    samples = (known.get(name, ()) if name is not None else ()) or tuple(s for own in known.values() for s in own)
    seconds = median(samples) if samples else WORLD_TIMES[key]
    return Measured(seconds=Seconds(seconds), samples=len(samples))
