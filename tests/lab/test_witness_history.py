"""What traces on a disk mean: pure rules of the witness, on times and counters given by hand and on a sparse file."""

from __future__ import annotations

from pathlib import Path

from fangnetz.lab.history import DiskHistory
from fangnetz.lab.traces import SLOT_BYTES, Trace, read_traces


def trace(boot: str, counter: int) -> Trace:
    return Trace(slot=1, boot=boot, counter=counter, guest_time=0.0)


def seen(*looks: tuple[float, list[Trace]]) -> DiskHistory:
    history = DiskHistory(vm="vm1")
    for now, traces in looks:
        history.look(now, traces)
    return history


def test_a_restart_is_no_overlap_but_a_gap() -> None:
    history = seen((10.0, [trace("a", 1)]), (10.8, [trace("a", 4)]), (15.0, [trace("a", 4), trace("b", 1)]))
    report = history.report(15.0)
    assert report["overlaps"] == []
    assert report["gaps"] == [{"from": 10.8, "to": 15.0, "seconds": 4.2}]
    assert [(boot["boot"], boot["first_at"], boot["last_at"]) for boot in report["boots"]] == [
        ("a", 10.0, 10.8),
        ("b", 15, 15),
    ]


def test_a_write_of_the_earlier_copy_after_the_later_began_is_an_overlap() -> None:
    history = seen(
        (10.0, [trace("a", 1)]), (15.0, [trace("a", 1), trace("b", 1)]), (15.5, [trace("a", 2), trace("b", 3)])
    )
    assert history.overlaps() == [{"vm": "vm1", "boots": ["a", "b"], "from": 15.0, "to": 15.5}]


def test_a_frozen_copy_that_wakes_long_after_is_an_overlap_too() -> None:
    history = seen(
        (10.0, [trace("a", 1)]),
        (20.0, [trace("a", 1), trace("b", 1)]),
        (30.0, [trace("a", 1), trace("b", 40)]),
        (30.5, [trace("a", 2), trace("b", 40)]),
    )
    assert [overlap["boots"] for overlap in history.overlaps()] == [["a", "b"]]


def test_two_copies_that_share_one_slot_are_still_seen() -> None:
    history = seen((10.0, [trace("a", 9)]), (10.1, [trace("b", 1)]), (10.2, [trace("a", 10)]))
    assert len(history.overlaps()) == 1


def test_a_silence_that_still_lasts_is_an_open_gap() -> None:
    history = seen((10.0, [trace("a", 1)]))
    assert history.report(10.5)["gaps"] == []
    assert history.report(14.0)["gaps"] == [{"from": 10.0, "to": None, "seconds": 4.0}]


def test_traces_are_found_wherever_they_stand_on_a_sparse_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
        for slot, boot in ((7, "00000000000000aa"), (16383, "00000000000000bb")):
            file.seek(slot * SLOT_BYTES)
            file.write(f"fangnetz-guest 1 boot={boot} counter={slot} time=12.500\n".encode())
        file.seek(9000 * SLOT_BYTES)
        file.write(b"something else entirely")
    assert [(found.slot, found.boot, found.counter, found.guest_time) for found in read_traces(disk)] == [
        (7, "00000000000000aa", 7, 12.5),
        (16383, "00000000000000bb", 16383, 12.5),
    ]
    assert read_traces(tmp_path / "nowhere") == []
