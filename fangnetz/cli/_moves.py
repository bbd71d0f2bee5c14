"""VMs on their way to another host: who they are and how far they have come, from the journal's steps. Only reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fangnetz.core.convergence import Progress
from fangnetz.core.operations import Operation, StepKind, StepState
from fangnetz.core.units import HostId, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTheMove:
    """One VM whose memory is being sent. `progress` is None until the journal knows of any."""

    vm: VmId
    to: HostId
    progress: Progress | None

    @property
    def share(self) -> float:
        return self.progress.share if self.progress is not None else 0.0

    @property
    def sentence(self) -> str:
        return f"to {self.to}" + (f", {self.progress.sentence}" if self.progress is not None else "")


def on_the_move(operations: Iterable[Operation]) -> tuple[OnTheMove, ...]:
    """Return the VMs that leave their hosts right now, by name."""
    found = [
        OnTheMove(vm=step.order.vm, to=step.order.to.host, progress=step.progress)
        for operation in operations
        for step in operation.of_kind(StepKind.MIGRATE)
        if step.state is StepState.RUNNING and step.order is not None and step.order.to is not None
    ]
    return tuple(sorted(found, key=lambda move: move.vm))
