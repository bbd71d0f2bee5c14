"""The thread that keeps a host's slot: what its report says while the storage answers, hangs, and answers again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from fangnetz.core.errors import StorageUnreachable
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Incarnation, Instant, Seconds
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

    def look(self, at: float) -> None:
        """Look, after the store has answered a report at `at`."""
        self.keeper.reported(Instant(at))
        self.keeper.look()

    def told(self) -> dict[HostId, tuple[str, float, float, float]]:
        """Return boot, written after, seen after, read after, of each."""
        return {s.host: (s.incarnation, s.written_after, s.seen_after, s.read_after) for s in self.keeper.told().seen}


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


def test_a_slot_counts_as_written_after_the_look_that_still_read_the_mark_before(host: Host) -> None:
    host.disk.write(H2, 1)
    host.look(100.0)
    assert host.told() == {H2: ("i1", 0.0, 100.0, 100.0)}  # it may be as old as the world
    host.disk.write(H2, 2)
    host.look(102.0)
    host.keeper.reported(Instant(103.0))
    assert host.told() == {H2: ("i1", 100.0, 102.0, 102.0)}, "and stays so, whatever the store says later"


def test_a_slot_that_is_not_written_any_more_is_told_as_read_and_the_same(host: Host) -> None:
    for at, sequence in enumerate((1, 2, 2, 2, 2)):
        host.disk.write(H2, sequence)
        host.look(100.0 + at)
    assert host.told() == {H2: ("i1", 100.0, 101.0, 104.0)}


def test_another_boot_that_writes_is_named(host: Host) -> None:
    for at, (sequence, boot) in enumerate(((5, "i1"), (1, "i2"))):
        host.disk.write(H2, sequence, boot)
        host.look(100.0 + at)
    assert host.told() == {H2: ("i2", 100.0, 101.0, 101.0)}


def test_what_goes_back_was_not_written(host: Host) -> None:
    """[slots restored from a copy, or two mirrors that answer in turn: an old number, or an old boot, is no write]"""
    marks = [(5, "i1"), (9, "i1"), (5, "i1"), (9, "i1"), (3, "i2"), (9, "i1"), (10, "i1"), (3, "i2"), (4, "i2")]
    written = []
    for at, (sequence, boot) in enumerate(marks):
        host.disk.write(H2, sequence, boot)
        host.look(100.0 + at)
        written.append(host.told()[H2][1])
    assert written == [0.0, 100.0, 100.0, 100.0, 103.0, 103.0, 103.0, 103.0, 107.0]


def test_after_a_long_pause_of_the_reader_nothing_it_finds_is_taken_for_new(host: Host) -> None:
    """[frozen for a minute, thawed: the slot changed meanwhile, and its writer may have died right after]"""
    host.disk.write(H2, 1)
    host.look(100.0)
    host.disk.write(H2, 2)
    host.look(160.0)
    assert host.told()[H2] == ("i1", 100.0, 160.0, 160.0)


def test_a_report_that_is_made_early_and_arrives_late_says_the_same(host: Host) -> None:
    """[the worker was stopped between making its report and sending it, and the host was fenced meanwhile]"""
    for at, sequence in ((100.0, 1), (101.0, 2)):
        host.disk.write(H2, sequence)
        host.look(at)
    early = host.keeper.told().seen
    host.driver.pass_time(60.0)
    assert host.keeper.told().seen == early


def test_before_the_store_has_answered_anything_nothing_is_after_anything(host: Host) -> None:
    host.disk.write(H2, 1)
    host.keeper.look()
    assert host.told() == {}


def test_a_store_whose_clock_is_behind_what_it_said_has_everything_looked_at_anew(host: Host) -> None:
    for at, sequence in ((100.0, 1), (101.0, 2)):
        host.disk.write(H2, sequence)
        host.look(at)
    host.keeper.reported(Instant(50.0))
    assert host.told() == {}
    host.look(51.0)
    assert host.told() == {H2: ("i1", 0.0, 51.0, 51.0)}


def test_a_report_may_be_made_while_slots_are_seen_for_the_first_time(host: Host) -> None:
    host.keeper.reported(Instant(100.0))
    host.disk.write(H2, 1)
    host.keeper.look()
    told = host.keeper.told().seen
    host.disk.write(H3, 1)
    host.keeper.look()
    assert [seen.host for seen in told] == [H2]
    assert [seen.host for seen in host.keeper.told().seen] == [H2, H3]


def test_a_storage_that_hangs_is_told_with_its_age_and_over_once_it_answers(host: Host) -> None:
    host.disk.write(H2, 1)
    host.keeper.reported(Instant(7.0))
    host.keeper.start()
    host.driver.pass_time(3.0)
    host.keeper.reported(Instant(10.0))
    host.disk.hangs = True
    host.driver.pass_time(20.0)
    waits = host.keeper.told().waits_s
    assert waits is not None
    assert 18.0 < waits <= 20.0
    assert host.told()[H2][3] == 7.0, "what was read is told as what it is: old"
    assert host.troubles[-1] == "it hangs"
    host.disk.hangs = False
    host.driver.pass_time(2.0)
    assert (host.keeper.told().waits_s, host.troubles[-1]) == (0.0, "")


def test_before_the_first_time_it_is_told_as_not_written_yet_and_then_as_waiting(host: Host) -> None:
    assert host.keeper.told().waits_s == -1.0
    host.disk.hangs = True
    host.keeper.start()
    host.driver.pass_time(9.0)
    assert host.keeper.told().waits_s == -1.0
    host.driver.pass_time(4.0)
    waits = host.keeper.told().waits_s
    assert waits is not None
    assert waits > 12.0


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
