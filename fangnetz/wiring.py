"""Settings -> real ports: the only place that picks adapters. Opens nothing before it is asked to."""

from __future__ import annotations

from pathlib import Path

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.ipmi import IpmiDevice
from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.adapters.probes import NetworkProber
from fangnetz.adapters.redis import RedisStore, connect
from fangnetz.core.errors import SettingsError
from fangnetz.core.units import DeviceName, HostId
from fangnetz.ports import FenceDevice, ProbeTarget
from fangnetz.settings import DeviceSettings, Settings


def open_store(settings: Settings, *, name: str, timeout_s: float = 2.0) -> RedisStore:
    """Return the cluster's store; every call on it ends within about twice `timeout_s` seconds.

    `name` is what Redis shows as the client's name.
    """
    client = connect(settings.redis.url_with_secret(), name=f"fangnetz-{name}", timeout_s=timeout_s)
    return RedisStore(client, settings.cluster)


def open_device(device: DeviceSettings) -> FenceDevice:
    """Return the fence device behind its driver."""
    match device.driver:
        case "ipmi":
            secret = device.secret
            return IpmiDevice(
                device.name,
                device.address,
                device.port,
                device.username,
                (lambda: "") if secret is None else secret.read,
            )
        case _:
            raise SettingsError(f"fence device {device.name}: no driver is called {device.driver}")


def open_devices(settings: Settings, host: HostId) -> dict[DeviceName, FenceDevice]:
    """Return every fence device of a host by name."""
    return {name: open_device(device) for name, device in settings.hosts[host].devices.items()}


def open_hypervisor(settings: Settings, host: HostId) -> LibvirtHypervisor:
    return LibvirtHypervisor(settings.hosts[host].libvirt_uri)


def open_boot_files(run_dir: Path) -> BootFilesOnDisk:
    return BootFilesOnDisk(run_dir)


def open_ledger_files(state_dir: Path) -> LedgerFolder:
    return LedgerFolder(state_dir / "ledger")


def open_prober() -> NetworkProber:
    return NetworkProber()


def probe_targets(settings: Settings) -> tuple[ProbeTarget, ...]:
    return tuple(
        ProbeTarget(host=host, address=it.address, libvirt_port=it.libvirt_port) for host, it in settings.hosts.items()
    )
