"""The IPMI adapter against OpenIPMI's simulator: honest, dark, lying, slow, and with the wrong password."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fangnetz.adapters.ipmi import IpmiDevice, IpmiHelper, shared_helper
from fangnetz.core.errors import FenceRefused, FenceUnreachable
from fangnetz.core.model import Power
from fangnetz.core.units import DeviceName, Seconds
from tests.adapters.conftest import SECRET, Bmc, device_at, free_udp_port, wait_for

MakeBmc = Callable[[str], Bmc]
BOUND = Seconds(15)


def test_status_says_power_and_guid(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    bmc = make_bmc("a")
    answer = device_at(bmc.port, helper).status(BOUND)
    assert answer.power is Power.ON
    assert answer.guid == bmc.guid
    assert answer.raw.startswith("chassis status 01")
    assert bmc.orders == []


def test_off_and_on_are_sent_once_and_read_back(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    bmc = make_bmc("a")
    device = device_at(bmc.port, helper)
    assert "off" in device.switch(Power.OFF, BOUND)
    assert device.status(BOUND).power is Power.OFF
    assert bmc.power == "0"
    device.switch(Power.ON, BOUND)
    assert device.status(BOUND).power is Power.ON
    assert bmc.orders == ["set power 0", "set power 1"]


def test_unknown_is_nothing_one_can_switch_to(helper: IpmiHelper) -> None:
    with pytest.raises(ValueError, match="off or on"):
        device_at(1, helper).switch(Power.UNKNOWN, BOUND)


def test_a_lying_bmc_is_believed_by_nobody_but_reported_literally(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    bmc = make_bmc("a")
    bmc.lie()
    device = device_at(bmc.port, helper)
    device.switch(Power.OFF, BOUND)
    assert device.status(BOUND).power is Power.OFF
    assert bmc.power == "1"


@pytest.mark.parametrize("wrong", ["wrong", "", SECRET + "x", "ä" * 5])
def test_a_wrong_password_is_a_refusal_at_once(make_bmc: MakeBmc, helper: IpmiHelper, wrong: str) -> None:
    bmc = make_bmc("a")
    device = device_at(bmc.port, helper, wrong)
    began = time.monotonic()
    with pytest.raises(FenceRefused) as refused:
        device.switch(Power.OFF, BOUND)
    assert time.monotonic() - began < BOUND / 2
    assert bmc.power == "1"
    assert not wrong or wrong not in str(refused.value)


def test_an_unknown_user_is_refused(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    device = IpmiDevice(
        name=DeviceName("x"),
        address="127.0.0.1",
        port=make_bmc("a").port,
        username="nobody",
        password_reader=lambda: SECRET,
        helper=helper,
    )
    with pytest.raises(FenceRefused):
        device.status(BOUND)


def test_nothing_listening_and_a_frozen_bmc_are_unreachable_within_the_bound(
    make_bmc: MakeBmc, helper: IpmiHelper
) -> None:
    bmc = make_bmc("a")
    helper.warm()
    bmc.go_dark()
    for port in (bmc.port, free_udp_port()):
        began = time.monotonic()
        with pytest.raises(FenceUnreachable):
            device_at(port, helper).status(Seconds(1.0))
        assert time.monotonic() - began < 3
    bmc.come_back()
    assert device_at(bmc.port, helper).status(BOUND).power is Power.ON


def test_a_bmc_that_cannot_read_its_power_says_unknown(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    bmc = make_bmc("a")
    (bmc.folder / "reported").write_text("perhaps\n")
    (bmc.folder / "control").write_text("#!/bin/sh\nexit 1\n")
    answer = device_at(bmc.port, helper).status(BOUND)
    assert answer.power is Power.UNKNOWN
    assert "0x" in answer.raw


def test_a_slow_bmc_is_waited_for_within_the_bound_and_not_beyond(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    bmc = make_bmc("a")
    bmc.slow(0.7)
    device = device_at(bmc.port, helper)
    assert device.status(BOUND).power is Power.ON
    with pytest.raises(FenceUnreachable):
        device.status(Seconds(0.4))


def test_a_dark_bmc_does_not_delay_another_ones_answer(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    dark, bright = make_bmc("dark"), make_bmc("bright")
    device = device_at(bright.port, helper)
    device.status(BOUND)

    def typical() -> float:
        spans = []
        for _ in range(9):
            began = time.monotonic()
            assert device.status(BOUND).power is Power.ON
            spans.append(time.monotonic() - began)
        return statistics.median(spans)

    alone = typical()
    dark.go_dark()
    failed: list[float] = []

    def ask_dark() -> None:
        began = time.monotonic()
        with pytest.raises(FenceUnreachable):
            device_at(dark.port, helper).status(Seconds(4))
        failed.append(time.monotonic() - began)

    asking = [threading.Thread(target=ask_dark) for _ in range(3)]
    for thread in asking:
        thread.start()
    beside = typical()
    assert all(thread.is_alive() for thread in asking)
    for thread in asking:
        thread.join()
    assert len(failed) == 3
    assert beside < alone * 6 + 0.1


def test_an_answer_is_not_overheard(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    # pyghmi asks again after 0.5 s at the earliest: a question that takes so long has lost an answer.
    device = device_at(make_bmc("a").port, helper)
    device.status(BOUND)
    late = 0
    for _ in range(80):
        began = time.monotonic()
        device.status(BOUND)
        late += time.monotonic() - began > 0.45
    assert late <= 1


def test_an_order_is_not_sent_after_its_bound_even_if_the_helper_was_frozen(make_bmc: MakeBmc) -> None:
    bmc, helper = make_bmc("a"), IpmiHelper()
    device = device_at(bmc.port, helper)
    device.status(BOUND)
    (pid,) = helper_pids(helper)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(FenceUnreachable):
        device.switch(Power.OFF, Seconds(0.5))
    os.kill(pid, signal.SIGCONT)
    time.sleep(1.0)
    assert bmc.orders == []
    assert device.status(BOUND).power is Power.ON
    helper.close()


def test_an_order_held_up_by_a_dark_bmc_is_not_repeated_when_it_wakes(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    bmc = make_bmc("a")
    device = device_at(bmc.port, helper)
    device.status(BOUND)
    bmc.go_dark()
    with pytest.raises(FenceUnreachable):
        device.switch(Power.OFF, Seconds(1))
    bmc.come_back()
    time.sleep(2)
    assert bmc.orders == []
    assert bmc.power == "1"


def test_a_killed_helper_is_replaced_and_a_stuck_one_too(make_bmc: MakeBmc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fangnetz.adapters.ipmi.helper.START_BOUND", 1.5)
    bmc, helper = make_bmc("a"), IpmiHelper()
    device = device_at(bmc.port, helper)
    device.status(BOUND)
    (pid,) = helper_pids(helper)
    os.kill(pid, signal.SIGKILL)
    assert device.status(BOUND).power is Power.ON
    (pid,) = helper_pids(helper)
    time.sleep(1.6)
    os.kill(pid, signal.SIGSTOP)
    assert device.status(BOUND).power is Power.ON
    assert helper_pids(helper) != [pid]
    helper.close()


def test_helpers_and_children_are_gone_when_the_worker_is(make_bmc: MakeBmc) -> None:
    bmc, helper = make_bmc("a"), IpmiHelper()
    device_at(bmc.port, helper).status(BOUND)
    (pid,) = helper_pids(helper)
    assert wait_for(lambda: not Path(f"/proc/{pid}/task/{pid}/children").read_text())
    helper._control.close()  # type: ignore[union-attr]  # what the kernel does when the worker is killed
    assert wait_for(lambda: helper._process is not None and helper._process.poll() is not None)
    helper.close()


def test_no_secret_is_to_be_seen_anywhere(make_bmc: MakeBmc, helper: IpmiHelper) -> None:
    bmc = make_bmc("a")
    bmc.slow(0.5)
    device = device_at(bmc.port, helper)
    asking = threading.Thread(target=device.status, args=(BOUND,))
    asking.start()
    (pid,) = helper_pids(helper)
    children = Path(f"/proc/{pid}/task/{pid}/children")
    assert wait_for(lambda: bool(children.read_text()))
    for seen in (pid, *map(int, children.read_text().split())):
        for file in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{seen}/{file}").read_bytes()
    asking.join()
    assert SECRET not in repr(device) + str(vars(device))


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "/etc/x"), ValueError("the s3cret-of-th")])
def test_an_unreadable_password_is_no_answer_and_not_told(helper: IpmiHelper, error: Exception) -> None:
    def broken() -> str:
        raise error

    device = IpmiDevice(
        name=DeviceName("x"), address="127.0.0.1", port=1, username="a", password_reader=broken, helper=helper
    )
    with pytest.raises(FenceUnreachable) as failure:
        device.status(BOUND)
    assert "s3cret" not in str(failure.value)
    assert failure.value.__cause__ is None


def test_each_process_has_one_helper() -> None:
    assert shared_helper() is shared_helper()


def helper_pids(helper: IpmiHelper) -> list[int]:
    assert helper._process is not None
    return [helper._process.pid]
