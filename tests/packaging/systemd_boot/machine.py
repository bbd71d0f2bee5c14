"""A machine whose PID 1 is a real systemd, in namespaces of this one; it goes without a trace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]
BOOT_BOUND_S = 120.0
ANSWER_BOUND_S = 90.0
NEEDED = ("unshare", "nsenter", "libvirtd", "virsh", "qemu-system-x86_64", "redis-server")


def missing() -> str:
    """Return why this machine cannot boot another one; empty if nothing speaks against trying."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        return f"booting a systemd with libvirt needs {', '.join(lacking)}"
    if not Path("/lib/systemd/systemd").exists():
        return "there is no systemd to boot"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlay file system"
    if _cgroup2() is None:
        return "no version 2 cgroups are mounted"
    return ""


def _cgroup2() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def until_true(what: Callable[[], bool], bound_s: float, told: str) -> None:
    end = time.monotonic() + bound_s
    while not what():
        assert time.monotonic() < end, told
        time.sleep(0.1)


class Machine:
    """Started by `with`; its end kills everything below its cgroup, and with that its namespaces and mounts go."""

    def __init__(self, folder: Path) -> None:
        self._root, self.shared = folder / "root", folder / "shared"
        cgroup2 = _cgroup2()
        assert cgroup2 is not None
        self._cgroup = cgroup2 / f"fangnetz-test-{uuid.uuid4().hex[:12]}"
        self._init = 0

    def __enter__(self) -> Machine:
        self._root.mkdir()
        self.shared.mkdir()
        try:
            self._cgroup.mkdir()
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _boot(self) -> None:
        join = 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"'
        namespaces = ["unshare", "--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        script = ["bash", str(HERE / "boot.sh"), str(self._root), str(self.shared), str(PROJECT), sys.executable]
        with (self.shared / "said").open("wb") as said:
            self._process = subprocess.Popen(
                ["sh", "-ec", join, "sh", str(self._cgroup), *namespaces, *script],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        until_true(self._is_up, BOOT_BOUND_S, "systemd has not come up")
        assert self.run("systemctl", "is-system-running", "--wait", check=False).strip() in ("running", "degraded")

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            said = (self.shared / "said").read_text().strip()
            if not (self.shared / "mounted").exists():
                pytest.skip(f"no systemd can be booted here: {said}")
            pytest.fail(f"systemd has not come up: {said}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if len(children) != 1 or Path(f"/proc/{children[0]}/comm").read_text().strip() != "systemd":
            return False
        self._init = int(children[0])
        return self._call("systemctl", "is-system-running").stdout.strip() not in ("", "offline", "unknown")

    def _call(self, *command: str) -> subprocess.CompletedProcess[str]:
        into = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc"]
        return subprocess.run([*into, *command], capture_output=True, text=True, timeout=ANSWER_BOUND_S, check=False)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command on the machine; return what it printed."""
        done = self._call(*command)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def calls(self) -> list[dict[str, Any]]:
        """Return what the recorder in place of `fangnetz-worker` was called for, in order."""
        file = self.shared / "record"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for_the_end(self, bound_s: float = ANSWER_BOUND_S) -> int:
        """Wait until systemd has ended the machine; return the signal that the kernel gives for it.

        Source: reboot(2), "Behavior inside PID namespaces": SIGHUP for a restart, SIGINT for halt and power off.
        """
        return -self._process.wait(timeout=bound_s)

    def __exit__(self, *_: object) -> None:
        (self._cgroup / "cgroup.kill").write_text("1")
        if hasattr(self, "_process"):
            self._process.wait(timeout=ANSWER_BOUND_S)
        until_true(self._is_swept, ANSWER_BOUND_S, f"{self._cgroup} is still in use")

    def _is_swept(self) -> bool:
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        return not self._cgroup.exists()
