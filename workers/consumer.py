"""A consumer that is back within about two seconds of its broker, and says in one sentence why it lost it."""

from __future__ import annotations

from typing import Any

import redis
import structlog
from celery.worker.consumer import Consumer

log = structlog.get_logger(__name__)

INTERVALS = {"interval_start": 0.2, "interval_step": 0.3, "interval_max": 2.0}
"""Seconds between tries to reconnect: 0.2, 0.5, 0.8 … 2."""


class QuickConsumer(Consumer):
    """Celery's consumer with a capped pause between reconnects."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Say what happened; a right that lacks is a file to be mended, and the worker tries on until it is."""
        if isinstance(exc, redis.exceptions.NoPermissionError):
            log.error(
                "Redis' users' file lacks a right of this worker: `fangnetz config redis-acl` makes it anew; "
                "ACL LOG on Redis shows the command",
                said=str(exc),
            )
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker as long as it takes, asking often."""
        wait = conn.ensure_connection

        def patient(errback: Any = None, max_retries: int | None = None, **options: Any) -> Any:
            return wait(errback, max_retries, **{**options, **INTERVALS})

        conn.ensure_connection = patient
        try:
            return super().ensure_connected(conn)
        finally:
            del conn.ensure_connection
