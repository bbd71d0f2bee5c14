"""What simulated guests really use: a matter of the guest, wherever its copy runs.

A guest that no line of the story says anything about uses half of what it is configured with.
"""

from __future__ import annotations

from dataclasses import dataclass

from fangnetz.core.units import VmId
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.stories.story import VmOfStory

USED_SHARE = 0.5


@dataclass(slots=True)
class Load:
    """`cpu_s`: the CPU time used up to `since`; from then on `cpus` of it a second."""

    cpus: float
    memory_mib: float
    since: float = 0.0
    cpu_s: float = 0.0

    def cpu_time_s(self, now: float) -> float:
        return self.cpu_s + (now - self.since) * self.cpus


NONE = Load(cpus=0.0, memory_mib=0.0)


class Loads:
    """The load of every guest of a world."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._loads: dict[VmId, Load] = {}

    def of(self, vm: VmId) -> Load:
        return self._loads.get(vm, NONE)

    def add(self, vm: VmOfStory) -> None:
        """Bring a guest in; one that is known keeps its load."""
        made = Load(cpus=USED_SHARE * vm.cpus, memory_mib=USED_SHARE * vm.memory_mib, since=self._kernel.now)
        self._loads.setdefault(VmId(vm.name), made)

    def become(self, vm: VmId, cpus: float, memory_mib: float) -> None:
        """Have a guest use so much from now on."""
        now, before = self._kernel.now, self.of(vm)
        self._loads[vm] = Load(cpus=cpus, memory_mib=memory_mib, since=now, cpu_s=before.cpu_time_s(now))
