"""Shared storage: tgtd in a namespace of its own serves one iSCSI disk per VM, opened by QEMU's own initiator.

Over such a disk nothing in libvirt or QEMU refuses a second start, which is why the lab has a witness. Disks are sparse
files in the lab's folder; they go with the lab.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from fangnetz.lab.errors import LabError
from fangnetz.lab.plan import ISCSI_PORT, Plan
from fangnetz.lab.processes import NETNS, start
from fangnetz.lab.run import run

DISK_BYTES = 64 * 1024 * 1024
LUN = 1
_CONTROL_PORT = 0
UP_WITHIN_S = 20.0


def disk_path(folder: Path, vm: str) -> Path:
    """Return the file behind a VM's disk."""
    return folder / "storage" / f"{vm}.img"


def target_of(plan: Plan, vm: str) -> str:
    """Return the iSCSI name of a VM's disk."""
    return f"iqn.2026-11.net.fangnetz:{plan.tag}:{vm}"


def start_storage(plan: Plan) -> None:
    """Start tgtd and export one disk per VM; return when all are exported."""
    folder = plan.folder / "storage"
    socket = folder / "tgtd"
    start(
        name=plan.name,
        node="storage",
        role="tgtd",
        command=[
            "tgtd",
            "-f",
            "-C",
            str(_CONTROL_PORT),
            "--iscsi",
            f"portal={plan.address('storage', 'storage')}:{ISCSI_PORT}",
        ],
        logs=plan.folder / "log",
        netns=plan.namespace("storage"),
        more_env={"TGT_IPC_SOCKET": str(socket)},
    )
    _wait_until_it_answers(plan, socket)
    for number, vm in enumerate(plan.vms, start=1):
        path = disk_path(plan.folder, vm)
        with path.open("wb") as disk:
            os.truncate(disk.fileno(), DISK_BYTES)
        _export(plan, socket, number, vm, path)
    if plan.storage_lock:
        leases = plan.folder / "shared" / "fn"
        leases.mkdir(parents=True)
        for vm in plan.vms:
            (leases / vm).touch()


def _wait_until_it_answers(plan: Plan, socket: Path) -> None:
    """Its socket is there before it listens, so only an answer tells."""
    until = time.monotonic() + UP_WITHIN_S
    while True:
        try:
            _administer(plan, socket, "--mode", "target", "--op", "show")
            return
        except LabError as error:
            if time.monotonic() > until:
                raise LabError(f"tgtd does not answer: {error}; see {plan.folder}/log/tgtd.log") from error
        time.sleep(0.05)


def _export(plan: Plan, socket: Path, number: int, vm: str, path: Path) -> None:
    for words in (
        ("--mode", "target", "--op", "new", "--tid", str(number), "--targetname", target_of(plan, vm)),
        ("--mode", "logicalunit", "--op", "new", "--tid", str(number), "--lun", str(LUN), "--backing-store", str(path)),
        ("--mode", "target", "--op", "bind", "--tid", str(number), "--initiator-address", "ALL"),
    ):
        _administer(plan, socket, *words)


def _administer(plan: Plan, socket: Path, *words: str) -> None:
    inside = ("nsenter", f"--net={NETNS / plan.namespace('storage')}", "env", f"TGT_IPC_SOCKET={socket}")
    run(*inside, "tgtadm", "-C", str(_CONTROL_PORT), "--lld", "iscsi", *words)
