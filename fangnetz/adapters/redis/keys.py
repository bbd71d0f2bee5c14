"""Every key Fangnetz has in Redis, documented once. All share one hash tag, so that scripts stay legal in a cluster.

| key                    | kind        | meaning                                                                       |
|------------------------|-------------|-------------------------------------------------------------------------------|
| `clock`                | hash        | latest (us) and ahead (us): the store's clock never runs backwards            |
| `life`                 | hash        | run id, incarnation and since (us) of this store's memory                     |
| `lease`                | hash        | holder, epoch, until (us), memory (run id it was given in): who may decide    |
| `schema`               | string      | version of this layout; another one is refused                                |
| `hb:<host>`            | hash        | incarnation, sequence, at (us), doc: the last heartbeat                       |
| `past:<host>`          | list        | boots that a later one followed: they report no more                          |
| `host:<host>`          | JSON        | lifecycle state, since, reason, last proof                                    |
| `placements`           | counter     | grows with every assignment; a plan is settled only if it has not meanwhile   |
| `vms`, `vm:<vm>`       | set, hashes | owner, its incarnation, generation, state, since (us), reason, operation      |
| `ledger`, `:versions`, `:version` | hashes, counter | versioned definitions, wishes, fence memory                    |
| `op:<id>`              | hash        | doc (header), steps (keys), epoch, state, opened, closed, sentence, rev      |
| `op:<id>:step:<key>`   | hash        | one line of the journal; `o_*`: its order; progress: for people only          |
| `ops:open`             | hash        | kind/subject -> id: one open operation of a kind and subject                  |
| `ops:closed`           | sorted set  | id -> closed at (us), bounded                                                 |
| `probes:<controller>`  | list        | its latest probe rounds, newest first, bounded                                |
| `power:<host>`         | hash        | device -> latest reading                                                      |
| `watch:<controller>`   | JSON + TTL  | what that controller observed of each host                                    |
| `controllers`          | hash        | controller -> when it last looked (us)                                        |
| `files`                | hash        | controller -> digest of the cluster file it reads                             |
| `wishes`, `wish:<id>`  | hash, JSON + TTL | wishes not yet settled; the answer to a settled one                      |
| `roll`                 | JSON        | the last roll over hosts: its plan, what was done, who has it in hand         |
| `alarms`               | JSON        | standing alarms                                                               |
| `events`               | stream      | everything that happened, one sentence each, bounded                          |
"""

from __future__ import annotations

from collections.abc import Mapping

from fangnetz.core.units import ControllerId, HostId, OperationId, VmId

SCHEMA = 1
EVENTS_MAX = 10_000
CLOSED_MAX = 1_000
PROBE_ROUNDS_MAX = 8
PAST_BOOTS_MAX = 32
WATCH_TTL_S = 15
WISH_RESULT_TTL_S = 3600


class Keys:
    """The names for one cluster, all with the hash tag `{cluster}`."""

    def __init__(self, cluster: str) -> None:
        self._prefix = f"fn:{{{cluster}}}:"
        self.clock = self("clock")
        self.life = self("life")
        self.lease = self("lease")
        self.schema = self("schema")
        self.vms = self("vms")
        self.placements = self("placements")
        self.ledger = self("ledger")
        self.ledger_versions = self("ledger:versions")
        self.ledger_version = self("ledger:version")
        self.open = self("ops:open")
        self.closed = self("ops:closed")
        self.controllers = self("controllers")
        self.files = self("files")
        self.wishes = self("wishes")
        self.roll = self("roll")
        self.alarms = self("alarms")
        self.events = self("events")

    def __call__(self, name: str) -> str:
        return self._prefix + name

    def heartbeat(self, host: HostId) -> str:
        return self(f"hb:{host}")

    def past(self, host: HostId) -> str:
        return self(f"past:{host}")

    def host(self, host: HostId) -> str:
        return self(f"host:{host}")

    def vm(self, vm: VmId) -> str:
        return self(f"vm:{vm}")

    def operation(self, identity: OperationId) -> str:
        return self(f"op:{identity}")

    def step(self, identity: OperationId, key: str) -> str:
        return self(f"op:{identity}:step:{key}")

    def probes(self, controller: ControllerId) -> str:
        return self(f"probes:{controller}")

    def power(self, host: HostId) -> str:
        return self(f"power:{host}")

    def watch(self, controller: ControllerId) -> str:
        return self(f"watch:{controller}")

    def wish(self, identity: str) -> str:
        return self(f"wish:{identity}")


_KINDS: Mapping[str, str] = {
    "clock": "hash", "life": "hash", "lease": "hash", "schema": "string", "placements": "string", "vms": "set",
    "ledger": "hash", "ledger:versions": "hash", "ledger:version": "string", "ops:open": "hash", "ops:closed": "zset",
    "controllers": "hash", "files": "hash", "wishes": "hash", "roll": "string", "alarms": "string", "events": "stream",
    "hb": "hash", "past": "list", "host": "string", "vm": "hash", "op": "hash", "probes": "list", "power": "hash",
    "watch": "string", "wish": "string",
}  # fmt: skip
"""Redis type of each key, or of all that begin with that word and a colon."""


def kind_of(key: str) -> str:
    """Return the Redis type of what Fangnetz keeps at a key: the table above, for programs."""
    name = key.partition("}:")[2]
    return _KINDS.get(name) or _KINDS[name.partition(":")[0]]
