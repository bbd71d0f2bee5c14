"""The versioned files on a disk: whole or old, and a damaged one is named, never read as absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.core.errors import StoredContentError
from fangnetz.ports import LedgerEntry


def entry(key: str = "vm/web", version: int = 1, body: str = '{"a": 1}') -> LedgerEntry:
    return LedgerEntry(key=key, version=version, body=body)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_a_folder_that_is_not_there_holds_nothing_and_reading_makes_none(folder: Path) -> None:
    assert LedgerFolder(folder).load() == ()
    assert not folder.exists()


def test_what_was_written_is_there_for_the_next_process(folder: Path) -> None:
    documents = (entry("binding/h1/ipmi", 3), entry("vm/web", 2, ""))
    LedgerFolder(folder).write(documents)
    assert set(LedgerFolder(folder).load()) == set(documents)
    assert folder.stat().st_mode & 0o077 == 0, "fence memory is nobody else's"


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"\xff\xfe", b"[]", b'{"key": "vm/web", "version": "x", "body": ""}', b'{"key": "vm/db"}']
)
def test_a_damaged_file_is_named(folder: Path, garbage: bytes) -> None:
    files = LedgerFolder(folder)
    files.write([entry()])
    (path,) = folder.glob("*.json")
    path.write_bytes(garbage)
    for read in (LedgerFolder(folder).load, files.load, lambda: LedgerFolder(folder).write([entry(version=9)])):
        with pytest.raises(StoredContentError, match="web"):
            read()
    assert path.read_bytes() == garbage, "nothing is written over it"


def test_a_document_in_another_ones_file_is_refused(folder: Path) -> None:
    LedgerFolder(folder).write([entry("vm/web")])
    (path,) = folder.glob("*.json")
    path.rename(path.with_name("vm%2Fdb.json"))
    with pytest.raises(StoredContentError, match="vm/web"):
        LedgerFolder(folder).load()


def test_a_document_that_cannot_be_written_is_an_error_and_the_old_one_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LedgerFolder(folder)
    files.write([entry(version=1, body="old")])

    def disk_is_full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", disk_is_full)
        with pytest.raises(OSError, match="No space"):
            files.write([entry(version=2, body="new")])
    assert LedgerFolder(folder).load() == (entry(version=1, body="old"),)
    assert [p.name for p in folder.iterdir()] == ["vm%2Fweb.json"], "no drafts are left"
    files.write([entry(version=2, body="new")])
    assert LedgerFolder(folder).load() == (entry(version=2, body="new"),)


KILLED = """
import sys
from pathlib import Path
from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.ports import LedgerEntry
files = LedgerFolder(Path(sys.argv[1]))
print("begun", flush=True)
for version in range(1, 10**9):
    files.write([LedgerEntry(key=f"vm/{n}", version=version, body="x" * 20000) for n in range(3)])
"""


def test_a_writer_killed_at_any_point_leaves_whole_documents(folder: Path) -> None:
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, folder], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        while len(list(folder.glob("*.json"))) < 3:
            pass
        writer.kill()
        writer.wait()
        writer.stdout.close()
        found = LedgerFolder(folder).load()
        assert {e.key for e in found} == {"vm/0", "vm/1", "vm/2"}
        assert {e.body for e in found} == {"x" * 20000}


def test_many_threads_write_at_once_and_the_newest_stays(folder: Path) -> None:
    files = LedgerFolder(folder)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: files.write([entry(version=n, body=str(n))]), range(1, 80)))
    assert LedgerFolder(folder).load() == (entry(version=79, body="79"),)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), body=st.text(max_size=50))
def test_any_name_is_one_file_in_the_folder(tmp_path: Path, name: str, body: str) -> None:
    made = tmp_path / str(len(list(tmp_path.iterdir())))
    folder = made / "ledger"
    try:
        json.dumps(body).encode()
        body.encode()
    except UnicodeEncodeError:
        return
    LedgerFolder(folder).write([entry(f"vm/{name}", 1, body)])
    assert LedgerFolder(folder).load() == (entry(f"vm/{name}", 1, body),)
    assert len(list(folder.iterdir())) == 1
    assert [p.name for p in made.iterdir()] == ["ledger"]
