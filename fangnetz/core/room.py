"""A host that may take VMs, with what is promised on it by configured sizes. Never holds what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fangnetz.core.model import HostSpec, VmSpec
from fangnetz.core.units import VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoom:
    """A host that may take VMs, with what is already promised to others on it."""

    spec: HostSpec
    memory_used_mib: int
    cpus_used: int
    residents: frozenset[VmId] = frozenset()
    """The VMs that memory and cpus are promised to: one of them takes no more if it is put there."""

    def free_mib(self, unit: Sequence[VmSpec]) -> int:
        """Return the memory that is left beside these VMs' own share; the same way `free_cpus`."""
        own = sum(vm.memory_mib for vm in unit if vm.id in self.residents)
        return self.spec.memory_mib - self.memory_used_mib + own

    def free_cpus(self, unit: Sequence[VmSpec], overcommit: float) -> float:
        own = sum(vm.cpus for vm in unit if vm.id in self.residents)
        return self.spec.cpus * overcommit - self.cpus_used + own

    def with_more(self, unit: Sequence[VmSpec]) -> HostRoom:
        """Return this room once these VMs are there."""
        new = [vm for vm in unit if vm.id not in self.residents]
        return replace(
            self,
            memory_used_mib=self.memory_used_mib + sum(vm.memory_mib for vm in new),
            cpus_used=self.cpus_used + sum(vm.cpus for vm in new),
            residents=self.residents | {vm.id for vm in new},
        )
