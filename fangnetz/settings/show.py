"""Settings as plain data to print: every default filled in, secrets only by the place they come from."""

from __future__ import annotations

import dataclasses

from fangnetz.core import retries
from fangnetz.core.rules import as_tree
from fangnetz.settings.secrets import Secret
from fangnetz.settings.values import HostSettings, Login, RedisSettings, Settings, node_text


def settings_as_tree(settings: Settings) -> dict[str, object]:
    """Return dicts, lists, texts and numbers only, fit for JSON; definitions appear by their digest."""
    flower = settings.flower
    return {
        "file": str(settings.path),
        "cluster": settings.cluster,
        "redis": _redis(settings.redis),
        "controllers": {name: {"address": one.address, "host": one.host} for name, one in settings.controllers.items()},
        "flower": None
        if flower is None
        else {
            "address": flower.address,
            "port": flower.port,
            "username": flower.username,
            "password": _place(flower.secret),
        },
        "hosts": {name: _host(host) for name, host in settings.hosts.items()},
        "references": list(settings.references),
        "slots": None if settings.slots is None else {settings.slots.kind: str(settings.slots.path)},
        "vms": {
            name: {
                "memory_mib": vm.spec.memory_mib,
                "cpus": vm.spec.cpus,
                "priority": vm.spec.priority,
                "wish": str(vm.wish),
                "live": vm.spec.live,
                **({} if vm.spec.fallback is None else {"evacuate_fallback": vm.spec.fallback.value}),
                **as_tree(vm.spec.rules),
                **retries.as_tree(vm.spec.retries),
                "digest": vm.spec.digest,
            }
            for name, vm in settings.vms.items()
        },
        "policy": {
            field.name.rstrip("_"): _plain(getattr(settings.policy, field.name))
            for field in dataclasses.fields(settings.policy)
        },
    }


def _redis(redis: RedisSettings) -> dict[str, object]:
    where: dict[str, object] = (
        {"sentinels": [node_text(*node) for node in redis.sentinels], "master": redis.master}
        if redis.sentinels
        else {"url": redis.url}
    )
    return {
        **where,
        **_login(redis.login),
        "users": {user: _login(login) for user, login in redis.users.items()},
        "sentinel_login": _login(redis.sentinel_login),
    }


def _login(login: Login) -> dict[str, object]:
    return {"username": login.username, "password": _place(login.secret)}


def _host(host: HostSettings) -> dict[str, object]:
    return {
        "address": host.address,
        "libvirt_uri": host.libvirt_uri,
        "libvirt_port": host.libvirt_port,
        "migration_uri": host.migration_uri,
        "cpus": host.spec.cpus,
        "memory_mib": host.spec.memory_mib,
        "zone": host.spec.zone or "none",
        "bmc_guid_command": list(host.bmc_guid_command),
        "fencing": [
            [
                {
                    "name": name,
                    "driver": host.devices[name].driver,
                    "address": host.devices[name].address,
                    "port": host.devices[name].port,
                    "username": host.devices[name].username,
                    "password": _place(host.devices[name].secret),
                }
                for name in level
            ]
            for level in host.spec.fencing
        ],
    }


def _place(secret: Secret | None) -> str:
    return "none" if secret is None else f"*** (from {secret.place})"


def _plain(value: object) -> object:
    return str(value) if isinstance(value, str) else value
