"""How busy the machine is when a figure is taken: a figure without its load says little."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fangnetz.lab.lab import Lab


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLoad:
    """Load average over one minute, cores, and labs that were up beside the measured one."""

    load_1min: float
    cores: int
    other_labs: int


def machine_load(own: str) -> MachineLoad:
    """Return the load now; `own` is the lab that is measured."""
    return MachineLoad(
        load_1min=round(os.getloadavg()[0], 2),
        cores=os.cpu_count() or 1,
        other_labs=len([name for name in Lab.names() if name != own]),
    )
