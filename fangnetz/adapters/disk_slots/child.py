"""The process that touches the storage, one exchange a line: `python -m fangnetz.adapters.disk_slots.child FOLDER`.

Alone in a process, as a storage that is away may hold whoever asks it in the kernel for good, beyond any signal. Ends
with its parent: then nobody writes into its input any more.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import sys
from pathlib import Path

from fangnetz.adapters.disk_slots.block import BLOCK, from_block, to_block
from fangnetz.core.units import HostId, Incarnation
from fangnetz.ports import SlotMark


def slot_path(folder: Path, host: str) -> Path:
    """Return where the slot of a host lies."""
    return folder / f"{host}.slot"


def write_slot(folder: Path, mark: SlotMark) -> None:
    """Write a mark through to the storage. OSError: it could not be."""
    with mmap.mmap(-1, BLOCK) as buffer:
        buffer.write(to_block(mark))
        slot = _open(slot_path(folder, mark.host), os.O_RDWR | os.O_CREAT | os.O_DSYNC)
        try:
            if os.pwrite(slot, buffer, 0) != BLOCK:
                raise OSError(errno.EIO, "the slot was written in part only")
        finally:
            os.close(slot)


def read_slot(folder: Path, host: str) -> SlotMark | None:
    """Return a host's mark from the storage itself, None if it has none. OSError: it could not be read."""
    try:
        slot = _open(slot_path(folder, host), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        with mmap.mmap(-1, BLOCK) as buffer:
            os.preadv(slot, [buffer], 0)
            mark = from_block(buffer[:])
            return mark if mark is not None and mark.host == host else None
    finally:
        os.close(slot)


def _open(path: Path, flags: int) -> int:
    """Open past this machine's own cache, where the file system can: a cached slot never changes."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_DIRECT, 0o640)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o640)


def answer(folder: Path, request: str) -> str:
    """Return the answer to one line: `{"marks": [[host, incarnation, sequence], …]}` or `{"error": sentence}`."""
    asked = json.loads(request)
    host, incarnation, sequence = asked["mine"]
    try:
        write_slot(folder, SlotMark(host=HostId(host), incarnation=Incarnation(incarnation), sequence=sequence))
        found = [read_slot(folder, other) for other in asked["others"]]
    except OSError as error:
        return json.dumps({"error": f"{error.filename or folder}: {error.strerror}"})
    return json.dumps({"marks": [[mark.host, mark.incarnation, mark.sequence] for mark in found if mark is not None]})


def main() -> None:
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        sys.stdout.write(answer(folder, line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
