"""The hypervisor of this host through libvirt.

Never calls a start refused unless libvirt answered *and* no domain is left, never hangs, never starts anything that
could start itself later (SAFETY: transient domains; autostart and managed save are refused).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import libvirt

from fangnetz.adapters.libvirt.bounded import BoundedCalls, Deadline
from fangnetz.adapters.libvirt.connection import Connections, Link
from fangnetz.adapters.libvirt.consuming import consumption
from fangnetz.adapters.libvirt.domain_xml import NAMESPACE, NO_MARK, PREFIX, Mark, as_element, mark_in, with_mark
from fangnetz.adapters.libvirt.migrating import Outgoing, help_on, progress_of, rest
from fangnetz.adapters.libvirt.receiving import refuse_what_it_lacks
from fangnetz.adapters.libvirt.refusals import NOT_THERE, has_ended, translate
from fangnetz.adapters.libvirt.sightings import sighting_of
from fangnetz.adapters.libvirt.unanswered import UnansweredStarts
from fangnetz.adapters.libvirt.watching import Watching
from fangnetz.core.convergence import Advice, Progress
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable
from fangnetz.core.model import Sighting
from fangnetz.core.units import Generation, HostId, Instant, Seconds, VmId
from fangnetz.ports import BootFiles, Consumed, Departed, Departure, Domain, Migration, UnansweredStart

T = TypeVar("T")

QUESTION_BOUND = Seconds(5.0)
CREATE_BOUND = Seconds(60.0)
"""QEMU's start includes opening network disks, with their own timeouts of tens of seconds."""
DESTROY_BOUND = Seconds(60.0)
"""libvirt gives QEMU 15 s after SIGTERM and 30 s after SIGKILL (longer with host devices)."""
SUSPEND_BOUND = Seconds(30.0)
"""QEMU finishes what the guest has asked of its disks first; libvirt itself waits so long for a job under way."""
ANSWER_BOUND = 5.0
"""Seconds. Once a domain is gone, libvirt answers whoever sent it away within this."""
LOG_DIR = Path("/var/log/libvirt/qemu")
NO_PEERS: Mapping[HostId, str] = {}
NOT_UNDER_WAY = "No migration of it is under way."
WATCH_EVERY = Seconds(0.25)
"""A look costs 0.7 ms with ten VMs, libvirtd's part included: three thousandths of a core at this pace."""
SETTLE = Seconds(10.0)
"""How long libvirt must have answered again before a start it never answered is known not to happen any more: a
libvirtd that thaws first reads what was sent to it before it froze."""
SETTLE_INHERITED = CREATE_BOUND
"""The same for a start of a worker that was killed. The libvirtd it was sent to lives on and may be at it still, with
nothing to show: before it lists a domain it may probe QEMU anew (6 s measured, two cores, no KVM) or wait for its own
busy threads. So as long as a start of our own would be waited for. It is told as in hand meanwhile, so that it need not
fit into `start_bound_s`: nobody orders another start, nor counts a failure."""


class LibvirtHypervisor:
    """`ports.Hypervisor` for one URI. Thread-safe; connections are opened when first needed.

    Questions and effects have limits of their own, so that starts stuck on dead storage do not blind the inventory.
    """

    def __init__(
        self,
        uri: str,
        boot: BootFiles,
        *,
        question_bound: Seconds = QUESTION_BOUND,
        create_bound: Seconds = CREATE_BOUND,
        destroy_bound: Seconds = DESTROY_BOUND,
        suspend_bound: Seconds = SUSPEND_BOUND,
        settle: Seconds = SETTLE,
        settle_inherited: Seconds = SETTLE_INHERITED,
        peers: Mapping[HostId, str] = NO_PEERS,
        log_dir: Path = LOG_DIR,
    ) -> None:
        """`boot` keeps the starts that libvirt has not answered; the next process reads them there. `peers`: how the
        libvirt of each other host is reached from this one; `log_dir`: where libvirt keeps a log of each domain.
        """
        self._connections = Connections(uri)
        self._questions = BoundedCalls("questions")
        self._measurements = BoundedCalls("measurements", abandoned_max=1)
        self._effects = BoundedCalls("starts or stops")
        self._question_bound = question_bound
        self._create_bound = create_bound
        self._destroy_bound = destroy_bound
        self._suspend_bound = suspend_bound
        self._unanswered = UnansweredStarts(boot, settle, settle_inherited)
        self._outgoing = Outgoing(self._connections, peers.__getitem__, log_dir)
        self._watches: list[Watching[tuple[Domain, ...]]] = []

    def watch(self, callback: Callable[[], None], every: Seconds = WATCH_EVERY) -> None:
        """Call `callback()` soon after a domain began, ended or changed state, or libvirt went away or came back.

        It runs in a thread of the watch and must return at once: set an event, no more.
        """
        self._watches.append(Watching(self.domains, callback, every))

    def domains(self) -> tuple[Domain, ...]:
        """All active domains. One round trip when nothing is new."""
        found = self._ask(self._domains)
        self._unanswered.answered()
        return found

    def consumed(self) -> tuple[Consumed, ...]:
        """CPU time and memory of all active domains; those that libvirt cannot tell of without waiting are left out."""
        ask = self._through_link(lambda _deadline, link: consumption(link.connection))
        return self._measurements.run(ask, self._question_bound)

    def create(
        self,
        vm: VmId,
        xml: str,
        generation: Generation,
        still: Callable[[], object] = lambda: None,
        *,
        start_sent_at: Instant | None = None,
    ) -> None:
        """Start a transient domain with the generation and the instant of its start in its metadata.

        `still` is called after all of libvirt was asked, right before the effect; what it raises is raised instead.
        HypervisorRefused (StorageLeaseHeld): libvirt said no and no domain of this name and generation is here.
        HypervisorUnreachable: not known, it may be running or start yet; ask `domains`.
        StartNotSent, one of these: nothing comes of this call, it could not be noted.
        """
        document = with_mark(xml, vm, Mark(generation=generation, start_sent_at=start_sent_at))

        def start(deadline: Deadline, link: Link) -> None:
            # First: no refusal is believed while another start may come.
            self._unanswered.refuse_while_any(vm, link.opened_at)
            self._refuse_what_is_there(link, vm, generation)
            still()
            note = self._unanswered.begin(vm, generation)
            known = True  # nothing is sent yet
            try:
                deadline.check()  # after the note: writing it may have taken long
                known = False
                link.connection.createXML(document, 0)
                known = True
            except libvirt.libvirtError as error:
                if isinstance(translate(error), HypervisorRefused):
                    known = True
                    self._prove_refused(link, vm, generation)
                raise
            finally:
                self._unanswered.end(vm, note, known=known)

        self._do(start, self._create_bound)

    def shutdown(self, vm: VmId, still: Callable[[], object] = lambda: None) -> None:
        """Ask the guest to switch off (ACPI or agent); a domain that is not there or does not run is success.

        libvirt refuses to ask a paused guest: whoever waits for it switches it off in the end. `still` is called right
        before a guest that is there is asked; what it raises is raised instead.
        """

        def ask_guest(deadline: Deadline, link: Link) -> None:
            domain = _find(link, vm)
            if domain is not None and domain.isActive():
                still()
                deadline.check()
                try:
                    domain.shutdown()
                except libvirt.libvirtError as error:
                    if error.get_error_code() not in NOT_THERE | {libvirt.VIR_ERR_OPERATION_INVALID}:
                        raise

        self._do(ask_guest, self._question_bound)

    def destroy(self, vm: VmId, still: Callable[[], object] = lambda: None) -> None:
        """End the domain and return when it is gone. HypervisorUnreachable while a start of it is unanswered.

        `still` is called right before a domain that is there is ended; what it raises is raised instead.
        """

        def end(deadline: Deadline, link: Link) -> None:
            domain = _find(link, vm)
            if domain is None or not domain.isActive():
                self._unanswered.refuse_while_any(vm, link.opened_at)
                return
            still()
            deadline.check()
            try:
                domain.destroy()
            except libvirt.libvirtError as error:
                if error.get_error_code() not in NOT_THERE | {libvirt.VIR_ERR_OPERATION_INVALID}:
                    raise
            left = _find(link, vm)
            if left is not None and left.isActive():
                raise HypervisorRefused(f"libvirt ended {vm}, but it is still there.")
            self._unanswered.refuse_while_any(vm, link.opened_at)

        self._do(end, self._destroy_bound)

    def suspend(self, vm: VmId, generation: Generation, still: Callable[[], object] = lambda: None) -> None:
        """Mark the copy of this generation as held, pause it, and return when its state says so.

        Paused already is success. The mark is there before the pause, so no copy is ever paused by us without it.
        HypervisorRefused: libvirt said no, no such copy is here, or it runs all the same. Never resumes anything.
        `still` is called right before a copy that runs is paused; what it raises is raised instead.
        """

        def pause(deadline: Deadline, link: Link) -> None:
            domain = _find(link, vm)
            if domain is None or not domain.isActive() or (mark := _mark_of(domain)).generation != generation:
                raise HypervisorRefused(f"{vm} is not on this host at generation {generation}.")
            _write_mark(domain, replace(mark, held=True))
            if _is_paused(domain):
                return
            try:
                still()
                deadline.check()
            except BaseException:
                with contextlib.suppress(libvirt.libvirtError):
                    _write_mark(domain, mark)
                raise
            domain.suspend()
            if not _is_paused(domain):
                raise HypervisorRefused(f"libvirt paused {vm}, but it runs.")

        self._do(pause, self._suspend_bound)

    def receivable(self, vm: VmId, xml: str) -> None:
        """Return if the VM could run here; HypervisorRefused with what this host lacks, or if it is here already."""

        def look(_deadline: Deadline, link: Link) -> None:
            if _find(link, vm) is not None:
                raise HypervisorRefused(f"{vm} is on this host already.")
            refuse_what_it_lacks(link.connection, vm, xml)

        self._ask(look)

    def migrate(
        self, migration: Migration, still: Callable[[], object], advise: Callable[[Progress], Advice]
    ) -> Departed:
        """Send a domain away, or go on watching a move that another process sent; return once it has ended.

        It has left only if libvirt said so, to us or in its log: a domain that is simply gone may have gone on here
        first, and then what has arrived there is out of date.
        """
        vm, sent = migration.vm, self._outgoing.of(migration.vm)
        present = self._ask_of_move(vm, lambda _deadline, link: _leaving(link, vm))
        if present.here and present.progress is None and (sent is None or sent.answered.is_set()):
            if present.mark.generation not in (None, migration.generation):
                raise HypervisorRefused(f"{vm} is here at generation {present.mark.generation}.")
            sent = self._outgoing.send(migration, present.mark, still)
        while True:
            over = sent is None or sent.answered.is_set()  # before the question: what it ended with shows in the answer
            present = self._ask_of_move(vm, lambda _deadline, link: _leaving(link, vm))
            if not present.here:
                break
            if present.progress is not None:
                self._advised(vm, advise(present.progress))
            elif over:
                why = str(sent.error) if sent is not None and sent.error is not None else NOT_UNDER_WAY
                return Departed(how=Departure.STAYED, sentence=why)
            rest(sent)
        if sent is not None and sent.answered.wait(ANSWER_BOUND) and sent.error is None:
            return Departed(how=Departure.LEFT, sentence="libvirt says that it was migrated.")
        if self._outgoing.went(vm):
            return Departed(how=Departure.LEFT, sentence="libvirt's log says that it was migrated.")
        return Departed(how=Departure.ENDED, sentence="It is gone, and libvirt does not say that it was migrated.")

    def _advised(self, vm: VmId, advice: Advice) -> None:
        def do(_deadline: Deadline, link: Link) -> None:
            domain = _find(link, vm)
            if domain is not None:
                help_on(domain, advice)

        if advice.end or advice.downtime_s is not None:
            self._ask_of_move(vm, do)

    def _ask_of_move(self, vm: VmId, question: Callable[[Deadline, Link], T]) -> T:
        """Ask; a question that is refused says nothing of the move, which may be under way: ask again later."""
        try:
            return self._ask(question)
        except HypervisorRefused as error:
            raise HypervisorUnreachable(f"libvirt does not say what became of the move of {vm}: {error}") from None

    def resume(self, vm: VmId, generation: Generation, still: Callable[[], object] = lambda: None) -> None:
        """Let a copy that has arrived run, and take the mark off that it waits. One that runs already is success."""

        def let_run(deadline: Deadline, link: Link) -> None:
            domain = _find(link, vm)
            if domain is None or not domain.isActive() or (mark := _mark_of(domain)).generation != generation:
                raise HypervisorRefused(f"{vm} is not on this host at generation {generation}.")
            if _is_paused(domain):
                if sighting_of(domain, *domain.state()) is Sighting.INCOMING:
                    raise HypervisorRefused(f"the memory of {vm} has not all arrived yet.")
                still()
                deadline.check()
                domain.resume()
                if _is_paused(domain):
                    raise HypervisorRefused(f"libvirt let {vm} run, but it is paused.")
            if mark.arriving:
                _write_mark(domain, replace(mark, arriving=False))

        self._do(let_run, self._suspend_bound)

    def settled(self, vm: VmId) -> None:
        """Return if every start of it that this boot sent has ended; HypervisorUnreachable while one has not."""
        self._ask(lambda _deadline, link: self._unanswered.refuse_while_any(vm, link.opened_at))

    def unanswered_since(self, at: float) -> frozenset[VmId]:
        """VMs with a start that may still come, or whose end became known at `at` (monotonic) or later. Asks files."""
        return self._unanswered.open_since(at)

    def settle(self) -> None:
        """Find out which starts without an answer have ended; libvirt is asked only while there is one.

        One whose domain runs has ended, and one that did not come while libvirt has answered for its settle time.
        """
        lost = self._unanswered.lost()  # before libvirt is asked: what it lists may be the end of these, no later ones
        if lost:
            self._ask(lambda deadline, link: self._settle(deadline, link, lost))

    def close(self) -> None:
        """End the watches and let go of the connections; a later call opens others."""
        for watch in self._watches:
            watch.stop()
        self._watches.clear()
        self._connections.close()

    # --- how a call is made ---

    def _ask(self, question: Callable[[Deadline, Link], T]) -> T:
        return self._questions.run(self._through_link(question), self._question_bound)

    def _do(self, effect: Callable[[Deadline, Link], None], bound: Seconds) -> None:
        self._effects.run(self._through_link(effect), bound)

    def _through_link(self, call: Callable[[Deadline, Link], T]) -> Callable[[Deadline], T]:
        def carry_out(deadline: Deadline) -> T:
            try:
                with self._connections.lend() as link:
                    return call(deadline, link)
            except libvirt.libvirtError as error:
                raise translate(error) from None

        return carry_out

    # --- questions ---

    def _domains(self, _deadline: Deadline, link: Link) -> tuple[Domain, ...]:
        found = []
        marks: dict[tuple[str, int], Mark] = {}
        for domain, stats in link.connection.getAllDomainStats(
            libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        ):
            uuid, number = domain.UUIDString(), domain.ID()
            try:
                state = sighting_of(
                    domain,
                    stats.get("state.state", libvirt.VIR_DOMAIN_NOSTATE),
                    stats.get("state.reason", 0),
                )
                known = None if state is Sighting.PAUSED else link.marks.get((uuid, number))  # held since, perhaps
                mark = known or _mark_of(domain)
            except libvirt.libvirtError as error:
                if has_ended(error, domain):
                    continue  # since the listing
                raise
            if state is Sighting.PAUSED and mark.arriving:
                state = Sighting.INCOMING
            marks[uuid, number] = mark
            found.append(
                Domain(
                    vm=VmId(domain.name()),
                    state=state,
                    generation=mark.generation,
                    uuid=uuid,
                    start_sent_at=mark.start_sent_at,
                    held=mark.held and state is Sighting.PAUSED,
                )
            )
        link.marks = marks
        return tuple(found)

    # --- what a start or stop must know ---

    def _settle(self, deadline: Deadline, link: Link, lost: tuple[UnansweredStart, ...]) -> None:
        there = {domain.vm: domain.generation for domain in self._domains(deadline, link)}
        for start in lost:
            if start.generation is not None and there.get(start.vm) == start.generation:
                self._unanswered.carried_out(start)
            else:
                with contextlib.suppress(HypervisorUnreachable):  # not yet
                    self._unanswered.refuse_while_any(start.vm, link.opened_at)

    def _refuse_what_is_there(self, link: Link, vm: VmId, generation: Generation) -> None:
        domain = _find(link, vm)
        if domain is None:
            return
        if domain.isPersistent() and domain.autostart():
            raise HypervisorRefused(f"{vm} is defined on this host with autostart: it could start by itself.")
        if domain.isPersistent() and domain.hasManagedSaveImage():
            raise HypervisorRefused(f"{vm} has a managed save image on this host: it could resume an old state.")
        if domain.isActive():
            _say_it_runs(domain, vm, generation)

    def _prove_refused(self, link: Link, vm: VmId, generation: Generation) -> None:
        """Raise HypervisorUnreachable instead if the domain is there all the same."""
        domain = _find(link, vm)
        if domain is not None and domain.isActive() and _mark_of(domain).generation == generation:
            raise HypervisorUnreachable(f"libvirt refused to start {vm}, but it is there at this generation.")


def _find(link: Link, vm: VmId) -> libvirt.virDomain | None:
    try:
        return link.connection.lookupByName(vm)
    except libvirt.libvirtError as error:
        if error.get_error_code() in NOT_THERE:
            return None
        raise


def _mark_of(domain: libvirt.virDomain) -> Mark:
    try:
        return mark_in(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return NO_MARK
        raise


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A domain that may be on its way out: whether it is here, its mark, and how its migration comes on."""

    here: bool
    mark: Mark = NO_MARK
    progress: Progress | None = None


def _leaving(link: Link, vm: VmId) -> _Leaving:
    domain = _find(link, vm)
    if domain is None:
        return _Leaving(here=False)
    try:
        if not domain.isActive():
            return _Leaving(here=False)
        return _Leaving(here=True, mark=_mark_of(domain), progress=progress_of(domain))
    except libvirt.libvirtError as error:
        if has_ended(error, domain):
            return _Leaving(here=False)
        raise


def _write_mark(domain: libvirt.virDomain, mark: Mark) -> None:
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT, as_element(mark), PREFIX, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE
    )


def _is_paused(domain: libvirt.virDomain) -> bool:
    return bool(domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED)


def _say_it_runs(domain: libvirt.virDomain, vm: VmId, generation: Generation) -> None:
    there = _mark_of(domain).generation
    if there == generation:
        raise HypervisorUnreachable(f"{vm} is on this host at this generation already; ask what it does.")
    raise HypervisorRefused(f"{vm} is on this host at {there or 'no'} generation of ours already.")
