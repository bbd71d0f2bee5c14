"""Documents that outlive the store: on disk before they are in it, and the newest copy wins in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.model import HostDoc, VmDoc, VmWish
from fangnetz.core.units import HostId, VmId
from fangnetz.engine.ledger import Ledger, key_of
from fangnetz.ports import LedgerEntry
from tests.core.world import binding, off_proof, vm_doc
from tests.engine.bench import Bench

WEB = VmId("web")


def ledger_of(bench: Bench, folder: Path) -> Ledger:
    return Ledger(bench.subject.another(), LedgerFolder(folder), SystemProcess())


def in_store(bench: Bench) -> dict[str, str]:
    found = bench.store.ledger(-1)
    assert found is not None
    return {entry.key: entry.body for entry in found[1]}


def in_files(folder: Path) -> dict[str, str]:
    return {entry.key: entry.body for entry in LedgerFolder(folder).load()}


def test_every_kind_of_document_is_in_files_and_store_when_writing_returns(bench: Bench, tmp_path: Path) -> None:
    documents = (vm_doc("web"), HostDoc(id=HostId("h1"), maintenance=True), binding("h1"), off_proof("h1", 1.0))
    ledger_of(bench, tmp_path / "c1").write(documents)
    assert set(in_store(bench)) == {key_of(d) for d in documents} == set(in_files(tmp_path / "c1"))
    assert in_store(bench) == in_files(tmp_path / "c1")
    assert bench.store.definition(WEB) == vm_doc("web")


def test_a_writer_that_dies_in_between_has_written_its_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_of(bench, tmp_path / "c1")

    def die(entries: Sequence[LedgerEntry]) -> None:
        if entries:
            raise StoreUnreachable("gone")

    with monkeypatch.context() as killed:
        killed.setattr(ledger._store, "put_ledger", die)
        with pytest.raises(StoreUnreachable):
            ledger.write([vm_doc("web")])
    assert set(in_files(tmp_path / "c1")) == {"vm/web"}
    assert in_store(bench) == {}
    ledger_of(bench, tmp_path / "c1").sync()
    assert set(in_store(bench)) == {"vm/web"}


def test_what_cannot_be_written_to_files_does_not_reach_the_store(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_of(bench, tmp_path / "c1")

    def full(entries: Sequence[LedgerEntry]) -> None:
        if entries:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger._files, "write", full)
    with pytest.raises(OSError, match="No space"):
        ledger.write([vm_doc("web")])
    assert in_store(bench) == {}


def test_a_wiped_store_is_filled_from_the_files_of_whoever_comes_first(bench: Bench, tmp_path: Path) -> None:
    one, two = ledger_of(bench, tmp_path / "c1"), ledger_of(bench, tmp_path / "c2")
    one.write([vm_doc("web"), binding("h1")])
    two.sync()
    assert in_files(tmp_path / "c2") == in_files(tmp_path / "c1")
    before = in_store(bench)
    bench.raw.flushall()
    two.sync()
    assert in_store(bench) == before
    one.sync()
    assert in_files(tmp_path / "c1") == before


def test_the_newest_copy_wins_in_both_directions(bench: Bench, tmp_path: Path) -> None:
    one = ledger_of(bench, tmp_path / "c1")
    one.write([vm_doc("web", memory=64), vm_doc("db", memory=64)])
    rolled_back = {
        key: bench.raw.hgetall(key)
        for key in bench.raw.scan_iter("*ledger*")
        if "version" not in key or "versions" in key
    }
    one.write([vm_doc("web", memory=128)])
    two = ledger_of(bench, tmp_path / "c2")
    two.sync()
    two.write([vm_doc("db", memory=256)])
    # The store rolls back to before both changes; c1's files hold the newer web, c2's the newer db.
    for key, fields in rolled_back.items():
        bench.raw.delete(key)
        bench.raw.hset(key, mapping=fields)
    bench.raw.delete("fn:{test}:ledger:version")
    for ledger in (one, two, one, two):
        ledger.sync()
    wanted = {WEB: 128, VmId("db"): 256}
    found = bench.store.view({}, None).vms
    assert {vm: doc.spec.memory_mib for vm, doc in found.items()} == wanted
    assert in_files(tmp_path / "c1") == in_files(tmp_path / "c2") == in_store(bench)


def test_an_old_file_never_brings_back_what_was_forgotten(bench: Bench, tmp_path: Path) -> None:
    one, two = ledger_of(bench, tmp_path / "c1"), ledger_of(bench, tmp_path / "c2")
    one.write([vm_doc("web")])
    two.sync()
    one.forget(WEB)
    assert bench.store.definition(WEB) is None
    ledger_of(bench, tmp_path / "c2").sync()
    assert bench.store.definition(WEB) is None
    assert in_files(tmp_path / "c2") == {"vm/web": ""}
    bench.raw.flushall()
    two.sync()
    assert bench.store.view({}, None).vms == {}
    two.write([vm_doc("web")])
    assert bench.store.definition(WEB) == vm_doc("web")


def test_writes_of_two_machines_never_lose_the_later_one(bench: Bench, tmp_path: Path) -> None:
    one, two = ledger_of(bench, tmp_path / "c1"), ledger_of(bench, tmp_path / "c2")
    for number in range(10):
        writer = (one, two)[number % 2]
        writer.write([vm_doc("web", memory=64 + number)])
        definition = bench.store.definition(WEB)
        assert definition is not None
        assert definition.spec.memory_mib == 64 + number


def test_a_write_is_not_lost_although_the_stores_clock_was_set_back(bench: Bench, tmp_path: Path) -> None:
    ahead = LedgerEntry(
        key="vm/web",
        version=int((bench.store.now() + 3600) * 1_000_000),
        body='{"spec": {"id": "web", "memory_mib": 1, "cpus": 1}, "xml": "", "wish": "running", "source": "cli"}',
    )
    bench.store.put_ledger([ahead])
    ledger_of(bench, tmp_path / "c1").write([vm_doc("web", wish=VmWish.STOPPED)])
    found = bench.store.definition(WEB)
    assert isinstance(found, VmDoc)
    assert found.wish is VmWish.STOPPED
    ledger_of(bench, tmp_path / "c2").forget(WEB)
    assert bench.store.definition(WEB) is None


def test_nothing_new_is_cheap(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_of(bench, tmp_path / "c1")
    ledger.write([vm_doc("web")])
    ledger.sync()
    monkeypatch.setattr(ledger._files, "load", lambda: pytest.fail("read again"))
    ledger.sync()


def test_a_decision_from_an_older_view_never_overwrites_a_newer_one(bench: Bench, tmp_path: Path) -> None:
    frozen, other = ledger_of(bench, tmp_path / "c1"), ledger_of(bench, tmp_path / "c2")
    frozen.sync()
    decided_at = bench.store.now()
    other.write([vm_doc("web", wish=VmWish.RUNNING)])
    frozen.write([vm_doc("web", wish=VmWish.STOPPED)], decided_at)  # it thaws
    frozen.forget(WEB, decided_at)
    found = bench.store.definition(WEB)
    assert isinstance(found, VmDoc)
    assert found.wish is VmWish.RUNNING
