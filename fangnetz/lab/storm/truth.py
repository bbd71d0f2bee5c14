"""What really runs: every QEMU process and every host's power, from the kernel alone, several times a second.

A thread of its own, so that a store that hangs blinds nobody. Never asks Fangnetz, and never touches a process.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from fangnetz.lab.plan import Plan
from fangnetz.lab.processes import namespaces_of
from fangnetz.lab.storm.copies import Copy

LOOK_EVERY_S = 0.2
ALIVE_EVERY_S = 0.05
_GUEST = re.compile(rb"guest=([^,\0]+)")
_GENERATION = re.compile(r"<fangnetz:vm[^>]*\bgeneration=['\"](\d+)['\"]")
_RUNNING = re.compile(r"<domstatus\s+state='running'[^>]*\bpid='(\d+)'")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBoot:
    """One boot of a lab host: the process number and start of its init name it. `seen_until` while it is on: now."""

    host: str
    boot: str
    seen_from: float
    seen_until: float


@dataclass(slots=True)
class _Kept:
    copy: Copy
    handle: int


@dataclass(slots=True)
class Truth:
    """Watches one lab while the block lasts. `copies` and `boots` may be asked at any time, from any thread."""

    plan: Plan
    _kept: dict[int, _Kept] = field(default_factory=dict)
    _ended: list[Copy] = field(default_factory=list)
    _boots: dict[tuple[str, str], HostBoot] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    error: str = ""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="truth", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(10)
        for kept in self._kept.values():
            os.close(kept.handle)

    def copies(self) -> tuple[Copy, ...]:
        """Return every copy ever seen."""
        with self._lock:
            return (*self._ended, *(kept.copy for kept in self._kept.values()))

    def boots(self) -> tuple[HostBoot, ...]:
        """Return every boot of every host that was seen, in order."""
        with self._lock:
            return tuple(sorted(self._boots.values(), key=lambda boot: boot.seen_from))

    def powered(self, host: str) -> bool:
        """Whether the host was on at the last look."""
        return self._boot_of(host) != ""

    def _run(self) -> None:
        while not self._end.is_set():
            next_look = time.monotonic() + LOOK_EVERY_S
            try:
                self._look()
                self._wait_for_ends(next_look)
            except OSError as error:  # a watcher that has died must be seen to be dead
                self.error = f"{type(error).__name__}: {error}"
                self._end.wait(LOOK_EVERY_S)

    def _wait_for_ends(self, until: float) -> None:
        """Note which watched processes still live, again and again, until it is time to look for new ones.

        What ended is written down as alive up to the last look that found it so: late by no more than one such look,
        and never too late, however busy the machine is.
        """
        poll = select.poll()
        by_handle = {kept.handle: pid for pid, kept in self._kept.items()}
        for handle in by_handle:
            poll.register(handle, select.POLLIN)
        while not self._end.is_set() and time.monotonic() < until:
            asked_at = time.time()
            gone = {handle for handle, _ in poll.poll(0)}
            with self._lock:
                for handle in gone:
                    poll.unregister(handle)
                    kept = self._kept.pop(by_handle.pop(handle))
                    self._ended.append(replace(kept.copy, alive=False))
                    os.close(handle)
                for pid in by_handle.values():
                    kept = self._kept[pid]
                    kept.copy = replace(kept.copy, ended_at=max(asked_at, kept.copy.started_at))
            self._end.wait(ALIVE_EVERY_S)

    def _look(self) -> None:
        nodes: dict[int, str] | None = None
        now = time.time()
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in self._kept:
                continue
            try:
                if not Path(f"/proc/{name}/comm").read_text(errors="replace").startswith("qemu-system"):
                    continue
            except OSError:
                continue
            if nodes is None:
                nodes = _nodes(self.plan)
            self._meet(int(name), nodes, now)
        with self._lock:
            for kept in self._kept.values():
                generation = kept.copy.generation
                if generation is None:
                    generation = _generation(kept.copy.pid, kept.copy.vm)
                runs_from = kept.copy.runs_from
                if kept.copy.incoming and runs_from is None and _runs(kept.copy.pid, kept.copy.vm):
                    runs_from = time.time()
                kept.copy = replace(kept.copy, generation=generation, runs_from=runs_from)
            for host in self.plan.hosts:
                boot = self._boot_of(host)
                if boot:
                    known = self._boots.get((host, boot))
                    since = known.seen_from if known else now
                    self._boots[host, boot] = HostBoot(host=host, boot=boot, seen_from=since, seen_until=now)

    def _meet(self, pid: int, nodes: dict[int, str], now: float) -> None:
        """Begin to watch a QEMU process if it is one of ours and has a guest."""
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            node = nodes.get(Path(f"/proc/{pid}/ns/net").stat().st_ino)
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            os.close(handle)
            return
        fields = stat[stat.rindex(")") + 2 :].split()
        guest = _GUEST.search(words)
        if node is None or guest is None or fields[0] in "ZX":
            os.close(handle)
            return
        ticks = int(fields[19])
        started_at = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / _TICKS)
        copy = Copy(
            vm=guest[1].decode(),
            host=node,
            host_boot=self._boot_of(node),
            pid=pid,
            started_at=started_at,
            ended_at=max(now, started_at),
            alive=True,
            incoming=b"\0-incoming\0" in words,
        )
        with self._lock:
            self._kept[pid] = _Kept(copy=copy, handle=handle)

    def _boot_of(self, host: str) -> str:
        """Return the name of the host's present boot, empty if it is off."""
        try:
            pid, started = (self.plan.host_folder(host) / "init.pid").read_text().split()
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (OSError, ValueError):
            return ""
        fields = stat[stat.rindex(")") + 2 :].split()
        return f"{pid}:{started}" if fields[19] == started and fields[0] not in "ZX" else ""


def _nodes(plan: Plan) -> dict[int, str]:
    """Return namespace number -> node; a host that is losing its power at this moment is left out."""
    found: dict[int, str] = {}
    for node, path in namespaces_of(plan.tag).items():
        try:
            found[path.stat().st_ino] = node
        except OSError:
            continue
    return found


def _generation(pid: int, vm: str) -> int | None:
    """Read the number from libvirt's own record of the running domain, inside the host's file system."""
    try:
        text = Path(f"/proc/{pid}/root/run/libvirt/qemu/{vm}.xml").read_text(errors="replace")
    except OSError:
        return None
    record, found = re.search(r"<domstatus[^>]*\bpid='(\d+)'", text), _GENERATION.search(text)
    inner = _inner_pid(pid)
    return int(found[1]) if record and found and int(record[1]) == inner else None


def _runs(pid: int, vm: str) -> bool:
    """Whether libvirt's own record says that this very process runs."""
    try:
        text = Path(f"/proc/{pid}/root/run/libvirt/qemu/{vm}.xml").read_text(errors="replace")
    except OSError:
        return False
    record = _RUNNING.search(text)
    return record is not None and int(record[1]) == _inner_pid(pid)


def _inner_pid(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return -1
    found = re.search(r"^NSpid:.*?(\d+)$", status, re.MULTILINE)
    return int(found[1]) if found else -1
