"""`fangnetz version`: which program this is and which versions it speaks. Reads no file and no store."""

from __future__ import annotations

import platform

import typer

from fangnetz import __version__
from fangnetz.cli._json import print_item
from fangnetz.cli._session import Json
from fangnetz.core.model import PROTOCOL

app = typer.Typer(add_completion=False)


@app.command()
def version(as_json: Json = False) -> None:
    """Print the version of the program and of the protocol it speaks."""
    if as_json:
        print_item({"version": __version__, "protocol": PROTOCOL, "python": platform.python_version()})
    else:
        typer.echo(f"fangnetz {__version__} (protocol {PROTOCOL}, Python {platform.python_version()})")
