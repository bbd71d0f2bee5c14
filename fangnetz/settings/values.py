"""Settings as the rest of the product sees them: frozen values, every default filled in, no secret inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fangnetz.core.model import HostSpec, VmDoc
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, DeviceName, HostId, VmId
from fangnetz.settings.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """The store and broker. `url` holds no credentials."""

    url: str
    username: str = ""
    secret: Secret | None = None

    def url_with_secret(self) -> str:
        """Return the URL to connect with, credentials included: never log or store it.

        Raises SettingsError if the secret cannot be read on this machine.
        """
        if self.secret is None:
            return self.url
        scheme, rest = self.url.split("://", 1)
        return f"{scheme}://{quote(self.username, safe='')}:{quote(self.secret.read(), safe='')}@{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerSettings:
    """Where Flower listens, and the name and password it asks for."""

    address: str
    port: int
    username: str
    secret: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """A machine that may decide."""

    id: ControllerId
    address: str


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
    vms: Mapping[VmId, VmDoc]
    policy: Policy
