"""A consumer that is back within about two seconds of its broker, not within half a minute."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer

INTERVALS = {"interval_start": 0.2, "interval_step": 0.3, "interval_max": 2.0}
"""Seconds between tries to reconnect: 0.2, 0.5, 0.8 … 2."""


class QuickConsumer(Consumer):
    """Celery's consumer with a capped pause between reconnects."""

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
