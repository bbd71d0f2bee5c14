"""How a lab is called, and what on the machine carries its name. Never touches anything.

Two labs run side by side: whatever the kernel or the network sees of a lab carries its tag.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from fangnetz.lab.errors import LabUsageError

CACHE = Path("/var/cache/fangnetz-lab")
MARKER = "FANGNETZ_LAB_PROCESS"  # NAME:NODE:ROLE in the environment of each process of a lab
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def root_folder() -> Path:
    """Return the folder that holds one folder per lab (FANGNETZ_LAB_ROOT, else /run/fangnetz-lab)."""
    return Path(os.environ.get("FANGNETZ_LAB_ROOT") or "/run/fangnetz-lab").absolute()


def default_name() -> str:
    """Return the lab's name for this checkout, so that two checkouts never share a lab."""
    checkout = Path(__file__).resolve().parents[2]
    return f"lab-{hashlib.sha256(os.fsencode(checkout)).hexdigest()[:6]}"


def checked_name(name: str | None) -> str:
    """Return the name to use. Raises LabUsageError for one that could not be a lab's."""
    chosen = default_name() if name is None else name
    if not _NAME.fullmatch(chosen):
        raise LabUsageError(f"a lab's name is a-z, 0-9 and -, beginning with a letter, 31 at most, not {chosen!r}")
    return chosen


def tag_of(name: str) -> str:
    """Return the short form of a name, for what the kernel limits to 15 letters."""
    return hashlib.sha256(f"{root_folder()}/{name}".encode()).hexdigest()[:6]


def namespace_of(tag: str, node: str) -> str:
    """Return the network namespace of a node of a lab."""
    return f"fn-{tag}-{node}"
