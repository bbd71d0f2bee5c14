"""The shape of the cluster file: which keys there are, their types, bounds and defaults.

Judges each value alone. What holds between values, or needs a look at files, stands in rules.py.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, create_model

from fangnetz.core.model import VmWish
from fangnetz.core.policy import PROFILES, Fallback, Policy
from fangnetz.settings.names import (
    AbsolutePath,
    Address,
    Bridge,
    EnvName,
    IscsiTarget,
    LibvirtUri,
    Lockspace,
    Name,
    Portal,
    RedisUrl,
    RedisUserName,
    Sentinel,
    VmName,
)

Port = Annotated[int, Field(ge=1, le=65535)]
Cpus = Annotated[int, Field(ge=1, le=4096)]
MemoryMiB = Annotated[int, Field(ge=16, le=1 << 28)]
Text = Annotated[str, Field(min_length=1, max_length=255)]
FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
NO_NETWORK = "none"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """What a fence driver needs in the file."""

    port: int
    needs_secret: bool


DRIVERS: dict[str, Driver] = {"ipmi": Driver(port=623, needs_secret=True)}
"""Every fence driver that the file may name. Another driver joins here, and in the wiring."""

if TYPE_CHECKING:
    DriverName = str
else:
    DriverName = Literal[tuple(DRIVERS)]


def _empty_for_nothing(value: object) -> object:
    """`vms:` with nothing behind it means: none."""
    return {} if value is None else value


class Shape(BaseModel):
    """Strict: no unknown keys, no conversion between types, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class SecretShape(Shape):
    """A group of keys that says where its secret lies."""

    password_file: FilePath | None = None
    password_env: EnvName | None = None


class LoginShape(SecretShape):
    username: RedisUserName | None = None


class RedisUsersShape(Shape):
    controller: LoginShape | None = None
    host: LoginShape | None = None
    flower: LoginShape | None = None
    operator: LoginShape | None = None
    replica: LoginShape | None = None
    sentinel: LoginShape | None = None


class RedisShape(LoginShape):
    url: RedisUrl | None = None
    sentinels: Annotated[list[Sentinel], Field(min_length=1)] | None = None
    master: Name | None = None
    users: RedisUsersShape | None = None
    sentinel_login: LoginShape | None = None


class ControllerShape(Shape):
    address: Address
    host: Name | None = None


class FlowerShape(SecretShape):
    address: Address = "127.0.0.1"
    port: Port = 5555
    username: Text = "admin"


class DeviceShape(SecretShape):
    name: Name
    driver: DriverName
    address: Address
    port: Port | None = None
    username: Text | None = None


class HostShape(Shape):
    address: Address
    libvirt_uri: LibvirtUri = "qemu:///system"
    libvirt_port: Port = 16509
    migration_uri: LibvirtUri | None = None
    cpus: Cpus
    memory_mib: MemoryMiB
    zone: Name | None = None
    bmc_guid_command: Annotated[list[Text], Field(min_length=1)] | None = None
    # An empty level would be "all of nothing is off": a proof out of thin air.
    fencing: list[Annotated[list[DeviceShape], Field(min_length=1)]] = []


class IscsiShape(Shape):
    portal: Portal
    target: IscsiTarget
    lun: Annotated[int, Field(ge=0, le=16383)] = 1


class DiskShape(Shape):
    iscsi: IscsiShape | None = None
    file: AbsolutePath | None = None
    format: Literal["raw", "qcow2"] | None = None
    block: AbsolutePath | None = None


class LeaseShape(Shape):
    lockspace: Lockspace
    path: AbsolutePath


Weight = Annotated[int, Field(ge=-1000, le=1000)]


class VmShape(Shape):
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    wish: Annotated[VmWish, Field(strict=False)] = VmWish.RUNNING
    allowed: Annotated[list[Name], Field(min_length=1)] | None = None
    strict: bool = True
    preferred: dict[Name, Weight] = {}
    together: list[VmName] = []
    apart: list[VmName] = []
    failback: bool | None = None
    live: bool = True
    max_restarts: Annotated[int, Field(ge=0, le=100)] | None = None
    max_relocations: Annotated[int, Field(ge=0, le=100)] | None = None
    evacuate_fallback: Annotated[Fallback, Field(strict=False)] | None = None


class XmlVmShape(VmShape):
    xml_file: FilePath


class ShortVmShape(VmShape):
    memory_mib: MemoryMiB
    cpus: Annotated[int, Field(ge=1, le=4096)] = 1
    disk: DiskShape
    virt: Literal["kvm", "qemu"] = "kvm"
    kernel: AbsolutePath | None = None
    initrd: AbsolutePath | None = None
    cmdline: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    network: Bridge = NO_NETWORK
    storage_lease: LeaseShape | None = None


def _vm_form(value: Any) -> str:
    return "xml" if isinstance(value, dict) and "xml_file" in value else "short"


AnyVmShape = Annotated[
    Annotated[XmlVmShape, Tag("xml")] | Annotated[ShortVmShape, Tag("short")], Discriminator(_vm_form)
]


def _policy_shape() -> type[Shape]:
    """Read the policy's keys off `core.policy`, so that a key added there is a key here."""
    fields: dict[str, Any] = {"profile": (Literal[tuple(PROFILES)], "default")}
    for name, kind in get_type_hints(Policy).items():
        loose = isinstance(kind, type) and kind not in (int, float, str, bool)
        fields[name] = (
            Annotated[kind, Field(strict=not loose)] | None,
            Field(default=None, alias=name.rstrip("_")),
        )
    shape: type[Shape] = create_model("PolicyShape", __base__=Shape, **fields)
    return shape


PolicyShape = _policy_shape()


class SlotsShape(Shape):
    folder: AbsolutePath | None = None
    device: AbsolutePath | None = None


class ClusterShape(Shape):
    cluster: Name
    redis: RedisShape
    controllers: Annotated[dict[Name, ControllerShape], Field(min_length=1)]
    flower: FlowerShape | None = None
    hosts: Annotated[dict[Name, HostShape], Field(min_length=1)]
    references: list[Address] = []
    slots: SlotsShape | None = None
    vms: Annotated[dict[VmName, AnyVmShape], BeforeValidator(_empty_for_nothing)] = {}
    policy: Annotated[PolicyShape, BeforeValidator(_empty_for_nothing)] = PolicyShape()  # type: ignore[valid-type]


SHAPES: dict[tuple[str, ...], type[Shape]] = {
    (): ClusterShape,
    ("redis",): RedisShape,
    ("redis", "users"): RedisUsersShape,
    ("redis", "users", "*"): LoginShape,
    ("redis", "sentinel_login"): LoginShape,
    ("controllers", "*"): ControllerShape,
    ("flower",): FlowerShape,
    ("hosts", "*"): HostShape,
    ("hosts", "*", "fencing", "*", "*"): DeviceShape,
    ("slots",): SlotsShape,
    ("vms", "*", "disk"): DiskShape,
    ("vms", "*", "disk", "iscsi"): IscsiShape,
    ("vms", "*", "storage_lease"): LeaseShape,
    ("policy",): PolicyShape,
}
"""Which shape rules where, for `did you mean`. `vms.*` has two shapes and is told apart by `known_keys`."""


def known_keys(path: tuple[str | int, ...], *, has_xml: bool) -> tuple[str, ...]:
    """Return the keys that the group at a path may have."""
    if len(path) == 2 and path[0] == "vms":
        return _names(XmlVmShape if has_xml else ShortVmShape)
    for pattern, shape in SHAPES.items():
        if len(pattern) == len(path) and all(p in ("*", part) for p, part in zip(pattern, path, strict=True)):
            return _names(shape)
    return ()


def _names(shape: type[Shape]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in shape.model_fields.items())
