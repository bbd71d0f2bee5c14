"""The same cluster on three Redis with a Sentinel each, on loopback ports: what fails over here fails over really."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import redis

from tests.redis_server import RedisServer, free_port, wait_for
from tests.tasks.cluster import HAND, Processes, secret_of

MASTER = "fangnetz"
DOWN_AFTER_MS = 1000
SENTINEL_PASSWORD = secret_of("sentinels")
CONFIG = """\
port {port}
bind 127.0.0.1
dir {folder}
requirepass {own}
sentinel sentinel-pass {own}
sentinel monitor {master} 127.0.0.1 {first} 2
sentinel auth-user {master} fn-sentinel
sentinel auth-pass {master} {password}
sentinel down-after-milliseconds {master} {down_after}
sentinel failover-timeout {master} 5000
sentinel parallel-syncs {master} 2
"""


class ReplicatedProcesses(Processes):
    """`server` is the first master; `servers` are all three."""

    def start_store(self) -> RedisServer:
        self.servers: list[RedisServer] = []
        for number in range(3):
            data = self.folder / f"redis{number}"
            data.mkdir()
            options = ["--aclfile", f"{self.folder}/users.acl", "--appendonly", "yes", "--dir", str(data)]
            options += ["--masteruser", "fn-replica", "--masterauth", secret_of("replica")]
            options += ["--min-replicas-to-write", "1", "--repl-diskless-sync-delay", "0"]
            first = self.servers[0] if self.servers else None
            self.servers.append(RedisServer(secret_of(HAND), replica_of=first, user=HAND, options=options))
        assert wait_for(lambda: all(server.is_linked() for server in self.servers[1:]), 30), "replicas do not follow"
        self.ports = [free_port() for _ in self.servers]
        self.sentinels = [self._start_sentinel(port) for port in self.ports]
        assert wait_for(self._all_know_each_other, 30), "the Sentinels do not find each other"
        (self.folder / "sentinels").write_text(SENTINEL_PASSWORD + "\n")
        (self.folder / "sentinels").chmod(0o600)
        return self.servers[0]

    def place(self) -> str:
        nodes = ", ".join(f'"127.0.0.1:{port}"' for port in self.ports)
        return (
            f"  sentinels: [{nodes}]\n  master: {MASTER}\n  sentinel_login: {{password_file: {self.folder}/sentinels}}"
        )

    def master(self) -> RedisServer | None:
        """Return the server that most Sentinels call master, None if they do not agree."""
        named = [self._named_by(port) for port in self.ports]
        for server in self.servers:
            if named.count(server.port) >= 2:
                return server
        return None

    def end(self) -> None:
        for server in self.servers:
            server.thaw()
        super().end()
        for process in self.sentinels:
            process.kill()
            process.wait()
        for server in self.servers:
            server.kill()

    def _start_sentinel(self, port: int) -> subprocess.Popen[bytes]:
        folder = self.folder / f"sentinel{port}"
        folder.mkdir()
        config = Path(folder / "sentinel.conf")
        config.write_text(
            CONFIG.format(
                port=port,
                folder=folder,
                own=SENTINEL_PASSWORD,
                master=MASTER,
                first=self.servers[0].port,
                password=secret_of("sentinel"),
                down_after=DOWN_AFTER_MS,
            )
        )
        return subprocess.Popen(
            ["redis-server", str(config), "--sentinel"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def _ask(self, port: int, *words: str) -> Any:
        client = redis.Redis(port=port, password=SENTINEL_PASSWORD, decode_responses=True, socket_timeout=1)
        try:
            return client.execute_command("SENTINEL", *words)
        except redis.RedisError:
            return None
        finally:
            client.close()

    def _named_by(self, port: int) -> int:
        found = self._ask(port, "GET-MASTER-ADDR-BY-NAME", MASTER)
        return int(found[1]) if found else 0

    def _all_know_each_other(self) -> bool:
        return all(
            len(self._ask(port, "SENTINELS", MASTER) or ()) == 2 and len(self._ask(port, "REPLICAS", MASTER) or ()) == 2
            for port in self.ports
        )
