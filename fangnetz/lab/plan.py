"""The plan of a lab: who is in it and where, fixed when it comes up and kept in its folder. Never acts.

One /24 a lab, in three networks of 62 addresses: cluster (.0/26), storage (.64/26), bmc (.128/26).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Literal, Self

from fangnetz.lab.errors import LabError
from fangnetz.lab.names import namespace_of, root_folder, tag_of

Link = Literal["cluster", "storage", "bmc"]
Policy = Literal["default", "fast"]
Isolated = Literal["fence", "leave"]

LINKS: tuple[Link, ...] = ("cluster", "storage", "bmc")
PREFIX_LENGTH = 26
HOSTS_MAX = 40
VMS_MAX = 40
ISCSI_PORT = 3260
REDIS_PORT = 6379
SENTINEL_PORT = 26379
SENTINEL_MASTER = "fangnetz"
"""What the Sentinels call the Redis they watch."""
STORES_MAX = 3
LIBVIRT_PORT = 16509
IPMI_PORT = 623
_FIRST: dict[Link, int] = {"cluster": 0, "storage": 64, "bmc": 128}
_FIRST_STORE = 7
_FIRST_HOST = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One lab. `subnet` is its /24; ids are in order, the first VM has the highest priority."""

    name: str
    subnet: str
    hosts: tuple[str, ...]
    controllers: tuple[str, ...]
    vms: tuple[str, ...]
    policy: Policy
    storage_lock: bool
    bare: bool
    flower_port: int
    sentinel: bool = False
    slots: bool = True
    """Whether its hosts keep slots; in a folder, so they are not on the storage link that can be cut."""
    isolated: Isolated = "fence"
    """`policy.isolated` of its cluster file."""

    @property
    def tag(self) -> str:
        """The short form of the name."""
        return tag_of(self.name)

    @property
    def folder(self) -> Path:
        """Where everything of this lab is kept while it exists."""
        return root_folder() / self.name

    @property
    def config_path(self) -> Path:
        """The cluster file of this lab."""
        return self.folder / "cluster.yaml"

    @property
    def switch(self) -> str:
        """The namespace with the bridges."""
        return namespace_of(self.tag, "switch")

    def namespace(self, node: str) -> str:
        """The network namespace of a node."""
        return namespace_of(self.tag, node)

    @property
    def bmcs(self) -> tuple[str, ...]:
        """The node of each host's BMC, in the order of the hosts."""
        return tuple(f"bmc-{host}" for host in self.hosts)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node with a namespace of its own, the switch left out."""
        return (*self.hosts, *self.bmcs, *self.controllers, *self.stores, "storage")

    @property
    def stores(self) -> tuple[str, ...]:
        """Every node that runs a Redis; with Sentinels three, of which the first begins as master."""
        return tuple(f"redis{number + 1}" for number in range(STORES_MAX)) if self.sentinel else ("redis",)

    def host_folder(self, host: str) -> Path:
        """Disk, logs and settings of a host."""
        return self.folder / "hosts" / host

    def links_of(self, node: str) -> tuple[Link, ...]:
        """The networks a node is wired to."""
        if node in self.hosts:
            return ("cluster", "storage")
        if node in self.bmcs:
            return ("bmc",)
        if node == "storage":
            return ("storage",)
        if node in self.stores:
            return ("cluster",)
        return ("cluster", "bmc")

    def port(self, node: str, link: Link) -> str:
        """The switch port of a node's link."""
        return f"{link[0]}-{node.removeprefix('bmc-')}"

    def network(self, link: Link) -> IPv4Network:
        """The network behind a link."""
        return IPv4Network((int(IPv4Network(self.subnet)[_FIRST[link]]), PREFIX_LENGTH))

    def address(self, node: str, link: Link = "cluster") -> IPv4Address:
        """The address of a node in a network; the machine itself is `root`."""
        return self.network(link)[self._place(node)]

    def mac(self, node: str, link: Link) -> str:
        """A fixed hardware address: a host that was off comes back under the one its peers remember."""
        digest = hashlib.sha256(f"{self.tag}/{node}/{link}".encode()).digest()
        return "52:54:" + ":".join(f"{byte:02x}" for byte in digest[:4])

    def _place(self, node: str) -> int:
        if node == "root":
            return 1
        if node in ("redis", "storage"):
            return 2
        if node in self.controllers:
            return 3 + self.controllers.index(node)
        if node in self.stores:
            return _FIRST_STORE + self.stores.index(node)
        return _FIRST_HOST + self.hosts.index(node.removeprefix("bmc-"))

    def save(self) -> None:
        """Keep the plan in the lab's folder."""
        (self.folder / "lab.json").write_text(json.dumps({"schema": 1, **asdict(self)}, indent=1))

    @classmethod
    def load(cls, name: str) -> Self:
        """Read the plan of a lab that is up. Raises LabError if there is none of that name."""
        try:
            kept: dict[str, Any] = json.loads((root_folder() / name / "lab.json").read_text())
        except (OSError, ValueError) as error:
            raise LabError(f"no lab {name!r} is up; `fangnetz lab up` starts one") from error
        if kept.pop("schema", None) != 1:
            raise LabError(f"lab {name!r} was made by another version; `fangnetz lab down` removes it")
        for key in ("hosts", "controllers", "vms"):
            kept[key] = tuple(kept[key])
        return cls(**kept)
