"""One slot as one block of bytes: a line with a checksum, then zeros. What is torn or of somebody else is no slot."""

from __future__ import annotations

import zlib

from fangnetz.core.units import HostId, Incarnation
from fangnetz.ports import SlotMark

BLOCK = 4096
"""Bytes: a multiple of every disk's sector."""
_MAGIC = "fangnetz-slot-1"
_HEADER = "fangnetz-slots-1"


def to_block(mark: SlotMark) -> bytes:
    """Return the block of a mark. ValueError: a name has blanks in it, or is too long."""
    text = f"{_MAGIC} {mark.host} {mark.incarnation} {mark.sequence}"
    line = f"{text} {zlib.crc32(text.encode()):08x}\n".encode()
    if len(text.split(" ")) != 4 or len(line) > BLOCK:
        raise ValueError(f"{mark} does not fit into a slot")
    return line.ljust(BLOCK, b"\0")


def header(cluster: str) -> bytes:
    """Return the first block of a device that holds the slots of a cluster."""
    return f"{_HEADER} {cluster}\n".encode().ljust(BLOCK, b"\0")


def is_ours(block: bytes) -> bool:
    """Whether it is the first block of a device with slots, of whichever cluster."""
    return block.startswith(f"{_HEADER} ".encode())


def from_block(block: bytes) -> SlotMark | None:
    """Return the mark in a block, None if there is no sound one."""
    line, _, _ = block.partition(b"\n")
    text, _, checksum = line.decode("ascii", "replace").rpartition(" ")
    words = text.split(" ")
    if len(words) != 4 or words[0] != _MAGIC or checksum != f"{zlib.crc32(text.encode()):08x}":
        return None
    return SlotMark(host=HostId(words[1]), incarnation=Incarnation(words[2]), sequence=int(words[3]))
