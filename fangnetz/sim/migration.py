"""Live migrations between simulated daemons: they go on without whoever asked for them, break, and are told of.

As libvirt has them, peer to peer: the source sends, the arrived copy stays paused, and where the last answer is lost
the source goes on by itself although a complete copy waits at its destination.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fangnetz.core.convergence import Progress
from fangnetz.core.model import Sighting
from fangnetz.core.units import Generation, HostId, Seconds, VmId
from fangnetz.sim.network import CLUSTER, Network

if TYPE_CHECKING:
    from fangnetz.sim.libvirtd import Copy, Libvirtd

STEP_S = 0.1
KEEPALIVE_S = 25.0
"""A peer that says nothing for so long is given up, and with it the migration."""
SWITCH_S = 0.05
"""The guest stands still for so long at the end, and the last question and answer travel."""
MEMORY_MIB = 1024.0
"""What a simulated guest has to send: only shares of it are looked at."""
WRITES_MIB_S = 1.0
"""And what it writes meanwhile: so much is sent again."""


@dataclass(slots=True, eq=False)
class Job:
    """One migration under way. `done_s` of `takes_s` seconds of sending are done."""

    source: Copy
    arriving: Copy
    target: Libvirtd
    takes_s: float
    began: float
    done_s: float = 0.0
    silent_s: float = 0.0
    fails_at_s: float | None = None
    ended_by: str = ""

    def progress(self, now: float) -> Progress:
        left = MEMORY_MIB * max(0.0, 1.0 - self.done_s / self.takes_s) if self.takes_s else 0.0
        return Progress(
            elapsed_s=Seconds(now - self.began),
            total_mib=MEMORY_MIB,
            sent_mib=MEMORY_MIB - left + WRITES_MIB_S * self.done_s,
            remaining_mib=left,
            speed_mib_s=MEMORY_MIB / self.takes_s + WRITES_MIB_S if self.takes_s and not self.silent_s else 0.0,
            dirty_mib_s=WRITES_MIB_S,
            rounds=1,
            downtime_s=Seconds(SWITCH_S),
        )


class Migrations:
    """Those that leave one host."""

    def __init__(self, daemon: Libvirtd, network: Network, peer: Callable[[HostId], Libvirtd]) -> None:
        self._daemon, self._network, self._peer = daemon, network, peer
        self.jobs: dict[VmId, Job] = {}
        self.said: dict[VmId, str] = {}
        """How the last migration of a VM from here failed."""
        self.fails: dict[VmId, int] = {}

    def begin(self, copy: Copy, to: HostId, generation: Generation, takes_s: float) -> str:
        """Begin one; return why it cannot begin, or an empty string."""
        target = self._peer(to)
        if not self._reaches(target) or target.stopped or target.state != "ok":
            return f"{to} cannot be reached"
        if copy.vm in target.copies:
            return f"{to} has a domain {copy.vm} already"
        if not target.has_disk:
            return f"the disk of {copy.vm} cannot be opened on {to}"
        arriving = target.receive(copy, generation)
        job = Job(source=copy, arriving=arriving, target=target, takes_s=takes_s, began=self._daemon.kernel.now)
        if self.fails.get(copy.vm, 0) > 0:
            self.fails[copy.vm] -= 1
            job.fails_at_s = takes_s / 2
        self.jobs[copy.vm] = job
        self._daemon.kernel.after(STEP_S, self._go_on, job)
        return ""

    def end(self, vm: VmId, why: str) -> None:
        """End one on request; the guest goes on here."""
        job = self.jobs.get(vm)
        if job is not None:
            job.ended_by = why

    def _reaches(self, target: Libvirtd) -> bool:
        here, there = self._daemon.machine, target.machine
        return there.up and here.up and self._network.both_ways(here.name, there.name, CLUSTER)

    def _go_on(self, job: Job) -> None:
        kernel = self._daemon.kernel
        if job.source.ended_at is not None:
            self._drop(job, "the guest ended")
        elif job.arriving.ended_at is not None:
            self._fail(job, f"the copy on {job.target.host} is gone")
        elif job.ended_by:
            self._fail(job, job.ended_by)
        elif job.fails_at_s is not None and job.done_s >= job.fails_at_s:
            self._fail(job, "operation failed: migration job: unexpectedly failed")
        elif not self._reaches(job.target):
            job.silent_s += STEP_S
            if job.silent_s >= KEEPALIVE_S:
                self._fail(job, f"{job.target.host} does not answer any more")
            else:
                kernel.after(STEP_S, self._go_on, job)
        elif self._daemon.machine.frozen or job.target.machine.frozen or job.target.stopped:
            kernel.after(STEP_S, self._go_on, job)
        else:
            job.silent_s, job.done_s = 0.0, job.done_s + STEP_S
            if job.done_s < job.takes_s:
                kernel.after(STEP_S, self._go_on, job)
            else:
                self._switch(job)

    def _switch(self, job: Job) -> None:
        """The guest stops here, all of it is there, and the target says so: an answer that may be lost."""
        self._daemon.becomes(job.source, Sighting.PAUSED)
        job.arriving.arrived = True
        self._daemon.kernel.after(SWITCH_S, self._answered, job, self._daemon.kernel.now + KEEPALIVE_S)

    def _answered(self, job: Job, until: float) -> None:
        kernel = self._daemon.kernel
        if job.source.ended_at is not None:
            self._drop(job, "the guest ended")
        elif self._reaches(job.target) and job.arriving.ended_at is None:
            self.jobs.pop(job.source.vm, None)
            self._daemon.finish(job.source, "migrated")
        elif kernel.now < until and job.arriving.ended_at is None:
            kernel.after(STEP_S, self._answered, job, until)
        else:
            self._fail(job, f"{job.target.host} does not answer any more")

    def _fail(self, job: Job, why: str) -> None:
        """The guest goes on here. What arrived there goes too, if its libvirt hears of it and had not got all of it."""
        self._forget(job, why)
        if job.source.ended_at is None:
            self._daemon.becomes(job.source, Sighting.RUNNING)
        self._drop(job, why)

    def _drop(self, job: Job, why: str) -> None:
        self._forget(job, why)
        if job.arriving.ended_at is None and not job.arriving.arrived and job.target.machine.up:
            job.target.finish(job.arriving, "stopped")

    def _forget(self, job: Job, why: str) -> None:
        self.jobs.pop(job.source.vm, None)
        self.said[job.source.vm] = why
