"""Fence devices: a BMC that answers, is dark, slow, lies or knows another password; a controller's handle on it."""

from __future__ import annotations

import math

from fangnetz.core.errors import FenceRefused, FenceUnreachable
from fangnetz.core.model import Power
from fangnetz.core.units import DeviceName, Seconds
from fangnetz.ports import PowerAnswer
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.machine import Machine
from fangnetz.sim.network import BMC, Network
from fangnetz.sim.process import Process

STATES = ("ok", "dark", "lying", "slow", "wrong-password")
ANSWER_S = 0.06
SLOW_S = 3.0
"""A slow device does what it was told after this long, and answers nobody in time."""


class Bmc:
    """One device of one host. A level of several devices has to be off as a whole."""

    def __init__(self, kernel: Kernel, machine: Machine, name: DeviceName, fence_s: float) -> None:
        self.kernel, self.machine, self.name, self.fence_s = kernel, machine, name, fence_s
        self.guid = kernel.name("")
        self.in_band = self.guid
        """What its host reads of a BMC of its own; empty where it reads nothing."""
        self.state = "ok"
        self.off = False
        self.level: list[Bmc] = [self]
        self.reaches = self
        """Who answers at its address: another host's, where the two were wired crosswise."""

    def swap(self, other: Bmc) -> None:
        """Wire it and another one crosswise, or straight again where they were."""
        self.reaches, other.reaches = other.reaches, self.reaches

    @property
    def reads(self) -> Power:
        if self.state == "lying":
            return Power.OFF
        return Power.OFF if self.off or not self.machine.powered else Power.ON

    def obey(self, wanted: Power) -> None:
        if self.state == "lying" or not self.machine.plugged:
            return
        if wanted is Power.OFF:
            self.off = True
            if all(device.off for device in self.level):
                self.machine.switch_off("fence")
        else:
            self.off = False
            self.machine.switch_on("fence")


class SimDevice:
    """`ports.FenceDevice` from one controller's machine. Every call ends within its bound."""

    def __init__(self, process: Process, here: Machine, bmc: Bmc, network: Network) -> None:
        self._process, self._here, self._wired, self._network = process, here, bmc, network

    @property
    def name(self) -> DeviceName:
        return self._wired.name

    @property
    def _bmc(self) -> Bmc:
        return self._wired.reaches

    def status(self, bound: Seconds) -> PowerAnswer:
        self._answer(bound)
        power = self._bmc.reads
        return PowerAnswer(power=power, guid=self._bmc.guid, raw=f"Chassis Power is {power}")

    def switch(self, wanted: Power, bound: Seconds, until: float = math.inf) -> str:
        bmc = self._bmc
        if self._process.monotonic() >= until:
            raise FenceUnreachable(f"{self.name}: it is too late to send anything")
        if bmc.state == "slow" and self._reached():
            bmc.kernel.after(SLOW_S + bmc.fence_s, bmc.obey, wanted)
        self._answer(bound)
        bmc.kernel.after(bmc.fence_s, bmc.obey, wanted)
        return f"Chassis Power Control: {'Down/Off' if wanted is Power.OFF else 'Up/On'}"

    def _reached(self) -> bool:
        """Whether the device hears us; it has a link of its own, also from its own host."""
        return self._bmc.machine.plugged and self._network.to_device(self._here.name, self._bmc.machine.name)

    def _answer(self, bound: Seconds) -> None:
        state = self._bmc.state
        if state in ("dark", "slow") or not self._reached():
            self._process.sleep(bound)
            raise FenceUnreachable(f"{self.name} did not answer within {bound:g} s")
        self._process.sleep(Seconds(ANSWER_S * (1 + self._bmc.kernel.chance.random())))
        if state == "wrong-password":
            raise FenceRefused(f"{self.name}: the password was not accepted")


__all__ = ["BMC", "STATES", "Bmc", "SimDevice"]
