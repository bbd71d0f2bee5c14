"""What names, addresses and paths may look like. Each check returns its value or raises its rule."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ISCSI_TARGET = re.compile(r"(?:iqn|eui|naa)\.[A-Za-z0-9.:_-]{1,219}")
_LIBVIRT_URI = re.compile(r"[a-z][a-z0-9+]*://[^\s@]*")
_LOCKSPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")
_REDIS_USER = re.compile(r"[A-Za-z0-9._-]{1,63}")
SENTINEL_PORT = "26379"
_REDIS_DATABASE = re.compile(r"/?|/[0-9]{1,5}")


def refuse(rule: str) -> PydanticCustomError:
    """Return the error that pydantic turns into a fault with exactly this sentence."""
    return PydanticCustomError("rule", "{rule}", {"rule": rule})


def is_address(text: str) -> bool:
    """Whether the text is an IP address or a host name (RFC 1123, underscores tolerated)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.rstrip(".").split(".")
        # A name whose last label is a number would be read as a (broken) IPv4 address.
        return len(text) <= 253 and all(map(_HOST_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    return True


def same_address(text: str) -> str:
    """Return the one spelling under which equal addresses are equal."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text.rstrip(".").lower()


def split_portal(text: str) -> tuple[str, int] | None:
    """Return address and port of `address:port` (IPv6 in brackets; port 3260 if none is given), or None."""
    return split_node(text, "3260")


def split_node(text: str, port: str) -> tuple[str, int] | None:
    """Return address and port of `address:port` (IPv6 in brackets; `port` if none is given), or None."""
    address = text
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        if rest:
            port = rest[1:] if rest.startswith(":") else ""
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    if not is_address(address) or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        return None
    return address, int(port)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise refuse("must be 1 to 63 of a-z, 0-9 and -, and begin with a letter or digit")
    return text


def _vm_name(text: str) -> str:
    if not _VM_NAME.fullmatch(text):
        raise refuse("must be 1 to 63 of A-Z, a-z, 0-9, dot, _ and -, and begin with a letter or digit")
    return text


def _address(text: str) -> str:
    if not is_address(text):
        raise refuse("must be an IP address or a host name")
    return text


def _bridge(text: str) -> str:
    if not _BRIDGE.fullmatch(text):
        raise refuse("must be the name of a bridge (at most 15 characters) or none")
    return text


def _env(text: str) -> str:
    if not _ENV.fullmatch(text):
        raise refuse("must be the name of an environment variable (letters, digits and _)")
    return text


def _portal(text: str) -> str:
    if split_portal(text) is None:
        raise refuse("must be address:port of an iSCSI portal")
    return text


def _sentinel(text: str) -> str:
    if split_node(text, SENTINEL_PORT) is None:
        raise refuse("must be address:port of a Sentinel")
    return text


def _redis_user(text: str) -> str:
    # A name goes into Redis' user file, where blanks part words.
    if not _REDIS_USER.fullmatch(text):
        raise refuse("must be 1 to 63 letters, digits, dots, _ and -")
    return text


def _iscsi_target(text: str) -> str:
    if not _ISCSI_TARGET.fullmatch(text):
        raise refuse("must be an iSCSI name such as iqn.2026-11.net.example:db1")
    return text


def _lockspace(text: str) -> str:
    if not _LOCKSPACE.fullmatch(text):
        raise refuse("must be 1 to 48 letters, digits, _ and -")
    return text


def _absolute(text: str) -> str:
    parts = text.split("/")
    if not text.startswith("/") or ".." in parts or len(text) > 4096 or text.endswith("/"):
        raise refuse("must be an absolute path to a file, without ..")
    return text


def _libvirt_uri(text: str) -> str:
    if not _LIBVIRT_URI.fullmatch(text):
        raise refuse("must be a libvirt URI such as qemu:///system, without credentials")
    return text


def _redis_url(text: str) -> str:
    try:
        url = urlsplit(text)
        asked = {word.lower() for word in parse_qs(url.query, keep_blank_values=True)}
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise refuse("must be a URL such as redis://10.0.0.2:6379/0") from error
    if "@" in url.netloc or asked & {"password", "username"} or "@" in text:
        raise refuse("must hold no credentials: use username and password_file or password_env")
    if url.scheme not in ("redis", "rediss") or not host or not is_address(host) or url.fragment:
        raise refuse("must be a URL such as redis://10.0.0.2:6379/0")
    if not _REDIS_DATABASE.fullmatch(url.path):
        raise refuse("must end in the number of a database such as /0")
    return text


Name = Annotated[str, AfterValidator(_name)]
VmName = Annotated[str, AfterValidator(_vm_name)]
Address = Annotated[str, AfterValidator(_address)]
Bridge = Annotated[str, AfterValidator(_bridge)]
EnvName = Annotated[str, AfterValidator(_env)]
Portal = Annotated[str, AfterValidator(_portal)]
IscsiTarget = Annotated[str, AfterValidator(_iscsi_target)]
Lockspace = Annotated[str, AfterValidator(_lockspace)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
LibvirtUri = Annotated[str, AfterValidator(_libvirt_uri)]
RedisUserName = Annotated[str, AfterValidator(_redis_user)]
Sentinel = Annotated[str, AfterValidator(_sentinel)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
