"""JSON on stdout, as `--json` prints it everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import typer

Item = dict[str, Any]
SCHEMA = 1


def print_json(value: object) -> None:
    """Print one JSON value on one line of stdout."""
    typer.echo(json.dumps(value))


def print_list(items: Iterable[Item]) -> None:
    print_json({"schema": SCHEMA, "items": list(items), "next": None})


def print_item(item: Item) -> None:
    print_json({"schema": SCHEMA, **item})
