"""The lab's cluster file and its secrets, as an operator would write them. Never puts a secret into the file itself."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import yaml

from fangnetz.lab.bmc import USER
from fangnetz.lab.definitions import priority_of
from fangnetz.lab.plan import IPMI_PORT, LIBVIRT_PORT, REDIS_PORT, SENTINEL_MASTER, SENTINEL_PORT, Plan
from fangnetz.settings import REDIS_SERVERS, REDIS_USERS

HOST_MEMORY_MIB = 1024
HOST_CPUS = 8


def make_secrets(plan: Plan) -> dict[str, str]:
    """Make a password for each thing that wants one, kept in files of root's own; return them by name."""
    folder = plan.folder / "secrets"
    folder.mkdir(mode=0o700)
    users = [f"redis-{user}" for user in REDIS_USERS]
    if plan.sentinel:
        users += [*(f"redis-{server}" for server in REDIS_SERVERS), "sentinels"]
    made = {name: secrets.token_hex(8) for name in ("redis", *users, "flower", *plan.bmcs)}
    for name, password in made.items():
        path = secret_path(plan, name)
        path.touch(mode=0o600)
        path.write_text(f"{password}\n")
    return made


def secret_path(plan: Plan, name: str) -> Path:
    """Return the file of a secret."""
    return plan.folder / "secrets" / name


def slots_folder(plan: Plan) -> Path:
    """Return the folder that stands for shared storage, where the hosts keep their slots."""
    return plan.folder / "shared" / "slots"


def write_cluster_file(plan: Plan) -> None:
    """Write cluster.yaml."""
    slots_folder(plan).mkdir(parents=True, exist_ok=True)
    plan.config_path.write_text(yaml.safe_dump(_tree(plan), sort_keys=False, width=110))


def _tree(plan: Plan) -> dict[str, Any]:
    return {
        "cluster": plan.name,
        "redis": _redis(plan),
        "controllers": {controller: {"address": str(plan.address(controller))} for controller in plan.controllers},
        "flower": {
            "address": "127.0.0.1",
            "port": plan.flower_port,
            "username": "admin",
            "password_file": str(secret_path(plan, "flower")),
        },
        **({"slots": {"folder": str(slots_folder(plan))}} if plan.slots else {}),
        "hosts": {host: _host(plan, host) for host in plan.hosts},
        "vms": {vm: {"xml_file": f"vms/{vm}.xml", "priority": priority_of(plan, vm)} for vm in plan.vms},
        "policy": {"profile": plan.policy, "isolated": plan.isolated, "quarantine_exits": 0},
        # No quarantine: its hosts are struck over and over, on purpose.
    }


def _redis(plan: Plan) -> dict[str, Any]:
    users = {user: {"username": user, "password_file": str(secret_path(plan, f"redis-{user}"))} for user in REDIS_USERS}
    if not plan.sentinel:
        return {"url": f"redis://{plan.address('redis')}:{REDIS_PORT}/0", "users": users}
    return {
        "sentinels": [f"{plan.address(node)}:{SENTINEL_PORT}" for node in plan.stores],
        "master": SENTINEL_MASTER,
        "sentinel_login": {"password_file": str(secret_path(plan, "sentinels"))},
        "users": users,
    }


def _host(plan: Plan, host: str) -> dict[str, Any]:
    device = {
        "name": "ipmi",
        "driver": "ipmi",
        "address": str(plan.address(f"bmc-{host}", "bmc")),
        "port": IPMI_PORT,
        "username": USER,
        "password_file": str(secret_path(plan, f"bmc-{host}")),
    }
    return {
        "address": str(plan.address(host)),
        "libvirt_uri": "qemu:///system",
        "libvirt_port": LIBVIRT_PORT,
        "migration_uri": f"qemu+tcp://{plan.address(host)}:{LIBVIRT_PORT}/system",
        "cpus": HOST_CPUS,
        "memory_mib": HOST_MEMORY_MIB,
        "bmc_guid_command": ["cat", "/run/bmc-guid"],
        "fencing": [[device]],
    }
