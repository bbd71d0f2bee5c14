"""Redis' users' file: each role can do what it needs, and what it must not do is forbidden and said in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from fangnetz.adapters.redis import RedisStore, connect
from fangnetz.adapters.redis.acl import RIGHTS, SERVERS, USERS, Credential, acl_text, sha256_of
from fangnetz.cli.config import app
from fangnetz.core.actions import Happened
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.model import VmState, Wish, WishKind
from fangnetz.core.operations import Outcome, StepState
from fangnetz.core.units import Instant, Seconds
from fangnetz.ports import Claim, LedgerEntry
from tests.contract.subjects import C1, LEASE, OP, WEB, Cluster, RedisSubject
from tests.core.roll.rolling import a_roll
from tests.core.world import beat, host_record
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
CLUSTER = "test"
HAND = "user hand on nopass ~* &* +@all\n"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis with the users' file of the cluster `test`; each user's password is its name."""
    file = tmp_path_factory.mktemp("acl") / "users.acl"
    known = {user: Credential(username=user, sha256=sha256_of(user)) for user in (*USERS, *SERVERS)}
    file.write_text(acl_text(CLUSTER, 0, known) + HAND)
    server = RedisServer("any", user="hand", options=["--aclfile", str(file)])
    yield server
    server.kill()


@pytest.fixture
def cluster(guarded: RedisServer) -> Cluster:
    """A cluster with a leader and a VM, made by a hand that may do all."""
    guarded.client().flushall()
    guarded.client().acl_log_reset()
    made = Cluster(RedisSubject(guarded))
    made.store = store_of(guarded, "controller")
    made.vm()
    made.open()
    return made


def client_of(server: RedisServer, user: str) -> redis.Redis:
    return connect(server.url, name="test", username=user, password=user)


def store_of(server: RedisServer, user: str) -> RedisStore:
    return RedisStore(client_of(server, user), CLUSTER)


def a_wish() -> Wish:
    return Wish(id="w1", kind=WishKind.VM_START, subject="web", by="ada", at=Instant(1.0))


Attempt = Callable[[RedisStore, Cluster], object]


def take_lease(store: RedisStore, _made: Cluster) -> object:
    return store.take_lease(C1, Seconds(1.0))


def put_host(store: RedisStore, made: Cluster) -> object:
    return store.put_host(host_record("h1"), None, made.epoch)


def report(store: RedisStore, _made: Cluster) -> object:
    return store.put_heartbeat(beat("h1", 1.0))


def claim(store: RedisStore, made: Cluster) -> object:
    return made.try_claim("plan/1", token="t9", store=store)


def write_wish(store: RedisStore, _made: Cluster) -> object:
    store.add_wish(a_wish())
    return None


def write_roll(store: RedisStore, _made: Cluster) -> object:
    return store.put_roll(a_roll("h1"), None)


FORBIDDEN: list[tuple[str, str, Attempt]] = [
    ("host", "take the control lease", take_lease),
    ("host", "give the control lease back", lambda store, _: store.drop_lease(C1)),
    ("host", "put a host's record", put_host),
    ("host", "put a VM's record", lambda store, made: store.put_vm(made.record(), made.generation(), made.epoch)),
    ("host", "mark a VM", lambda store, made: store.mark_vm(WEB, made.generation(), VmState.FAILED, "x", made.epoch)),
    ("host", "forget a VM", lambda store, made: store.forget_vm(WEB, made.epoch)),
    ("host", "open an operation", lambda store, made: store.open_operation(made.operation(identity="op-2"))),
    ("host", "put alarms", lambda store, made: store.put_alarms((), made.epoch)),
    ("host", "write a wish", write_wish),
    ("host", "write how a roll stands", write_roll),
    ("operator", "take the control lease", take_lease),
    ("operator", "put a host's record", put_host),
    ("operator", "report as a host", report),
    ("operator", "claim a step", claim),
    ("flower", "take the control lease", take_lease),
    ("flower", "put a host's record", put_host),
    ("flower", "report as a host", report),
    ("flower", "claim a step", claim),
    ("flower", "write a wish", write_wish),
    ("flower", "write how a roll stands", write_roll),
]


@pytest.mark.parametrize(("user", "what", "attempt"), FORBIDDEN, ids=[f"{row[0]}: {row[1]}" for row in FORBIDDEN])
def test_what_a_role_must_not_do_is_forbidden_and_said_in_a_sentence(
    cluster: Cluster, guarded: RedisServer, user: str, what: str, attempt: Attempt
) -> None:
    cluster.store.now()
    before = everything(guarded)
    with pytest.raises(StoreUnreachable) as said:
        attempt(store_of(guarded, user), cluster)
    assert "users' file lacks a right" in str(said.value), what
    assert "\n" not in str(said.value)
    assert everything(guarded) == before


def test_a_host_can_do_all_its_work(cluster: Cluster, guarded: RedisServer) -> None:
    store = store_of(guarded, "host")
    assert store.put_heartbeat(beat("h1", 1.0)) > 0
    claim = cluster.try_claim("plan/1", store=store)
    assert isinstance(claim, Claim)
    assert store.renew(claim, LEASE) > 0
    skipped = Outcome(state=StepState.DONE, sentence="x", adds=(cluster.start_step(),))
    store.settle(claim, skipped)
    store.mark_dispatched(OP, ["start/web/1"])
    store.log([Happened(kind="k", subject="s", sentence="x", facts={})])
    store.put_ledger([LedgerEntry(key="vm/web", version=1, body="")])
    assert store.ledger(-1) is not None
    assert store.definition(WEB) is None
    assert store.view({}, None).vm_records
    assert guarded.client().acl_log() == []


def test_an_operator_reads_all_wishes_and_rolls(cluster: Cluster, guarded: RedisServer) -> None:
    store = store_of(guarded, "operator")
    store.add_wish(a_wish())
    assert store.view({}, None).wishes == (a_wish(),)
    assert store.control_lease() is not None
    assert store.operations(5)
    assert store.alarms() == ()
    assert store.wish_result("w1") is None
    assert store.put_roll(a_roll("h1"), None)
    assert store.roll() == a_roll("h1")
    store.drop_roll()
    assert store.events("", 5, Seconds(0.0)) == ()
    assert guarded.client().acl_log() == []


QUEUES = ["work", "fence", "probe", "control.c1", "probe.c1", "host.h1"]
MAY_SEND = {
    "controller": set(QUEUES),
    "host": {"work", "control.c1", "host.h1"},
    "operator": {"work"},
    "flower": set(),
}
MAY_SPEAK = {
    "controller": {"celeryev/x"},
    "host": {"celeryev/x"},
    "operator": {"celeryev/x", "celery.pidbox"},
    "flower": set(),
}


def allowed(client: redis.Redis, *command: Any) -> bool:
    try:
        client.execute_command(*command)
    except redis.exceptions.NoPermissionError:
        return False
    return True


@pytest.mark.parametrize("user", USERS)
def test_each_role_rings_only_where_it_has_business(guarded: RedisServer, user: str) -> None:
    client = client_of(guarded, user)
    assert {name for name in QUEUES if allowed(client, "LPUSH", f"fn:{CLUSTER}:{name}", "x")} == MAY_SEND[user]
    topics = ("celeryev/x", "celery.pidbox")
    assert {name for name in topics if allowed(client, "PUBLISH", f"fn:{CLUSTER}:/0.{name}", "x")} == MAY_SPEAK[user]


@pytest.mark.parametrize("user", [*USERS, *SERVERS])
def test_nobody_reaches_another_cluster_or_the_server_itself(guarded: RedisServer, user: str) -> None:
    guarded.client().set("fn:{other}:lease", "theirs")
    client = client_of(guarded, user)
    for command in (
        ("GET", "fn:{other}:lease"),
        ("SET", "fn:{other}:lease", "mine"),
        ("LPUSH", "fn:other:work", "x"),
        ("PUBLISH", "fn:other:/0.celery.pidbox", "x"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("CONFIG", "GET", "*"),
        ("ACL", "SETUSER", user, "allcommands"),
        ("SHUTDOWN", "NOSAVE"),
        ("MONITOR",),
    ):
        assert not allowed(client, *command), command
    assert not allowed(client, "SLAVEOF", "NO", "ONE") or user == "sentinel"


def test_without_a_name_nobody_gets_in(guarded: RedisServer) -> None:
    store = RedisStore(connect(guarded.url, name="test"), CLUSTER)
    with pytest.raises(StoreUnreachable):
        store.now()
    with pytest.raises(redis.exceptions.AuthenticationError):
        client_of_password(guarded, "host", "controller").ping()


def client_of_password(server: RedisServer, user: str, password: str) -> redis.Redis:
    return connect(server.url, name="test", username=user, password=password)


def everything(server: RedisServer) -> dict[str, object]:
    """All that the store holds but its clock, which every script moves."""
    raw: Any = server.client()
    read = {"string": raw.get, "hash": raw.hgetall, "set": raw.smembers, "list": lambda key: raw.lrange(key, 0, -1)}
    return {key: read[raw.type(key)](key) for key in raw.scan_iter("*") if not key.endswith(":clock")}


def test_a_killed_redis_with_a_users_file_comes_back_with_all_it_was_told(tmp_path: Path) -> None:
    """Redis reads its append-only file as `default`: rights that user lacks would drop what scripts had written."""
    known = {"controller": Credential(username="controller", sha256=sha256_of("controller"))}
    (tmp_path / "users.acl").write_text(acl_text(CLUSTER, 0, known) + HAND)
    options = ["--aclfile", f"{tmp_path}/users.acl", "--appendonly", "yes", "--dir", str(tmp_path)]
    server = RedisServer("any", user="hand", options=options)
    try:
        made = Cluster(RedisSubject(server))
        made.store = store_of(server, "controller")
        made.vm()
        made.open()
        made.claim("plan/1")
        before = everything(server)
        server.restart()
        assert everything(server) == before
        assert server.client().acl_log() == []
    finally:
        server.kill()


# -- the file itself --

EXAMPLE = """\
cluster: demo
redis:
  url: redis://10.0.0.2:6379/0
  users:
    controller: {username: fn-controller, password_file: secrets/controller}
    host: {username: fn-host, password_file: secrets/host}
    operator: {username: fn-operator, password_env: FN_TEST_OPERATOR}
controllers:
  c1: {address: 10.0.0.3}
hosts:
  host1: {address: 10.0.0.11, cpus: 4, memory_mib: 4096}
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secrets").mkdir()
    for name in ("controller", "host"):
        (tmp_path / "secrets" / name).write_text(f"s3cret-{name}\n")
        (tmp_path / "secrets" / name).chmod(0o600)
    monkeypatch.setenv("FN_TEST_OPERATOR", "s3cret-operator")
    (tmp_path / "cluster.yaml").write_text(EXAMPLE)
    return tmp_path


def test_the_command_writes_a_file_redis_takes_and_no_password_is_in_it(written: Path) -> None:
    done = CliRunner().invoke(app, ["redis-acl", str(written / "cluster.yaml"), "--output", str(written / "users.acl")])
    assert done.exit_code == 0, done.output
    text = (written / "users.acl").read_text()
    assert (written / "users.acl").stat().st_mode & 0o777 == 0o640
    assert "s3cret" not in text + done.output
    server = RedisServer("s3cret-host", user="fn-host", options=["--aclfile", str(written / "users.acl")])
    try:
        assert server.client().ping()
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  users:\n", "  username: x\n  password_env: FN_TEST_OPERATOR\nxusers:\n", "xusers"),
        ("secrets/host", "secrets/none", "secrets/none"),
        (EXAMPLE[EXAMPLE.index("  users:") : EXAMPLE.index("controllers:")], "", "redis.users"),
    ],
)
def test_the_command_says_what_lacks(written: Path, old: str, new: str, words: str) -> None:
    (written / "cluster.yaml").write_text(EXAMPLE.replace(old, new))
    done = CliRunner().invoke(app, ["redis-acl", str(written / "cluster.yaml")])
    assert done.exit_code == 1
    assert words in done.output
    assert "Traceback" not in done.output


def test_the_file_that_is_shipped_shows_the_rights_as_they_are() -> None:
    nobody = {user: Credential(username=f"fn-{user}", sha256="0" * 64) for user in (*USERS, *SERVERS)}
    assert (ROOT / "config" / "redis" / "users.acl").read_text() == acl_text("demo", 0, nobody)
    assert set(RIGHTS) == set(USERS)
