"""The Celery app, made from the cluster file when it is first used. `celery -A workers.app …` finds it here."""

from __future__ import annotations

import os

from celery import Celery

from fangnetz.settings import Settings, load_settings
from workers.celery_settings import celery_settings
from workers.environment import identity

TASK_MODULES = ("tasks.steps", "tasks.control", "tasks.watching", "tasks.wishes")


def create_app(settings: Settings, role: str, name: str) -> Celery:
    """Return the app of one process."""
    made = Celery("fangnetz", include=list(TASK_MODULES), set_as_current=True)
    made.conf.update(celery_settings(settings, role, name))
    made.events.dispatcher_cls = "workers.events:BriefDispatcher"
    return made


def _client_app() -> Celery:
    """An administrator's `celery -A workers.app inspect …`: no role, no name."""
    me = identity(os.environ.get("FANGNETZ_ROLE") or "client")
    settings = load_settings(me.config, role="host")  # a client needs no fence secrets either
    return create_app(settings, me.role, me.name or f"client.{os.getpid()}")


_made: dict[str, Celery] = {}


def __getattr__(name: str) -> Celery:
    if name not in ("app", "celery"):
        raise AttributeError(name)
    if "app" not in _made:
        _made["app"] = _client_app()
    return _made["app"]
