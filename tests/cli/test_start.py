"""What a command loads before it does anything: a list of what it must not, never a time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .board import Board, Ticking

NEVER = {
    "celery", "kombu", "billiard", "flower", "libvirt", "pyghmi", "httpx", "prometheus_client", "structlog", "tenacity",
    "fangnetz.engine.execute", "fangnetz.engine.steps", "fangnetz.engine.tick", "fangnetz.lab", "fangnetz.sim", "tasks",
    "workers",
}  # fmt: skip
SHOWS = {"rich", "fangnetz.cli._snapshot", "fangnetz.core.decide", "fangnetz.core.placement"}
"""What decides and what draws: a wish that nobody watches needs neither."""
ASKS = {"redis", "yaml", "fangnetz.settings", "fangnetz.wiring", "fangnetz.adapters"}


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        ("version", NEVER | SHOWS | ASKS),
        ("host --help", NEVER | SHOWS - {"rich"} | ASKS),
        ("host evacuate --help", NEVER | SHOWS - {"rich"} | ASKS),
        ("host evacuate host1 --json", NEVER | SHOWS),
        ("host evacuate host1", NEVER | SHOWS - {"rich"}),
        ("host maintenance host1 --json", NEVER | SHOWS),
        ("pause --reason works --json", NEVER | SHOWS),
        ("status", NEVER),
        ("host list", NEVER),
    ],
)
def test_a_command_loads_what_it_needs_alone(board: Board, words: str, unwanted: set[str]) -> None:
    board.well()
    code = (
        "import sys; from fangnetz.cli.main import main; "
        f"code = main(['--config', {str(board.file)!r}, *{words.split()!r}]); "
        f"bad = sorted({unwanted!r} & set(sys.modules)); "
        "sys.exit(f'imported {bad}' if bad else code)"
    )
    with Ticking(board, {host: {} for host in board.hosts}):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
