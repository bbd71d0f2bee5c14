"""The files in config/redis: a real redis-server and a real Sentinel take them, and they keep what they promise."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml

from fangnetz.adapters.redis import RedisStore
from fangnetz.adapters.redis.acl import SERVERS, USERS, Credential, acl_text, sha256_of
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.model import WishKind
from fangnetz.core.units import HostId
from fangnetz.ports import LedgerEntry
from tests.core.world import beat, spec, wish
from tests.redis_server import free_port, wait_for

FOLDER = Path(__file__).parents[2] / "config" / "redis"
HOSTS = {HostId("h1"): spec("h1")}


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
        self.command = ["redis-server", str(self.config), *more]
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        return self.process

    def store_of(self, user: str) -> RedisStore:
        return RedisStore(redis.Redis(port=self.port, username=user, password=user, decode_responses=True), "demo")

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


def as_composed(here: Path) -> list[str]:
    """What the compose file gives its Redis beyond the settings, with a folder of the test's for its volume."""
    made = yaml.safe_load((FOLDER.parents[1] / "compose.yaml").read_text())["services"]["redis"]["command"]
    assert made[:2] == ["redis-server", "/usr/local/etc/redis/redis.conf"]
    elsewhere = {"/data": f"{here}/volume", "${FANGNETZ_REDIS:--::1}": "-::1"}
    return [elsewhere.get(word, word) for word in made[2:]]


@pytest.mark.parametrize("way", ["alone", "composed"])
def test_a_killed_redis_comes_back_with_all_that_was_written_and_the_same_users(here: Path, way: str) -> None:
    """Scripts' writes, too: Redis reads its append-only file as `default`, and leaves out what that user may not do."""
    (here / "volume").mkdir()
    made = Started(here, ("redis.conf",), *(as_composed(here) if way == "composed" else []))
    try:
        assert made.answers()
        store = made.store_of("controller")
        old = store.meet()
        store.put_ledger([LedgerEntry(key=f"vm/vm{n}", version=n + 1, body="") for n in range(50)])
        made.store_of("host").put_heartbeat(beat("h1", 1.0))
        asked = wish(WishKind.VM_START, "web")
        made.store_of("operator").add_wish(asked)
        kept = (store.ledger(-1), store.view(HOSTS, None).heartbeats, (asked,))
        made.kill()
        made.start()
        assert made.answers()
        store = made.store_of("controller")
        view = store.view(HOSTS, None)
        assert (store.ledger(-1), view.heartbeats, view.wishes) == kept
        assert store.meet().incarnation > old.incarnation, "and everybody knows that it is another process"
        with pytest.raises(redis.exceptions.AuthenticationError):
            made.client(None).ping()
        with pytest.raises(StoreUnreachable, match="lacks a right"):
            made.store_of("host").add_wish(asked)
    finally:
        made.kill()


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
