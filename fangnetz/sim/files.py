"""Files of a machine: `ports.BootFiles`, gone with the boot, and `ports.LedgerFiles`, which outlive everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fangnetz.core.model import Leaving, Release
from fangnetz.core.units import Generation, Incarnation, Seconds, VmId
from fangnetz.ports import LedgerEntry, UnansweredStart
from fangnetz.sim.machine import Boot, Machine
from fangnetz.sim.process import Process

WRITE_S = Seconds(0.0008)
"""A small file written and flushed."""


class SimBootFiles:
    """One process's handle on the files of the boot it runs in."""

    def __init__(self, boot: Boot, process: Process) -> None:
        self._boot, self._process = boot, process

    @property
    def incarnation(self) -> Incarnation:
        return self._boot.incarnation

    @contextmanager
    def lock(self, vm: VmId, bound: Seconds) -> Iterator[None]:
        boot, process = self._boot, self._process
        until = process.kernel.now + bound
        while vm in boot.holders:
            if process.kernel.now >= until:
                raise TimeoutError(f"the lock of {vm} was still held after {bound:g} s")
            wait = process.wait()
            boot.waiting.setdefault(vm, []).append(wait)
            process.kernel.at(until, wait.wake)
            process.give_way()
        boot.holders[vm] = process
        try:
            yield
        finally:
            del boot.holders[vm]
            for wait in boot.waiting.pop(vm, []):
                process.kernel.at(process.kernel.now, wait.wake)

    def released(self, vm: VmId) -> Generation:
        return self._boot.released.get(vm, Generation(0))

    def release(self, vm: VmId, generation: Generation, left_for: Generation = Generation(0)) -> None:
        self._process.sleep(WRITE_S)
        if generation > self.released(vm):
            self._boot.released[vm], self._boot.left_for[vm] = generation, left_for

    def releases(self) -> tuple[Release, ...]:
        return self._boot.releases()

    def note_start(self, vm: VmId, generation: Generation) -> str:
        self._process.sleep(WRITE_S)
        note = self._process.token()
        self._boot.starts[vm] = UnansweredStart(vm=vm, note=note, generation=generation)
        return note

    def forget_start(self, vm: VmId, note: str) -> None:
        self._process.sleep(WRITE_S)
        start = self._boot.starts.get(vm)
        if start is not None and start.note == note:
            del self._boot.starts[vm]

    def unanswered_starts(self) -> tuple[UnansweredStart, ...]:
        return tuple(self._boot.starts.values())

    def leaving(self) -> Leaving:
        return self._boot.leaving

    def leave(self, how: Leaving) -> None:
        self._process.sleep(WRITE_S)
        self._boot.leaving = how


class SimLedgerFiles:
    """A folder of versioned documents on a machine's disk."""

    def __init__(self, machine: Machine, folder: str, process: Process) -> None:
        self._kept = machine.disk.setdefault(folder, {})
        self._process = process

    def load(self) -> tuple[LedgerEntry, ...]:
        return tuple(self._kept[key] for key in sorted(self._kept))

    def write(self, entries: Sequence[LedgerEntry]) -> None:
        for entry in entries:
            old = self._kept.get(entry.key)
            if entry.version > (old.version if old is not None else 0):
                self._process.sleep(WRITE_S)
                self._kept[entry.key] = entry
