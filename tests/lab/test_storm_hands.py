"""A storm's hands and eyes on a lab without Fangnetz: what is done happens and is undone, and what runs is seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from fangnetz.lab import Lab
from fangnetz.lab.broker import admin_client
from fangnetz.lab.processes import processes_of
from fangnetz.lab.stage import own_name
from fangnetz.lab.storm.copies import Copy, repeated_generations, unproven_starts
from fangnetz.lab.storm.faults import Fault, FaultKind
from fangnetz.lab.storm.hands import Hands
from fangnetz.lab.storm.lookout import Lookout
from fangnetz.lab.storm.truth import Truth

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")]
KEY = "test:remembered"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    name = own_name("hands")
    Lab.remove(name)
    with Lab.up(name=name, hosts=2, vms=1, bare=True) as lab:
        yield lab


def eventually(true: Callable[[], object], what: str, within_s: float = 30.0) -> None:
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, f"not in time: {what}"
        time.sleep(0.05)


def living(truth: Truth) -> list[Copy]:
    return [copy for copy in truth.copies() if copy.alive]


def remembers(lab: Lab) -> str | None:
    """Return what the store knows of our key, `away` if it does not answer."""
    try:
        with admin_client(lab.plan) as client:
            return client.get(KEY)  # type: ignore[no-any-return]
    except redis.RedisError:
        return "away"


def remember(lab: Lab, value: str) -> None:
    eventually(lambda: remembers(lab) != "away", "the store answers")
    with admin_client(lab.plan) as client:
        client.set(KEY, value)


def test_the_lookout_tells_of_a_real_second_copy_unless_it_was_begun_on_purpose(lab: Lab) -> None:
    def boots() -> int:
        return len(lab.witness()["vms"]["vm1"]["boots"])

    def also_on_host2() -> None:
        before = boots()
        lab.start_behind_back("host2", "vm1")
        eventually(lambda: boots() > before, "the second copy writes")

    def end(host: str) -> None:
        lab.in_host(host, "virsh", "-q", "-c", "qemu:///system", "destroy", "vm1")
        eventually(lambda: all(copy.host != host for copy in living(out.truth)), f"it is ended on {host}")

    with Lookout(lab, listens=False) as out:
        lab.start_behind_back("host1", "vm1")
        eventually(boots, "the first copy writes")
        with out.on_purpose("vm1"):
            also_on_host2()
        assert out.news() == ()
        end("host2")
        written = len(lab.witness()["overlaps"])
        also_on_host2()
        eventually(lambda: len(lab.witness()["overlaps"]) > written, "the first copy has written beside the third")
        news: list[str] = []

        def told(what: str) -> bool:
            news.extend(out.news())
            return any(what in sentence for sentence in news)

        eventually(lambda: told("wrote on its disk"), "the write of two is told")  # the start is told a moment earlier
        assert any("started on host2" in sentence and "its copy on host1" in sentence for sentence in news)
        assert out.news() == ()
        end("host2")
        end("host1")


def test_a_start_behind_everybody_s_back_is_seen_as_unproven(lab: Lab) -> None:
    with Truth(lab.plan) as truth:
        lab.start_behind_back("host1", "vm1")
        eventually(lambda: len(living(truth)) == 1, "one copy is seen")
        assert unproven_starts(truth.copies()) == ()
        lab.freeze("host1")
        lab.start_behind_back("host2", "vm1")
        eventually(lambda: len(living(truth)) == 2, "a frozen copy lives, and so does the other")
        eventually(lambda: unproven_starts(truth.copies()), "the first is seen to live after the second began")
        (said,) = unproven_starts(truth.copies())
        assert "started on host2" in said
        lab.thaw("host1")
        first = truth.boots()
        lab.power("host1", "off")
        eventually(lambda: [copy.host for copy in living(truth)] == ["host2"], "the copy on the dead host has ended")
        assert not truth.powered("host1")
        assert truth.powered("host2")
        lab.power("host1", "on")
        eventually(lambda: len(truth.boots()) == len(first) + 1, "the new boot is another one")
        assert repeated_generations(truth.copies()) == (), "nobody numbered them"
        lab.in_host("host2", "virsh", "-q", "-c", "qemu:///system", "destroy", "vm1")
        eventually(lambda: not living(truth), "none lives")
        assert truth.error == ""


def test_one_copy_after_the_other_is_no_unproven_start(lab: Lab) -> None:
    with Truth(lab.plan) as truth:
        lab.start_behind_back("host2", "vm1")
        eventually(lambda: living(truth), "it is seen")
        lab.in_host("host2", "virsh", "-q", "-c", "qemu:///system", "destroy", "vm1")
        lab.start_behind_back("host1", "vm1")
        eventually(lambda: [copy.host for copy in living(truth)] == ["host1"], "it runs on the other host")
        assert unproven_starts(truth.copies()) == ()
        lab.in_host("host1", "virsh", "-q", "-c", "qemu:///system", "destroy", "vm1")


@pytest.mark.parametrize(
    ("kind", "during", "after"),
    [
        (FaultKind.STORE_KILL, {"away", "kept"}, "kept"),
        (FaultKind.STORE_STOP, {"away"}, "kept"),
        (FaultKind.STORE_HANG, {"away"}, "kept"),
        (FaultKind.STORE_WIPE, {"away", None}, None),
    ],
)
def test_the_store_is_away_and_comes_back_as_it_should(
    lab: Lab, kind: FaultKind, during: set[str | None], after: str | None
) -> None:
    remember(lab, "kept")
    hands, fault = Hands(lab), Fault(kind=kind, target="redis")
    assert hands.do(fault) == ""
    assert remembers(lab) in during
    assert hands.undo(fault) == ""
    eventually(lambda: remembers(lab) != "away", "it answers again")
    assert remembers(lab) == after


def test_the_store_is_put_back_to_what_it_knew(lab: Lab) -> None:
    remember(lab, "old")
    hands, fault = Hands(lab), Fault(kind=FaultKind.STORE_ROLLBACK, target="redis")
    assert hands.do(fault) == ""
    remember(lab, "new")
    assert hands.undo(fault) == ""
    eventually(lambda: remembers(lab) != "away", "it answers again")
    assert remembers(lab) == "old"


def test_everything_left_over_is_healed(lab: Lab) -> None:
    hands = Hands(lab)
    for fault in (
        Fault(kind=FaultKind.CUT, target="c1", how="cluster in"),
        Fault(kind=FaultKind.CUT, target="redis", how="cluster both"),
        Fault(kind=FaultKind.BMC, target="host1", how="dark"),
        Fault(kind=FaultKind.FREEZE, target="host2/libvirtd"),
        Fault(kind=FaultKind.HOST_FREEZE, target="host2"),
        Fault(kind=FaultKind.STORE_STOP, target="redis"),
        Fault(kind=FaultKind.POWER_OFF, target="host1"),
    ):
        assert hands.do(fault) == "", fault.sentence
    assert remembers(lab) == "away"
    hands.heal()
    status = lab.status()
    assert {host["power"] for host in status["hosts"]} == {"on"}
    assert {host["bmc"]["mode"] for host in status["hosts"]} == {"ok"}
    assert not [host for host in status["hosts"] if host["frozen"] or host["cuts"]]
    assert not [controller for controller in status["controllers"] if controller["cuts"]]
    assert status["other_cuts"] == {}
    assert not [process for process in processes_of(lab.plan.name, lab.plan.tag) if process.state == "T"]
    eventually(lambda: remembers(lab) != "away", "the store answers again")


def test_a_target_that_is_gone_is_told_and_no_error(lab: Lab) -> None:
    hands = Hands(lab)
    assert "host1/worker" in hands.do(Fault(kind=FaultKind.KILL, target="host1/worker"))
    lab.power("host1", "off")
    assert "off" in hands.do(Fault(kind=FaultKind.HOST_FREEZE, target="host1"))
    lab.power("host1", "on")
