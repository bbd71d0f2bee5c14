"""Connections to Redis, one or behind Sentinels: bounded everywhere, errors translated once. Never shows a password."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from fangnetz.core.errors import StoredContentError, StoreUnreachable

SOCKET_TIMEOUT_S = 2.0
"""A hung Redis is given up after this long."""
CONNECT_TIMEOUT_S = 1.0
SENTINEL_TIMEOUT_S = 0.5
"""A Sentinel that does not answer costs this much; then the next one is asked."""
_DENIED = "The user executing the script can't"
"""How Redis says inside a script that its caller lacks a right."""


class OnceIfBroken(Retry):
    """Once more on a broken connection, never on a silent one: each try would cost a timeout, each handshake another.

    Whatever failed is closed, so that a late answer is never taken for that to another question. (A Retry that only
    leaves timeouts out of its errors does not close: behind Sentinels the dead master would be asked for ever.)
    """

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 1)

    def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        """Do it, closing what failed."""
        failures = 0
        while True:
            try:
                return do()
            except (redis.ConnectionError, redis.TimeoutError, TimeoutError) as error:
                failures += 1
                fail(error, failures) if with_failure_count else fail(error)
                silent = not isinstance(error, redis.ConnectionError)
                if silent or failures > 1 or (is_retryable is not None and not is_retryable(error)):
                    raise


def connect(
    url: str,
    *,
    name: str,
    timeout_s: float = SOCKET_TIMEOUT_S,
    username: str | None = None,
    password: str | None = None,
) -> redis.Redis:
    """Return a client of the Redis at `url`; `name` is what Redis shows as the client's.

    A hung Redis costs a call one `timeout_s`, two where an idle connection turned out broken first: only a broken
    connection is tried again, never a silent one. Raises nothing; nothing is opened before the first call.
    """
    return redis.Redis.from_url(url, **_options(name, timeout_s, username, password))


def connect_by_sentinels(
    nodes: Sequence[tuple[str, int]],
    *,
    master: str,
    name: str,
    timeout_s: float = SOCKET_TIMEOUT_S,
    username: str | None = None,
    password: str | None = None,
    sentinel_username: str | None = None,
    sentinel_password: str | None = None,
) -> redis.Redis:
    """Return a client of whichever Redis the Sentinels call `master` at the time of each new connection.

    Bounded as `connect`, plus SENTINEL_TIMEOUT_S for each Sentinel that is silent. A master that was demoted is left
    at the first write it refuses, or when the Sentinels cut its clients off.
    """
    sentinels = cast("Any", Sentinel)(  # untyped
        list(nodes),
        sentinel_kwargs=sentinel_options(sentinel_username, sentinel_password),
        **_options(name, timeout_s, username, password),
    )
    client: redis.Redis = sentinels.master_for(master)
    return client


def sentinel_options(username: str | None, password: str | None) -> dict[str, Any]:
    """Return how a Sentinel is asked: shortly, and once. redis-py's default tries a dead one for half a minute."""
    return {
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "username": username or None,
        "password": password,
        "retry": Retry(NoBackoff(), 0),
    }


def _options(name: str, timeout_s: float, username: str | None, password: str | None) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(CONNECT_TIMEOUT_S, timeout_s),
        "socket_keepalive": True,
        "health_check_interval": 5,
        "client_name": name,
        "decode_responses": True,
        "encoding_errors": "backslashreplace",  # bytes that are no text are damage of their key, found when it is read
        "username": username or None,
        "password": password,
        "retry": OnceIfBroken(),
    }


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors into ours, without the connection's credentials."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnreachable(f"the store did not answer: {type(error).__name__}") from error
    except redis.ResponseError as error:
        if isinstance(error, redis.exceptions.NoPermissionError) or _DENIED in str(error):
            raise StoreUnreachable(
                f"the store's users' file lacks a right (`fangnetz config redis-acl` makes the file anew): {error}"
            ) from error
        raise StoreUnreachable(f"the store refused a command: {error}") from error


def is_wrong_type(answer: object) -> bool:
    """Whether Redis refused this one command because its key holds another type of value: damage of that key alone.

    Any other refusal (a missing right, a store that still loads, a script that hangs) says nothing about the key.
    """
    return isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE")


def answers(pipe: Any) -> list[Any]:
    """Carry a pipeline out; where a key holds another type of value its refusal stands in the answer's place."""
    with translated():
        found: list[Any] = pipe.execute(raise_on_error=False)
        for answer in found:
            if isinstance(answer, Exception) and not is_wrong_type(answer):
                raise answer
    return found


def sound(answer: Any, key: str) -> Any:
    """Return one of `answers`; StoredContentError if `key` holds another type of value."""
    if is_wrong_type(answer):
        raise StoredContentError(f"{key}: holds another type of value than Fangnetz keeps there") from answer
    return answer


@contextmanager
def reading(key: str) -> Iterator[None]:
    """As `translated`, around one question about `key`; StoredContentError if it holds another type of value."""
    with translated():
        try:
            yield
        except redis.ResponseError as error:
            sound(error, key)
            raise
