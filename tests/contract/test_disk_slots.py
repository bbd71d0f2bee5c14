"""Slots on the shared storage: what one host writes through the others read, and a storage that hangs holds nobody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, cast

import pytest

from fangnetz.adapters.disk_slots import AskedSlots, format_device
from fangnetz.adapters.disk_slots.block import to_block
from fangnetz.adapters.disk_slots.places import BLOCKS, Device, Folder
from fangnetz.core.errors import StorageUnreachable
from fangnetz.core.units import HostId, Incarnation, Seconds
from fangnetz.ports import DiskSlots, SlotMark
from fangnetz.sim.disk_slots import SimSlots
from fangnetz.sim.network import STORAGE, Network
from tests.contract.simulated import Driven, Driver
from tests.redis_server import wait_for

H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
BOUND = Seconds(5.0)
SHORT = Seconds(0.3)


def mark(host: HostId, sequence: int, boot: str = "0a1b") -> SlotMark:
    return SlotMark(host=host, incarnation=Incarnation(boot), sequence=sequence)


class SlotSubject(Protocol):
    """Shared storage, as several hosts see it."""

    def of(self, host: HostId) -> DiskSlots: ...

    def hang(self, host: HostId) -> None:
        """The storage does not answer this host any more."""
        ...

    def answer_again(self, host: HostId) -> None: ...

    def now(self) -> float: ...


CLUSTER = "demo"


class RealPlace:
    """A host's storage hangs when the process that touches it is stopped, as in the kernel for good."""

    def __init__(self, kind: Literal["folder", "device"], path: Path) -> None:
        self._kind, self._path = kind, path
        self._made: dict[HostId, AskedSlots] = {}

    def of(self, host: HostId) -> DiskSlots:
        return self._made.setdefault(host, AskedSlots(self._kind, self._path, CLUSTER))

    def hang(self, host: HostId) -> None:
        self._signal(host, signal.SIGSTOP)

    def answer_again(self, host: HostId) -> None:
        self._signal(host, signal.SIGCONT)

    def _signal(self, host: HostId, number: signal.Signals) -> None:
        child = self._made[host]._child
        assert child is not None
        os.kill(child.pid, number)

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        for slots in self._made.values():
            slots.close()


class SimDisk:
    def __init__(self) -> None:
        self._driver, self._network = Driver(), Network()
        self._marks: dict[HostId, SlotMark] = {}

    def of(self, host: HostId) -> DiskSlots:
        machine = self._driver.machine(host)
        process = self._driver.process(machine)
        return cast("DiskSlots", Driven(self._driver, process, SimSlots(process, machine, self._marks, self._network)))

    def hang(self, host: HostId) -> None:
        self._network.cut(host, (STORAGE,), "both")

    def answer_again(self, host: HostId) -> None:
        self._network.heal(host, (STORAGE,), "both")

    def now(self) -> float:
        return self._driver.kernel.now


def empty_device(folder: Path) -> Path:
    """A file is a device to whoever only reads and writes blocks of it."""
    path = folder / "lun"
    with path.open("wb") as device:
        device.truncate(BLOCKS * 4096)
    return path


@pytest.fixture(params=["folder", "device", "twin"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SlotSubject]:
    if request.param == "twin":
        yield SimDisk()
        return
    device = request.param == "device"
    if device:
        format_device(empty_device(tmp_path), CLUSTER)
    made = RealPlace("device", tmp_path / "lun") if device else RealPlace("folder", tmp_path)
    yield made
    made.close()


def test_what_one_writes_the_others_read(subject: SlotSubject) -> None:
    one, two = subject.of(H1), subject.of(H2)
    assert one.exchange(mark(H1, 1), [H2, H3], BOUND) == {}
    assert two.exchange(mark(H2, 7, "ff"), [H3, H1], BOUND) == {H1: mark(H1, 1)}
    assert one.exchange(mark(H1, 2), [H2, H3], BOUND) == {H2: mark(H2, 7, "ff")}
    assert two.exchange(mark(H2, 8, "ff"), [H1], BOUND) == {H1: mark(H1, 2)}


def test_a_later_boot_takes_over_its_hosts_slot(subject: SlotSubject) -> None:
    subject.of(H1).exchange(mark(H1, 900), [], BOUND)
    subject.of(H1).exchange(mark(H1, 3, "second"), [], BOUND)
    assert subject.of(H2).exchange(mark(H2, 1), [H1], BOUND) == {H1: mark(H1, 3, "second")}


def test_a_storage_that_hangs_is_waited_for_no_longer_than_the_bound_and_only_by_who_hangs(
    subject: SlotSubject,
) -> None:
    one, two = subject.of(H1), subject.of(H2)
    one.exchange(mark(H1, 1), [], BOUND)
    subject.hang(H1)
    for sequence in (2, 3, 4):
        before = subject.now()
        with pytest.raises(StorageUnreachable):
            one.exchange(mark(H1, sequence), [H2], SHORT)
        assert subject.now() - before >= SHORT * 0.9
    found = two.exchange(mark(H2, 1), [H1], BOUND)
    assert found[H1].sequence < 2
    subject.answer_again(H1)
    assert one.exchange(mark(H1, 5), [H2], BOUND) == {H2: mark(H2, 1)}
    assert two.exchange(mark(H2, 2), [H1], BOUND) == {H1: mark(H1, 5)}


def test_the_longest_names_there_can_be_fit(subject: SlotSubject) -> None:
    host = HostId("h" + "0" * 62)
    subject.of(host).exchange(mark(host, 2**62, "f" * 32), [], BOUND)
    assert subject.of(H2).exchange(mark(H2, 1), [host], BOUND) == {host: mark(host, 2**62, "f" * 32)}


# --- a folder alone -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RealPlace]:
    made = RealPlace("folder", tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4096, b"\xff" * 4096, b"fangnetz-slot-1 h1 0a1b 2 00000000\n", b"x" * 100_000],
    ids=["empty", "zeros", "ones", "a wrong checksum", "something else"],
)
def test_a_slot_that_is_torn_or_not_ours_is_none(folder: RealPlace, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "h1.slot").write_bytes(content)
    assert folder.of(H2).exchange(mark(H2, 1), [H1], BOUND) == {}
    folder.of(H1).exchange(mark(H1, 2), [], BOUND)
    assert folder.of(H2).exchange(mark(H2, 2), [H1], BOUND) == {H1: mark(H1, 2)}


def test_a_slot_that_was_copied_over_anothers_is_none(folder: RealPlace, tmp_path: Path) -> None:
    folder.of(H1).exchange(mark(H1, 1), [], BOUND)
    (tmp_path / "h3.slot").write_bytes((tmp_path / "h1.slot").read_bytes())
    assert folder.of(H2).exchange(mark(H2, 1), [H1, H3], BOUND) == {H1: mark(H1, 1)}


@pytest.mark.parametrize("what", ["a folder", "a pipe", "a link"])
def test_a_slot_of_anothers_that_cannot_be_read_is_none_and_keeps_nobody_from_writing(
    folder: RealPlace, tmp_path: Path, what: str
) -> None:
    """[one neighbour's bad slot, and all who read it were taken for cut off from their storage]"""
    match what:
        case "a folder":
            (tmp_path / "h1.slot").mkdir()
        case "a pipe":
            os.mkfifo(tmp_path / "h1.slot")
        case _:
            (tmp_path / "h1.slot").symlink_to(tmp_path / "h3.slot")
    folder.of(H3).exchange(mark(H3, 1), [], BOUND)
    assert folder.of(H2).exchange(mark(H2, 1), [H1, H3], BOUND) == {H3: mark(H3, 1)}
    assert folder.of(H3).exchange(mark(H3, 2), [H2], BOUND) == {H2: mark(H2, 1)}


def test_the_first_exchange_has_time_for_a_process_to_start(folder: RealPlace) -> None:
    assert folder.of(H1).exchange(mark(H1, 1), [H1], Seconds(0.001)) == {H1: mark(H1, 1)}


def test_a_slot_is_a_file_and_never_what_a_link_leads_to(folder: RealPlace, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("a disk")
    (tmp_path / "h1.slot").symlink_to(precious)
    with pytest.raises(StorageUnreachable, match=r"h1\.slot"):
        folder.of(H1).exchange(mark(H1, 1), [], BOUND)
    assert precious.read_text() == "a disk"


def test_a_folder_that_is_not_there_is_said_and_taken_once_it_is(tmp_path: Path) -> None:
    slots = AskedSlots("folder", tmp_path / "not mounted", CLUSTER)
    try:
        with pytest.raises(StorageUnreachable, match=r"not mounted.*No such file"):
            slots.exchange(mark(H1, 1), [], BOUND)
        (tmp_path / "not mounted").mkdir()
        assert slots.exchange(mark(H1, 2), [H1], BOUND) == {H1: mark(H1, 2)}
    finally:
        slots.close()


def test_the_process_that_touches_the_storage_is_started_again_when_it_was_ended(folder: RealPlace) -> None:
    slots = folder.of(H1)
    slots.exchange(mark(H1, 1), [], BOUND)
    child = slots._child
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: child.poll() is not None)
    assert slots.exchange(mark(H1, 2), [H1], BOUND) == {H1: mark(H1, 2)}


def test_no_process_is_left_once_its_host_is_closed(folder: RealPlace) -> None:
    slots = folder.of(H1)
    slots.exchange(mark(H1, 1), [], BOUND)
    child = slots._child
    cast("AskedSlots", slots).close()
    wait_for(lambda: child.poll() is not None)


# --- a device alone -----------------------------------------------------------------------------------------------


@pytest.fixture
def lun(tmp_path: Path) -> Path:
    path = empty_device(tmp_path)
    format_device(path, CLUSTER)
    return path


def test_a_device_that_was_not_prepared_is_never_written_to(tmp_path: Path) -> None:
    path = empty_device(tmp_path)
    path.write_bytes(b"the disk of a VM".ljust(BLOCKS * 4096, b"."))
    before = path.read_bytes()
    for place in (Device(path, CLUSTER), Device(path, "another")):
        with pytest.raises(StorageUnreachable, match="slots format"):
            place.write(mark(H1, 1))
    assert path.read_bytes() == before


def test_the_device_of_another_cluster_is_left_alone(lun: Path) -> None:
    before = lun.read_bytes()
    with pytest.raises(StorageUnreachable, match="not prepared for cluster other"):
        Device(lun, "other").write(mark(H1, 1))
    with pytest.raises(StorageUnreachable, match="slots of another cluster"):
        format_device(lun, "other")
    assert lun.read_bytes() == before


@pytest.mark.parametrize("at", [0, 5 * 4096 + 17, BLOCKS * 4096 - 1], ids=["first", "amid", "last"])
def test_a_device_that_holds_anything_is_not_prepared(tmp_path: Path, at: int) -> None:
    path = empty_device(tmp_path)
    with path.open("r+b") as device:
        device.seek(at)
        device.write(b"x")
    before = path.read_bytes()
    with pytest.raises(StorageUnreachable, match="not empty"):
        format_device(path, CLUSTER)
    assert path.read_bytes() == before


def test_a_device_that_is_too_small_or_not_there_is_said(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"\0" * 4096 * (BLOCKS - 1))
    with pytest.raises(StorageUnreachable, match="smaller than 8 MiB"):
        format_device(small, CLUSTER)
    with pytest.raises(StorageUnreachable, match="No such file"):
        format_device(tmp_path / "none", CLUSTER)


def test_to_prepare_it_twice_loses_no_slot(lun: Path) -> None:
    Device(lun, CLUSTER).write(mark(H1, 4))
    format_device(lun, CLUSTER)
    assert Device(lun, CLUSTER).read(H1) == mark(H1, 4)


def test_hosts_that_begin_to_look_at_one_place_find_one_each(lun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fangnetz.adapters.disk_slots.places._first_place", lambda _host: BLOCKS - 1)
    hosts = [HostId(f"h{n}") for n in range(5)]
    places = {host: Device(lun, CLUSTER) for host in hosts}
    for sequence in (1, 2):
        for host, place in places.items():
            place.write(mark(host, sequence))
    reader = Device(lun, CLUSTER)
    assert [reader.read(host) for host in hosts] == [mark(host, 2) for host in hosts]


def test_two_that_took_one_place_at_once_part_again(lun: Path) -> None:
    one, two = Device(lun, CLUSTER), Device(lun, CLUSTER)
    one.write(mark(H1, 1))
    two._at[H2] = one._at[H1]
    content = bytearray(lun.read_bytes())
    at = one._at[H1] * 4096
    content[at : at + 4096] = to_block(mark(H2, 1))
    lun.write_bytes(content)
    one.write(mark(H1, 2))
    two.write(mark(H2, 2))
    reader = Device(lun, CLUSTER)
    assert (reader.read(H1), reader.read(H2)) == (mark(H1, 2), mark(H2, 2))


def test_a_torn_slot_is_nobodys_to_take(lun: Path) -> None:
    one, two = Device(lun, CLUSTER), Device(lun, CLUSTER)
    one.write(mark(H1, 1))
    at = one._at[H1]
    with lun.open("r+b") as device:
        device.seek(at * 4096 + 20)
        device.write(b"#")
    two._at[H2] = at
    two.write(mark(H2, 1))
    assert two._at[H2] != at
    one.write(mark(H1, 2))
    assert two.read(H1) == mark(H1, 2)


def test_a_full_device_is_said(lun: Path) -> None:
    with lun.open("r+b") as device:
        for at in range(1, BLOCKS):
            device.seek(at * 4096)
            device.write(to_block(mark(HostId(f"x{at}"), 1)))
    with pytest.raises(StorageUnreachable, match="no free slot"):
        Device(lun, CLUSTER).write(mark(H1, 1))


def test_folder_and_device_are_slots_alike(tmp_path: Path, lun: Path) -> None:
    for place in (Folder(tmp_path), Device(lun, CLUSTER)):
        assert place.read(H1) is None
        place.write(mark(H1, 1))
        assert place.read(H1) == mark(H1, 1)
