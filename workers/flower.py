"""Flower on loopback behind a password: shows workers, tasks and queues, and orders nothing.

Redis would not let it: its user may not speak on the channel workers obey (fangnetz.adapters.redis.acl). So it does not
even try, and says so where it is asked to. Tick and probes are silent in its stream.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.app.control import Control

from fangnetz.core.errors import SettingsError
from fangnetz.settings import Settings


class SilentControl(Control):
    """Remote control that sends nothing: no shutdown, no inspection, no waking up."""

    def broadcast(self, command: str, *_args: Any, **_kwargs: Any) -> list[Any]:
        """Return no answers."""
        return []


def serve_flower(app: Celery, settings: Settings) -> None:
    """Serve until told to stop. The password travels by the environment of this process, never by its arguments."""
    flower = settings.flower
    if flower is None:
        raise SettingsError(f"{settings.path}: flower: is missing: it names address, port, username and password_file")
    os.environ["FLOWER_BASIC_AUTH"] = f"{flower.username}:{flower.secret.read()}"
    app.control_cls = f"{__name__}:SilentControl"
    app.start(
        argv=[
            "flower",
            f"--address={flower.address}",
            f"--port={flower.port}",
            "--read_only=True",
            "--persistent=False",
            "--enable_events=False",
            "--natural_time=False",
        ]
    )
