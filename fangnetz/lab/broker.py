"""The lab's Redis: store and broker of its cluster, on the cluster network, kept up and append-only. One, or three with
a Sentinel each.

Killed, one comes back with what it knew. Never reachable from outside the machine, and never open: everybody logs in
as the user whose rights the product gives them, so that whatever runs in a lab proves those rights. `lab` is the lab's
own hand and may do all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fangnetz.adapters.redis.acl import SERVERS, USERS, Credential, acl_text, sha256_of
from fangnetz.lab.cluster_file import secret_path
from fangnetz.lab.errors import LabError
from fangnetz.lab.plan import REDIS_PORT, SENTINEL_MASTER, SENTINEL_PORT, Plan
from fangnetz.lab.processes import start

HAND = "lab"
"""The user that may do all."""
DOWN_AFTER_S = 1.5
"""A Redis that does not answer a Sentinel for so long is down for it."""
QUORUM = 2
_TIMEOUT_S = 2.0
_SERVER = """\
bind {address}
port {port}
aclfile {folder}/users.acl
dir {folder}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""
_REPLICATED = """\
masteruser replica
masterauth {replica}
min-replicas-to-write 1
min-replicas-max-lag 3
repl-diskless-sync-delay 0
"""
_SENTINEL = """\
bind {address}
port {port}
dir {folder}
daemonize no
requirepass {own}
sentinel sentinel-pass {own}
sentinel monitor {master} {first} {redis_port} {quorum}
sentinel auth-user {master} sentinel
sentinel auth-pass {master} {password}
sentinel down-after-milliseconds {master} {down_after}
sentinel failover-timeout {master} 10000
sentinel parallel-syncs {master} 2
"""


def start_stores(plan: Plan, passwords: Mapping[str, str]) -> None:
    """Start every Redis of the plan, each in its namespace, and with Sentinel the Sentinel beside it."""
    for node in plan.stores:
        folder = plan.folder / node
        folder.mkdir(exist_ok=True)
        _write(folder / "users.acl", _users(plan, passwords))
        _write(folder / "redis.conf", _server(plan, node, passwords))
        _start(plan, node, "redis", ["redis-server", folder / "redis.conf"])
        if plan.sentinel:
            _write(folder / "sentinel.conf", _sentinel(plan, node, passwords))
            _start(plan, node, "sentinel", ["redis-server", folder / "sentinel.conf", "--sentinel"])


def admin_client(plan: Plan, node: str | None = None) -> redis.Redis:
    """Return a client that may do all, on a Redis of the lab; without a node, on the master of now."""
    return redis.Redis(
        str(plan.address(node or master_of(plan))),
        REDIS_PORT,
        username=HAND,
        password=secret_path(plan, "redis").read_text().strip(),
        **_bounded(),
    )


def master_of(plan: Plan) -> str:
    """Return the node whose Redis most Sentinels call master: one that is cut off may name yesterday's.

    Raises LabError if no Sentinel answers.
    """
    if not plan.sentinel:
        return plan.stores[0]
    named: Counter[str] = Counter()
    for node in plan.stores:
        try:
            with _sentinel_client(plan, node) as client:
                found: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_MASTER)
        except redis.RedisError:
            continue
        if found:
            named[next(store for store in plan.stores if str(plan.address(store)) == found[0])] += 1
    if not named:
        raise LabError(f"no Sentinel of lab {plan.name} says who is master")
    return named.most_common(1)[0][0]


def fail_over(plan: Plan) -> None:
    """Let the Sentinels make another Redis master, as a person may ask them to. Raises LabError if none would."""
    said = []
    for node in plan.stores:
        try:
            with _sentinel_client(plan, node) as client:
                client.execute_command("SENTINEL", "FAILOVER", SENTINEL_MASTER)
                return
        except redis.RedisError as error:
            said.append(f"{node}: {error}")
    raise LabError(f"no Sentinel of lab {plan.name} fails over: {'; '.join(said) or 'there is none'}")


def _sentinel_client(plan: Plan, node: str) -> redis.Redis:
    password = secret_path(plan, "sentinels").read_text().strip()
    return redis.Redis(str(plan.address(node)), SENTINEL_PORT, password=password, **_bounded())


def _bounded() -> dict[str, Any]:
    retry = Retry(NoBackoff(), 0)
    return {
        "socket_timeout": _TIMEOUT_S,
        "socket_connect_timeout": _TIMEOUT_S,
        "decode_responses": True,
        "retry": retry,
    }


def _users(plan: Plan, passwords: Mapping[str, str]) -> str:
    known = {
        user: Credential(username=user, sha256=sha256_of(passwords[f"redis-{user}"]))
        for user in (*USERS, *SERVERS)
        if f"redis-{user}" in passwords
    }
    hand = f"user {HAND} on #{sha256_of(passwords['redis'])} ~* &* +@all\n"
    return acl_text(plan.name, 0, known) + hand


def _server(plan: Plan, node: str, passwords: Mapping[str, str]) -> str:
    text = _SERVER.format(address=plan.address(node), port=REDIS_PORT, folder=plan.folder / node)
    if not plan.sentinel:
        return text
    text += _REPLICATED.format(replica=passwords["redis-replica"])
    first = plan.stores[0]
    return text if node == first else f"{text}replicaof {plan.address(first)} {REDIS_PORT}\n"


def _sentinel(plan: Plan, node: str, passwords: Mapping[str, str]) -> str:
    return _SENTINEL.format(
        address=plan.address(node),
        port=SENTINEL_PORT,
        folder=plan.folder / node,
        own=passwords["sentinels"],
        master=SENTINEL_MASTER,
        first=plan.address(plan.stores[0]),
        redis_port=REDIS_PORT,
        quorum=QUORUM,
        password=passwords["redis-sentinel"],
        down_after=round(DOWN_AFTER_S * 1000),
    )


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _start(plan: Plan, node: str, role: str, command: list[str | Path]) -> None:
    logs = plan.folder / node / "log" if plan.sentinel else plan.folder / "log"
    logs.mkdir(exist_ok=True)
    start(
        name=plan.name,
        node=node,
        role=role,
        command=command,
        logs=logs,
        netns=plan.namespace(node),
        keep_up=True,
    )
