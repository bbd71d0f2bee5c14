"""A machine's own BMC GUID read in-band, and the ways tools write the same sixteen bytes.

Never talks to a BMC over the network and never calls two factory-default GUIDs equal.

Over the wire (IPMI 2.0 section 22.14, Get System GUID) a BMC sends 16 bytes. Vendors fill them in three orders, and
tools guess which: as written (RFC 4122), the first three fields little-endian (SMBIOS 2.6, dmidecode, Linux
`product_uuid`), or all bytes reversed (the IPMI specification; what `ipmitool mc guid` prints by default for many).
So one text stands for several byte orders, and equality must look at all of them.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from fangnetz.core.units import Seconds

DEFAULT_COMMAND = ("ipmitool", "mc", "guid")
DEVICES = (Path("/dev/ipmi0"), Path("/dev/ipmi/0"), Path("/dev/ipmidev/0"))

_DASHED = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
_PLAIN = re.compile(r"\b[0-9a-f]{32}\b", re.IGNORECASE)
_BYTES = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{2}\s+){15}[0-9a-f]{2}(?![0-9a-f])", re.IGNORECASE)
_NOT_UNIQUE = frozenset({"03000200040005000006000700080009"})
"""AMI's factory default, found on boards of many vendors."""


def read_in_band(command: tuple[str, ...] | None, bound: Seconds) -> tuple[str, ...]:
    """Return every byte order of this machine's BMC GUID (lower case, no dashes), or () if there is none to be had.

    `command` None means `ipmitool mc guid`, and only if the kernel has an IPMI device. A command that fails, hangs
    beyond `bound` or prints no unique GUID gives (): an unread GUID is "not tested", never "no match".
    """
    if command is None:
        if not any(device.exists() for device in DEVICES):
            return ()
        command = DEFAULT_COMMAND
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError:
        return ()
    try:
        output, _ = process.communicate(timeout=bound)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return ()
    if process.returncode != 0:
        return ()
    guid = first_guid(output.decode("utf-8", "replace"))
    return byte_orders(guid) if is_unique(guid) else ()


def first_guid(text: str) -> str:
    """Return the first GUID in `text`, dashed, plain or as 16 spaced bytes: lower case, no dashes; "" if none."""
    found = min(
        (match for form in (_DASHED, _PLAIN, _BYTES) if (match := form.search(text))),
        key=lambda match: match.start(),
        default=None,
    )
    return normalise(found.group()) if found else ""


def normalise(guid: str) -> str:
    """Return 32 lower-case hex digits, or "" for anything that is not 16 bytes."""
    digits = re.sub(r"[\s{}-]", "", guid).lower()
    return digits if re.fullmatch(r"[0-9a-f]{32}", digits) else ""


def is_unique(guid: str) -> bool:
    """Say whether the GUID can tell two machines apart: not empty, not one repeated byte, no factory default."""
    return bool(guid) and len(set(bytes.fromhex(guid))) > 1 and _NOT_UNIQUE.isdisjoint(byte_orders(guid))


def byte_orders(guid: str) -> tuple[str, ...]:
    """Return the GUID as written, with SMBIOS fields, reversed, and both combinations; no duplicates."""
    guid = normalise(guid)
    if not guid:
        return ()
    orders = (guid, _smbios(guid), _reversed(guid), _smbios(_reversed(guid)), _reversed(_smbios(guid)))
    return tuple(dict.fromkeys(orders))


def same_guid(one: str, other: str) -> bool:
    """Say whether two readings name the same BMC in any byte order. Symmetric; factory defaults equal nothing."""
    one = normalise(one)
    return is_unique(one) and one in byte_orders(other)


def _smbios(guid: str) -> str:
    raw = bytes.fromhex(guid)
    return (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex()


def _reversed(guid: str) -> str:
    return bytes.fromhex(guid)[::-1].hex()
