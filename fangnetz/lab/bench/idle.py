"""Figures of a machine at rest: how long the guest boots by libvirt alone, and what an idle host worker costs."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fangnetz.lab.bench.arithmetic import cpu_share
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.processes import processes_of
from fangnetz.lab.whereabouts import first_write_after

BOOTED_WITHIN_S = 60.0
POLL_S = 0.05
_TIMES = slice(11, 15)
"""utime, stime, cutime, cstime in /proc/PID/stat behind the program's name: fields 14 to 17 of proc(5)."""


def boot_times(lab: Lab, vms: tuple[str, ...]) -> list[float]:
    """Start these VMs at once with `virsh create`, spread over the hosts but the first; return when each first wrote.

    Seconds from before `virsh create`; they are destroyed afterwards. The lab must be a bare one.
    """
    targets = lab.plan.hosts[1:] or lab.plan.hosts
    where = {vm: targets[index % len(targets)] for index, vm in enumerate(vms)}
    began = time.time()
    with ThreadPoolExecutor(max_workers=len(vms)) as pool:
        started = dict(zip(vms, pool.map(lambda vm: lab.start_behind_back(where[vm], vm), vms), strict=True))
    took: dict[str, float] = {}
    until = time.monotonic() + BOOTED_WITHIN_S
    while len(took) < len(vms):
        if time.monotonic() > until:
            raise LabError(f"of {', '.join(vms)} only {', '.join(took) or 'none'} booted in {BOOTED_WITHIN_S:g} s")
        report = lab.witness()
        for vm in vms:
            wrote_at = first_write_after(report, vm, began)
            if wrote_at is not None:
                took[vm] = wrote_at - started[vm]
        time.sleep(POLL_S)
    for vm, host in where.items():
        lab.in_host(host, "virsh", "-q", "-c", "qemu:///system", "destroy", vm)
    return [took[vm] for vm in vms]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCost:
    """One host's worker with all its children. `pss_bytes`: proportional set size; `cpu_share` of one core."""

    host: str
    processes: int
    pss_bytes: int
    cpu_share: float
    seconds: float


def worker_costs(lab: Lab, seconds: float) -> list[WorkerCost]:
    """Watch the host workers for so many seconds while nothing is asked of them. libvirtd and QEMU do not count."""
    before = {host: _ticks(pids) for host, pids in _workers(lab).items()}
    began = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    costs = []
    for host, pids in _workers(lab).items():
        costs.append(
            WorkerCost(
                host=host,
                processes=len(pids),
                pss_bytes=sum(_pss(pid) for pid in pids),
                cpu_share=round(cpu_share(before.get(host, 0), _ticks(pids), os.sysconf("SC_CLK_TCK"), elapsed), 4),
                seconds=round(elapsed, 1),
            )
        )
    if not costs:
        raise LabError("no host worker is found in the lab")
    return costs


def _workers(lab: Lab) -> dict[str, list[int]]:
    """Return host → processes of its worker; children carry its mark in their environment."""
    found: dict[str, list[int]] = {}
    for process in processes_of(lab.plan.name, lab.plan.tag):
        if process.node in lab.plan.hosts and process.role == "worker":
            found.setdefault(process.node, []).append(process.pid)
    return found


def _ticks(pids: list[int]) -> int:
    """Return the processor time of processes, that of their ended children included, in clock ticks."""
    total = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        total += sum(int(field) for field in fields[_TIMES])
    return total


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
