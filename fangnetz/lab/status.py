"""What a lab consists of at this moment, as plain values. Only looks."""

from __future__ import annotations

import time
from typing import Any

from fangnetz.lab.bmc import USER, bmc_mode
from fangnetz.lab.cluster_file import secret_path
from fangnetz.lab.cuts import cuts_of
from fangnetz.lab.freeze import frozen_nodes
from fangnetz.lab.host import host_is_on
from fangnetz.lab.plan import IPMI_PORT, ISCSI_PORT, REDIS_PORT, Plan
from fangnetz.lab.processes import LabProcess, processes_of
from fangnetz.lab.storage import disk_path


def lab_status(plan: Plan) -> dict[str, Any]:
    """Return processes, addresses, power, cuts, BMC modes, Flower and file paths of a lab."""
    cuts, frozen = cuts_of(plan), frozen_nodes(plan)
    return {
        "schema": 1,
        "at": time.time(),
        "name": plan.name,
        "tag": plan.tag,
        "folder": str(plan.folder),
        "config": str(plan.config_path),
        "bare": plan.bare,
        "policy": plan.policy,
        "storage_lock": plan.storage_lock,
        "subnet": plan.subnet,
        "redis": f"{plan.address(plan.stores[0])}:{REDIS_PORT}",
        "stores": {node: f"{plan.address(node)}:{REDIS_PORT}" for node in plan.stores},
        "sentinel": plan.sentinel,
        "storage": f"{plan.address('storage', 'storage')}:{ISCSI_PORT}",
        "flower": None
        if plan.bare
        else {
            "url": f"http://127.0.0.1:{plan.flower_port}/",
            "username": "admin",
            "password_file": str(secret_path(plan, "flower")),
        },
        "hosts": [
            {
                "id": host,
                "power": "on" if host_is_on(plan, host) else "off",
                "frozen": host in frozen,
                "address": str(plan.address(host)),
                "storage_address": str(plan.address(host, "storage")),
                "cuts": cuts.get(host, {}),
                "bmc": {
                    "address": str(plan.address(f"bmc-{host}", "bmc")),
                    "port": IPMI_PORT,
                    "username": USER,
                    "password_file": str(secret_path(plan, f"bmc-{host}")),
                    "mode": bmc_mode(plan, host),
                },
                "log": str(plan.host_folder(host) / "log"),
            }
            for host in plan.hosts
        ],
        "controllers": [
            {
                "id": controller,
                "frozen": controller in frozen,
                "address": str(plan.address(controller)),
                "cuts": cuts.get(controller, {}),
                "log": str(plan.folder / "controllers" / controller / "log"),
            }
            for controller in plan.controllers
        ],
        "other_cuts": {
            node: links for node, links in cuts.items() if node not in plan.hosts and node not in plan.controllers
        },
        "vms": [{"name": vm, "disk": str(disk_path(plan.folder, vm))} for vm in plan.vms],
        "processes": [_process(process) for process in processes_of(plan.name, plan.tag)],
    }


def _process(process: LabProcess) -> dict[str, Any]:
    return {
        "host": process.node,
        "role": process.role,
        "pid": process.pid,
        "parent": process.parent,
        "inner_pid": process.inner_pid,
        "state": "frozen" if process.state == "T" else "alive",
        "nice": process.nice,
        "command": process.command,
    }
