"""The Lua scripts: loaded with their prelude, one atomic step each, confirmed by replicas where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, cast

import redis

from fangnetz.adapters.redis.client import is_wrong_type, translated
from fangnetz.adapters.redis.keys import kind_of
from fangnetz.core.errors import StoredContentError, StoreUnreachable

GUARDED = frozenset({"claim", "renew"})
WAIT_MS = 200
"""Replicas on one network confirm within a few milliseconds; one that takes longer is no help in time."""


@cache
def _source(name: str) -> str:
    folder = files("fangnetz.adapters.redis") / "lua"
    parts = ["prelude", *(["guard"] if name in GUARDED else []), name]
    return "\n".join((folder / f"{part}.lua").read_text() for part in parts)


class NotConfirmed(StoreUnreachable):
    """Written where we write, and on too few replicas: it may be forgotten again, so nothing may rest on it."""

    def __init__(self, sentence: str, answer: Any) -> None:
        """`answer`: what the script said."""
        super().__init__(sentence)
        self.answer = answer


class Scripts:
    """The Lua scripts, by name. One call is one atomic step in the store."""

    def __init__(self, client: redis.Redis, replicas_min: int = 0) -> None:
        """`replicas_min`: how many replicas must have a write that `confirmed` returns from; 0 where there are none."""
        self._client = client
        self._replicas_min = replicas_min
        self._loaded: dict[str, Any] = {}

    def __call__(self, name: str, keys: Sequence[str], args: Sequence[str]) -> Any:
        with translated():
            try:
                return self._script(name)(keys=list(keys), args=list(args))
            except redis.ResponseError as error:
                self._name_damage(error, keys)
                raise

    def confirmed(self, name: str, keys: Sequence[str], args: Sequence[str]) -> Any:
        """Call a script whose answer an effect rests on: replicas have it, and all that was written before it.

        NotConfirmed if too few did: it may have been written, and may be forgotten again (SAFETY rule 4).
        """
        if self._replicas_min == 0:
            return self(name, keys, args)
        sha = self._script(name).sha
        for load in (False, True):
            with translated():
                pipe: Any = self._client.pipeline(transaction=False)  # one connection: WAIT speaks of its own writes
                if load:
                    pipe.script_load(_source(name))
                pipe.evalsha(sha, len(keys), *keys, *args)
                pipe.execute_command("WAIT", self._replicas_min, WAIT_MS)
                try:
                    answer, replicas = pipe.execute()[-2:]
                except redis.exceptions.NoScriptError:
                    continue
                except redis.ResponseError as error:
                    self._name_damage(error, keys)
                    raise
            if replicas < self._replicas_min:
                have = f"{replicas} of {self._replicas_min} replicas"
                raise NotConfirmed(f"{have} confirmed a write within {WAIT_MS} ms: it may be lost", answer)
            return answer
        raise StoreUnreachable(f"the store does not keep its script {name}")

    def _name_damage(self, error: redis.ResponseError, keys: Sequence[str]) -> None:
        """Raise StoredContentError naming the key if a script met one that holds another type of value."""
        if not is_wrong_type(error):
            return
        for key in dict.fromkeys(keys):
            wanted, found = kind_of(key), cast("str", self._client.type(key))
            if found not in (wanted, "none"):
                raise StoredContentError(f"{key}: is a {found}, and Fangnetz keeps a {wanted} there") from error

    def _script(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._client.register_script(_source(name))
        return self._loaded[name]
