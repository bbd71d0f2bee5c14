"""Ports whose writing calls have a fault point before and after them. Changes nothing about what they do.

A process wraps what it opened once; the code that writes needs no line for it, and no write can be forgotten: a test
wants every method of the ports to be either a question or in the tables of `fault_points`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from fangnetz.engine.fault_points import BOOT_CALLS, DISPATCHER_CALLS, FILE_CALLS, STORE_CALLS, Call
from fangnetz.engine.faults import is_armed, point

T = TypeVar("T")


def marked_store(store: T) -> T:
    """Return the same store with its points."""
    return _marked(store, STORE_CALLS)


def marked_dispatcher(dispatcher: T) -> T:
    """Return the same dispatcher with its points."""
    return _marked(dispatcher, DISPATCHER_CALLS)


def marked_files(files: T) -> T:
    """Return the same ledger files with their points."""
    return _marked(files, FILE_CALLS)


def marked_boot(boot: T) -> T:
    """Return the same boot files with their points."""
    return _marked(boot, BOOT_CALLS)


def _marked(inner: T, calls: Mapping[str, Call]) -> T:
    return cast("T", _Marked(inner, calls))


class _Marked:
    def __init__(self, inner: object, calls: Mapping[str, Call]) -> None:
        self._inner, self._calls = inner, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        call = self._calls.get(name)
        if call is not None:
            found = _around(found, call)
        if callable(found):
            self.__dict__[name] = found  # asked for once: later calls cost nothing more
        return found


def _around(method: Callable[..., Any], call: Call) -> Callable[..., Any]:
    def between_points(*args: Any, **more: Any) -> Any:
        if is_armed():
            point(call.before, _subject(args[0]) if args else "")
        answer = method(*args, **more)
        if is_armed() and (answer or not call.asks):  # armed meanwhile, perhaps
            point(call.after, _subject(args[0]) if args else "")
        return answer

    return between_points


def _subject(first: object) -> str:
    """Return whom a call is about: a name, or what its first argument is a record of."""
    if isinstance(first, str):
        return first
    for name in ("subject", "host", "id"):
        value = getattr(first, name, None)
        if isinstance(value, str):
            return value
    return ""
