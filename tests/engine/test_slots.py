"""The thread that keeps a host's slot: what its report says while the storage answers, hangs, and answers again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from fangnetz.core.errors import StorageUnreachable
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Incarnation, Seconds
from fangnetz.engine.slots import SlotKeeper
from fangnetz.ports import SlotMark
from tests.contract.simulated import Driver

H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
POLICY = Policy()


class Disk:
    """Marks of others that the test writes; hangs when told, and tells what was written."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.marks: dict[HostId, SlotMark] = {}
        self.hangs = False
        self.written: list[SlotMark] = []

    def write(self, host: HostId, sequence: int, boot: str = "i1") -> None:
        self.marks[host] = SlotMark(host=host, incarnation=Incarnation(boot), sequence=sequence)

    def exchange(self, mine: SlotMark, others: Sequence[HostId], bound: Seconds) -> Mapping[HostId, SlotMark]:
        if self.hangs:
            raise StorageUnreachable("it hangs")
        self.written.append(mine)
        return {host: self.marks[host] for host in others if host in self.marks}


class Host:
    def __init__(self) -> None:
        self.driver = Driver()
        self.disk = Disk(self.driver)
        self.troubles: list[str] = []
        self.process = self.driver.process(self.driver.machine("h1"))
        self.keeper = SlotKeeper(
            H1, Incarnation("i1"), self.disk, (H2, H3), POLICY, self.process, told=self.troubles.append
        )

    def told(self) -> dict[HostId, tuple[str, float, float]]:
        return {s.host: (s.incarnation, s.written_ago_s, s.read_ago_s) for s in self.keeper.told().seen}


@pytest.fixture
def host() -> Host:
    return Host()


def test_its_own_slot_is_written_again_and_again_each_time_with_a_higher_number(host: Host) -> None:
    host.keeper.start()
    host.driver.pass_time(10.0)
    numbers = [mark.sequence for mark in host.disk.written]
    assert len(numbers) >= 9
    assert numbers == sorted(set(numbers))
    assert {(mark.host, mark.incarnation) for mark in host.disk.written} == {(H1, Incarnation("i1"))}
    assert host.keeper.told().waits_s == 0.0


def test_a_slot_counts_as_written_from_when_its_reader_still_read_the_mark_before(host: Host) -> None:
    host.disk.write(H2, 1)
    host.keeper.look()
    assert host.told() == {H2: ("i1", -1.0, 0.0)}  # it may be as old as the world
    host.driver.pass_time(1.0)
    host.disk.write(H2, 2)
    host.driver.pass_time(1.0)
    host.keeper.look()
    host.driver.pass_time(0.5)
    assert host.told() == {H2: ("i1", pytest.approx(2.5), pytest.approx(0.5))}


def test_a_slot_that_is_not_written_any_more_grows_old(host: Host) -> None:
    for sequence in (1, 2, 2, 2, 2):
        host.disk.write(H2, sequence)
        host.keeper.look()
        host.driver.pass_time(1.0)
    assert host.told() == {H2: ("i1", pytest.approx(5.0), pytest.approx(1.0))}


def test_another_boot_that_writes_is_named(host: Host) -> None:
    for sequence, boot in ((5, "i1"), (1, "i2")):
        host.disk.write(H2, sequence, boot)
        host.keeper.look()
        host.driver.pass_time(1.0)
    assert host.told() == {H2: ("i2", pytest.approx(2.0), pytest.approx(1.0))}


def test_after_a_long_pause_of_the_reader_nothing_it_finds_is_taken_for_new(host: Host) -> None:
    """[frozen for a minute, thawed: the slot changed meanwhile, and its writer may have died right after]"""
    host.disk.write(H2, 1)
    host.keeper.look()
    host.disk.write(H2, 2)
    host.driver.pass_time(60.0)
    host.keeper.look()
    _, written_ago, read_ago = host.told()[H2]
    assert (written_ago, read_ago) == (pytest.approx(60.0), pytest.approx(0.0))


def test_a_storage_that_hangs_is_told_with_its_age_and_over_once_it_answers(host: Host) -> None:
    host.disk.write(H2, 1)
    host.keeper.start()
    host.driver.pass_time(3.0)
    host.disk.hangs = True
    host.driver.pass_time(20.0)
    waits = host.keeper.told().waits_s
    assert waits is not None
    assert 18.0 < waits <= 20.0
    assert host.told()[H2][2] > 18.0, "what was read is told as what it is: old"
    assert host.troubles[-1] == "it hangs"
    host.disk.hangs = False
    host.driver.pass_time(2.0)
    assert (host.keeper.told().waits_s, host.troubles[-1]) == (0.0, "")


def test_before_the_first_time_it_is_told_as_not_written_yet_and_then_as_waiting(host: Host) -> None:
    assert host.keeper.told().waits_s == -1.0
    host.disk.hangs = True
    host.keeper.start()
    host.driver.pass_time(4.0)
    assert host.keeper.told().waits_s == -1.0
    host.driver.pass_time(4.0)
    waits = host.keeper.told().waits_s
    assert waits is not None
    assert waits > 7.0


def test_a_worker_that_was_frozen_has_not_lost_its_storage(host: Host) -> None:
    host.keeper.start()
    host.driver.pass_time(3.5)
    host.process.freeze()
    host.driver.pass_time(60.0)
    assert host.keeper.told().waits_s == 0.0


def test_it_ends_when_it_is_told_to(host: Host) -> None:
    host.keeper.start()
    host.driver.pass_time(2.0)
    host.keeper.stop()
    host.driver.pass_time(2.0)
    written = len(host.disk.written)
    host.driver.pass_time(20.0)
    assert len(host.disk.written) == written
