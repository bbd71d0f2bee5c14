"""Celery's settings for Fangnetz, each with its reason. Measured: docs/decisions/0001, 0002 and 0006.

Celery is a doorbell here: early acknowledgement, nothing prefetched, no results; the journal makes it certain.
"""

from __future__ import annotations

import ssl
from typing import Any

from kombu import Exchange, Queue

from beat.schedule import beat_schedule
from fangnetz.adapters.redis.client import CONNECT_TIMEOUT_S, SOCKET_TIMEOUT_S, sentinel_options
from fangnetz.core.units import ControllerId
from fangnetz.settings import RedisUser, Settings
from tasks.names import QUEUE_FENCE, QUEUE_PROBE, QUEUE_WORK, control_queue, host_queue, probe_queue
from workers.transport import Bound, install_transport

OWN_QUEUE_IDLE_S = 30
"""A host or controller that was away longer finds no queue of yesterday's messages."""
SHARED_QUEUE_IDLE_S = 3600
"""A public task, which nobody sends again, waits this long for the first worker."""
STEPS_MAX = 1000
"""Steps in one queue: the sweep sends again whatever a full queue lost."""
TICKS_MAX = 16
"""Ticks, sweeps and nudges all say the same: look now. After an hour unread so many remain, done within a second."""
PROBES_MAX = 2
"""A probe round is worth something now, not later."""
HEALTH_CHECK_S = 2
"""A worker that waits for messages notices within about twice this, plus a second, that the broker is silent."""


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
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_S,
        "client_name": f"celery-{node}",
        # A publisher that finds no broker says so at once; kombu's default tries on for seconds, by the wall clock.
        "max_retries": 0,
        "queue_bounds": queue_bounds(settings),
    }
    if settings.redis.sentinels:
        watch = settings.redis.sentinel_login
        transport["master_name"] = settings.redis.master
        transport["sentinel_kwargs"] = sentinel_options(watch.username, watch.password())
    install_transport()
    configuration: dict[str, Any] = {
        "broker_url": settings.redis.broker_url(redis_user(role)),
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
        # The transport opens a broken connection anew by itself; a silent broker is not asked twice.
        "task_publish_retry": False,
        "control_queue_expires": 30.0,
        "event_queue_expires": 60.0,
        "beat_max_loop_interval": 1,
        "beat_scheduler": "beat.scheduler:SteadyScheduler",
        "enable_utc": True,
        "timezone": "UTC",
    }
    if settings.redis.url.startswith("rediss:"):
        configuration["broker_use_ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}  # kombu's own default checks nothing
    if role == "beat":
        configuration["beat_schedule"] = beat_schedule(settings.policy, ControllerId(name))
    return configuration


def redis_user(role: str) -> RedisUser:
    """Return as whom a process of this role logs in; whoever is no role of ours is a person."""
    match role:
        case "host":
            return "host"
        case "flower":
            return "flower"
        case "control" | "work" | "fence" | "beat":
            return "controller"
        case _:
            return "operator"


def queue_bounds(settings: Settings) -> dict[str, Bound]:
    """Return how long each queue may grow and how long it is kept unused."""
    own = Bound(length_max=STEPS_MAX, idle_s=OWN_QUEUE_IDLE_S)
    shared = Bound(length_max=STEPS_MAX, idle_s=SHARED_QUEUE_IDLE_S)
    devices = sum(len(host.devices) for host in settings.hosts.values())
    return {
        QUEUE_WORK: shared,
        QUEUE_FENCE: shared,
        # One question a device and a few more; what is lost is asked again by the next tick.
        QUEUE_PROBE: Bound(length_max=2 * devices + TICKS_MAX, idle_s=OWN_QUEUE_IDLE_S),
        **{control_queue(c): Bound(length_max=TICKS_MAX, idle_s=OWN_QUEUE_IDLE_S) for c in settings.controllers},
        **{probe_queue(c): Bound(length_max=PROBES_MAX, idle_s=OWN_QUEUE_IDLE_S) for c in settings.controllers},
        **{host_queue(h): own for h in settings.hosts},
    }


def _queues(settings: Settings) -> list[Queue]:
    return [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in queue_bounds(settings)]
