"""The store on Redis. Keys are documented in `keys`, scripts in `lua/`."""

from fangnetz.adapters.redis.client import connect, connect_by_sentinels
from fangnetz.adapters.redis.store import RedisStore

__all__ = ["RedisStore", "connect", "connect_by_sentinels"]
