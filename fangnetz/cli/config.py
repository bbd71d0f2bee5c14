"""`fangnetz config`: check a cluster file, show what it comes to. Never prints a secret or changes a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from fangnetz.core.errors import SettingsError
from fangnetz.settings import (
    REDIS_SERVERS,
    REDIS_USERS,
    SettingsFault,
    faults_text,
    inspect_settings,
    settings_as_tree,
)
from fangnetz.settings.load import Role

app = typer.Typer(no_args_is_help=True, help="Check and show the cluster file.")

File = Annotated[Path, typer.Argument(metavar="FILE", envvar="FANGNETZ_CONFIG", help="The cluster file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
OnHost = Annotated[
    bool, typer.Option("--on-host", help="Judge as a host does: fence secrets and VM files need not be here.")
]
_DEFAULT = Path("/etc/fangnetz/cluster.yaml")


@app.command("check")
def check(file: File = _DEFAULT, as_json: Json = False, on_host: OnHost = False) -> None:
    """Report every fault of a cluster file: file, line, key, value, rule. Exit 1 if there is one."""
    found = inspect_settings(file, _role(on_host))
    if as_json:
        report = {
            "schema": 1,
            "items": [_item("fault", fault) for fault in found.faults]
            + [_item("warning", warning) for warning in found.warnings],
            "next": None,
        }
        typer.echo(json.dumps(report))
    else:
        for warning in found.warnings:
            typer.echo(f"warning: {warning}")
        if found.faults:
            typer.echo(faults_text(found.faults))
        settings = found.settings
        if settings is None:
            typer.echo(f"{len(found.faults)} {'fault' if len(found.faults) == 1 else 'faults'}; nothing was loaded.")
        else:
            typer.echo(
                f"Cluster {settings.cluster} is well: {len(settings.hosts)} hosts, "
                f"{len(settings.controllers)} controllers, {len(settings.vms)} VMs; "
                f"a silent host is suspect after {settings.policy.window_s:g} s."
            )
    if found.faults:
        raise typer.Exit(1)


@app.command("show")
def show(file: File = _DEFAULT, as_json: Json = False, on_host: OnHost = False) -> None:
    """Print the settings with every default filled in; a secret appears only as the place it comes from."""
    found = inspect_settings(file, _role(on_host))
    if found.settings is None:
        typer.echo(faults_text(found.faults), err=True)
        raise typer.Exit(1)
    tree = settings_as_tree(found.settings)
    if as_json:
        typer.echo(json.dumps(tree))
    else:
        typer.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110), nl=False)


@app.command("redis-acl")
def redis_acl(
    file: File = _DEFAULT,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="PATH", help="Write it there (mode 640), not to stdout.")
    ] = None,
) -> None:
    """Make Redis' users' file (`aclfile`) from the users of the cluster file. It holds hashes, never a password.

    Run it where every user's password can be read. Then: `redis-cli ACL LOAD`.
    """
    from fangnetz.adapters.redis.acl import Credential, acl_text, sha256_of

    found = inspect_settings(file, "host")
    if found.settings is None:
        typer.echo(faults_text(found.faults), err=True)
        raise typer.Exit(1)
    redis = found.settings.redis
    if not redis.users:
        typer.echo(f"{file}: redis.users: is missing: it names each user and where its password lies", err=True)
        raise typer.Exit(1)
    try:
        credentials: dict[str, Credential] = {
            user: Credential(username=login.username, sha256=sha256_of(login.password() or ""))
            for user in (*REDIS_USERS, *REDIS_SERVERS)
            if (login := redis.users.get(user)) is not None
        }
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    text = acl_text(found.settings.cluster, redis.database, credentials)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        _write_private(output, text)
    except OSError as error:
        typer.echo(f"{output}: cannot be written: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{output}: {len(credentials)} users; load it with `redis-cli ACL LOAD`")


def _write_private(path: Path, text: str) -> None:
    """Replace a file at once: who reads it meanwhile sees the old one or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o640)
    fresh.write_text(text)
    fresh.replace(path)


def _role(on_host: bool) -> Role:
    return "host" if on_host else "controller"


def _item(level: str, fault: SettingsFault) -> dict[str, object]:
    return {
        "level": level,
        "file": fault.file,
        "line": fault.line,
        "key": fault.key,
        "value": fault.value,
        "rule": fault.rule,
    }
