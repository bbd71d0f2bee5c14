"""A person on call: answers what the cluster asks a person for, a while later, and only after looking for himself.

He confirms a host off only when the lab shows it without power, and starts a VM again that was given up. Every deed is
counted: a cluster that needs him more often than its faults explain is no good one.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from fangnetz.core.model import ClusterView, HostState, VmState
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.storm.truth import Truth

PATIENCE_S = 8.0
"""He looks again after this long before he does anything."""
AGAIN_AFTER_S = 20.0


class Person:
    """Acts on one lab through the product's own command line. `said` is his part of the story."""

    def __init__(self, lab: Lab, truth: Truth) -> None:
        self._lab, self._truth = lab, truth
        self._since: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="person")
        self._busy: Future[None] | None = None
        self.deeds: Counter[str] = Counter()
        self.said: list[tuple[float, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def look(self, view: ClusterView | None) -> None:
        """See what is asked for; never waits."""
        if view is None or (self._busy is not None and not self._busy.done()):
            return
        asked: set[tuple[str, ...]] = {
            ("host", "confirm-off", str(record.id), "--yes")
            for record in view.host_records.values()
            if record.state is HostState.NEEDS_PERSON and not self._truth.powered(record.id)
        }
        asked |= {("vm", "start", str(vm.id)) for vm in view.vm_records.values() if vm.state is VmState.FAILED}
        now = time.monotonic()
        self._since = {key: since for key, since in self._since.items() if key in {" ".join(each) for each in asked}}
        for words in sorted(asked):
            if now - self._since.setdefault(" ".join(words), now) >= PATIENCE_S:
                self._since[" ".join(words)] = now + AGAIN_AFTER_S - PATIENCE_S
                self._busy = self._pool.submit(self._act, words)
                return

    def _act(self, words: tuple[str, ...]) -> None:
        at = time.time()
        if words[0] == "host" and self._truth.powered(words[2]):
            return
        try:
            self._lab.fangnetz(*words)
        except (LabError, ValueError) as error:
            self.said.append((at, f"a person's `{' '.join(words)}` was refused: {error}"))
            return
        self.deeds[" ".join(words[:2])] += 1
        self.said.append((at, f"a person: `{' '.join(words)}`"))
