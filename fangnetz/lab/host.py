"""A lab host: its disk, its settings, its power. A set of namespaces with the real libvirtd, QEMU and worker in it.

What stands on its disk (`hosts/HOST/disk`) survives a power cycle; everything else is built anew by power-on.sh.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import uuid
from pathlib import Path

from fangnetz.lab.names import CACHE
from fangnetz.lab.plan import LIBVIRT_PORT, PREFIX_LENGTH, Plan
from fangnetz.lab.processes import LabProcess
from fangnetz.lab.run import script

_CAPABILITIES = Path("disk/var/cache/libvirt/qemu/capabilities")


def worker_program() -> Path:
    """Return `fangnetz-worker` of the virtual environment we run in."""
    return Path(sys.executable).parent / "fangnetz-worker"


def bmc_guid(plan: Plan, host: str) -> uuid.UUID:
    """Return the GUID of a host's BMC, the same over LAN and in-band."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"bmc.{host}.{plan.tag}.lab.fangnetz")


def build_host(plan: Plan, host: str) -> None:
    """Write a host's disk and settings; it stays off."""
    folder = plan.host_folder(host)
    for path in (
        "run",
        "log",
        "disk/fangnetz",
        "disk/etc/libvirt/qemu",
        "disk/var/lib/libvirt",
        "disk/var/cache/libvirt",
    ):
        (folder / path).mkdir(parents=True)
    (folder / "disk/var/log/libvirt/qemu").mkdir(parents=True)
    kept = CACHE / "capabilities"
    if kept.is_dir():
        shutil.copytree(kept, folder / _CAPABILITIES)
    etc = folder / "disk/etc/libvirt"
    (etc / "libvirtd.conf").write_text(
        f'listen_tls = 0\nlisten_tcp = 1\nauth_tcp = "none"\nauth_unix_rw = "none"\n'
        f'listen_addr = "{plan.address(host)}"\ntcp_port = "{LIBVIRT_PORT}"\n'
        f'host_uuid = "{uuid.uuid5(uuid.NAMESPACE_DNS, f"{host}.{plan.tag}.lab.fangnetz")}"\n'
    )
    (etc / "qemu.conf").write_text(
        'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = []\nnamespaces = []\n'
        'remember_owner = 0\nlock_manager = "lockd"\n'
    )
    (etc / "qemu-lockd.conf").write_text(
        f'file_lockspace_dir = "{plan.folder}/shared/fn"\n' if plan.storage_lock else "auto_disk_leases = 1\n"
    )
    (folder / "no-kvm").touch()
    (folder / "bmc-guid").write_text(f"GUID: {bmc_guid(plan, host)}\n")
    (folder / "hosts").write_text(
        "127.0.0.1 localhost\n" + "".join(f"{plan.address(each)} {each}\n" for each in plan.hosts)
    )
    settings = {
        "LAB": plan.folder,
        "NAME": plan.name,
        "NODE": host,
        "NS": plan.namespace(host),
        "SWITCH": plan.switch,
        "CLUSTER_ADDRESS": f"{plan.address(host)}/{PREFIX_LENGTH}",
        "STORAGE_ADDRESS": f"{plan.address(host, 'storage')}/{PREFIX_LENGTH}",
        "CLUSTER_MAC": plan.mac(host, "cluster"),
        "STORAGE_MAC": plan.mac(host, "storage"),
        "CONFIG": plan.config_path,
        "WORKER": "" if plan.bare else worker_program(),
    }
    (folder / "env").write_text("".join(f"{key}={shlex.quote(str(value))}\n" for key, value in settings.items()))


def power_on(plan: Plan, host: str) -> float:
    """Switch a host on; harmless when it is. Return the instant just before."""
    return script("power-on", plan.host_folder(host))


def power_off(plan: Plan, host: str) -> float:
    """Pull the plug; harmless when it is off. Return the instant just before."""
    return script("power-off", plan.host_folder(host))


def host_is_on(plan: Plan, host: str) -> bool:
    """Does the init of this host's present boot live?"""
    return init_pid(plan, host) is not None


def init_pid(plan: Plan, host: str) -> int | None:
    """Return the machine's number of a host's init, None while the host is off."""
    try:
        pid, started = (plan.host_folder(host) / "init.pid").read_text().split()
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(pid) if fields[19] == started and fields[0] not in "ZX" else None


def keep_capabilities(plan: Plan) -> None:
    """Keep what libvirt found out about QEMU: the next hosts need not probe again (libvirt checks that it fits)."""
    kept = CACHE / "capabilities"
    found = plan.host_folder(plan.hosts[0]) / _CAPABILITIES
    if found.is_dir() and any(found.glob("*.xml")):
        shutil.copytree(found, kept, dirs_exist_ok=True)
        for host in plan.hosts[1:]:
            shutil.copytree(kept, plan.host_folder(host) / _CAPABILITIES, dirs_exist_ok=True)


def is_service(process: LabProcess) -> bool:
    """Is this a process that does a host's work, not one that keeps another up?"""
    return not process.role.endswith(".supervisor")
