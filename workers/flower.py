"""Flower on loopback behind a password: shows workers and tasks. Tick and probes are silent in its stream."""

from __future__ import annotations

import os

from celery import Celery

from fangnetz.core.errors import SettingsError
from fangnetz.settings import Settings


def serve_flower(app: Celery, settings: Settings) -> None:
    """Serve until told to stop. The password travels by the environment of this process, never by its arguments."""
    flower = settings.flower
    if flower is None:
        raise SettingsError(f"{settings.path}: flower: is missing: it names address, port, username and password_file")
    os.environ["FLOWER_BASIC_AUTH"] = f"{flower.username}:{flower.secret.read()}"
    app.start(
        argv=[
            "flower",
            f"--address={flower.address}",
            f"--port={flower.port}",
            "--persistent=False",
            "--enable_events=True",
            "--natural_time=False",
        ]
    )
