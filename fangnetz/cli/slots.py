"""`fangnetz slots`: prepare a device for the hosts' slots. Writes to no device that holds anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fangnetz import wiring
from fangnetz.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Slots of the hosts on the shared storage.")
_DEFAULT = Path("/etc/fangnetz/cluster.yaml")


@app.callback()
def slots() -> None:
    """Each host writes a slot of its own on the shared storage, and three others read it."""


@app.command("format")
def format_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", envvar="FANGNETZ_CONFIG", help="The cluster file.")
    ] = _DEFAULT,
) -> None:
    """Prepare the device that the cluster file names under `slots.device`: once, on one of the hosts.

    It must be empty and of 8 MiB or more; one that is prepared already is left as it is.
    """
    device = wiring.format_slots(load_settings(file, "host"))
    typer.echo(f"{device} is ready for the hosts' slots.")
