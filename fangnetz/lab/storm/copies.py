"""Every QEMU process that ever ran, as the machine itself knows it, and what may never be said of them. Pure.

Nothing here comes from Fangnetz: processes, hosts and numbers are read from the kernel and from libvirt's own files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One QEMU process of one VM. Instants are seconds since the epoch; `started_at` is the kernel's, to 10 ms.

    `ended_at`: the last instant at which it was found alive (a frozen one is alive), never later than its death.
    """

    vm: str
    host: str
    host_boot: str
    pid: int
    started_at: float
    ended_at: float
    alive: bool
    generation: int | None = None
    """What libvirt keeps in the domain's metadata; None if it could not be read while it lived."""
    incoming: bool = False
    """It began as a migration's target: no copy before it runs."""
    runs_from: float | None = None
    """Of an incoming one: when libvirt was first seen to say that it runs; None if it never was."""

    @property
    def began_at(self) -> float | None:
        """When it became a copy that may write; None if it never did."""
        return self.runs_from if self.incoming else self.started_at


SLACK_S = 0.03
"""The kernel counts a process's start in hundredths of a second."""


def second_copies(copies: Iterable[Copy]) -> tuple[tuple[Copy, Copy], ...]:
    """Return each pair of copies of one VM of which the later began while the earlier lived, the earlier first."""
    return tuple(
        (earlier, later)
        for ordered in _by_vm(copies)
        for index, later in enumerate(ordered)
        for earlier in ordered[:index]
        if earlier.began_at is not None and later.began_at is not None and earlier.ended_at > later.began_at + SLACK_S
    )


def unproven_starts(copies: Iterable[Copy]) -> tuple[str, ...]:
    """Return each start of a VM while an earlier copy of it still lived somewhere, on whatever host, frozen or not."""
    return tuple(
        f"{later.vm} was started on {later.host} (pid {later.pid}) while its copy on {earlier.host} "
        f"(pid {earlier.pid}) lived for {earlier.ended_at - (later.began_at or 0.0):.2f} s more"
        for earlier, later in second_copies(copies)
    )


def repeated_generations(copies: Iterable[Copy]) -> tuple[str, ...]:
    """Return each number of a VM that two processes carried, or that was not greater than the one before it."""
    found: list[str] = []
    for ordered in _by_vm(copies):
        numbered = [copy for copy in ordered if copy.generation is not None]
        for before, after in pairwise(numbered):
            if before.generation is not None and after.generation is not None and after.generation <= before.generation:
                found.append(
                    f"{after.vm} was started on {after.host} with generation {after.generation} after "
                    f"{before.generation} on {before.host}"
                )
    return tuple(found)


def runs_at(copies: Iterable[Copy], at: float) -> tuple[Copy, ...]:
    """Return the copies that lived at an instant."""
    return tuple(copy for copy in copies if copy.started_at <= at <= copy.ended_at)


def _by_vm(copies: Iterable[Copy]) -> Iterable[Sequence[Copy]]:
    known = sorted(copies, key=lambda copy: (copy.began_at or copy.started_at, copy.pid))
    for vm in sorted({copy.vm for copy in known}):
        yield [copy for copy in known if copy.vm == vm]
