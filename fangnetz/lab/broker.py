"""The lab's Redis: store and broker of its cluster, on the cluster network, kept up and append-only.

Killed, it comes back with what it knew. Never reachable from outside the machine.
"""

from __future__ import annotations

from fangnetz.lab.plan import REDIS_PORT, Plan
from fangnetz.lab.processes import start


def start_redis(plan: Plan, password: str) -> None:
    """Start Redis in its namespace."""
    folder = plan.folder / "redis"
    config = folder / "redis.conf"
    config.write_text(
        f"bind {plan.address('redis')}\nport {REDIS_PORT}\nrequirepass {password}\ndir {folder}\n"
        'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\ndaemonize no\n'
    )
    config.chmod(0o600)
    start(
        name=plan.name,
        node="redis",
        role="redis",
        command=["redis-server", config],
        logs=plan.folder / "log",
        netns=plan.namespace("redis"),
        keep_up=True,
    )
