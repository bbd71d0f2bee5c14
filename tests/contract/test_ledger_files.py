"""Versioned files of a machine: they are there for the next process, and only a newer document replaces one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.ports import LedgerEntry, LedgerFiles
from fangnetz.sim.files import SimLedgerFiles
from tests.contract.simulated import Driven, Driver

Open = Callable[..., LedgerFiles]


@pytest.fixture(params=["disk", "twin"])
def open_files(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a folder of one machine's files as each of its processes does."""
    if request.param == "disk":
        return lambda folder="host": LedgerFolder(tmp_path / folder)
    driver = Driver()
    machine = driver.machine("host1")

    def open_twin(folder: str = "host") -> LedgerFiles:
        process = driver.process(machine)
        return cast("LedgerFiles", Driven(driver, process, SimLedgerFiles(machine, folder, process)))

    return open_twin


def entry(key: str = "vm/web", version: int = 1, body: str = '{"a": 1}') -> LedgerEntry:
    return LedgerEntry(key=key, version=version, body=body)


def test_there_is_nothing_at_first(open_files: Open) -> None:
    assert open_files().load() == ()


def test_what_was_written_is_there_for_the_next_process_tombstones_too(open_files: Open) -> None:
    documents = {entry("binding/h1/ipmi", 3), entry("vm/web", 2, "")}
    open_files().write(tuple(documents))
    assert set(open_files().load()) == documents


@pytest.mark.parametrize("fresh", [True, False])
def test_only_a_newer_document_replaces_one(open_files: Open, fresh: bool) -> None:
    files = open_files()
    files.write([entry(version=5, body="new")])
    other = open_files() if fresh else files
    other.write([entry(version=4, body="old"), entry(version=5, body="same")])
    assert open_files().load() == (entry(version=5, body="new"),)
    other.write([entry(version=6, body="")])
    assert open_files().load() == (entry(version=6, body=""),)


def test_an_older_document_never_replaces_what_another_process_wrote_since(open_files: Open) -> None:
    one, two = open_files(), open_files()
    one.load()
    two.write([entry(version=9, body="newer")])
    one.write([entry(version=5, body="older")])
    assert open_files().load() == (entry(version=9, body="newer"),)


def test_a_process_sees_what_another_one_wrote(open_files: Open) -> None:
    one, two = open_files(), open_files()
    assert one.load() == ()
    two.write([entry()])
    assert one.load() == (entry(),)


def test_of_one_document_written_twice_at_once_the_newest_stays(open_files: Open) -> None:
    open_files().write([entry(version=7, body="newest"), entry(version=3, body="older")])
    assert open_files().load() == (entry(version=7, body="newest"),)


def test_a_document_without_a_version_is_none(open_files: Open) -> None:
    open_files().write([entry(version=0)])
    assert open_files().load() == ()


def test_folders_are_apart(open_files: Open) -> None:
    open_files("controller").write([entry(version=4)])
    open_files("host").write([entry(version=2)])
    assert open_files("controller").load() == (entry(version=4),)
    assert open_files("host").load() == (entry(version=2),)


@pytest.mark.parametrize("key", ["vm/a.b", "vm/a/b", "vm/a%2Fb", "vm/../x", "vm/Web", "vm/web"])
def test_each_key_is_a_document_of_its_own(open_files: Open, key: str) -> None:
    documents = {entry(key, 2), entry("vm/a", 1), entry("vm/a.json", 3)}
    open_files().write(tuple(documents))
    assert set(open_files().load()) == documents


def test_nothing_to_write_changes_nothing(open_files: Open) -> None:
    open_files().write([])
    assert open_files().load() == ()
