"""Incarnation, promises and locks on a real folder, with real processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.adapters import boot_files
from fangnetz.adapters.boot_files import BootFilesOnDisk, is_memory_backed
from fangnetz.core.errors import SettingsError, StoredContentError
from fangnetz.core.model import Release
from fangnetz.core.units import Generation, Seconds, VmId

WEB = VmId("web1")


@pytest.fixture(params=["/dev/shm", "/var/tmp"], ids=["tmpfs", "disk"])
def run_dir(request: pytest.FixtureRequest) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fangnetz-test-", dir=request.param) as folder:
        yield Path(folder) / "run"


def in_process(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    head = "import sys, time; from pathlib import Path; from fangnetz.adapters.boot_files import *; "
    head += "files = BootFilesOnDisk(Path(sys.argv[1]));\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def home_of(run_dir: Path) -> Path:
    return next(run_dir.rglob("incarnation")).parent


def test_the_incarnation_survives_a_worker_restart(run_dir: Path) -> None:
    first = BootFilesOnDisk(run_dir).incarnation
    assert len(first) == 32
    assert BootFilesOnDisk(run_dir).incarnation == first


def test_workers_starting_at_once_agree_on_one_incarnation(run_dir: Path) -> None:
    workers = [in_process("print(files.incarnation)", run_dir) for _ in range(6)]
    said = {worker.communicate()[0] for worker in workers}
    assert len(said) == 1
    assert said != {b""}


def test_threads_starting_at_once_agree_on_one_incarnation(run_dir: Path) -> None:
    for attempt in range(20):
        gate, said = threading.Barrier(8), []

        def start(gate: threading.Barrier, said: list[str], folder: Path) -> None:
            gate.wait()
            said.append(BootFilesOnDisk(folder).incarnation)

        threads = [threading.Thread(target=start, args=(gate, said, run_dir / str(attempt))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(said) == 8
        assert len(set(said)) == 1


def test_a_damaged_incarnation_stops_the_worker(run_dir: Path) -> None:
    BootFilesOnDisk(run_dir)
    (home_of(run_dir) / "incarnation").write_text("")
    with pytest.raises(StoredContentError):
        BootFilesOnDisk(run_dir)


def test_a_reboot_gives_a_new_incarnation_and_drops_old_promises_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = BootFilesOnDisk(tmp_path)
    if before.lives_as_long_as_boot:
        pytest.skip("the test's folder is on tmpfs")
    before.release(WEB, Generation(7))
    before.note_start(WEB, Generation(8))
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("11111111-2222-3333-4444-555555555555\n")
    monkeypatch.setattr(boot_files, "BOOT_ID", boot_id)
    after = BootFilesOnDisk(tmp_path)
    assert after.incarnation != before.incarnation
    assert (after.released(WEB), after.unanswered_starts()) == (0, ())
    assert len(list(tmp_path.glob("boot-*"))) == 1


def test_tmpfs_is_told_from_a_disk() -> None:
    assert is_memory_backed(Path("/dev/shm"))
    assert not is_memory_backed(Path("/usr"))


def test_a_promise_is_read_by_the_next_worker(run_dir: Path) -> None:
    BootFilesOnDisk(run_dir).release(WEB, Generation(5))
    again = BootFilesOnDisk(run_dir)
    assert again.released(WEB) == 5
    assert again.released(VmId("other")) == 0
    assert again.releases() == (Release(vm=WEB, generation=Generation(5)),)


@pytest.mark.parametrize("left_for", ["9", 9.0, True, None, -9, 7, 3])
def test_which_copy_a_vm_left_for_is_believed_only_as_a_higher_number(run_dir: Path, left_for: object) -> None:
    files = BootFilesOnDisk(run_dir)
    files.release(WEB, Generation(7), Generation(9))
    (path,) = run_dir.rglob("web1.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "left_for": left_for}))
    assert files.releases() == (Release(vm=WEB, generation=Generation(7)),)
    assert files.released(WEB) == 7, "the promise itself holds whatever else is damaged"


@given(st.lists(st.integers(min_value=1, max_value=2**53), min_size=1, max_size=12))
def test_a_promise_never_shrinks(generations: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="fangnetz-test-", dir="/dev/shm") as folder:
        files = BootFilesOnDisk(Path(folder))
        for count, generation in enumerate(generations, 1):
            files.release(WEB, Generation(generation))
            assert files.released(WEB) == max(generations[:count])


def test_twenty_threads_and_two_processes_never_shrink_a_promise(run_dir: Path) -> None:
    files = BootFilesOnDisk(run_dir)
    code = "[files.release('web1', g) for g in range(int(sys.argv[2]), 400, 2)]"
    others = [in_process(code, run_dir, begin) for begin in (1, 2)]
    seen: list[bool] = []

    def write(begin: int) -> None:
        last = 0
        for generation in range(begin, 200, 20):
            files.release(WEB, Generation(generation))
            now = files.released(WEB)
            seen.append(now >= max(last, generation))
            last = now

    threads = [threading.Thread(target=write, args=(begin,)) for begin in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        assert other.wait(60) == 0
        other.communicate()
    assert len(seen) > 190
    assert all(seen)
    assert files.released(WEB) == 399
    assert not list(run_dir.rglob(".draft-*"))


DAMAGE = [
    b"",
    b"{",
    b"null",
    b"7",
    b"\xff\xfe\x00",
    b'{"schema": 1, "vm": "web1"}',
    b'{"schema": 1, "vm": "web1", "generation": 0}',
    b'{"schema": 1, "vm": "web1", "generation": true}',
    b'{"schema": 1, "vm": "web1", "generation": "7"}',
    b'{"schema": 1, "vm": "db1", "generation": 7}',
    b'{"schema": 2, "vm": "web1", "generation": 7}',
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_promise_is_never_read_as_none(run_dir: Path, damage: bytes) -> None:
    files = BootFilesOnDisk(run_dir)
    files.release(WEB, Generation(9))
    files.release(VmId("db1"), Generation(3))
    (home_of(run_dir) / "promises" / "web1.json").write_bytes(damage)
    with pytest.raises(StoredContentError, match="web1"):
        files.released(WEB)
    with pytest.raises(StoredContentError):
        files.release(WEB, Generation(10))
    assert files.releases() == (Release(vm=VmId("db1"), generation=Generation(3)),)
    assert len(files.damaged()) == 1


@given(st.binary(max_size=80))
def test_any_bytes_in_a_promise_are_a_sentence_or_that_promise(content: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="fangnetz-test-", dir="/dev/shm") as folder:
        files = BootFilesOnDisk(Path(folder))
        (Path(folder) / "promises" / "web1.json").write_bytes(content)
        with pytest.raises(StoredContentError):
            files.released(WEB)


@given(st.binary(max_size=80))
def test_any_bytes_in_a_start_are_a_start_that_can_be_forgotten(content: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="fangnetz-test-", dir="/dev/shm") as folder:
        files = BootFilesOnDisk(Path(folder))
        (Path(folder) / "starts" / "web1.json").write_bytes(content)
        (start,) = files.unanswered_starts()
        assert (start.vm, "web1.json" in start.damage) == (WEB, True)
        files.forget_start(WEB, start.note)
        assert files.unanswered_starts() == ()


def test_a_start_that_cannot_even_be_read_is_one(run_dir: Path) -> None:
    files = BootFilesOnDisk(run_dir)
    (home_of(run_dir) / "starts" / "web1.json").mkdir()
    (start,) = files.unanswered_starts()
    assert "directory" in start.damage


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "a\n", "x" * 201, "ü"]
)
def test_a_name_cannot_leave_its_folder(run_dir: Path, name: str) -> None:
    files = BootFilesOnDisk(run_dir)
    with pytest.raises(SettingsError):
        files.release(VmId(name), Generation(1))
    with pytest.raises(SettingsError):
        files.released(VmId(name))
    with pytest.raises(SettingsError), files.lock(VmId(name), Seconds(1)):
        pass


def test_a_killed_holder_frees_the_lock_and_a_living_one_does_not(run_dir: Path) -> None:
    files = BootFilesOnDisk(run_dir)
    holder = in_process("with files.lock('web1', 5):\n    print('held', flush=True); time.sleep(600)", run_dir)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    began = time.monotonic()
    with pytest.raises(TimeoutError), files.lock(WEB, Seconds(0.2)):
        pass
    assert 0.2 <= time.monotonic() - began < 5
    with files.lock(VmId("db1"), Seconds(1)):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with files.lock(WEB, Seconds(2)):
        pass


def test_the_lock_excludes_threads_and_is_free_after_an_error(run_dir: Path) -> None:
    files, inside, worst = BootFilesOnDisk(run_dir), 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, worst
        for _ in range(5):
            try:
                with files.lock(WEB, Seconds(30)):
                    with guard:
                        inside += 1
                        worst = max(worst, inside)
                    time.sleep(0.001)
                    with guard:
                        inside -= 1
                    raise ValueError
            except ValueError:
                pass

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1


def test_a_promise_can_be_written_while_the_vm_is_locked(run_dir: Path) -> None:
    files = BootFilesOnDisk(run_dir)
    with files.lock(WEB, Seconds(1)):
        files.release(WEB, Generation(4))
    assert files.released(WEB) == 4


def test_a_killed_writer_leaves_the_old_or_the_new_promise(run_dir: Path) -> None:
    for _ in range(5):
        writer = in_process(
            "print('go', flush=True)\nfor g in range(files.released('web1') + 1, 10**9): files.release('web1', g)",
            run_dir,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"go\n"
        time.sleep(0.05)
        writer.kill()
        writer.communicate()
        assert BootFilesOnDisk(run_dir).released(WEB) > 0
    content = json.loads((home_of(run_dir) / "promises" / "web1.json").read_bytes())
    assert content["vm"] == "web1"
