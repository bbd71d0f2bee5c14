"""Who may do what in Redis: the users' file (`aclfile`), made from the cluster's name and the hashes of its passwords.

Rights are data here, one value a user; the reasons stand beside them. Never opens a connection or reads a password.

A script runs with its caller's rights, command by command. EVALSHA itself wants every key it is given to be readable
and writable, whatever the script does; so it is allowed for all keys, in a selector of its own, and what a script may
change is decided by the rights on the commands inside it.

What Redis cannot tell apart: fields of one key, two hosts (they share a user), and what a message says. A host can
write any line of an open operation, report under another host's name, and hand any public task to `work`. It can not
take the control lease, open an operation, assign a VM, ring for a fence, or shut workers down.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

USERS = ("controller", "host", "flower", "operator")
SERVERS = ("replica", "sentinel")
_NOBODY = "user default off resetpass ~* &* +@all"
"""Without it, who gives no name could do everything. `off` lets nobody in; the rights are for Redis itself, which reads
its append-only file as this user and would drop, unsaid, every transaction and every script's writes it may not do."""

# `info`, `time`: scripts ask which memory this is and what time it is. `wait`: has a replica got it?
_EVERYBODY = "+@connection -@dangerous +info +time +wait +script|load +script|exists"
_READ = (
    "+exists +type +ttl +pttl +get +mget +hget +hmget +hgetall +hlen +hexists +smembers +sismember +scard +lrange "
    "+llen +lpos +zrange +zrevrange +zrangebyscore +zcard +zscore +xrange +xrevrange +xread +xlen"
)
_WRITE = (
    "+set +del +incr +pexpire +expire +hset +hsetnx +hdel +hincrby +sadd +srem +lpush +rpush +lpop +rpop +brpop "
    "+lrem +ltrim +zadd +zrem +xadd +xtrim"
)
_TRANSACTION = "+multi +exec +discard +watch +unwatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A user's name and the SHA-256 of its password, in hex."""

    username: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Of one user. Keys of the store and of the broker come without their prefix; `*` stands for anything."""

    store_writes: tuple[str, ...] = ()
    store_reads: tuple[str, ...] = ()
    queue_owns: tuple[str, ...] = ()
    """Read and written: queues it consumes, its books of unacknowledged messages, tables of bindings."""
    queue_sends: tuple[str, ...] = ()
    """Written only: queues it puts messages into."""
    queue_reads: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    """Channels it subscribes to. Redis wants a subscription's pattern here letter by letter."""
    says: tuple[str, ...] = ()
    """Channels it publishes on."""


_PIDBOX = "celery.pidbox"
"""Remote control of workers, `shutdown` included: everybody's workers listen, an operator alone speaks."""
_EVENTS = "celeryev/*"
_REPLIES = "*.reply.celery.pidbox"
_OWN_PIDBOX = "*@*.celery.pidbox"
"""A worker's own box for remote control; its name has an @, that of an asker's box for replies has none."""


def _bindings(*exchanges: str) -> tuple[str, ...]:
    """Return the broker's tables of who reads what was sent to these exchanges; each queue has one of its own name."""
    tables = [f"_kombu.binding{kind}.{name}" for name in exchanges for kind in ("", "_permanent")]
    return (*tables, "_kombu.binding_deadlines")


RIGHTS: Mapping[str, Rights] = {
    # Decides, fences and keeps the journal: everything of this cluster, nothing of another in the same Redis.
    "controller": Rights(store_writes=("*",), queue_owns=("*",), hears=(_PIDBOX,), says=(_EVENTS,)),
    "host": Rights(
        # Its report; the lines of its steps; documents it kept while the store was away (SAFETY rule 8); its events.
        # `clock` is written by every script.
        store_writes=("clock", "hb:*", "past:*", "op:*", "ledger", "ledger:*", "events"),
        store_reads=("*",),
        queue_owns=(
            "host.*",
            "unacked*.host.*",
            _OWN_PIDBOX,
            *_bindings("host.*", "control.*", "work", "celeryev", "celery.pidbox", "reply.celery.pidbox"),
        ),
        # The next link of a chain, and a nudge of each controller's tick.
        queue_sends=("work", "control.*", _REPLIES),
        hears=(_PIDBOX,),
        says=(_EVENTS,),
    ),
    # A window: sees queues and events. Without the right to speak on the pidbox its buttons order nothing.
    "flower": Rights(
        store_reads=("*",),
        queue_owns=("celeryev.*", "unacked*.flower.*", *_bindings("celeryev")),
        queue_reads=("*",),
        hears=(_EVENTS,),
    ),
    # A person at the command line: reads all, writes wishes and how a roll stands, hands public tasks to `work`, asks
    # workers how they are.
    "operator": Rights(
        store_writes=("clock", "wishes", "roll"),
        store_reads=("*",),
        queue_owns=(
            _REPLIES,
            "celeryev.*",
            "unacked*.client.*",
            *_bindings("work", "celeryev", "celery.pidbox", "reply.celery.pidbox"),
        ),
        queue_sends=("work",),
        queue_reads=("*",),
        hears=(_EVENTS, _PIDBOX),
        says=(_PIDBOX, _EVENTS),
    ),
}

_OF_SERVERS: Mapping[str, str] = {
    "replica": "resetkeys resetchannels -@all +psync +replconf +ping",
    "sentinel": (
        "resetkeys resetchannels &__sentinel__:hello -@all +ping +info +role +multi +exec +slaveof +subscribe +publish "
        "+config|rewrite +client|setname +client|kill +script|kill"
    ),
}


def sha256_of(password: str) -> str:
    """Return what the users' file holds instead of a password."""
    return hashlib.sha256(password.encode()).hexdigest()


def acl_text(cluster: str, database: int, credentials: Mapping[str, Credential]) -> str:
    """Return the users' file: one line a user of `credentials`, whose keys are among USERS and SERVERS.

    Whoever is not in it cannot log in; `default` is off. Redis allows no comments in this file.
    """
    lines = [_NOBODY]
    for user in (*USERS, *SERVERS):
        if (one := credentials.get(user)) is not None:
            rights = _OF_SERVERS[user] if user in SERVERS else _words(cluster, database, RIGHTS[user])
            lines.append(f"user {one.username} on sanitize-payload resetpass #{one.sha256} {rights}")
    return "\n".join(lines) + "\n"


def _words(cluster: str, database: int, rights: Rights) -> str:
    store, queue, channel = f"fn:{{{cluster}}}:", f"fn:{cluster}:", f"fn:{cluster}:/{database}."
    keys = [
        *(f"~{store}{key}" for key in rights.store_writes),
        *(f"%R~{store}{key}" for key in rights.store_reads),
        *(f"~{queue}{key}" for key in rights.queue_owns),
        *(f"%W~{queue}{key}" for key in rights.queue_sends),
        *(f"%R~{queue}{key}" for key in rights.queue_reads),
    ]
    words = ["resetkeys resetchannels -@all", _EVERYBODY, _READ, _WRITE, _TRANSACTION, *keys]
    if rights.hears:
        words.append(f"+psubscribe +punsubscribe {' '.join(f'&{channel}{name}' for name in rights.hears)}")
    words.append(f"(~{store}* ~{queue}* +evalsha)")
    if rights.says:
        words.append(f"(+publish {' '.join(f'&{channel}{name}' for name in rights.says)})")
    return " ".join(words)
