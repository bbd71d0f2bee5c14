"""A plug that does what a test says: the port's twin for tests of the engine. It is no stand-in for the IPMI driver."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field

from fangnetz.core.errors import FenceRefused, FenceUnreachable
from fangnetz.core.model import Power
from fangnetz.core.units import DeviceName, Seconds
from fangnetz.ports import PowerAnswer


@dataclass
class ScriptedDevice:
    """`power` is what the plug really does; `mode` how the device behaves: ok, dark, refuses, lies.

    `lies`: it reports what it was last told without doing it. `slow_for`: seconds an order takes to have its effect.
    `refuses_off`: it answers questions and refuses orders. `orders`: all that was sent, in order.
    """

    name: DeviceName
    guid: str = "guid-of-h1"
    power: Power = Power.ON
    mode: str = "ok"
    slow_for: float = 0.0
    refuses_off: bool = False
    orders: list[Power] = field(default_factory=list)
    questions: int = 0
    _told: Power | None = None
    _effect_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def status(self, bound: Seconds) -> PowerAnswer:
        with self._lock:
            self.questions += 1
            self._answer(bound)
            if self._told is not None and self.mode != "lies" and time.monotonic() >= self._effect_at:
                self.power, self._told = self._told, None
            power = self._told if self.mode == "lies" and self._told is not None else self.power
            return PowerAnswer(power=power, guid=self.guid, raw=f"plug is {power.value}")

    def switch(self, wanted: Power, bound: Seconds, until: float = math.inf) -> str:
        with self._lock:
            if time.monotonic() >= until:
                raise FenceUnreachable(f"{self.name}: it is too late to send anything")
            self.orders.append(wanted)
            self._answer(bound)
            if self.refuses_off:
                raise FenceRefused(f"{self.name}: missing right")
            self._told, self._effect_at = wanted, time.monotonic() + self.slow_for
            return "accepted"

    def _answer(self, bound: Seconds) -> None:
        if self.mode == "dark":
            time.sleep(min(bound, 0.05))
            raise FenceUnreachable(f"{self.name} did not answer within {bound:g} s")
        if self.mode == "refuses":
            raise FenceRefused(f"{self.name}: wrong password")
