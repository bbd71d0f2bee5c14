"""What guests leave on their disks, read from the files behind them. Never writes, never asks a guest or libvirt."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SLOT_BYTES = 4096
_HEAD_BYTES = 160
_TRACE = re.compile(rb"fangnetz-guest 1 boot=([0-9a-f]{16}) counter=(\d+) time=(\d+\.\d+)\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The latest write in one slot: which boot, its how-manieth write, its own clock (seconds, not to be trusted)."""

    slot: int
    boot: str
    counter: int
    guest_time: float


def read_traces(disk: Path) -> list[Trace]:
    """Return the trace in every slot in use. A disk that is not there has none."""
    try:
        fd = os.open(disk, os.O_RDONLY)
    except FileNotFoundError:
        return []
    try:
        return [
            trace for slot in _slots_in_use(fd) if (trace := _parse(slot, os.pread(fd, _HEAD_BYTES, slot * SLOT_BYTES)))
        ]
    finally:
        os.close(fd)


def _slots_in_use(fd: int) -> Iterator[int]:
    """Yield slots that hold data; the disk is sparse, so this costs what was written and not what it could hold."""
    offset, end = 0, os.fstat(fd).st_size
    while offset < end:
        try:
            begin = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole from here on
            return
        offset = os.lseek(fd, begin, os.SEEK_HOLE)
        yield from range(begin // SLOT_BYTES, -(-offset // SLOT_BYTES))


def _parse(slot: int, head: bytes) -> Trace | None:
    found = _TRACE.match(head)
    if found is None:
        return None
    return Trace(slot=slot, boot=found[1].decode(), counter=int(found[2]), guest_time=float(found[3]))
