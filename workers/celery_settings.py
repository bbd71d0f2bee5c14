"""Celery's settings for Fangnetz, each with its reason. Measured: docs/decisions/0001 and 0002.

Celery is a doorbell here: early acknowledgement, nothing prefetched, no results; the journal makes it certain.
"""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

from beat.schedule import beat_schedule
from fangnetz.core.units import ControllerId
from fangnetz.settings import Settings
from tasks.names import QUEUE_FENCE, QUEUE_PROBE, QUEUE_WORK, control_queue, host_queue

OWN_QUEUE_EXPIRES_S = 30
"""A host or controller that was away longer finds no queue of yesterday's messages, and its queue does not grow."""
SOCKET_TIMEOUT_S = 2.0


def celery_settings(settings: Settings, role: str, name: str) -> dict[str, Any]:
    """Return the configuration of one process. The broker URL carries the secret: never print it."""
    node = f"{role}.{name}"
    prefix = f"fn:{settings.cluster}:"
    transport = {
        "global_keyprefix": prefix,
        "fanout_prefix": "/{db}.",
        "priority_steps": [0],
        "visibility_timeout": 3600,
        # Each process has its own books: a clock that is off can never steal another's messages.
        "unacked_key": f"unacked.{node}",
        "unacked_index_key": f"unacked_index.{node}",
        "unacked_mutex_key": f"unacked_mutex.{node}",
        "unacked_mutex_expire": 10,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": 1.0,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "client_name": f"celery-{node}",
    }
    configuration: dict[str, Any] = {
        "broker_url": settings.redis.url_with_secret(),
        "result_backend": None,
        "broker_transport_options": transport,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "worker_consumer": "workers.consumer:QuickConsumer",
        "worker_prefetch_multiplier": 1,
        # With it a full pool fetches again only when its loop wakes, up to a second later: harmless where slots are
        # many, fatal for the one slot of the tick, which may also run twice without harm.
        "worker_disable_prefetch": role != "control",
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_soft_shutdown_timeout": 5.0,
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",
        "task_create_missing_queues": False,
        "task_default_queue": QUEUE_WORK,
        "task_queues": _queues(settings),
        "task_send_sent_event": False,
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        },
        "control_queue_expires": 30.0,
        "event_queue_expires": 60.0,
        "beat_max_loop_interval": 1,
        "beat_scheduler": "celery.beat:Scheduler",
        "enable_utc": True,
        "timezone": "UTC",
    }
    if role == "beat":
        configuration["beat_schedule"] = beat_schedule(settings.policy, ControllerId(name))
    return configuration


def _queues(settings: Settings) -> list[Queue]:
    shared = [QUEUE_WORK, QUEUE_FENCE, QUEUE_PROBE]
    queues = [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in shared]
    own = [*(control_queue(c) for c in settings.controllers), *(host_queue(h) for h in settings.hosts)]
    for name in own:
        queues.append(Queue(name, Exchange(name, type="direct"), routing_key=name, expires=OWN_QUEUE_EXPIRES_S))
    return queues
