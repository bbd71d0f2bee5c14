"""Settings -> real ports: the only place that picks adapters. Opens nothing before it is asked to.

Adapters are imported where they are made: the command line needs the store alone, and starts without libvirt.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from fangnetz.core.errors import SettingsError
from fangnetz.core.units import DeviceName, HostId
from fangnetz.ports import BootFiles, FenceDevice, ProbeTarget
from fangnetz.settings import DeviceSettings, RedisUser, Settings

if TYPE_CHECKING:
    from fangnetz.adapters.boot_files import BootFilesOnDisk
    from fangnetz.adapters.disk_slots import AskedSlots
    from fangnetz.adapters.ledger_files import LedgerFolder
    from fangnetz.adapters.libvirt import LibvirtHypervisor
    from fangnetz.adapters.probes import NetworkProber
    from fangnetz.adapters.redis import RedisStore
    from fangnetz.adapters.system_process import SystemProcess


def open_store(settings: Settings, *, name: str, user: RedisUser = "operator", timeout_s: float = 2.0) -> RedisStore:
    """Return the cluster's store; every call on it ends within about twice `timeout_s` seconds.

    `name` is what Redis shows as the client's name, `user` whom it lets in. Raises SettingsError if the password
    cannot be read on this machine. Behind Sentinels whatever an effect rests on is confirmed by a replica.
    """
    from fangnetz.adapters.redis import RedisStore, connect, connect_by_sentinels

    place = settings.redis
    login, watch = place.login_of(user), place.sentinel_login
    shown, username, password = f"fangnetz-{name}", login.username, login.password()
    if not place.sentinels:
        client = connect(place.url, name=shown, timeout_s=timeout_s, username=username, password=password)
        return RedisStore(client, settings.cluster)
    client = connect_by_sentinels(
        place.sentinels,
        master=place.master,
        name=shown,
        timeout_s=timeout_s,
        username=username,
        password=password,
        sentinel_username=watch.username,
        sentinel_password=watch.password(),
    )
    return RedisStore(client, settings.cluster, replicas_min=1)


def open_device(device: DeviceSettings) -> FenceDevice:
    """Return the fence device behind its driver."""
    match device.driver:
        case "ipmi":
            from fangnetz.adapters.ipmi import IpmiDevice

            secret = device.secret
            return IpmiDevice(
                name=device.name,
                address=device.address,
                port=device.port,
                username=device.username,
                password_reader=(lambda: "") if secret is None else secret.read,
            )
        case _:
            raise SettingsError(f"fence device {device.name}: no driver is called {device.driver}")


def open_devices(settings: Settings, host: HostId) -> dict[DeviceName, FenceDevice]:
    """Return every fence device of a host by name."""
    return {name: open_device(device) for name, device in settings.hosts[host].devices.items()}


def open_hypervisor(settings: Settings, host: HostId, boot: BootFiles) -> LibvirtHypervisor:
    """Return libvirt on this host; `boot` keeps the starts it has not answered, beyond the life of this process."""
    from fangnetz.adapters.libvirt import LibvirtHypervisor

    peers = {other: one.migration_uri for other, one in settings.hosts.items() if other != host}
    return LibvirtHypervisor(settings.hosts[host].libvirt_uri, boot, peers=peers)


def open_boot_files(run_dir: Path) -> BootFilesOnDisk:
    from fangnetz.adapters.boot_files import BootFilesOnDisk

    return BootFilesOnDisk(run_dir)


def open_ledger_files(state_dir: Path) -> LedgerFolder:
    from fangnetz.adapters.ledger_files import LedgerFolder

    return LedgerFolder(state_dir / "ledger")


def open_slots(settings: Settings) -> AskedSlots | None:
    """Return the slots on the shared storage, None where the cluster file names none. Asks nothing yet."""
    if settings.slots is None:
        return None
    from fangnetz.adapters.disk_slots import AskedSlots

    return AskedSlots(settings.slots.kind, settings.slots.path, settings.cluster)


def format_slots(settings: Settings) -> Path:
    """Prepare the device that the cluster file names for slots; return it. FangnetzError: it is left as it is."""
    if settings.slots is None or settings.slots.kind != "device":
        raise SettingsError(f"{settings.path}: slots.device: names no device; a folder needs no preparing")
    from fangnetz.adapters.disk_slots import format_device

    format_device(settings.slots.path, settings.cluster)
    return settings.slots.path


def this_process() -> SystemProcess:
    from fangnetz.adapters.system_process import SystemProcess

    return SystemProcess()


def open_prober() -> NetworkProber:
    from fangnetz.adapters.probes import NetworkProber

    return NetworkProber()


def probe_targets(settings: Settings) -> tuple[ProbeTarget, ...]:
    """Return whom to probe; names are resolved here, once, so that a silent name server silences nobody later."""
    return tuple(
        ProbeTarget(host=host, address=_resolved(host, it.address), libvirt_port=it.libvirt_port)
        for host, it in settings.hosts.items()
    )


def _resolved(host: HostId, address: str) -> str:
    try:
        return str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise SettingsError(f"hosts.{host}.address: {address}: cannot be resolved: {error}") from error
