"""Starts sent to libvirt whose end is not known: the twin of the libvirt adapter's bookkeeping, on the virtual clock.

The notes are in the boot's files, so that another worker of the same boot reads them; since when it waits for the end
of each is known to this process alone. Threads take turns here, so nothing is locked.
"""

from __future__ import annotations

from fangnetz.core.errors import HypervisorUnreachable, StartNotSent
from fangnetz.core.units import Generation, VmId
from fangnetz.ports import BootFiles, UnansweredStart
from fangnetz.sim.process import Process

SETTLE_S = 10.0
SETTLE_INHERITED_S = 60.0
NOTE_BOUND_S = 1.0
SILENT_AFTER_S = 5.0
"""As in the libvirt adapter."""


class UnansweredStarts:
    """Of all processes of this host's boot, as one of them sees them."""

    def __init__(self, files: BootFiles, process: Process) -> None:
        self._files, self._process = files, process
        now = process.monotonic()
        self._lost_at: dict[tuple[VmId, str], float | None] = {(s.vm, s.note): now for s in files.unanswered_starts()}
        """None while this process has it under way, else when it was lost."""
        self._own: set[tuple[VmId, str]] = set()
        self._ended_at: dict[VmId, float] = {}
        self._told: frozenset[VmId] = frozenset()
        self._answered_at, self._answering_since = float("inf"), float("-inf")

    def open_since(self, at: float) -> frozenset[VmId]:
        """Return the VMs with a start whose end is not known, or became known at this instant or later."""
        noted = frozenset(start.vm for start in self._files.unanswered_starts())
        if not noted and not self._ended_at and not self._told:
            return noted
        now = self._process.monotonic()
        self._ended_at = {vm: ended_at for vm, ended_at in self._ended_at.items() if ended_at >= at}
        self._ended_at |= dict.fromkeys(sorted(self._told - noted), now)
        self._told = noted
        return noted | self._ended_at.keys()

    def lost(self) -> tuple[UnansweredStart, ...]:
        """Return the noted starts that no call of this process has under way."""
        noted = self._files.unanswered_starts()
        return tuple(s for s in noted if self._lost_at.get((s.vm, s.note), 0.0) is not None)

    def carried_out(self, start: UnansweredStart) -> None:
        """The daemon has shown the domain of this very start after `lost` returned it."""
        self._forget(start.vm, start.note)

    def answered(self) -> None:
        """The daemon has answered just now. After a silence it has to answer for the whole settle time again."""
        now = self._process.monotonic()
        if now - self._answered_at > SILENT_AFTER_S:
            self._answering_since = now
        self._answered_at = now

    def begin(self, vm: VmId, generation: Generation) -> str:
        """Note a start right before it is sent. StartNotSent if that took long."""
        began = self._process.monotonic()
        note = self._files.note_start(vm, generation)
        self._lost_at[vm, note] = None
        self._own.add((vm, note))
        took = self._process.monotonic() - began
        if took > NOTE_BOUND_S:
            self._forget(vm, note)
            raise StartNotSent(f"A start of {vm} is not sent: noting it before took {took:.1f} s.")
        return note

    def end(self, vm: VmId, note: str, *, known: bool) -> None:
        """A start is over: `known` if the daemon answered, else it may still happen."""
        if known:
            self._forget(vm, note)
        else:
            self._lost_at[vm, note] = self._process.monotonic()

    def refuse_while_any(self, vm: VmId, answering_since: float) -> None:
        """HypervisorUnreachable while a start of it may still happen."""
        self.answered()
        if any(named == vm and lost_at is None for (named, _), lost_at in self._lost_at.items()):
            raise HypervisorUnreachable(f"A start of {vm} is still under way inside libvirt.")
        found = next((start for start in self._files.unanswered_starts() if start.vm == vm), None)
        if found is None:
            return
        now = self._process.monotonic()
        lost_at = self._lost_at.setdefault((vm, found.note), now)
        settle = SETTLE_S if (vm, found.note) in self._own else SETTLE_INHERITED_S
        quiet_for = now - max(now if lost_at is None else lost_at, answering_since, self._answering_since)
        if quiet_for < settle:
            raise HypervisorUnreachable(
                f"A start of {vm} was never answered; known not to happen in {settle - quiet_for:.0f} s."
            )
        self._forget(vm, found.note)

    def _forget(self, vm: VmId, note: str) -> None:
        self._lost_at[vm, note] = self._ended_at[vm] = self._process.monotonic()
        self._told -= {vm}
        self._files.forget_start(vm, note)
        self._lost_at.pop((vm, note), None)
        self._own.discard((vm, note))
