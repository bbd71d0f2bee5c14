"""A fence device: a question changes nothing, an order is only sent, and no answer is an error of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import pytest

from fangnetz.adapters.ipmi import IpmiDevice, IpmiHelper
from fangnetz.core.errors import FenceRefused, FenceUnreachable
from fangnetz.core.model import Power
from fangnetz.core.units import DeviceName, Seconds
from fangnetz.ports import FenceDevice
from fangnetz.sim.bmc import Bmc as SimBmc
from fangnetz.sim.bmc import SimDevice
from fangnetz.sim.network import Network
from tests.adapters.conftest import SECRET, Bmc, device_at, helper, make_bmc
from tests.contract.fence_devices import ScriptedDevice
from tests.contract.simulated import Driven, Driver
from tests.redis_server import wait_for

__all__ = ["helper", "make_bmc"]
BOUND = Seconds(3.0)


class Plug(Protocol):
    """A device and what its plug really does."""

    device: FenceDevice

    @property
    def on(self) -> bool: ...

    def go_dark(self) -> None: ...

    def deny(self) -> FenceDevice:
        """Return the device as somebody with the wrong password has it."""
        ...


class ScriptedPlug:
    def __init__(self) -> None:
        self.device = ScriptedDevice(name=DeviceName("ipmi"), guid="c0ffee")

    @property
    def on(self) -> bool:
        return self.device.status(BOUND).power is Power.ON

    def go_dark(self) -> None:
        self.device.mode = "dark"

    def deny(self) -> FenceDevice:
        self.device.mode = "refuses"
        return self.device


class BmcPlug:
    def __init__(self, bmc: Bmc, helper: IpmiHelper) -> None:
        self._bmc, self._helper = bmc, helper
        self.device: IpmiDevice = device_at(bmc.port, helper)

    @property
    def on(self) -> bool:
        return self._bmc.power == "1"

    def go_dark(self) -> None:
        self._bmc.go_dark()

    def deny(self) -> FenceDevice:
        return device_at(self._bmc.port, self._helper, password="wrong-" + SECRET[:6])


class SimPlug:
    """Its clock is no slower than this process's: a caller says until when by the latter."""

    def __init__(self) -> None:
        self._driver = Driver()
        machine, here = self._driver.machine("host1"), self._driver.machine("c1")
        self._bmc = SimBmc(self._driver.kernel, machine, DeviceName("ipmi"), 0.1)
        process = self._driver.process(here)
        twin = SimDevice(process, here, self._bmc, Network())
        self.device = cast("FenceDevice", Driven(self._driver, process, twin, self._keep_up))

    def _keep_up(self) -> None:
        self._driver.keep_up_with(time.monotonic())

    @property
    def on(self) -> bool:
        self._keep_up()
        return self._bmc.reads is Power.ON

    def go_dark(self) -> None:
        self._bmc.state = "dark"

    def deny(self) -> FenceDevice:
        self._bmc.state = "wrong-password"
        return self.device


@pytest.fixture(params=["ipmi", "scripted", "sim"])
def plug(request: pytest.FixtureRequest) -> Iterator[Plug]:
    if request.param == "scripted":
        yield ScriptedPlug()
        return
    if request.param == "sim":
        yield SimPlug()
        return
    make: Callable[[str], Bmc] = request.getfixturevalue("make_bmc")
    yield BmcPlug(make("bmc"), request.getfixturevalue("helper"))


def reads(plug: Plug, power: Power) -> bool:
    return wait_for(lambda: plug.device.status(BOUND).power is power, 10)


def test_a_question_tells_power_and_identity_and_changes_nothing(plug: Plug) -> None:
    answers = [plug.device.status(BOUND) for _ in range(3)]
    assert {a.power for a in answers} == {Power.ON}
    assert len({a.guid for a in answers}) == 1
    assert answers[0].guid == answers[0].guid.lower().replace("-", "") != ""
    assert answers[0].raw
    assert plug.on


def test_an_order_is_answered_with_the_devices_words_and_seen_by_reading(plug: Plug) -> None:
    for wanted in (Power.OFF, Power.ON):
        assert plug.device.switch(wanted, BOUND)
        assert reads(plug, wanted)
        assert plug.on is (wanted is Power.ON)


def test_an_order_that_holds_already_is_harmless(plug: Plug) -> None:
    plug.device.switch(Power.OFF, BOUND)
    assert reads(plug, Power.OFF)
    plug.device.switch(Power.OFF, BOUND)
    assert reads(plug, Power.OFF)


@pytest.mark.parametrize("late", [0.0, 5.0])
def test_nothing_is_sent_after_the_instant_until_which_it_was_permitted(plug: Plug, late: float) -> None:
    """A caller that was frozen between its last look and this call makes it all the same."""
    with pytest.raises(FenceUnreachable):
        plug.device.switch(Power.OFF, BOUND, time.monotonic() - late)
    assert plug.on
    plug.device.switch(Power.OFF, BOUND, time.monotonic() + BOUND)
    assert reads(plug, Power.OFF)


def test_no_answer_is_an_error_of_ours_within_the_bound(plug: Plug) -> None:
    plug.go_dark()
    for call in (lambda: plug.device.status(Seconds(0.6)), lambda: plug.device.switch(Power.OFF, Seconds(0.6))):
        began = time.monotonic()
        with pytest.raises(FenceUnreachable):
            call()
        assert time.monotonic() - began < 8


def test_a_wrong_password_is_a_refusal_and_neither_on_nor_off(plug: Plug) -> None:
    with pytest.raises((FenceRefused, FenceUnreachable)) as said:
        plug.deny().status(BOUND)
    assert SECRET not in str(said.value)
