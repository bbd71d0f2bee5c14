"""Slots on the shared disk of a simulated cluster: `ports.DiskSlots`. A host whose storage is cut waits in vain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fangnetz.core.errors import StorageUnreachable
from fangnetz.core.units import HostId, Seconds
from fangnetz.ports import SlotMark
from fangnetz.sim.machine import Machine
from fangnetz.sim.network import STORAGE, Network
from fangnetz.sim.process import Process

TAKES_S = Seconds(0.004)
"""One block written through and a few read."""


class SimSlots:
    """What lies on the disk in `marks` is the same for all; `here` is the machine it is asked from."""

    def __init__(self, process: Process, here: Machine, marks: dict[HostId, SlotMark], network: Network) -> None:
        self._process, self._here, self._marks, self._network = process, here, marks, network

    def exchange(self, mine: SlotMark, others: Sequence[HostId], bound: Seconds) -> Mapping[HostId, SlotMark]:
        self._process.sleep(TAKES_S)
        if not self._network.both_ways(self._here.name, "", STORAGE):
            self._process.sleep(Seconds(max(0.0, bound - TAKES_S)))
            raise StorageUnreachable(f"The storage has not answered {self._here.name} in time.")
        self._marks[mine.host] = mine
        return {host: self._marks[host] for host in others if host in self._marks}
