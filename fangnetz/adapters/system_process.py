"""This very process: its own clock, threads and chance. Knows nothing of the cluster."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from fangnetz.core.units import Seconds
from fangnetz.ports import Flag

T = TypeVar("T")


class SystemProcess:
    """`ports.Process`."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, span: Seconds) -> None:
        time.sleep(span)

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=name, daemon=True).start()

    def flag(self) -> Flag:
        return threading.Event()

    def lock(self) -> AbstractContextManager[object]:
        return threading.Lock()

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        with ThreadPoolExecutor(max_workers=max(1, len(calls)), thread_name_prefix="together") as pool:
            return [answer.result() for answer in [pool.submit(call) for call in calls]]

    def token(self) -> str:
        return uuid.uuid4().hex

    def chance(self) -> float:
        return random.random()
