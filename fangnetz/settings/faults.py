"""One broken rule of a cluster file, and how its place and value are shown. Never shows a secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""Where a value stands: names of keys and positions in lists, from the top of the file."""

_SHOWN_MAX = 60
_SECRET_WORDS = ("password", "passwd", "secret", "token", "credential")
_SECRET_SOURCES = ("password_file", "password_env")
_URL_CREDENTIALS = re.compile(r"//.*@")
_QUERY_CREDENTIALS = re.compile(r"([?&;](?:password|username)=)[^&;#]*", re.IGNORECASE)
MASK = "***"
NOTHING = "(nothing)"
WHOLE_FILE = "(file)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFault:
    """A rule that the file breaks. `line` counts from 1, `key` is a dotted path, `value` is masked."""

    file: str
    line: int
    key: str
    value: str
    rule: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key or WHOLE_FILE}: {self.value or NOTHING}: {self.rule}"


def faults_text(faults: Iterable[SettingsFault]) -> str:
    """Return one line per fault: `file:line: key: value: rule`."""
    return "\n".join(str(fault) for fault in faults)


def key_text(path: KeyPath) -> str:
    """Return a path as people write it: `hosts.host1.fencing[0][0].address`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{_one_line(part)}" if text else _one_line(part)
    return text


def value_text(path: KeyPath, value: object) -> str:
    """Return what stands there, short, on one line; what may be a secret is masked, groups are counted."""
    if _may_be_secret(path):
        return MASK
    match value:
        case None:
            return NOTHING
        case bool():
            return "true" if value else "false"
        case dict():
            return f"(a group of {len(value)} keys)"
        case list():
            return f"(a list of {len(value)})"
        case str():
            return _one_line(masked_url(value)) or "(empty)"
        case _:
            return _one_line(str(value))


def masked_url(text: str) -> str:
    """Return the text without credentials that stand in a URL."""
    return _QUERY_CREDENTIALS.sub(rf"\1{MASK}", _URL_CREDENTIALS.sub(f"//{MASK}@", text))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean x?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _may_be_secret(path: KeyPath) -> bool:
    last = next((part for part in reversed(path) if isinstance(part, str)), "").lower()
    if last in _SECRET_SOURCES:
        return False
    # A misspelt `pasword` holds a password all the same.
    return any(word in last for word in _SECRET_WORDS) or bool(
        difflib.get_close_matches(last, _SECRET_WORDS, n=1, cutoff=0.75)
    )


def _one_line(text: str) -> str:
    shown = "".join(char if char.isprintable() else "�" for char in text[: _SHOWN_MAX + 1])
    return shown if len(shown) <= _SHOWN_MAX else shown[:_SHOWN_MAX] + "…"
