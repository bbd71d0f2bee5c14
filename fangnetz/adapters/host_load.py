"""How busy this machine is, as its kernel says."""

from __future__ import annotations

import os

from fangnetz.core.units import MiB
from fangnetz.ports import HostLoad


def read_load() -> HostLoad:
    """Return the load of the last minute and the memory that new processes could have now."""
    return HostLoad(load=round(os.getloadavg()[0], 2), memory_free_mib=_memory_free())


def _memory_free() -> MiB:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return MiB(int(line.split()[1]) // 1024)
    return MiB(0)
