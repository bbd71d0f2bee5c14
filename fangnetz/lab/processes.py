"""Which processes are a lab's, how to start one and how to end them. Never ends a process that is not the lab's.

A process is the lab's if it lives in one of the lab's network namespaces, or carries the lab's mark in its
environment. Both are read from /proc at the time of asking, so a number used again by a
stranger is never taken for ours.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fangnetz.lab.errors import LabError
from fangnetz.lab.names import MARKER
from fangnetz.lab.run import SCRIPTS

NETNS = Path("/run/netns")
_SUPERVISOR = ".supervisor"
_INIT_PARTS = {"unshare": "machine", "tini": "init", "bash": "services", "sleep": "services"}
_SLOTS = "fangnetz.adapters.disk_slots.child"
_GUEST = re.compile(r"guest=([^,]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabProcess:
    """One process of a lab. `role` is its work (`worker`, `libvirtd`, `qemu:vm1`); `started` in the kernel's ticks."""

    node: str
    role: str
    pid: int
    parent: int
    inner_pid: int
    started: int
    state: str
    nice: int
    command: str


def namespaces_of(tag: str) -> dict[str, Path]:
    """Return node → network namespace of a lab, as they exist now."""
    prefix = f"fn-{tag}-"
    if not NETNS.is_dir():
        return {}
    return {path.name.removeprefix(prefix): path for path in sorted(NETNS.iterdir()) if path.name.startswith(prefix)}


def processes_of(name: str, tag: str) -> list[LabProcess]:
    """Return every process of a lab, ours and our ancestors' left out; a dead one waiting to be reaped too."""
    nodes = {}
    for node, path in namespaces_of(tag).items():
        try:
            nodes[path.stat().st_ino] = node
        except OSError:
            continue
    spared = set(_ancestors())
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) not in spared:
            process = _look(int(entry.name), name, nodes)
            if process is not None:
                found.append(process)
    return sorted(_named_by_parents(found), key=lambda process: (process.node, process.role, process.pid))


def start(
    *,
    name: str,
    node: str,
    role: str,
    command: Sequence[str | Path],
    logs: Path,
    netns: str | None = None,
    nice: int = -10,
    keep_up: bool = False,
    more_env: Mapping[str, str] | None = None,
) -> None:
    """Start a service of the lab in a session of its own; with `keep_up` it is started again when it ends."""
    words = [str(word) for word in command]
    if keep_up:
        words = ["/bin/bash", str(SCRIPTS / "supervise.sh"), name, node, role, str(logs), *words]
    if netns is not None:
        words = ["nsenter", f"--net={NETNS / netns}", *words]
    if nice:
        words = ["nice", "-n", str(nice), *words]
    mark = f"{name}:{node}:{role}{_SUPERVISOR if keep_up else ''}"
    with (logs / f"{role}.log").open("ab") as log:
        subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**plain_environment(), **(more_env or {}), MARKER: mark},
        )


def plain_environment() -> dict[str, str]:
    """Return the little that services inherit: nothing of the caller's shell but where programs are."""
    kept = ("PATH", "FANGNETZ_LAB_ROOT")
    return {"LANG": "C.UTF-8", "HOME": "/root", **{key: os.environ[key] for key in kept if key in os.environ}}


def end_all(name: str, tag: str, *, within_s: float = 15) -> None:
    """Kill every process of a lab and wait until none is left. Raises LabError naming what would not die."""
    until = time.monotonic() + within_s
    while left := processes_of(name, tag):
        if time.monotonic() > until:
            raise LabError(f"could not end {', '.join(f'{p.role} ({p.pid})' for p in left)} of lab {name}")
        # Those that start others go first, or they would start them again.
        for process in sorted(left, key=lambda each: not each.role.endswith(_SUPERVISOR)):
            send(process, signal.SIGKILL)
        time.sleep(0.02)


def send(process: LabProcess, number: signal.Signals) -> None:
    """Signal exactly this process: not another that got its number since."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if (stat := _stat(process.pid)) is not None and stat.started == process.started:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stat:
    program: str
    state: str
    parent: int
    nice: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        line = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = line[line.rindex(")") + 2 :].split()
    return _Stat(
        program=line[line.index("(") + 1 : line.rindex(")")],
        state=fields[0],
        parent=int(fields[1]),
        nice=int(fields[16]),
        started=int(fields[19]),
    )


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 1:
        yield pid
        stat = _stat(pid)
        pid = stat.parent if stat is not None else 0


def _look(pid: int, name: str, nodes: Mapping[int, str]) -> LabProcess | None:
    stat = _stat(pid)
    if stat is None or stat.state in "ZX":
        return None
    try:
        mark = _mark(Path(f"/proc/{pid}/environ").read_bytes())
        node = nodes.get(Path(f"/proc/{pid}/ns/net").stat().st_ino)
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        inner = re.search(r"^NSpid:.*?(\d+)$", Path(f"/proc/{pid}/status").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return None
    ours = mark is not None and mark[0] == name
    if node is None and not ours:
        return None
    return LabProcess(
        node=node if node is not None else (mark[1] if mark else "root"),
        role=_role(stat, mark if ours else None, words),
        pid=pid,
        parent=stat.parent,
        inner_pid=int(inner.group(1)) if inner else pid,
        started=stat.started,
        state=stat.state,
        nice=stat.nice,
        command=" ".join(words).strip()[:200],
    )


def _named_by_parents(found: Sequence[LabProcess]) -> Iterator[LabProcess]:
    """Give a service that overwrote its own environment (Redis does) the role its supervisor carries."""
    kept_up = {each.pid: each.role.removesuffix(_SUPERVISOR) for each in found if each.role.endswith(_SUPERVISOR)}
    for process in found:
        yield replace(process, role=kept_up[process.parent]) if process.parent in kept_up else process


def _mark(environ: bytes) -> tuple[str, str, str] | None:
    for entry in environ.split(b"\0"):
        key, _, value = entry.partition(b"=")
        if key == MARKER.encode():
            parts = value.decode(errors="replace").split(":")
            return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None
    return None


def _role(stat: _Stat, mark: tuple[str, str, str] | None, words: Sequence[str]) -> str:
    program = Path(words[0]).name if words and words[0] else stat.program
    if program.startswith("qemu-system"):
        guest = next((found for word in words if (found := _GUEST.search(word))), None)
        return f"qemu:{guest.group(1)}" if guest else "qemu"
    if any(word.endswith("/supervise.sh") for word in words[:4]):
        index = next(i for i, word in enumerate(words) if word.endswith("/supervise.sh"))
        return f"{words[index + 3]}{_SUPERVISOR}" if len(words) > index + 3 else "supervisor"
    if _SLOTS in words[:6]:
        return "slots"
    if mark is not None and mark[2] == "init":
        return _INIT_PARTS.get(program, program)
    return mark[2] if mark is not None else program
