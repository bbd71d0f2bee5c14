"""Spans as people write them: `90s`, `2h`, `1h30m`. Never guesses a unit."""

from __future__ import annotations

import re

from fangnetz.core.errors import WishRefused
from fangnetz.core.units import Seconds

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PARTS = re.compile(r"(\d{1,9})([dhms])")
SPAN_MAX_S = 366 * 86400.0


def span_of(text: str, key: str) -> Seconds:
    """Return the seconds that a text stands for. WishRefused naming `key`, the value and the rule."""
    parts = _PARTS.findall(text)
    units = [unit for _, unit in parts]
    whole = "".join(number + unit for number, unit in parts) == text
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not text or not whole or units != sorted(set(units), key="dhms".index):
        raise WishRefused(f"{key} {text!r}: must be a span as 90s, 30m, 2h, 1d or 1h30m")
    if not 1 <= seconds <= SPAN_MAX_S:
        raise WishRefused(f"{key} {text!r}: must lie between 1s and 366d")
    return Seconds(seconds)
