"""Settings as the rest of the product sees them: frozen values, every default filled in, no secret inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote, urlsplit

from fangnetz.core.model import HostSpec, VmDoc
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, DeviceName, HostId, VmId
from fangnetz.settings.secrets import Secret

RedisUser = Literal["controller", "host", "flower", "operator"]
"""Who logs in at Redis: the processes by their role; `operator` is a person at the command line."""
RedisServer = Literal["replica", "sentinel"]
"""Which servers log in at Redis: replicas at their master, Sentinels at all."""
REDIS_USERS: tuple[RedisUser, ...] = get_args(RedisUser)
REDIS_SERVERS: tuple[RedisServer, ...] = get_args(RedisServer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A name and where its password lies. Both empty: nothing is asked for. Never holds the password."""

    username: str = ""
    secret: Secret | None = None

    def password(self) -> str | None:
        """Return the password, None if there is none. SettingsError if it cannot be read on this machine."""
        return None if self.secret is None else self.secret.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """The store and broker: one Redis at `url`, or the one that `sentinels` call `master`. Holds no credentials.

    `login` serves whoever has none of its own in `users`; `sentinel_login` is what the Sentinels themselves ask for.
    """

    url: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    login: Login = Login()
    users: Mapping[RedisUser | RedisServer, Login] = field(default_factory=dict)
    sentinel_login: Login = Login()

    @property
    def place(self) -> str:
        """Where it is, in words that may be shown."""
        nodes = ", ".join(node_text(host, port) for host, port in self.sentinels)
        return self.url or f"{self.master}, as the Sentinels {nodes} say"

    @property
    def database(self) -> int:
        """Its number; always 0 behind Sentinels."""
        path = urlsplit(self.url).path.strip("/")
        return int(path) if path else 0

    def login_of(self, user: RedisUser | RedisServer) -> Login:
        """Return what this user logs in with."""
        return self.users.get(user, self.login)

    def broker_url(self, user: RedisUser) -> str:
        """Return Celery's broker URL, credentials included: never log or store it.

        Raises SettingsError if the secret cannot be read on this machine.
        """
        login = self.login_of(user)
        password = login.password()
        name = "" if password is None else f"{quote(login.username, safe='')}:{quote(password, safe='')}@"
        if not self.sentinels:
            scheme, rest = self.url.split("://", 1)
            return f"{scheme}://{name}{rest}"
        return ";".join(f"sentinel://{name}{node_text(host, port)}/0" for host, port in self.sentinels)


def node_text(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerSettings:
    """Where Flower listens, and the name and password it asks for."""

    address: str
    port: int
    username: str
    secret: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSettings:
    """Where on the shared storage every host keeps its slot."""

    kind: Literal["folder", "device"]
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """A machine that may decide. `host`: the host that it is itself, None if it runs no VMs."""

    id: ControllerId
    address: str
    host: HostId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """One fence device of one host. `driver` is a key of `DRIVERS`."""

    name: DeviceName
    driver: str
    address: str
    port: int
    username: str
    secret: Secret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """A host: what placement needs in `spec`, and how to reach it. `spec.fencing` names keys of `devices`.

    `bmc_guid_command` is empty where the default way of reading the BMC's GUID is meant.
    """

    spec: HostSpec
    address: str
    libvirt_uri: str
    libvirt_port: int
    migration_uri: str
    """How the other hosts reach its libvirt, to move a VM to it."""
    bmc_guid_command: tuple[str, ...]
    devices: Mapping[DeviceName, DeviceSettings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole cluster file. `vms` is empty when read as a host: orders bring it its definitions."""

    path: Path
    cluster: str
    redis: RedisSettings
    controllers: Mapping[ControllerId, ControllerSettings]
    flower: FlowerSettings | None
    hosts: Mapping[HostId, HostSettings]
    references: tuple[str, ...]
    """Addresses that answer ping as long as the prober's own network works, such as the router."""
    slots: SlotSettings | None
    """None where slots are not used."""
    vms: Mapping[VmId, VmDoc]
    policy: Policy
