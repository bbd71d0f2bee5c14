"""Starts sent to libvirt whose end is not known. Which ones, files say; this process adds only since when it waits.

Never forgets one because a process ended: a frozen libvirtd may carry out tomorrow what a worker that was killed since
has sent it. Never calls one ended before libvirt said so, shows its domain, or has answered others for a while without
it. No instant is noted: the while begins when libvirt first answers this process, since nobody watched it before, and
that is later than anything a note could say.
"""

from __future__ import annotations

import threading
import time

from fangnetz.core.errors import HypervisorUnreachable, StartNotSent
from fangnetz.core.units import Generation, Seconds, VmId
from fangnetz.ports import BootFiles, UnansweredStart

NOTE_BOUND_S = 1.0
"""Whoever sends a start has just made sure that it may. A note takes milliseconds; if it took longer than this (the
least step lease; a dying disk) it is taken back, and the start is asked for anew."""

SILENT_AFTER_S = 5.0
"""A libvirt without an answer for longer than a question to it may take was away. It is asked every second and less."""


class UnansweredStarts:
    """Of all processes of this host's boot. Thread-safe."""

    def __init__(self, files: BootFiles, settle: Seconds, settle_inherited: Seconds) -> None:
        """Whatever is noted already was lost by an earlier process, at the latest now.

        `settle`: how long libvirt must have answered again before a start of this process that it never answered is
        known not to happen; `settle_inherited`: the same for one of another process, whose connection told us nothing.
        """
        self._files, self._settle, self._settle_inherited = files, settle, settle_inherited
        self._guard = threading.Lock()
        now = time.monotonic()
        self._lost_at: dict[tuple[VmId, str], float | None] = {(s.vm, s.note): now for s in files.unanswered_starts()}
        """None while this process has it under way, else the instant (monotonic) it was lost."""
        self._own: set[tuple[VmId, str]] = set()
        self._ended_at: dict[VmId, float] = {}
        """When the end of a VM's start became known here; kept until `open_since` has no more use for it."""
        self._told: frozenset[VmId] = frozenset()
        self._answered_at, self._answering_since = float("inf"), float("-inf")

    def open_since(self, at: float) -> frozenset[VmId]:
        """Return the VMs with a start whose end is not known, or became known at this instant (monotonic) or later.

        An inventory taken at that instant need not show what came of those. Asks files only; OSError: not known.
        `at` never goes back.
        """
        noted = frozenset(start.vm for start in self._files.unanswered_starts())
        now = time.monotonic()
        with self._guard:
            # After the files were read: whoever drops a note writes down first that it ended.
            self._ended_at = {vm: ended_at for vm, ended_at in self._ended_at.items() if ended_at >= at}
            self._ended_at |= dict.fromkeys(self._told - noted, now)  # dropped by another process
            self._told = noted
            return noted | self._ended_at.keys()

    def lost(self) -> tuple[UnansweredStart, ...]:
        """Return the noted starts that no call of this process has under way. OSError: not known."""
        noted = self._files.unanswered_starts()
        with self._guard:
            return tuple(s for s in noted if self._lost_at.get((s.vm, s.note), 0.0) is not None)

    def carried_out(self, start: UnansweredStart) -> None:
        """libvirt has shown the domain of this very start after `lost` returned it: nothing more comes of it."""
        self._forget(start.vm, start.note)

    def answered(self) -> None:
        """libvirt has answered just now. After a silence it has to answer for the whole settle time again."""
        now = time.monotonic()
        with self._guard:
            if now - self._answered_at > SILENT_AFTER_S:
                self._answering_since = now
            self._answered_at = now

    def begin(self, vm: VmId, generation: Generation) -> str:
        """Note a start right before it is sent; return the note. StartNotSent if that fails or takes long."""
        began = time.monotonic()
        try:
            note = self._files.note_start(vm, generation)
        except OSError as error:
            raise StartNotSent(f"A start of {vm} is not sent: it could not be noted before ({error}).") from error
        with self._guard:
            self._lost_at[vm, note] = None
            self._own.add((vm, note))
        took = time.monotonic() - began
        if took > NOTE_BOUND_S:
            self._forget(vm, note)
            raise StartNotSent(f"A start of {vm} is not sent: noting it before took {took:.1f} s.")
        return note

    def end(self, vm: VmId, note: str, *, known: bool) -> None:
        """A start is over: `known` if libvirt answered or nothing was sent, else it may still happen."""
        if known:
            self._forget(vm, note)
        else:
            with self._guard:
                self._lost_at[vm, note] = time.monotonic()

    def refuse_while_any(self, vm: VmId, answering_since: float) -> None:
        """HypervisorUnreachable while a start of it may still happen.

        `answering_since` (monotonic): libvirt is known to have answered from then on, and now. What it was sent before
        a freeze it reads first when it thaws, and what it was at then it goes on with.
        """
        self.answered()
        with self._guard:
            under_way = any(named == vm and lost_at is None for (named, _), lost_at in self._lost_at.items())
        if under_way:
            raise HypervisorUnreachable(f"A start of {vm} is still under way inside libvirt.")
        try:
            found = next((start for start in self._files.unanswered_starts() if start.vm == vm), None)
        except OSError as error:
            raise HypervisorUnreachable(f"Whether a start of {vm} is unanswered cannot be read ({error}).") from error
        if found is None:
            return
        now = time.monotonic()
        with self._guard:
            lost_at = self._lost_at.setdefault((vm, found.note), now)
            settle = self._settle if (vm, found.note) in self._own else self._settle_inherited
            answering_since = max(answering_since, self._answering_since)
        quiet_for = now - max(now if lost_at is None else lost_at, answering_since)
        if quiet_for < settle:
            damage = f" ({found.damage}; so it counts as one)" if found.damage else ""
            raise HypervisorUnreachable(
                f"A start of {vm} was never answered{damage}; known not to happen in {settle - quiet_for:.0f} s."
            )
        self._forget(vm, found.note)

    def _forget(self, vm: VmId, note: str) -> None:
        """Drop its file and what is known of it. A file that stays counts as a start lost now: late, never wrong."""
        with self._guard:
            self._lost_at[vm, note] = self._ended_at[vm] = time.monotonic()
            self._told -= {vm}
        try:
            self._files.forget_start(vm, note)
        except OSError:
            return
        with self._guard:
            self._lost_at.pop((vm, note), None)
            self._own.discard((vm, note))
