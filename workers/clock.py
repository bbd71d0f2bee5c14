"""This process's own clock."""

from __future__ import annotations

import time

from fangnetz.core.units import Seconds


class SystemClock:
    """`ports.Clock`."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, span: Seconds) -> None:
        time.sleep(span)
