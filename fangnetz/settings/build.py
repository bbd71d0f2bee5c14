"""From a file that broke no rule to Settings. Never judges: whatever comes here has passed every check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fangnetz.core.model import HostSpec, Rules, VmDoc
from fangnetz.core.policy import Policy
from fangnetz.core.retries import Retries
from fangnetz.core.units import ControllerId, DeviceName, HostId, MiB, VmId
from fangnetz.settings.domain import BlockDisk, FileDisk, IscsiDisk, ShortVm, StorageLease, domain_xml
from fangnetz.settings.domain_facts import vm_doc_from_xml
from fangnetz.settings.names import SENTINEL_PORT, split_node, split_portal
from fangnetz.settings.schema import (
    DRIVERS,
    NO_NETWORK,
    ClusterShape,
    DeviceShape,
    DiskShape,
    HostShape,
    LoginShape,
    RedisShape,
    SecretShape,
    ShortVmShape,
    SlotsShape,
    VmShape,
    XmlVmShape,
)
from fangnetz.settings.secrets import Secret
from fangnetz.settings.values import (
    ControllerSettings,
    DeviceSettings,
    FlowerSettings,
    HostSettings,
    Login,
    RedisServer,
    RedisSettings,
    RedisUser,
    Settings,
    SlotSettings,
)


def build_settings(path: Path, shape: ClusterShape, policy: Policy, xmls: Mapping[VmId, str] | None) -> Settings:
    """Return the settings. `xmls`: the text of every VM that has an xml_file; None leaves all VMs out."""
    base = path.parent
    flower = None
    if shape.flower is not None:
        secret = _secret(base, shape.flower)
        assert secret is not None, "check_secrets has asked for it"  # noqa: S101
        flower = FlowerSettings(
            address=shape.flower.address,
            port=shape.flower.port,
            username=shape.flower.username,
            secret=secret,
        )
    return Settings(
        path=path,
        cluster=shape.cluster,
        redis=_redis(base, shape.redis),
        controllers={
            ControllerId(name): ControllerSettings(
                id=ControllerId(name),
                address=controller.address,
                host=None if controller.host is None else HostId(controller.host),
            )
            for name, controller in shape.controllers.items()
        },
        flower=flower,
        hosts={
            HostId(name): _host(base, HostId(name), host, _controllers_on(name, shape))
            for name, host in shape.hosts.items()
        },
        references=tuple(shape.references),
        slots=None if shape.slots is None else _slots(shape.slots),
        vms={}
        if xmls is None
        else {VmId(name): _vm(shape.cluster, VmId(name), vm, xmls) for name, vm in shape.vms.items()},
        policy=policy,
    )


def _slots(shape: SlotsShape) -> SlotSettings:
    if shape.device is not None:
        return SlotSettings(kind="device", path=Path(shape.device))
    assert shape.folder is not None, "check_slots has asked for one of them"  # noqa: S101
    return SlotSettings(kind="folder", path=Path(shape.folder))


def _redis(base: Path, shape: RedisShape) -> RedisSettings:
    named: dict[RedisUser | RedisServer, LoginShape | None] = (
        {}
        if shape.users is None
        else {
            "controller": shape.users.controller,
            "host": shape.users.host,
            "flower": shape.users.flower,
            "operator": shape.users.operator,
            "replica": shape.users.replica,
            "sentinel": shape.users.sentinel,
        }
    )
    nodes = (split_node(node, SENTINEL_PORT) for node in shape.sentinels or ())
    return RedisSettings(
        url=shape.url or "",
        sentinels=tuple(node for node in nodes if node is not None),
        master=shape.master or "",
        login=_login(base, shape),
        users={user: _login(base, login) for user, login in named.items() if login is not None},
        sentinel_login=Login() if shape.sentinel_login is None else _login(base, shape.sentinel_login),
    )


def _login(base: Path, shape: LoginShape) -> Login:
    return Login(username=shape.username or "", secret=_secret(base, shape))


def _secret(base: Path, shape: SecretShape) -> Secret | None:
    if shape.password_file is not None:
        return Secret(file=base / shape.password_file)
    return Secret(env=shape.password_env) if shape.password_env is not None else None


def _controllers_on(host: str, shape: ClusterShape) -> tuple[ControllerId, ...]:
    return tuple(
        ControllerId(name) for name, controller in sorted(shape.controllers.items()) if controller.host == host
    )


def _host(base: Path, host: HostId, shape: HostShape, controllers: tuple[ControllerId, ...]) -> HostSettings:
    devices = {DeviceName(device.name): _device(base, device) for level in shape.fencing for device in level}
    return HostSettings(
        spec=HostSpec(
            id=host,
            cpus=shape.cpus,
            memory_mib=MiB(shape.memory_mib),
            fencing=tuple(tuple(DeviceName(device.name) for device in level) for level in shape.fencing),
            controllers=controllers,
            zone=shape.zone or "",
        ),
        address=shape.address,
        libvirt_uri=shape.libvirt_uri,
        libvirt_port=shape.libvirt_port,
        migration_uri=shape.migration_uri or f"{shape.libvirt_uri.partition(':')[0]}+tls://{shape.address}/system",
        bmc_guid_command=tuple(shape.bmc_guid_command or ()),
        devices=devices,
    )


def _device(base: Path, shape: DeviceShape) -> DeviceSettings:
    return DeviceSettings(
        name=DeviceName(shape.name),
        driver=shape.driver,
        address=shape.address,
        port=shape.port or DRIVERS[shape.driver].port,
        username=shape.username or "",
        secret=_secret(base, shape),
    )


def short_vm(cluster: str, vm: VmId, shape: ShortVmShape) -> ShortVm:
    """Return the short form as values."""
    lease = shape.storage_lease
    return ShortVm(
        cluster=cluster,
        vm=vm,
        memory_mib=MiB(shape.memory_mib),
        cpus=shape.cpus,
        disk=_disk(shape.disk),
        virt=shape.virt,
        kernel=shape.kernel or "",
        initrd=shape.initrd or "",
        cmdline=shape.cmdline or "",
        bridge="" if shape.network == NO_NETWORK else shape.network,
        lease=None if lease is None else StorageLease(lockspace=lease.lockspace, path=lease.path),
    )


def _disk(shape: DiskShape) -> IscsiDisk | FileDisk | BlockDisk:
    if shape.iscsi is not None:
        portal = split_portal(shape.iscsi.portal)
        assert portal is not None, "the schema has read it"  # noqa: S101
        return IscsiDisk(address=portal[0], port=portal[1], target=shape.iscsi.target, lun=shape.iscsi.lun)
    if shape.file is not None:
        return FileDisk(path=shape.file, format=shape.format or "raw")
    return BlockDisk(path=shape.block or "")


def _vm(cluster: str, vm: VmId, shape: XmlVmShape | ShortVmShape, xmls: Mapping[VmId, str]) -> VmDoc:
    xml = xmls[vm] if isinstance(shape, XmlVmShape) else domain_xml(short_vm(cluster, vm, shape))
    return vm_doc_from_xml(
        xml,
        priority=shape.priority,
        wish=shape.wish,
        source="file",
        rules=_rules(shape),
        live=shape.live,
        retries=Retries(restarts=shape.max_restarts, relocations=shape.max_relocations),
        fallback=shape.evacuate_fallback,
    )


def _rules(shape: VmShape) -> Rules:
    return Rules(
        allowed=tuple(HostId(host) for host in sorted(set(shape.allowed or ()))),
        strict=shape.strict,
        preferred=tuple((HostId(host), weight) for host, weight in sorted(shape.preferred.items())),
        together=tuple(VmId(vm) for vm in sorted(set(shape.together))),
        apart=tuple(VmId(vm) for vm in sorted(set(shape.apart))),
        failback=shape.failback,
    )
