"""Connections to Redis: bounded everywhere, errors translated once, scripts loaded with their prelude."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fangnetz.core.errors import StoreUnreachable

SOCKET_TIMEOUT_S = 2.0
"""A hung Redis is given up after this long."""
CONNECT_TIMEOUT_S = 1.0
GUARDED = frozenset({"claim", "renew"})


def connect(url: str, *, name: str, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """Return a client whose every call ends within about `timeout_s` seconds (one retry on a broken connection).

    `url` carries the credentials; it is never logged.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(CONNECT_TIMEOUT_S, timeout_s),
        socket_keepalive=True,
        health_check_interval=5,
        client_name=name,
        decode_responses=True,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[redis.ConnectionError],
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors into ours, without the connection's credentials."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnreachable(f"the store did not answer: {type(error).__name__}") from error
    except redis.ResponseError as error:
        raise StoreUnreachable(f"the store refused a command: {error}") from error


@cache
def _source(name: str) -> str:
    folder = files("fangnetz.adapters.redis") / "lua"
    parts = ["prelude", *(["guard"] if name in GUARDED else []), name]
    return "\n".join((folder / f"{part}.lua").read_text() for part in parts)


class Scripts:
    """The Lua scripts, by name. One call is one atomic step in the store."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._loaded: dict[str, Callable[..., Any]] = {}

    def __call__(self, name: str, keys: Sequence[str], args: Sequence[str]) -> Any:
        script = self._loaded.get(name)
        if script is None:
            script = self._loaded[name] = self._client.register_script(_source(name))
        with translated():
            return script(keys=list(keys), args=list(args))
