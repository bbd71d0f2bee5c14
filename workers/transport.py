"""kombu's Redis transport with queues that are bounded in length and age by Redis itself, publishing that is quick, and
readers that are never deaf.

No message carries an expiry: that would be judged by the wall clock of whoever reads it, and an hour's difference would
revoke every order unsaid. Instead a full queue loses its oldest message, and a queue nobody wrote to for its span is
gone. Never decides whether an order is still good: the journal does, by the store's clock.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kombu.transport
import redis
from kombu.utils.json import dumps

from fangnetz.adapters.redis.client import OnceIfBroken

kombu_redis: Any = importlib.import_module("kombu.transport.redis")  # its published types know none of its inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """`length_max` messages; gone when `idle_s` seconds passed since the last one was put in."""

    length_max: int
    idle_s: int


class _Bounded(kombu_redis.Channel):  # type: ignore[misc]
    """What both kinds of channel do differently."""

    queue_bounds: Mapping[str, Bound] = {}

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        bound = self.queue_bounds.get(queue)
        if bound is None:
            super()._put(queue, message, **kwargs)
            return
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            pipe.lpush(key, dumps(message))
            # Readers take from the right: what is left of the bound is the newest. kombu prefixes no key of LTRIM.
            pipe.ltrim(self.global_keyprefix + key, 0, bound.length_max - 1)
            pipe.pexpire(key, bound.idle_s * 1000)
            pipe.execute()

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            # Else an AttributeError, which no caller takes for a lost broker: the worker would exit.
            raise redis.ConnectionError("this channel belongs to a closed connection")
        params: dict[str, Any] = super()._connparams(asynchronous)
        if not asynchronous:
            # A connection that broke while idle is opened anew at once; a silent Redis is not asked twice.
            params["retry"] = OnceIfBroken()
        return params


class Channel(_Bounded):
    """To one Redis."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, "queue_bounds")


class _Poller(kombu_redis.MultiChannelPoller):  # type: ignore[misc]
    """A poller that never waits on a socket which is not its connection's any more.

    Before it sends BRPOP, redis-py asks a connection that was idle whether it is well; if that fails it opens the
    connection anew, unseen, and the command goes out on a socket that nobody polls. The worker would be deaf for good.
    """

    def _client_registered(self, channel: Any, client: Any, cmd: str) -> bool:
        known: bool = super()._client_registered(channel, client, cmd)
        if known and self._chan_to_sock[channel, client, cmd] is not client.connection._sock:
            client.connection.disconnect()  # with whatever was asked on it: the caller opens, polls and asks anew
            return False
        return known


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """`redis://` and `rediss://`."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = _Poller()


class SentinelChannel(_Bounded, kombu_redis.SentinelChannel):  # type: ignore[misc]
    """To whichever Redis the Sentinels call master."""

    from_transport_options = (*kombu_redis.SentinelChannel.from_transport_options, "queue_bounds")


class SentinelTransport(kombu_redis.SentinelTransport):  # type: ignore[misc]
    """`sentinel://`."""

    Channel = SentinelChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = _Poller()


def install_transport() -> None:
    """Let broker URLs mean these transports from now on. Harmless when done twice."""
    kombu.transport.TRANSPORT_ALIASES.update(
        redis=f"{__name__}:Transport", rediss=f"{__name__}:Transport", sentinel=f"{__name__}:SentinelTransport"
    )
