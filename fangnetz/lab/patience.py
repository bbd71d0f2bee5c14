"""Waiting for a condition of a lab, with a bound; what is still missing becomes the error. Never changes anything."""

from __future__ import annotations

import time
from collections.abc import Callable

from fangnetz.core.errors import StoreUnreachable
from fangnetz.lab.errors import LabError


def wait_until(missing: Callable[[], str], within_s: float, every_s: float, what: str = "") -> None:
    """Ask `missing` until it answers with nothing. LabError with its last answer after `within_s` seconds."""
    until = time.monotonic() + within_s
    while True:
        try:
            lacks = missing()
        except StoreUnreachable as error:
            lacks = str(error)
        if not lacks:
            return
        if time.monotonic() > until:
            raise LabError(f"after {within_s:g} s: {f'{what} ' if what else ''}{lacks}")
        time.sleep(every_s)
