"""libvirt on a simulated host: a daemon that may hang or die while its VMs run on, and a worker's handle on it.

A request that was sent is carried out when the daemon goes on, whether its sender still lives or not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fangnetz.core.convergence import Advice, Progress
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable
from fangnetz.core.model import Sighting
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, Seconds, VmId
from fangnetz.ports import BootFiles, Consumed, Departed, Departure, Domain, Migration, UnansweredStart
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.loads import NONE, Load
from fangnetz.sim.machine import Machine
from fangnetz.sim.migration import Migrations
from fangnetz.sim.network import STORAGE, Network
from fangnetz.sim.process import Process, Wait
from fangnetz.sim.unanswered import UnansweredStarts

QUESTION_BOUND_S = 5.0
EFFECT_BOUND_S = 60.0
SUSPEND_BOUND_S = 30.0
WATCH_EVERY_S = 0.25
"""As in the libvirt adapter."""
MIGRATION_LOOK_S = Seconds(0.2)
CALL_S = 0.0007
CONNECT_S = Seconds(0.02)
NO_DISK_S = 10.0
"""QEMU gives a disk up that it cannot open after this long."""


@dataclass(slots=True, eq=False)
class Copy:
    """One QEMU with the VM's disk open for writing."""

    vm: VmId
    host: HostId
    incarnation: Incarnation
    generation: Generation | None
    """None: somebody else started it."""
    since: float
    start_sent_at: Instant | None = None
    state: Sighting = Sighting.RUNNING
    marked_held: bool = False
    guest_hangs: bool = False
    ended_at: float | None = None
    end: str = ""
    runs: bool = True
    """False until it is let run: a copy that arrives by a migration writes nothing."""
    arrived: bool = False
    """All of its memory is here."""
    cpu_before_s: float | None = None
    """The guest's CPU time when this copy was measured first."""
    _listed: Domain | None = None

    def domain(self) -> Domain:
        """Return it as libvirt lists it; the same object as long as nothing about it changes."""
        held, last = self.marked_held and self.state is Sighting.PAUSED, self._listed
        if last is None or (last.state, last.generation, last.start_sent_at, last.held) != (
            self.state, self.generation, self.start_sent_at, held,
        ):  # fmt: skip
            last = self._listed = Domain(
                vm=self.vm,
                state=self.state,
                generation=self.generation,
                uuid=self.vm,
                start_sent_at=self.start_sent_at,
                held=held,
            )
        return last


@dataclass(slots=True)
class Times:
    """How long things take, per VM."""

    start_s: float = 2.0
    stop_s: float = 5.0
    guest_up_s: float = 5.0
    migrate_s: float = 10.0


def _alone(host: HostId) -> Libvirtd:
    raise KeyError(f"there is no {host}")


class Libvirtd:
    """The daemon and the VMs of one host. `began` and `ended` are told of every copy: the disk's own record."""

    def __init__(
        self,
        kernel: Kernel,
        machine: Machine,
        network: Network,
        times: Callable[[VmId], Times],
        began: Callable[[Copy], None],
        ended: Callable[[Copy], None],
        peer: Callable[[HostId], Libvirtd] = _alone,
        load: Callable[[VmId], Load] = lambda _vm: NONE,
    ) -> None:
        self._load = load
        self.kernel, self.machine, self._network, self._times = kernel, machine, network, times
        self._began, self._ended = began, ended
        self.state = "ok"
        self.copies: dict[VmId, Copy] = {}
        self.start_fails: dict[VmId, int] = {}
        self.stop_fails: dict[VmId, int] = {}
        self._watchers: list[tuple[Process, Callable[[], None]]] = []
        self._backlog: list[Callable[[], object]] = []
        self.held: Callable[[Copy], None] = lambda _copy: None
        """Told of a copy that was just paused as the later of two."""
        self.starts_sent: set[VmId] = set()
        """VMs whose start was asked for and neither made nor refused."""
        self._told = False
        self.migrations = Migrations(self, network, peer)
        self.departed: dict[VmId, str] = {}
        """How the last copy of a VM ended here in this boot, as libvirt's own log has it."""

    @property
    def host(self) -> HostId:
        return HostId(self.machine.name)

    # -- machine.Service --

    def start(self) -> None:
        self.state = "ok"

    def power_lost(self) -> None:
        self.starts_sent.clear()
        self._backlog.clear()
        self._watchers.clear()
        for copy in list(self.copies.values()):
            self.finish(copy, "power_lost")
        self.departed.clear()

    def thawed(self) -> None:
        self._go_on()

    # -- how it fares --

    @property
    def stopped(self) -> bool:
        return self.state == "hung" or self.machine.frozen

    def become(self, state: str) -> None:
        if state == "dead":
            self._backlog.clear()
            self.starts_sent.clear()
        self.state = state
        self._go_on()
        self._changed()

    def _go_on(self) -> None:
        while self._backlog and not self.stopped:
            self._backlog.pop(0)()

    def request(self, process: Process, bound: float, what: Callable[[Wait], object]) -> Any:
        """Have the daemon do something that answers by waking; HypervisorUnreachable without an answer in time."""
        wait = process.wait()
        kernel = self.kernel
        until = kernel.now + bound

        def arrive() -> None:
            if not self.machine.up:
                return
            if self.state == "dead":
                wait.wake(HypervisorUnreachable("libvirt does not listen"))
            elif self.stopped:
                kernel.at(until, wait.wake, HypervisorUnreachable(f"libvirt did not answer within {bound:g} s"))
                self._backlog.append(arrive)
            else:
                what(wait)

        kernel.after(CALL_S, arrive)
        answer = process.give_way()
        if isinstance(answer, Exception):
            raise answer
        return answer

    # -- VMs --

    def domains(self) -> tuple[Domain, ...]:
        return tuple(copy.domain() for copy in self.copies.values())

    def consumed(self) -> tuple[Consumed, ...]:
        """What each copy that runs has consumed since it was measured first."""
        found = []
        for copy in self.copies.values():
            if copy.state is Sighting.RUNNING:
                load = self._load(copy.vm)
                used = load.cpu_time_s(self.kernel.now)
                copy.cpu_before_s = used if copy.cpu_before_s is None else copy.cpu_before_s
                cpu_s = Seconds(used - copy.cpu_before_s)
                found.append(Consumed(vm=copy.vm, cpu_s=cpu_s, memory_mib=load.memory_mib))
        return tuple(found)

    def run(self, vm: VmId, generation: Generation | None, start_sent_at: Instant | None = None) -> Copy:
        """Open the VM's disk and start it."""
        boot = self.machine.boot
        copy = Copy(
            vm=vm,
            host=self.host,
            incarnation=boot.incarnation if boot else Incarnation(""),
            generation=generation,
            since=self.kernel.now,
            start_sent_at=start_sent_at,
        )
        self.copies[vm] = copy
        self._began(copy)
        self._changed()
        return copy

    # -- migrations --

    def receive(self, source: Copy, generation: Generation) -> Copy:
        """Make room for a copy that arrives; it does not run."""
        boot = self.machine.boot
        copy = Copy(
            vm=source.vm,
            host=self.host,
            incarnation=boot.incarnation if boot else Incarnation(""),
            generation=generation,
            since=self.kernel.now,
            start_sent_at=source.start_sent_at,
            state=Sighting.INCOMING,
            runs=False,
        )
        self.copies[copy.vm] = copy
        self._changed()
        return copy

    def becomes(self, copy: Copy, state: Sighting) -> None:
        copy.state = state
        self._changed()

    def resume(self, vm: VmId, wait: Wait) -> None:
        copy = self.copies.get(vm)
        if copy is None or not (copy.runs or copy.arrived):
            wait.wake(HypervisorRefused(f"{vm} has not arrived."))
            return
        if not copy.runs:
            copy.runs, copy.state, copy.since = True, Sighting.RUNNING, self.kernel.now
            self._began(copy)
            self._changed()
        wait.wake(None)

    def create(self, vm: VmId, generation: Generation, start_sent_at: Instant | None, wait: Wait) -> None:
        after = self.kernel.after
        self.starts_sent.discard(vm)
        if vm in self.copies:
            after(0.0, wait.wake, HypervisorRefused(f"domain {vm} is there already"))
        elif self.start_fails.get(vm, 0) > 0:
            self.start_fails[vm] -= 1
            after(self._times(vm).start_s / 2, wait.wake, HypervisorRefused(f"{vm} cannot be started here"))
        elif not self.has_disk:
            after(NO_DISK_S, wait.wake, HypervisorRefused(f"the disk of {vm} cannot be opened"))
        else:
            self.run(vm, generation, start_sent_at)
            after(self._times(vm).start_s, wait.wake, None)

    def send_away(self, migration: Migration, wait: Wait) -> None:
        """Begin a migration; answers why it cannot begin, or with an empty string. It goes on without its sender."""
        copy = self.copies.get(migration.vm)
        if copy is None or copy.state is not Sighting.RUNNING:
            wait.wake(f"{migration.vm} does not run here")
            return
        takes = self._times(migration.vm).migrate_s
        wait.wake(self.migrations.begin(copy, migration.to.host, migration.to.generation, takes))

    def shutdown(self, vm: VmId) -> None:
        """Ask the guest; it obeys once it is up, unless it hangs."""
        copy = self.copies.get(vm)
        if copy is not None:
            times = self._times(vm)
            hears = not copy.guest_hangs and self.kernel.now - copy.since >= times.guest_up_s
            if hears:
                self.kernel.after(times.stop_s, self._guest_stops, copy)

    def _guest_stops(self, copy: Copy) -> None:
        runs = copy.ended_at is None and copy.state is Sighting.RUNNING
        if runs and not self.machine.frozen and self.has_disk and not copy.guest_hangs:
            self.finish(copy, "stopped")

    @property
    def has_disk(self) -> bool:
        """Whether this host reaches the disks."""
        return self._network.both_ways(self.machine.name, "", STORAGE)

    def destroy(self, vm: VmId, wait: Wait) -> None:
        copy = self.copies.get(vm)
        if copy is None:
            wait.wake(None)
            return
        if self.stop_fails.get(vm, 0) > 0 or not self.has_disk:
            self.stop_fails[vm] = max(0, self.stop_fails.get(vm, 0) - 1)
            self.kernel.after(1.0, wait.wake, HypervisorRefused(f"libvirt ended {vm}, but it is still there."))
            return

        def end() -> None:
            if copy.ended_at is None:
                self.finish(copy, "stopped")
            wait.wake(None)

        self.kernel.after(0.2, end)

    def suspend(self, vm: VmId, wait: Wait) -> None:
        copy = self.copies.get(vm)
        if copy is None:
            wait.wake(HypervisorRefused(f"{vm} is not there."))
            return
        copy.state = Sighting.PAUSED
        self.held(copy)
        self._changed()
        wait.wake(None)

    def crash(self, vm: VmId) -> None:
        copy = self.copies.get(vm)
        if copy is not None:
            self.finish(copy, "crashed")

    def finish(self, copy: Copy, how: str) -> None:
        """A copy is no more."""
        copy.ended_at, copy.end = self.kernel.now, how
        self.departed[copy.vm] = how
        if self.copies.get(copy.vm) is copy:
            del self.copies[copy.vm]
        if copy.runs:
            self._ended(copy)
        self._changed()

    # -- who watches --

    def watch(self, process: Process, kick: Callable[[], None]) -> None:
        self._watchers = [(p, k) for p, k in self._watchers if not p.dead]
        self._watchers.append((process, kick))

    def _changed(self) -> None:
        if self._watchers and not self._told:
            self._told = True
            self.kernel.after(WATCH_EVERY_S * self.kernel.chance.random(), self._tell)

    def _tell(self) -> None:
        self._told = False
        if not self.stopped:
            for process, kick in self._watchers:
                if not process.dead and not process.frozen:
                    kick()


class SimHypervisor:
    """`ports.Hypervisor` of one worker process; starts it never got an answer for are noted in the boot's files."""

    def __init__(self, process: Process, daemon: Libvirtd, boot: BootFiles) -> None:
        self._process, self._daemon = process, daemon
        self._unanswered = UnansweredStarts(boot, process)
        self._was_connected = False
        self._opened_at: float | None = None

    def domains(self) -> tuple[Domain, ...]:
        if not self._was_connected:
            self._was_connected = True
            self._process.sleep(CONNECT_S)
        daemon, kernel = self._daemon, self._daemon.kernel
        quick = daemon.state == "ok" and not daemon.stopped and daemon.machine.up and not self._process.dead
        if quick and kernel.skip_to(kernel.now + CALL_S):
            found = daemon.domains()
        else:
            found = self._request(QUESTION_BOUND_S, lambda wait: wait.wake(self._daemon.domains()))
        self._answered()
        return found

    def consumed(self) -> tuple[Consumed, ...]:
        found: tuple[Consumed, ...] = self._request(QUESTION_BOUND_S, lambda wait: wait.wake(self._daemon.consumed()))
        return found

    def create(
        self,
        vm: VmId,
        xml: str,
        generation: Generation,
        still: Callable[[], object] = lambda: None,
        *,
        start_sent_at: Instant | None = None,
    ) -> None:
        self.settled(vm)  # no refusal is believed while another start may come
        present = self._find(vm)
        if present is not None and present.generation == generation:
            raise HypervisorUnreachable(f"{vm} is on this host at this generation already; ask what it does.")
        if present is not None:
            raise HypervisorRefused(f"{vm} is on this host at {present.generation or 'no'} generation of ours already.")
        still()
        note = self._unanswered.begin(vm, generation)
        known = False
        if self._daemon.state != "dead":
            self._daemon.starts_sent.add(vm)
        try:
            self._request(EFFECT_BOUND_S, lambda wait: self._daemon.create(vm, generation, start_sent_at, wait))
            known = True
        except HypervisorRefused:
            known = True
            raise
        finally:
            self._unanswered.end(vm, note, known=known)

    def shutdown(self, vm: VmId, still: Callable[[], object] = lambda: None) -> None:
        def ask(wait: Wait) -> None:
            self._daemon.shutdown(vm)
            wait.wake(None)

        if self._find(vm) is not None:
            still()
            self._request(QUESTION_BOUND_S, ask)

    def destroy(self, vm: VmId, still: Callable[[], object] = lambda: None) -> None:
        if self._find(vm) is not None:
            still()
            self._request(EFFECT_BOUND_S, lambda wait: self._daemon.destroy(vm, wait))
        self._refuse_while_unanswered(vm)

    def suspend(self, vm: VmId, generation: Generation, still: Callable[[], object] = lambda: None) -> None:
        present, copy = self._find(vm), self._daemon.copies.get(vm)
        if present is None or copy is None or present.generation != generation:
            raise HypervisorRefused(f"{vm} is not on this host at generation {generation}.")
        before, copy.marked_held = copy.marked_held, True
        if present.state is Sighting.PAUSED:
            return
        try:
            still()
        except BaseException:
            copy.marked_held = before
            raise
        self._request(SUSPEND_BOUND_S, lambda wait: self._daemon.suspend(vm, wait))

    def receivable(self, vm: VmId, xml: str) -> None:
        if self._find(vm) is not None:
            raise HypervisorRefused(f"{vm} is on this host already.")
        if not self._daemon.has_disk:
            raise HypervisorRefused(f"the disk of {vm} cannot be opened.")

    def migrate(
        self, migration: Migration, still: Callable[[], object], advise: Callable[[Progress], Advice]
    ) -> Departed:
        vm, jobs = migration.vm, self._daemon.migrations.jobs
        refused = ""
        if self._find(vm) is not None and vm not in jobs:
            still()
            refused = self._request(QUESTION_BOUND_S, lambda wait: self._daemon.send_away(migration, wait))
        while not refused and self._find(vm) is not None and (job := jobs.get(vm)) is not None:
            advice = advise(job.progress(self._daemon.kernel.now))
            if advice.end:
                self._daemon.migrations.end(vm, advice.end)
            self._process.sleep(MIGRATION_LOOK_S)
        if self._find(vm) is not None:
            why = refused or self._daemon.migrations.said.get(vm, "no migration of it is under way")
            return Departed(how=Departure.STAYED, sentence=why)
        left = self._daemon.departed.get(vm) == "migrated"
        return Departed(how=Departure.LEFT if left else Departure.ENDED, sentence=self._daemon.departed.get(vm, ""))

    def resume(self, vm: VmId, generation: Generation, still: Callable[[], object] = lambda: None) -> None:
        present = self._find(vm)
        if present is None or present.generation != generation:
            raise HypervisorRefused(f"{vm} is not on this host at generation {generation}.")
        if present.state is not Sighting.RUNNING:
            still()
            self._request(QUESTION_BOUND_S, lambda wait: self._daemon.resume(vm, wait))

    def settled(self, vm: VmId) -> None:
        self.domains()
        self._refuse_while_unanswered(vm)

    def settle(self) -> None:
        lost = self._unanswered.lost()  # before the daemon is asked: what it lists may be the end of these
        if lost:
            self._settle(lost, {domain.vm: domain.generation for domain in self.domains()})

    def _settle(self, lost: tuple[UnansweredStart, ...], there: dict[VmId, Generation | None]) -> None:
        for start in lost:
            if there.get(start.vm) == start.generation:
                self._unanswered.carried_out(start)
            else:
                with suppress(HypervisorUnreachable):  # not yet
                    self._refuse_while_unanswered(start.vm)

    def unanswered_since(self, at: float) -> frozenset[VmId]:
        return self._unanswered.open_since(at)

    # -- how a call is made --

    def _request(self, bound: float, what: Callable[[Wait], object]) -> Any:
        try:
            return self._daemon.request(self._process, bound, what)
        except HypervisorUnreachable:
            if self._daemon.state == "dead":
                self._opened_at = None
            raise

    def _answered(self) -> None:
        if self._opened_at is None:
            self._opened_at = self._process.monotonic()
        self._unanswered.answered()

    def _refuse_while_unanswered(self, vm: VmId) -> None:
        opened = self._opened_at
        self._unanswered.refuse_while_any(vm, self._process.monotonic() if opened is None else opened)

    def _find(self, vm: VmId) -> Domain | None:
        return next((domain for domain in self.domains() if domain.vm == vm), None)
