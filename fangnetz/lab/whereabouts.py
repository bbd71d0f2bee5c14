"""Where each VM runs and when its guest wrote: from processes and disks alone, never from what Fangnetz says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fangnetz.lab.lab import Lab
from fangnetz.lab.processes import processes_of

_QEMU = "qemu:"
Places = Mapping[str, tuple[str, ...]]


def places(lab: Lab) -> dict[str, tuple[str, ...]]:
    """Return, for each VM, the hosts with a living QEMU process of it."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(lab.plan.vms, ())
    for process in processes_of(lab.plan.name, lab.plan.tag):
        vm = process.role.removeprefix(_QEMU)
        if process.role.startswith(_QEMU) and vm in found:
            found[vm] = (*found[vm], process.node)
    return found


def fullest(hosts: tuple[str, ...], where: Places) -> tuple[str, tuple[str, ...]]:
    """Return the host with the most VMs (the first of equals) and these VMs."""
    on = {host: tuple(vm for vm, nodes in where.items() if host in nodes) for host in hosts}
    host = max(hosts, key=lambda each: len(on[each]))
    return host, on[host]


def first_write_after(report: Mapping[str, Any], vm: str, at: float) -> float | None:
    """Return when a boot of the VM that began after `at` was first seen writing, None if none was.

    `report` is the witness's; instants are seconds since the epoch, late by up to one look (0.1 s).
    """
    began = [boot["first_at"] for boot in report["vms"][vm]["boots"] if boot["first_at"] > at]
    return min(began, default=None)
