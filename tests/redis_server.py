"""A redis-server of our own on a free loopback port: nothing kept on disk, gone with its test.

Also the one way tests wait: for a condition, with a bound.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

import pytest
import redis

from fangnetz.adapters.redis.client import connect


def wait_for(condition: Callable[[], object], bound: float = 15.0, every: float = 0.02) -> bool:
    """Ask until it holds or the bound passed; say which."""
    deadline = time.monotonic() + bound
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One redis-server process. `restart` gives it a new run id and an empty memory, as a crash without disk does."""

    def __init__(
        self,
        password: str = "",
        replica_of: RedisServer | None = None,
        user: str = "",
        options: Sequence[str] = (),
    ) -> None:
        """`options`: more of the command line. `user`: who our own client is, where there is a users' file."""
        self.port = free_port()
        self._user, self._options = user, tuple(options)
        self._password = password
        self._replica_of = replica_of
        self._process = self._start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        user = self._user or None
        return connect(
            f"redis://127.0.0.1:{self.port}/0",
            name="test",
            username=user,
            password=self._password or None,
            timeout_s=10.0,
        )

    def _start(self) -> subprocess.Popen[bytes]:
        if not shutil.which("redis-server"):
            pytest.skip("redis-server is missing (Debian package redis-server)")
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if self._password and not self._user:
            command += ["--requirepass", self._password]
        if self._replica_of is not None:
            command += ["--replicaof", f"127.0.0.1 {self._replica_of.port}"]
        command += self._options
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/tmp")
        client = self.client()

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

        assert wait_for(answers), "redis-server does not answer"
        client.close()
        return process

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.thaw()
        self._process.kill()
        self._process.wait()

    def is_linked(self) -> bool:
        """Whether this replica has its master's data and follows it."""
        return bool(self.client().info("replication").get("master_link_status") == "up")

    def promote(self) -> None:
        """Make this replica the master, as a sentinel does."""
        self._replica_of = None
        self.client().replicaof("NO", "ONE")

    def restart(self) -> None:
        self.kill()
        self._process = self._start()
