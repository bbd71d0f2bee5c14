"""IPMI 2.0 over LAN as a fence device.

Never cycles or resets (a BMC reports success before power is cut), never reads an error as off, never waits without a
number, never shows its password. Why a helper process does the talking: see `call`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from fangnetz.adapters.ipmi.helper import IpmiHelper, shared_helper
from fangnetz.core.errors import FenceRefused, FenceUnreachable
from fangnetz.core.model import Power
from fangnetz.core.units import DeviceName, Seconds
from fangnetz.ports import PowerAnswer

_POWER = {"on": Power.ON, "off": Power.OFF}


class IpmiDevice:
    """`ports.FenceDevice` for one BMC. One session per call, logged out. Thread-safe.

    `password_reader` is called at every call, so that a changed secret file needs no restart.
    """

    def __init__(
        self,
        *,
        name: DeviceName,
        address: str,
        port: int,
        username: str,
        password_reader: Callable[[], str],
        helper: IpmiHelper | None = None,
    ) -> None:
        self._name = name
        self._address = address
        self._port = port
        self._username = username
        self._password_reader = password_reader
        self._helper = helper

    def __repr__(self) -> str:
        return f"IpmiDevice({self._name!r}, {self._address}:{self._port})"

    @property
    def name(self) -> DeviceName:
        return self._name

    def status(self, bound: Seconds) -> PowerAnswer:
        """Read the plug and the BMC's GUID (as sent over the wire, 32 hex digits; "" if it has none)."""
        answer = self._ask("status", bound)
        return PowerAnswer(
            power=_POWER.get(answer.get("power", ""), Power.UNKNOWN),
            guid=answer.get("guid", ""),
            raw=answer.get("raw", ""),
        )

    def switch(self, wanted: Power, bound: Seconds, until: float = math.inf) -> str:
        """Send off or on and return what the BMC said. After `bound` or `until` the command is not sent any more."""
        match wanted:
            case Power.OFF:
                return self._ask("off", bound, until)["raw"]
            case Power.ON:
                return self._ask("on", bound, until)["raw"]
            case Power.UNKNOWN:
                raise ValueError("a plug can be switched off or on")

    def _ask(self, do: Literal["status", "off", "on"], bound: Seconds, until: float = math.inf) -> dict[str, str]:
        now = time.monotonic()
        deadline = min(now + bound, until)
        if deadline <= now:
            raise FenceUnreachable(f"{self._name} at {self._address}: it is too late to send anything.")
        request = {
            "do": do,
            "address": self._address,
            "port": self._port,
            "username": self._username,
            "password": self._password(),
        }
        answer = (self._helper or shared_helper()).ask(request, deadline)
        match answer["said"]:
            case "power" | "done":
                return answer
            case "refused":
                raise FenceRefused(f"{self._name} at {self._address} refused: {answer['raw']}.")
            case _:
                raise FenceUnreachable(f"{self._name} at {self._address}: {answer['raw']}.")

    def _password(self) -> str:
        # `from None`: some errors carry the bytes they stumbled over.
        try:
            return self._password_reader()
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
        except Exception as error:  # noqa: BLE001 - any reader's error may hold the secret
            why = type(error).__name__
        raise FenceUnreachable(f"The password of {self._name} cannot be read ({why}).") from None
