"""Somebody who watches a lab all the time and, asked again and again, tells what is new that may never be.

`truth` and `ear` see, the laws of `copies` and `chronicle` judge. Whoever starts a copy behind Fangnetz's back says so
(`on_purpose`). A lookout that sees less than the witness is blind, which it tells like any other offence.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.patience import wait_until
from fangnetz.lab.storm.chronicle import Chronicle
from fangnetz.lab.storm.copies import Copy, repeated_generations, second_copies, unproven_starts
from fangnetz.lab.storm.ear import Ear
from fangnetz.lab.storm.truth import Truth

AGAIN_AFTER_S = 2.0
"""What is found is asked for once more: an order may be read a moment before its evidence."""
WITNESS_LATE_S = 3.0
"""The witness may see a copy's last write so long after the copy's end, on a busy machine."""
NUMBERED_WITHIN_S = 5.0
"""A copy that lived for so long has had its number read, unless its host was frozen all the while."""
DEAF_AFTER_S = 10.0
FOREVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPurpose:
    """While this lasted, copies of the VM were begun by the tester's own hand."""

    vm: str
    begin: float
    end: float = FOREVER

    def excuses(self, vm: str, at: float) -> bool:
        return vm == self.vm and self.begin <= at <= self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """All that is known at one instant. `chronicle` is None where nobody listens to the store."""

    at: float
    began_at: float
    report: Mapping[str, Any]
    """The witness's."""
    copies: Sequence[Copy]
    chronicle: Chronicle | None = None
    heard_at: float = 0.0
    errors: Sequence[str] = ()
    """What the watchers say of themselves."""
    on_purpose: Sequence[OnPurpose] = ()


def offences(sight: Sight) -> dict[str, str]:
    """Return everything that may not be, in sentences; the key of one and the same offence never changes."""
    found: dict[str, str] = {}

    def excused(vm: str, at: float) -> bool:
        return any(each.excuses(vm, at) for each in sight.on_purpose)

    for overlap in sight.report["overlaps"]:
        carriers = _carriers(overlap, sight)
        if not any(excused(copy.vm, copy.started_at) for copy in carriers):
            found[f"overlap {overlap['vm']} {overlap['boots']}"] = (
                f"two copies of {overlap['vm']} wrote on its disk from {overlap['from']:.3f} to {overlap['to']:.3f}"
            )
    ours = [copy for copy in sight.copies if not excused(copy.vm, copy.started_at)]
    for pair in second_copies(ours):
        key = " ".join(f"{copy.pid}@{copy.started_at:.2f}" for copy in pair)
        found[f"copies {key}"] = unproven_starts(pair)[0]
    chronicle = sight.chronicle
    told = [*repeated_generations(ours), *(() if chronicle is None else (*chronicle.repeated(), *chronicle.unproven()))]
    found.update((sentence, sentence) for sentence in told)
    found.update((sentence, f"nobody watched: {sentence}") for sentence in _blindness(sight, ours))
    return found


def _blindness(sight: Sight, ours: Sequence[Copy]) -> Iterator[str]:
    """Yield why what was not seen may have been there all the same."""
    yield from sight.errors
    for vm, disk in sight.report["vms"].items():
        for boot in disk["boots"]:
            if boot["last_at"] > sight.began_at + WITNESS_LATE_S and not _carried(vm, boot, sight.copies):
                yield f"boot {boot['boot'][:6]} of {vm} writes, and no process of it was seen"
    if sight.chronicle is None:
        return
    if sight.at - sight.heard_at > DEAF_AFTER_S:
        yield f"the store has not answered since {sight.heard_at:.0f}"
    grown = [copy for copy in ours if copy.ended_at - copy.started_at > NUMBERED_WITHIN_S]
    numbered = [copy for copy in grown if copy.generation is not None]
    if 2 * len(numbered) < len(grown):
        yield "the generations of most copies could not be read"


def _carriers(overlap: Mapping[str, Any], sight: Sight) -> list[Copy]:
    """Return the copies whose boots overlapped: a boot's is the last one begun before its first write."""
    found: list[Copy] = []
    for boot in sight.report["vms"][overlap["vm"]]["boots"]:
        begun = [copy for copy in sight.copies if copy.vm == overlap["vm"] and copy.started_at <= boot["first_at"]]
        if boot["boot"] in overlap["boots"] and begun:
            found.append(max(begun, key=lambda copy: copy.started_at))
    return found


def _carried(vm: str, boot: Mapping[str, Any], copies: Sequence[Copy]) -> bool:
    """Also one after the other: a guest that was moved goes on with the boot it had."""
    mine = sorted((copy for copy in copies if copy.vm == vm), key=lambda copy: copy.started_at)
    for first in (copy for copy in mine if copy.started_at <= boot["first_at"]):
        end = first.ended_at
        for copy in mine:
            if copy.incoming and copy.runs_from is not None and first.started_at < copy.started_at <= end:
                end = max(end, copy.ended_at)
        if end >= boot["last_at"] - WITNESS_LATE_S:
            return True
    return False


class Lookout:
    """Watches a lab while the block lasts. `listens`: to its store too, which a bare lab has no use for.

    Entered, it has heard the store once. Raises LabError if that does not answer.
    """

    def __init__(self, lab: Lab, *, listens: bool = True) -> None:
        self._lab = lab
        self.truth = Truth(lab.plan)
        self._ear = Ear(lab) if listens else None
        self._on_purpose: list[OnPurpose] = []
        self._told: set[str] = set()
        self._began_at = 0.0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._began_at = time.time()
        self._open.enter_context(self.truth)
        if self._ear is not None:
            self._open.enter_context(self._ear)
            try:
                wait_until(self._deaf, DEAF_AFTER_S, 0.05)
            except LabError:
                self._open.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _deaf(self) -> str:
        with self.ear.lock:
            return "" if self.ear.chronicle.lives else f"the store of lab {self._lab.name} does not answer the lookout"

    @property
    def ear(self) -> Ear:
        """Raises LabError where nobody listens."""
        if self._ear is None:
            raise LabError(f"nobody listens to the store of lab {self._lab.name}")
        return self._ear

    @contextmanager
    def on_purpose(self, vm: str) -> Iterator[None]:
        """Whatever copy of this VM begins in the block was begun by the tester's hand or lie, and breaks no law."""
        mine = OnPurpose(vm=vm, begin=time.time() - 0.05)
        self._on_purpose.append(mine)
        try:
            yield
        finally:
            self._on_purpose[self._on_purpose.index(mine)] = replace(mine, end=time.time())

    def news(self) -> tuple[str, ...]:
        """Return what may not be and was not told before. LabError if the witness is silent."""
        found = self._offences()
        if not found.keys() - self._told:
            return ()
        time.sleep(AGAIN_AFTER_S)
        still = {key: sentence for key, sentence in self._offences().items() if key in found}
        news = tuple(sentence for key, sentence in still.items() if key not in self._told)
        self._told |= still.keys()
        return news

    def _offences(self) -> dict[str, str]:
        sight = Sight(
            at=time.time(),
            began_at=self._began_at,
            report=self._lab.witness(),
            copies=self.truth.copies(),
            errors=[self.truth.error] if self.truth.error else [],
            on_purpose=tuple(self._on_purpose),
        )
        if self._ear is None:
            return offences(sight)
        with self._ear.lock:
            errors = [*sight.errors, *([self._ear.error] if self._ear.error else [])]
            return offences(replace(sight, chronicle=self._ear.chronicle, heard_at=self._ear.heard_at, errors=errors))
