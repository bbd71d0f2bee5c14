"""Fangnetz keeps virtual machines running when a host dies. This package is everything that is true without Celery."""

from __future__ import annotations

__version__ = "0.1.0"
