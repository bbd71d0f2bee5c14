"""A lab for the length of a `with`: brought up, and taken down however it ends. Never leaves one behind unasked.

For programs that own their process (demo, bench, soak): it takes over the signals that end them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from fangnetz.lab.lab import Lab, Say
from fangnetz.lab.names import default_name
from fangnetz.lab.plan import Policy

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def own_name(kind: str) -> str:
    """Return the name of a lab of this checkout for one purpose: `bench` and a lab to play with never meet."""
    return f"{kind}-{default_name().removeprefix('lab-')}"


@contextmanager
def staged(
    *,
    name: str,
    hosts: int = 3,
    vms: int = 4,
    policy: Policy = "default",
    bare: bool = False,
    sentinel: bool = False,
    keep: Callable[[], bool] = lambda: False,
    say: Say = lambda _: None,
) -> Iterator[Lab]:
    """Bring a lab up; take it down afterwards, undisturbed by further signals, unless `keep` says to leave it.

    What ends by an exception is taken down in any case. Raises LabError if it does not come up or does not go.
    """
    with _signals(_end):
        lab = Lab.up(name=name, hosts=hosts, vms=vms, policy=policy, bare=bare, sentinel=sentinel, say=say)
        kept = False
        try:
            yield lab
            kept = keep()
        finally:
            if not kept:
                with _signals(signal.SIG_IGN):
                    say("taking the lab down")
                    lab.down()


def _end(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _ENDING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
