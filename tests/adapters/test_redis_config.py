"""The files in config/redis: a real redis-server and a real Sentinel take them, and they keep what they promise."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fangnetz.adapters.redis.acl import SERVERS, USERS, Credential, acl_text, sha256_of
from tests.redis_server import free_port, wait_for

FOLDER = Path(__file__).parents[2] / "config" / "redis"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A machine's own folder, with a users' file whose passwords are the names."""
    (tmp_path / "data").mkdir()
    (tmp_path / "redis.d").mkdir()
    known = {user: Credential(username=user, sha256=sha256_of(user)) for user in (*USERS, *SERVERS)}
    (tmp_path / "redis.d" / "users.acl").write_text(acl_text("demo", 0, known) + "user hand on nopass ~* &* +@all\n")
    return tmp_path


class Started:
    """A redis-server on a shipped file, moved to a folder and a port of the test's."""

    def __init__(self, here: Path, files: tuple[str, ...], *more: str) -> None:
        self.port = free_port()
        self.config = here / "server.conf"
        text = "\n".join((FOLDER / name).read_text() for name in files)
        text = text.replace("/etc/fangnetz", str(here)).replace("dir /var/lib/redis", f"dir {here}/data")
        text = text.replace("port 6379", f"port {self.port}").replace("port 26379", f"port {self.port}")
        self.config.write_text(text + "\ndaemonize no\n")
        self.process = subprocess.Popen(
            ["redis-server", str(self.config), *more], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def client(self, user: str | None = "hand") -> redis.Redis:
        return redis.Redis(port=self.port, username=user, password=user and "any", decode_responses=True)

    def answers(self) -> bool:
        def does() -> bool:
            try:
                return bool(self.client().ping())
            except redis.RedisError:
                return False

        return wait_for(does, 10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(params=[("redis.conf",), ("redis.conf", "replicated.conf")], ids=["one", "replicated"])
def server(here: Path, request: pytest.FixtureRequest) -> Iterator[Started]:
    made = Started(here, request.param)
    yield made
    made.kill()


def test_redis_takes_the_file_and_lets_nobody_in_without_a_name(server: Started) -> None:
    assert server.answers(), server.process.stdout and server.process.stdout.read1()  # type: ignore[attr-defined]
    with pytest.raises(redis.exceptions.AuthenticationError):
        server.client(None).ping()
    kept = server.client().config_get("*")
    assert (kept["appendonly"], kept["maxmemory-policy"], kept["save"]) == ("yes", "noeviction", "")


def test_without_its_users_file_redis_does_not_start(here: Path) -> None:
    (here / "redis.d" / "users.acl").unlink()
    made = Started(here, ("redis.conf",))
    try:
        assert made.process.wait(10) != 0
    finally:
        made.kill()


def test_a_sentinel_takes_the_file_and_watches_the_master_of_that_name(here: Path) -> None:
    made = Started(here, ("sentinel.conf",), "--sentinel")
    try:
        client = redis.Redis(port=made.port, decode_responses=True)

        def watches() -> bool:
            try:
                return client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "fangnetz") is not None
            except redis.ConnectionError:
                return False

        assert wait_for(watches, 10)
    finally:
        made.kill()
