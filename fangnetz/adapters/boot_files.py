"""Files that live as long as the host's boot: incarnation, promises, unanswered starts, locks (SAFETY rule 3).

Never reads a damaged promise or start as "none", never lets a promise shrink, never outlives a reboot: on tmpfs the
kernel sees to that, elsewhere everything stands in a folder named after the boot. Layout below the run folder:

    incarnation             32 hex digits, written once
    promises/<vm>.json      {"schema": 1, "vm": …, "generation": …}
    starts/<vm>.json        {"schema": 1, "vm": …, "generation": …, "start": 32 hex digits}, until its end is known
    leaving.json            {"schema": 1, "how": "reboot" or "shutdown"}, while an orderly shutdown is pending
    locks/<vm>.lock         empty, held with flock; never removed
    promises.lock           held while a promise is read, compared and written
    starts.lock             held while a start's note is read, compared and removed, and while one is written
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from fangnetz.core.errors import SettingsError, StoredContentError
from fangnetz.core.model import Leaving, Release
from fangnetz.core.units import Generation, Incarnation, Seconds, VmId
from fangnetz.ports import UnansweredStart

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
FILE_LOCK_BOUND = Seconds(10.0)
"""Either is written in milliseconds; only a dying disk takes longer, and then a named error beats waiting."""
LOCK_POLL = Seconds(0.02)
"""How often a lock held by another process is asked for again: flock has no timeout of its own."""

LEAVING_FILE = "leaving.json"
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
_INCARNATION = re.compile(r"[0-9a-f]{32}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,199}")
_BOOT_FOLDER = re.compile(r"boot-[0-9a-f-]{36}")


class BootFilesOnDisk:
    """`ports.BootFiles` in a folder. Safe for any number of threads and processes of this host.

    `lives_as_long_as_boot` is False if the folder is not on tmpfs: then the kernel's boot id stands in for it, which
    does not change when only a container or namespace is restarted; whoever wires this up should say so aloud.
    """

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lives_as_long_as_boot = is_memory_backed(run_dir)
        self._home = run_dir if self.lives_as_long_as_boot else _this_boots_folder(run_dir)
        self._promises = self._home / "promises"
        self._starts = self._home / "starts"
        self._locks = self._home / "locks"
        for folder in (self._home, self._promises, self._starts, self._locks):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._incarnation = _read_or_make_incarnation(self._home)
        self._guard = threading.Lock()
        self._in_process: dict[str, threading.Lock] = {}

    @property
    def incarnation(self) -> Incarnation:
        return self._incarnation

    @contextlib.contextmanager
    def lock(self, vm: VmId, bound: Seconds) -> Iterator[None]:
        """Hold the VM's lock against every thread and process here; TimeoutError after `bound`. Not re-entrant.

        The kernel frees it when the process dies, however it dies.
        """
        with self._hold(self._locks / f"{file_name(vm)}.lock", bound):
            yield

    def released(self, vm: VmId) -> Generation:
        """Return the highest released generation, 0 if none; StoredContentError if the promise is unreadable."""
        return _read_promise(self._promises / f"{file_name(vm)}.json", vm).generation

    def release(self, vm: VmId, generation: Generation, left_for: Generation = Generation(0)) -> None:
        """Write the promise durably before returning; one that is not higher changes nothing.

        Raises StoredContentError over a damaged promise: what it held may have been higher.
        """
        path = self._promises / f"{file_name(vm)}.json"
        with self._hold(self._home / "promises.lock", FILE_LOCK_BOUND):
            if generation <= _read_promise(path, vm).generation:
                return
            promise = {"schema": 1, "vm": vm, "generation": generation}
            _write_durably(path, json.dumps(promise | ({"left_for": left_for} if left_for else {})))

    def releases(self) -> tuple[Release, ...]:
        """All readable promises. A damaged one is left out: a missing promise never proves anything."""
        return tuple(promise for promise in self._all_promises() if isinstance(promise, Release))

    def note_start(self, vm: VmId, generation: Generation) -> str:
        """Write durably that a start is being sent; return the note. It takes the place of an earlier one."""
        path = self._starts / f"{file_name(vm)}.json"
        note = json.dumps({"schema": 1, "vm": vm, "generation": generation, "start": uuid.uuid4().hex})
        with self._hold(self._home / "starts.lock", FILE_LOCK_BOUND):
            _write_durably(path, note)
        return note

    def forget_start(self, vm: VmId, note: str) -> None:
        """Remove this note, if it is the one that is there."""
        path = self._starts / f"{file_name(vm)}.json"
        with self._hold(self._home / "starts.lock", FILE_LOCK_BOUND):
            start = _read_start(path, vm)
            if start is not None and start.note == note:
                path.unlink(missing_ok=True)

    def unanswered_starts(self) -> tuple[UnansweredStart, ...]:
        """Every noted start. A note that cannot be read counts: somebody was about to start something."""
        found = []
        for path in sorted(self._starts.glob("*.json")):
            start = _read_start(path, VmId(path.name.removesuffix(".json")))
            if start is not None:
                found.append(start)
        return tuple(found)

    def leaving(self) -> Leaving:
        """Whether this host was said to go down in order, and how. A damaged note announces nothing."""
        try:
            content = json.loads((self._home / LEAVING_FILE).read_bytes())
        except (OSError, ValueError):
            return Leaving.NO
        if not isinstance(content, dict) or content.get("schema") != 1:
            return Leaving.NO
        return next((how for how in Leaving if how.value == content.get("how")), Leaving.NO)

    def leave(self, how: Leaving) -> None:
        """Note durably that this host goes down in order; `Leaving.NO`: that it stays after all."""
        path = self._home / LEAVING_FILE
        if how is Leaving.NO:
            path.unlink(missing_ok=True)
            _sync_folder(self._home)
        else:
            _write_durably(path, json.dumps({"schema": 1, "how": how}))

    def damaged(self) -> tuple[str, ...]:
        """One sentence for each promise that cannot be read; its VM cannot be started here until it is mended."""
        return tuple(str(found) for found in self._all_promises() if isinstance(found, StoredContentError))

    def _all_promises(self) -> Iterator[Release | StoredContentError]:
        for path in sorted(self._promises.glob("*.json")):
            vm = VmId(path.name.removesuffix(".json"))
            try:
                yield _read_promise(path, vm)
            except StoredContentError as damage:
                yield damage

    @contextlib.contextmanager
    def _hold(self, path: Path, bound: Seconds) -> Iterator[None]:
        # The thread lock in front makes waiting threads queue instead of polling against each other.
        deadline = time.monotonic() + bound
        with self._guard:
            mine = self._in_process.setdefault(str(path), threading.Lock())
        if not mine.acquire(timeout=max(bound, 0)):
            raise TimeoutError(f"{path} was still held by this process after {bound:g} s")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _flock(handle, path, deadline, bound)
                yield
            finally:
                os.close(handle)
        finally:
            mine.release()


def file_name(vm: VmId) -> str:
    """Return the VM's name if it is safe as a file name; SettingsError otherwise."""
    if not _FILE_NAME.fullmatch(vm):
        raise SettingsError(
            f"The VM name {vm!r} cannot be used: it must begin with a letter or digit and hold only letters, digits"
            " and . _ @ + - (at most 200)."
        )
    return vm


def is_memory_backed(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Say whether `folder` lies on a file system that a reboot empties."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0] in _MEMORY_FILE_SYSTEMS
    return False


def _this_boots_folder(run_dir: Path) -> Path:
    mine = run_dir / f"boot-{BOOT_ID.read_text(encoding='ascii').strip()}"
    for other in run_dir.iterdir():
        if _BOOT_FOLDER.fullmatch(other.name) and other != mine:
            shutil.rmtree(other, ignore_errors=True)
    return mine


def _read_or_make_incarnation(home: Path) -> Incarnation:
    path = home / "incarnation"
    if not path.exists():
        # A hard link is exclusive and shows the whole content at once; O_EXCL alone would show an empty file first.
        draft = _draft(home, uuid.uuid4().hex)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        _sync_folder(home)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not _INCARNATION.fullmatch(text):
        raise StoredContentError(f"{path} does not hold 32 hex digits; this host's incarnation is not known.")
    return Incarnation(text)


def _read_promise(path: Path, vm: VmId) -> Release:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Release(vm=vm, generation=Generation(0))
    except OSError as error:
        raise StoredContentError(f"{path} cannot be read ({error.strerror}); {vm} cannot be started here.") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise StoredContentError(f"{path} is not JSON; {vm} cannot be started here.") from error
    match content:
        case {"schema": 1, "vm": str(named), "generation": int(generation)} if (
            named == vm and not isinstance(generation, bool) and generation > 0
        ):
            left_for = content.get("left_for", 0)
            known = isinstance(left_for, int) and not isinstance(left_for, bool) and left_for > generation
            return Release(vm=vm, generation=Generation(generation), left_for=Generation(left_for if known else 0))
    raise StoredContentError(f"{path} does not hold a promise for {vm}; {vm} cannot be started here.")


def _read_start(path: Path, vm: VmId) -> UnansweredStart | None:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return UnansweredStart(vm=vm, note=f"unreadable: {error.strerror}", damage=f"{path}: {error.strerror}")
    note = text.decode(errors="backslashreplace")
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    match content:
        case {"schema": 1, "vm": str(named), "generation": int(generation), "start": str()} if named == vm:
            return UnansweredStart(vm=vm, note=note, generation=Generation(generation))
    return UnansweredStart(vm=vm, note=note, damage=f"{path} does not hold a start of {vm}")


def _write_durably(path: Path, text: str) -> None:
    draft = _draft(path.parent, text)
    try:
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _draft(folder: Path, text: str) -> Path:
    draft = folder / f".draft-{uuid.uuid4().hex}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return draft


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flock(handle: int, path: Path, deadline: float, bound: Seconds) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path} was still held by another process after {bound:g} s") from None
            time.sleep(LOCK_POLL)
