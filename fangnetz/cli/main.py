"""`fangnetz`: the nouns, the global options, and the one place where an error becomes a sentence and an exit code.

Exit 0 done, 1 failed or refused, 2 wrong usage. A noun's module is imported only when it is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from fangnetz.core.errors import FangnetzError

if TYPE_CHECKING:
    from typer._click.core import Command, Context

NOUNS = (
    "status",
    "host",
    "vm",
    "maintenance",
    "pause",
    "resume",
    "operation",
    "incident",
    "events",
    "simulate",
    "config",
    "slots",
    "lab",
    "version",
)
"""In the order `--help` shows them; each is the module of that name."""
INTERRUPTED = 130


class Nouns(TyperGroup):
    """Finds a command by importing its module, so that `fangnetz status` does not wait for the lab's imports."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in NOUNS:
            return None
        try:
            module = import_module(f"fangnetz.cli.{cmd_name}")
        except ModuleNotFoundError as missing:
            # The lab may be left out of an installation; anything else missing is a broken one.
            if cmd_name == "lab" and (missing.name or "").startswith("fangnetz."):
                return _not_here(cmd_name)
            raise
        # A group is made without the completion options that belong to the whole program.
        several = len(module.app.registered_commands) > 1 or module.app.registered_callback is not None
        command: Command = get_group(module.app) if several else get_command(module.app)
        command.name = cmd_name
        return command


def _not_here(noun: str) -> Command:
    app = typer.Typer(add_completion=False)

    @app.command(noun, context_settings={"ignore_unknown_options": True})
    def absent(_words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        """Not part of this installation."""
        raise FangnetzError(f"the {noun} is not part of this installation")

    return get_command(app)


app = typer.Typer(
    cls=Nouns,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="High availability for libvirt virtual machines: proof first, then restart.",
)


@app.callback()
def options(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The cluster file [FANGNETZ_CONFIG, /etc/fangnetz/cluster.yaml]"),
    ] = None,
) -> None:
    if config is not None:
        os.environ["FANGNETZ_CONFIG"] = str(config)  # also where `config check` looks for its default


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code. Whatever the world does, no traceback."""
    try:
        app(args=None if argv is None else list(argv), prog_name="fangnetz")
    except SystemExit as end:
        return _code(end.code)
    except FangnetzError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return _code(INTERRUPTED)
    return 0


def _code(code: Any) -> int:
    if code == INTERRUPTED:
        _say("interrupted")
        return 1
    return code if isinstance(code, int) else int(code is not None)


def _say(sentence: str) -> None:
    from fangnetz.cli._console import err, say

    say(err(), sentence, "red")


if __name__ == "__main__":
    sys.exit(main())
