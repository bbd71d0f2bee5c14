"""The process that touches the storage, one exchange a line. Arguments: folder or device, its path, the cluster.

Alone in a process, as a storage that is away may hold whoever asks it in the kernel for good, beyond any signal. Ends
with its parent: then nobody writes into its input any more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fangnetz.adapters.disk_slots.places import Device, Folder, SlotPlace
from fangnetz.core.errors import StorageUnreachable
from fangnetz.core.units import HostId, Incarnation
from fangnetz.ports import SlotMark


def answer(place: SlotPlace, request: str) -> str:
    """Return the answer to one line: `{"marks": [[host, incarnation, sequence], …]}` or `{"error": sentence}`."""
    asked = json.loads(request)
    host, incarnation, sequence = asked["mine"]
    try:
        place.write(SlotMark(host=HostId(host), incarnation=Incarnation(incarnation), sequence=sequence))
    except StorageUnreachable as error:
        return json.dumps({"error": str(error)})
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return json.dumps({"error": f"The slot cannot be written or read: {where}{error.strerror}."})
    found = [mark for other in asked["others"] if (mark := _read(place, HostId(other))) is not None]
    return json.dumps({"marks": [[mark.host, mark.incarnation, mark.sequence] for mark in found]})


def _read(place: SlotPlace, host: HostId) -> SlotMark | None:
    """Return a host's mark; None also where it cannot be read: its own slot is the business of each host."""
    try:
        return place.read(host)
    except (StorageUnreachable, OSError):
        return None


def main() -> None:
    kind, path, cluster = sys.argv[1:4]
    place: SlotPlace = Device(Path(path), cluster) if kind == "device" else Folder(Path(path))
    for line in sys.stdin:
        sys.stdout.write(answer(place, line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
