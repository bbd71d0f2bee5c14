"""Where slots lie: files in a folder, or blocks of one device that all hosts share. Every call may hang for good."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fangnetz.adapters.disk_slots.block import BLOCK, from_block, header, is_ours, to_block
from fangnetz.core.errors import StorageUnreachable
from fangnetz.core.units import HostId
from fangnetz.ports import SlotMark

BLOCKS = 2048
"""Of a device: its header, and a slot each for more hosts than a cluster has (8 MiB in all)."""
SEARCH_EVERY_S = 10.0
"""A host that has no slot is looked for so seldom: each time the whole device is read."""


class SlotPlace(ABC):
    """Slots of one cluster. Raises OSError or StorageUnreachable."""

    @abstractmethod
    def write(self, mark: SlotMark) -> None:
        """Write a mark through to the storage."""

    @abstractmethod
    def read(self, host: HostId) -> SlotMark | None:
        """Return a host's mark from the storage itself, None if it has none."""


class Folder(SlotPlace):
    """One file per host, on a file system that all hosts mount."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, mark: SlotMark) -> None:
        with _opened(self._file(mark.host), os.O_RDWR | os.O_CREAT | os.O_DSYNC) as slot:
            _put(slot, 0, to_block(mark))

    def read(self, host: HostId) -> SlotMark | None:
        try:
            with _opened(self._file(host), os.O_RDONLY) as slot:
                mark = from_block(_get(slot, 0, 1))
        except FileNotFoundError:
            return None
        return mark if mark is not None and mark.host == host else None

    def _file(self, host: HostId) -> Path:
        return self._folder / f"{host}.slot"


class Device(SlotPlace):
    """Blocks of a device that was prepared for this cluster (`format_device`). A host takes a free one and keeps it."""

    def __init__(self, path: Path, cluster: str) -> None:
        self._path, self._cluster = path, cluster
        self._at: dict[HostId, int] = {}
        self._searched_at: dict[HostId, float] = {}

    def write(self, mark: SlotMark) -> None:
        with self._device(os.O_RDWR | os.O_DSYNC) as device:
            at = self._at.get(mark.host)
            # Two that took the same free block at once: whoever finds another's mark in it looks for a new one.
            if at is None or not _is_of(_get(device, at, 1), mark.host):
                at = self._at[mark.host] = self._place_for(mark.host, device)
            _put(device, at, to_block(mark))

    def read(self, host: HostId) -> SlotMark | None:
        with self._device(os.O_RDONLY) as device:
            at = self._at.get(host)
            found = from_block(_get(device, at, 1)) if at is not None else None
            if found is None or found.host != host:
                found = self._search(host, device)
            return found

    def _search(self, host: HostId, device: int) -> SlotMark | None:
        """Return the mark of a host whose place is not known: it is nearly always where the host begins to look."""
        lost, now, first = self._at.pop(host, None) is not None, time.monotonic(), _first_place(host)
        found = from_block(_get(device, first, 1))
        if found is not None and found.host == host:
            self._at[host] = first
            return found
        if not lost and now - self._searched_at.get(host, -SEARCH_EVERY_S) < SEARCH_EVERY_S:
            return None
        self._searched_at[host] = now
        for at, block in _slots(device):
            found = from_block(block)
            if found is not None and found.host == host:
                self._at[host] = at
                return found
        return None

    def _place_for(self, host: HostId, device: int) -> int:
        """Return the block of a host's own mark, else a free one: the next from where this host begins to look."""
        free = []
        for at, block in _slots(device):
            mark = from_block(block)
            if mark is not None and mark.host == host:
                return at
            if _is_empty(block):
                free.append(at)
        if not free:
            raise StorageUnreachable(f"{self._path} has no free slot left.")
        first = _first_place(host)
        return min(free, key=lambda at: (at - first) % BLOCKS)

    @contextmanager
    def _device(self, flags: int) -> Iterator[int]:
        with _opened(self._path, flags) as device:
            if _get(device, 0, 1) != header(self._cluster):
                raise StorageUnreachable(
                    f"{self._path} is not prepared for cluster {self._cluster}: `fangnetz slots format` does that."
                )
            yield device


def format_device(path: Path, cluster: str) -> None:
    """Prepare a device. StorageUnreachable: it holds something, is too small, or cannot be written; it is untouched."""
    try:
        with _opened(path, os.O_RDWR | os.O_DSYNC | os.O_EXCL) as device:
            if os.lseek(device, 0, os.SEEK_END) < BLOCKS * BLOCK:
                raise StorageUnreachable(f"{path} is smaller than {BLOCKS * BLOCK // 2**20} MiB.")
            first = _get(device, 0, 1)
            if is_ours(first) and first != header(cluster):
                raise StorageUnreachable(f"{path} holds slots of another cluster. Wipe it first if they are of no use.")
            if first != header(cluster) and not all(map(_is_empty, (first, *(block for _, block in _slots(device))))):
                raise StorageUnreachable(f"{path} is not empty. Wipe it first if what it holds is of no use.")
            _put(device, 0, header(cluster))
    except OSError as error:
        raise StorageUnreachable(f"{path} cannot be prepared: {error.strerror}.") from error


def _first_place(host: HostId) -> int:
    """Return where a host begins to look for a free block: another place for nearly every name."""
    return 1 + zlib.crc32(host.encode()) % (BLOCKS - 1)


def _is_empty(block: bytes) -> bool:
    return not block.strip(b"\0")


def _is_of(block: bytes, host: HostId) -> bool:
    mark = from_block(block)
    return mark is not None and mark.host == host


def _slots(device: int) -> Iterator[tuple[int, bytes]]:
    """Yield each slot's number and bytes, read in pieces of a MiB."""
    piece = 256
    for first in range(0, BLOCKS, piece):
        content = _get(device, first, piece)
        for at in range(first, first + piece):
            if at:
                yield at, content[(at - first) * BLOCK : (at - first + 1) * BLOCK]


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open past this machine's own cache, where the file system can: a cached slot never changes."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in a slot's place keeps nobody
    if not stat.S_ISBLK(_kind(path)):
        flags = (flags | os.O_NOFOLLOW) & ~os.O_EXCL
    try:
        opened = os.open(path, flags | os.O_DIRECT, 0o640)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        opened = os.open(path, flags, 0o640)
    try:
        kind = os.fstat(opened).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise OSError(errno.EINVAL, "neither a file nor a block device", str(path))
        yield opened
    finally:
        os.close(opened)


def _kind(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _put(opened: int, at: int, block: bytes) -> None:
    with mmap.mmap(-1, BLOCK) as buffer:  # a page, as unbuffered writing needs
        buffer.write(block)
        if os.pwrite(opened, buffer, at * BLOCK) != BLOCK:
            raise OSError(errno.EIO, "the slot was written in part only")


def _get(opened: int, at: int, count: int) -> bytes:
    """Return so many blocks; what lies beyond the end is zeros."""
    with mmap.mmap(-1, count * BLOCK) as buffer:
        os.preadv(opened, [buffer], at * BLOCK)
        return buffer[:]
