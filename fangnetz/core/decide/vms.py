"""What a VM needs: adopt it where it runs, start it where it is wished, stop it where it is not, or say why not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from fangnetz.core.actions import Action, Alarm, OpenOperation, PutVm
from fangnetz.core.copies import later_copy, listed, paused_later_copy, running
from fangnetz.core.decide.arrivals import NOTHING, Arrival, Arrivals
from fangnetz.core.decide.carried import Carried
from fangnetz.core.decide.openings import operation_id, order_to, stops_under_way, vm_operation
from fangnetz.core.decide.partings import Partings
from fangnetz.core.decide.steady import vm_is_steady
from fangnetz.core.detector import Finding, Verdict, Watch, heard
from fangnetz.core.evacuation import held_back
from fangnetz.core.identity import rivals
from fangnetz.core.leaving import STOPS_PER_HOST_MAX
from fangnetz.core.model import (
    DROPPED,
    REMOVED,
    ClusterView,
    HostState,
    HypervisorHealth,
    Sighting,
    VmDoc,
    VmRecord,
    VmSighting,
    VmState,
    VmWish,
)
from fangnetz.core.operations import (
    Operation,
    OperationKind,
    Order,
    Step,
    StepKind,
    pause_steps,
    start_steps,
    stop_steps,
)
from fangnetz.core.ownership import Granted, end_the_held, owner_let_go, proof_of, seen_running
from fangnetz.core.pause import told
from fangnetz.core.policy import IsolatedPolicy, Policy
from fangnetz.core.recovery import plan_starts
from fangnetz.core.retries import gives_up, leaves
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, VmId

RUNS = frozenset({Sighting.RUNNING, Sighting.PAUSED, Sighting.STOPPING})
_SAID_ALREADY = frozenset({VmState.FAILED, VmState.NEEDS_PERSON, VmState.STOPPED})
"""The loss of its host does not change what is said of such a VM."""
STEADY_S = 600.0
"""A VM that ran this long has its failures forgotten."""
PAUSE_AGAIN_S = 10.0
"""A pause that its host did not find right to make is ordered again after this: two copies still run by what we hear,
and hosts list their VMs several times meanwhile."""
STARTS_PER_TICK = 32
"""Start operations opened in one tick at most: a boot storm is paced, and a tick stays short."""


def _not_managed(doc: VmDoc) -> str:
    """Return why a VM is left alone, or an empty string. A wish to stop is carried out whatever the file says."""
    if doc.source == REMOVED:
        return "removed by an operator; kept in mind until its copy is known to be gone"
    if doc.wish is VmWish.IGNORED:
        return "not managed, by wish"
    if doc.source == DROPPED and doc.wish is VmWish.RUNNING:
        return "not in the cluster file any more: left alone, and not recovered"
    return ""


class VmDecisions:
    """The decisions on all VMs in one tick."""

    def __init__(
        self,
        view: ClusterView,
        watch: Watch,
        verdicts: Mapping[HostId, Verdict],
        policy: Policy,
        epoch: Epoch,
        opened: Iterable[Operation] = (),
        *,
        but: Collection[VmId] = (),
    ) -> None:
        """`opened`: operations that this very tick opens for hosts; they carry VMs already. `but`: VMs whose
        definition this tick changes; they have their turn in the next one.
        """
        self.view, self.watch, self.verdicts, self.policy, self.epoch = view, watch, verdicts, policy, epoch
        self.carried, self.just_opened = Carried(view.operations.values()), Carried(opened)
        self.but = frozenset(but)
        self.rivals = rivals(view.vms)
        self.arrivals = Arrivals(view, verdicts, policy, epoch)
        self.partings = Partings(view, verdicts, policy)
        self.seen = self._seen(view.hosts)
        self.seen_outside = self._seen_outside(view.outside)
        self.staying = self.partings.staying()
        self.stopping = stops_under_way(view.operations.values())
        self.held_back = held_back(view)
        self.actions: list[Action] = []
        self.alarms: list[Alarm] = []
        self.wanted: list[VmId] = []

    def decide(self) -> tuple[list[Action], list[Alarm]]:
        for vm, doc in self.view.vms.items():
            if vm in self.but:
                continue
            record = self.view.vm_records.get(vm)
            if record is None:
                self._put(
                    VmRecord(
                        id=vm,
                        state=VmState.UNMANAGED if doc.wish is VmWish.IGNORED else VmState.WAITING,
                        owner=None,
                        owner_incarnation=Incarnation(""),
                        generation=Generation(0),
                        since=self.view.now,
                        reason="defined, not started yet",
                    ),
                    None,
                )
                continue
            if self._is_steady(doc, record):
                continue
            unmanaged = _not_managed(doc)
            if unmanaged:
                self._set(record, VmState.UNMANAGED, unmanaged)
                continue
            self._decide_vm(doc, record)
        self._stop_the_parting()
        self._start_wanted()
        self._alarm_rivals()
        return self.actions, self.alarms

    def _alarm_rivals(self) -> None:
        """Two known definitions of one disk: say so, loudly if both run."""
        for vm, others in self.rivals.items():
            for other, mark in others.items():
                if other < vm:
                    continue
                here, there = seen_running(self.view, vm), seen_running(self.view, other)
                sentence = f"{vm} and {other} both have {mark}: only one of them is ever started"
                if here and there:
                    sentence = (
                        f"{vm} runs on {', '.join(here)} and {other} on {', '.join(there)}: both have {mark}, and two "
                        "copies may write one disk. Stop one of them"
                    )
                both = bool(here and there)
                self.alarms.append(Alarm(kind="same_disk", subject=f"{vm}, {other}", sentence=sentence, highest=both))

    # -- one VM --

    def _is_steady(self, doc: VmDoc, record: VmRecord) -> bool:
        sightings = self.seen.get(record.id)
        if sightings is None or len(sightings) != 1 or record.id in self.seen_outside or self.carried.has(record):
            return False
        ((host, seen),) = sightings.items()
        boot = self.staying.get(host)
        return boot is not None and vm_is_steady(doc, record, host, boot, seen)

    def _decide_vm(self, doc: VmDoc, record: VmRecord) -> None:
        sightings = self.seen.get(record.id, {})
        copies = {host: seen for host, seen in sightings.items() if seen.state in RUNS}
        beyond = self.seen_outside.get(record.id, {})
        busy = self.carried.has(record)
        if not busy and self._take(self.arrivals.of_nobodys(record, sightings)):
            return
        if len(copies) + len(beyond) > 1:
            self._twice(record, {**copies, **beyond})
            return
        if busy:
            self._take(self.arrivals.of_carried(record))
            self._take(self.partings.of_moving(record))
            if not copies:
                self._lost_meanwhile(doc, record)
            return
        if copies:
            ((host, seen),) = copies.items()
            self._seen_on(doc, record, host, seen)
            return
        self._not_seen(doc, record)

    def _take(self, arrival: Arrival) -> bool:
        """Do what was decided about a copy that arrives; say whether that is all for this VM."""
        if arrival is not NOTHING:
            self.actions.extend(arrival.actions)
            self.alarms.extend(arrival.alarms)
        return arrival.settled

    def _seen(self, hosts: Iterable[HostId]) -> dict[VmId, dict[HostId, VmSighting]]:
        """Where fresh reports show each VM; a report of a boot proven off shows nothing any more."""
        found: dict[VmId, dict[HostId, VmSighting]] = {}
        for host in hosts:
            beat = heard(self.view, host)
            if beat is None or not self.verdicts[host].fresh:
                continue
            if proof_of(self.view, host, beat.incarnation) is None:
                for seen in beat.inventory:
                    found.setdefault(seen.vm, {}).setdefault(host, seen)
        return found

    def _seen_outside(self, hosts: Iterable[HostId]) -> dict[VmId, dict[HostId, VmSighting]]:
        """Return the copies on hosts that are not in the cluster file, by reports from within the last window.

        Such a copy is never adopted nor ordered about; beside another one it is a second writer all the same.
        """
        found: dict[VmId, dict[HostId, VmSighting]] = {}
        for host in hosts:
            beat = heard(self.view, host)
            if beat is None or self.view.now - beat.received_at > self.policy.window_s:
                continue
            if proof_of(self.view, host, beat.incarnation) is None:
                for seen in beat.inventory:
                    if seen.state in RUNS:
                        found.setdefault(seen.vm, {}).setdefault(host, seen)
        return found

    def _lost_meanwhile(self, doc: VmDoc, record: VmRecord) -> None:
        """Name the loss of its host although an operation carries the VM: a stop or start may wait long for an answer.

        Also where the host's failover began by an OFF that was read before it was called lost, until the plan is made,
        or where a pause holds the plan back: from then on the failover says what becomes of the VM.
        """
        owner = record.owner
        if owner is None:
            return
        proven = proof_of(self.view, owner, record.owner_incarnation)
        if proven is None:
            self._name_loss(doc, record, owner)
        if record.state is not VmState.RUNNING or doc.wish is VmWish.STOPPED:
            return
        for op in self.view.operations.values():
            mine = (op.kind, op.subject, op.incarnation) == (
                OperationKind.FAILOVER, owner, record.owner_incarnation
            )  # fmt: skip
            planned = any(step.attempt or step.settled for step in op.of_kind(StepKind.PLAN))
            verdict = self.verdicts.get(owner)
            proof = proven if self.view.paused is not None else op.proof
            if mine and proof is not None and not planned and verdict is not None and not verdict.fresh:
                self._set(record, VmState.LOST, f"{proof.sentence}; its failover is under way")

    def _twice(self, record: VmRecord, copies: dict[HostId, VmSighting]) -> None:
        """More than one copy: the highest alarm; an older generation is stopped, the later of equal ones paused."""
        where = " and ".join(f"{h} (generation {s.generation})" for h, s in sorted(copies.items()))
        sentence = f"{record.id} runs on {where}: two copies may write one disk"
        lately = listed(self.view, record.id, self.policy)
        later = later_copy(running({h: s for h, s in copies.items() if h in lately}), record.owner)
        older = self._older(record, copies)
        marked = next((host for host, seen in sorted(copies.items()) if seen.held), None)
        held = None if later else marked or paused_later_copy(copies, record.owner)
        beyond = later is not None and later not in self.view.hosts
        if beyond:
            sentence += (
                f"; the copy on {later} is the later one, and that host is not in the cluster file: pause it there"
            )
        elif later and self.view.paused is not None:
            sentence += f"; the copy on {later} is the later one, and is left running: {told(self.view.paused)}"
        elif later:
            sentence += f"; the copy on {later} is the later one and is being paused"
        elif held:
            sentence += f"; the copy on {held} is the later one: it is paused and stays so"
        if not older:
            sentence += (
                f". Decide which one to keep and end the other on its own host: `virsh destroy {record.id}`; "
                "do not resume a paused copy while another runs, nor after it has run"
            )
        self.alarms.append(Alarm(kind="runs_twice", subject=record.id, sentence=sentence, highest=True))
        if later and not beyond and not self._pausing(record):  # two writers wait for no other operation
            self._open_pause(record, later, copies, sentence)
        if self.carried.has(record):
            return
        if held or beyond:
            self._leave_to_person(record, sentence)
        for host, generation in sorted(older.items())[:1]:  # one at a time: two of a kind and subject are never open
            self._open_stop(record, host, generation, sentence, force=True)

    def _pausing(self, record: VmRecord) -> bool:
        return any(op.kind is OperationKind.PAUSE and op.subject == record.id for op in self.view.operations.values())

    def _older(self, record: VmRecord, copies: dict[HostId, VmSighting]) -> dict[HostId, Generation]:
        """Return the copies of older generations, if the recorded owner runs the recorded one."""
        if record.owner not in copies or copies[record.owner].generation != record.generation:
            return {}
        return {
            host: seen.generation
            for host, seen in copies.items()
            if host != record.owner
            and host in self.view.hosts
            and seen.generation is not None
            and seen.generation < record.generation
        }

    def _seen_on(self, doc: VmDoc, record: VmRecord, host: HostId, seen: VmSighting) -> None:
        beat = heard(self.view, host)
        if beat is None:
            return
        mine = record.owner == host and record.owner_incarnation == beat.incarnation
        if not (mine and (seen.generation is None or seen.generation <= record.generation)):
            if not mine and not self._may_adopt(record, host):
                sentence = (
                    f"{record.id} is seen on {host}, but {record.owner} owns it and is neither heard without it "
                    "nor proven off"
                )
                if seen.held:
                    sentence += f". The copy on {host} is paused as the later of two: do not resume it"
                self.alarms.append(Alarm(kind="seen_elsewhere", subject=record.id, sentence=sentence, highest=True))
                return
            lone_pause = seen.state is Sighting.PAUSED and not mine and record.owner is not None
            if (seen.held or lone_pause) and doc.wish is not VmWish.STOPPED:
                self._leave_paused(record, host, seen)
                return
            self._alarm_foreign(record, host, seen)
            self._put(
                replace(
                    record,
                    state=VmState.RUNNING,
                    owner=host,
                    owner_incarnation=beat.incarnation,
                    generation=max(record.generation, seen.generation or Generation(0)),  # never lowered
                    since=self.view.now,
                    reason=f"adopted where it runs: {host}",
                    operation=None,
                    moving=None if record.moving is not None and record.moving.host == host else record.moving,
                ),
                record.generation,
            )
            return
        self._alarm_foreign(record, host, seen)
        if doc.wish is VmWish.STOPPED:
            if seen.generation and beat.promised(record.id) >= seen.generation:  # 0: nothing promised, nor given
                return  # stopped a moment ago: its promise is newer than its inventory
            self._open_stop(
                record, host, seen.generation or record.generation, "an operator wants it stopped", force=False
            )
            return
        if self._take(self.partings.of_seen(record, host, seen)):
            return
        if record.id in self.held_back and seen.generation and beat.promised(record.id) >= seen.generation:
            return  # stopped a moment ago, as its host is emptied
        if seen.state is Sighting.PAUSED:
            self.alarms.append(
                Alarm(
                    kind="vm_paused",
                    subject=record.id,
                    sentence=f"{record.id} is paused on {host}; it does no work",
                )
            )
            if seen.held or record.state is VmState.NEEDS_PERSON:
                self._leave_paused(record, host, seen)
                return
        if record.failures and record.state is VmState.RUNNING and self.view.now - record.since > STEADY_S:
            self._put(replace(record, failures=0), record.generation)
        else:
            self._set(record, VmState.RUNNING, f"runs on {host}")

    # -- hosts that go down in order --

    def _stop_the_parting(self) -> None:
        for record, host, reason in self.partings.turns():
            if self.stopping[host] < STOPS_PER_HOST_MAX:
                stopping = replace(record, state=VmState.STOPPING, since=self.view.now, reason=reason)
                self._put(stopping, record.generation)
                self._open_stop(record, host, self.partings.generation[record.id], reason, force=False)

    def _leave_paused(self, record: VmRecord, host: HostId, seen: VmSighting) -> None:
        """The only copy is paused and is or may be the later of two: no healthy run before a person ends or resumes it.

        Whatever the record says meanwhile: that of another owner, of none, or of a start that was refused there.
        """
        if seen.held:
            self._leave_to_person(record, end_the_held(record.id, (host,)))
            return
        self._leave_to_person(
            record,
            f"it is paused on {host} and runs nowhere. If another copy of it ran meanwhile, this one is out of "
            f"date and would spoil its disk: end it with `fangnetz vm stop {record.id}`, then `fangnetz vm start "
            f"{record.id}`. If none did, resume it there: `virsh resume {record.id}`",
        )

    def _alarm_foreign(self, record: VmRecord, host: HostId, seen: VmSighting) -> None:
        if seen.generation is None:
            sentence = f"{record.id} runs on {host}, started by somebody else; it is adopted untouched"
            self.alarms.append(Alarm(kind="foreign_copy", subject=record.id, sentence=sentence))

    def _may_adopt(self, record: VmRecord, host: HostId) -> bool:
        """Adopt elsewhere only if the recorded owner is heard without it or proven off (SAFETY rule 8)."""
        if record.owner is None or record.owner == host:
            return True
        beat = heard(self.view, record.owner)
        if proof_of(self.view, record.owner, record.owner_incarnation) is not None:
            return True
        if record.owner not in self.verdicts:
            return False
        if beat is None or beat.hypervisor is not HypervisorHealth.OK:  # a hung libvirt is not "without it"
            return False
        return self.verdicts[record.owner].fresh and beat.sees(record.id) is None

    def _not_seen(self, doc: VmDoc, record: VmRecord) -> None:
        owner = record.owner
        if owner is not None and self._take(self.arrivals.at_owner(record, owner)):
            return
        if owner is not None and self._take(self.partings.of_gone(record, owner, to_run=doc.to_run)):
            self._ask_its_promise(record)
            return
        if doc.wish is VmWish.STOPPED:
            if self._known_absent(record):
                self._set(record, VmState.STOPPED, "stopped, as wished")
                self._ask_promise(doc, record)
            elif owner is not None:
                self._name_loss(doc, record, owner)
            return
        if record.state in (VmState.FAILED, VmState.NEEDS_PERSON):
            return  # until a person says start, or it is seen running somewhere
        waits = record.id in self.held_back and self._known_absent(record)  # for what, the plan of its start says
        if owner is None or waits or self.partings.lets_go(record, owner):
            self.wanted.append(record.id)
            return
        verdict = self.verdicts.get(owner)
        host = self.view.host_records.get(owner)
        beat = heard(self.view, owner)
        same_boot = beat is not None and beat.incarnation == record.owner_incarnation
        latest = beat.incarnation if beat is not None else record.owner_incarnation
        if any(proof_of(self.view, owner, boot) is not None for boot in (latest, record.owner_incarnation)):
            self.wanted.append(record.id)  # its host is proven off; room may have appeared
        elif verdict is None:
            self._outside(record, owner)
        elif host is None:
            self._set(record, VmState.UNKNOWN, f"its owner {owner} is not taken up as a member yet")
        elif verdict.finding in (Finding.ALIVE, Finding.REBOOTED) and beat is not None:
            if not same_boot:
                self.wanted.append(record.id)
            elif beat.received_at - beat.inventory_age_s > record.since and not self._in_hand(record, owner):
                self._ended_by_itself(record, owner)
        else:
            self._name_loss(doc, record, owner)

    def _name_loss(self, doc: VmDoc, record: VmRecord, owner: HostId) -> None:
        """Say that nobody knows of a VM what its host does, where that host is lost, cut off or not known about."""
        verdict, host = self.verdicts.get(owner), self.view.host_records.get(owner)
        if verdict is None or host is None or record.state in _SAID_ALREADY:
            return
        if verdict.finding in (Finding.LOST, Finding.ISOLATED, Finding.UNKNOWN):
            left_alone = verdict.finding is Finding.ISOLATED and self.policy.isolated is IsolatedPolicy.LEAVE
            unknown = left_alone or verdict.finding is Finding.UNKNOWN
            state = VmState.UNKNOWN if unknown else VmState.LOST
            self._set(record, state, f"{verdict.sentence}; {self._what_next(doc, host.state, owner)}")

    def _outside(self, record: VmRecord, owner: HostId) -> None:
        """Its owner is not in the cluster file any more: it may be asked by nobody, and fenced by nobody."""
        if isinstance(owner_let_go(self.view, record), Granted):
            self.wanted.append(record.id)
        elif (beat := heard(self.view, owner)) is not None and self.view.now - beat.received_at < self.policy.window_s:
            reason = f"{owner} reports, but is not in the cluster file any more: put it back"
            self._set(record, VmState.UNKNOWN, reason)
        else:
            reason = (
                f"its owner {owner} is not in the cluster file any more: put it back, or make sure by hand that it is "
                f"off, then `fangnetz host confirm-off {owner}`"
            )
            self._set(record, VmState.LOST, reason)

    def _what_next(self, doc: VmDoc, state: HostState, host: HostId) -> str:
        if state is HostState.NEEDS_PERSON:
            return (
                f"it may still run there. Make sure by hand that {host} is off, then `fangnetz host confirm-off {host}`"
            )
        if doc.wish is VmWish.STOPPED:
            return "it may still run there; it counts as stopped once its host is proven off"
        return "it starts elsewhere only once its host is proven off"

    def _in_hand(self, record: VmRecord, owner: HostId) -> bool:
        beat = heard(self.view, owner)
        return beat is not None and any(f"/{record.id}/" in f"{order}/" for order in beat.orders)

    def _ended_by_itself(self, record: VmRecord, owner: HostId) -> None:
        """Start again what ended; what was stopped for a shutdown that was called off did not end by itself."""
        beat = heard(self.view, owner)
        if record.state is VmState.STOPPING and beat is not None and beat.promised(record.id) >= record.generation:
            self._set(record, VmState.WAITING, f"it was stopped on {owner}, as ordered, and is to run again")
        elif record.state in (VmState.RUNNING, VmState.STARTING, VmState.STOPPING):
            failures = record.failures + 1
            retries = self.view.vms[record.id].spec.retries
            ended = replace(record, since=self.view.now, failures=failures, ended_on=owner)
            if gives_up(retries, failures, self.policy):
                reason = f"it ended {failures} times, last on {owner}; try again: `fangnetz vm start {record.id}`"
                self._put(replace(ended, state=VmState.FAILED, reason=reason), record.generation)
                return
            reason = f"it ended by itself on {owner} and is started again"
            if leaves(retries, failures, self.policy):
                reason = f"it ended {failures} times, last on {owner}, and is started elsewhere"
                self._put(replace(ended, state=VmState.WAITING, reason=reason), record.generation)
                return  # where to, the next tick decides by this record
            self._put(replace(ended, state=VmState.WAITING, reason=reason), record.generation)
        self.wanted.append(record.id)

    def _ask_promise(self, doc: VmDoc, record: VmRecord) -> None:
        """Whoever waits for this VM's disk or name may have it only once its owner promised never to start it again."""
        if doc.source == DROPPED or record.id in self.rivals:
            self._ask_its_promise(record)

    def _ask_its_promise(self, record: VmRecord) -> None:
        owner = record.owner
        if owner is None or isinstance(owner_let_go(self.view, record), Granted):
            return
        beat = heard(self.view, owner)
        verdict = self.verdicts.get(owner)
        alive = verdict is not None and verdict.finding is Finding.ALIVE
        same_boot = beat is not None and beat.incarnation == record.owner_incarnation
        if (
            beat is not None
            and alive
            and same_boot
            and beat.sees(record.id) is None
            and not self._in_hand(record, owner)
        ):
            self._open_stop(
                record, owner, record.generation, "it is to promise that it is not started again", force=False
            )

    def _known_absent(self, record: VmRecord) -> bool:
        """Whether nobody can be running it: released, proven off, or its living owner reports without it."""
        if isinstance(owner_let_go(self.view, record), Granted):
            return True
        verdict = self.verdicts.get(record.owner) if record.owner else None
        return verdict is not None and verdict.finding is Finding.ALIVE

    # -- starts --

    def _start_wanted(self) -> None:
        """Open a start for every wanted VM that has a place now, and give the others their reason."""
        view = self.view
        free = [vm for vm in self.wanted if not self.just_opened.has(view.vm_records[vm])]
        if not free:
            return
        if view.paused is not None:
            for vm in free:
                self._set(view.vm_records[vm], VmState.WAITING, told(view.paused))
            return
        none_yet: dict[VmId, tuple[Step, ...]] = dict.fromkeys(free, ())
        plan = plan_starts(none_yet, view, self.watch, self.verdicts, self.policy)
        for left in plan.unassigned:
            state = VmState.WAITING if left.state is VmState.LOST else left.state
            self._set(view.vm_records[left.vm], state, left.reason)
            if state is VmState.WAITING:  # its owner has no place for it: once it promises, another host may have one
                self._ask_its_promise(view.vm_records[left.vm])
        for chosen in plan.assignments[:STARTS_PER_TICK]:
            record = view.vm_records[chosen.vm]
            operation = Operation(
                id=operation_id(OperationKind.START, chosen.vm, view.now),
                kind=OperationKind.START,
                subject=chosen.vm,
                epoch=self.epoch,
                opened_at=view.now,
                reason=self._why_it_starts(record),
                steps=start_steps(),
                target=chosen.host,
            )
            self.actions.append(OpenOperation(operation=operation))

    def _why_it_starts(self, record: VmRecord) -> str:
        pause = self.view.pause
        if pause is not None and record.reason.startswith(told(pause)):  # what it waited for is over
            return f"the pause by {pause.by} is over"
        return record.reason or "it is wished to run"

    def _open_stop(self, record: VmRecord, host: HostId, generation: Generation, reason: str, *, force: bool) -> None:
        if not force and self.stopping[host] >= STOPS_PER_HOST_MAX:
            return
        order = self._order(record.id, host, generation, self.policy.stop_bound_s + self.policy.start_bound_s)
        if order is None:
            return
        self.stopping[host] += 0 if force else 1
        self._open(OperationKind.STOP, record.id, reason, stop_steps(replace(order, force=force)))

    def _open_pause(self, record: VmRecord, host: HostId, copies: Mapping[HostId, VmSighting], reason: str) -> None:
        """Order it, and say on record that it was: one that was not made is not ordered again before a while."""
        generation = copies[host].generation
        said = (record.state, record.reason) == (VmState.NEEDS_PERSON, reason)
        if generation is None or (said and self.view.now - record.since < PAUSE_AGAIN_S):
            return
        order = self._order(record.id, host, generation, self.policy.start_bound_s)
        if order is None:
            return
        beside = sorted(h for h, seen in running(copies).items() if h != host and seen.generation == generation)
        order = replace(order, beside=tuple(beside))
        self._open(OperationKind.PAUSE, record.id, reason, pause_steps(order))
        if not self.carried.has(record):
            named = replace(record, state=VmState.NEEDS_PERSON, since=self.view.now, reason=reason)
            self._put(named, record.generation)

    def _order(self, vm: VmId, host: HostId, generation: Generation, for_s: float) -> Order | None:
        return order_to(self.view, vm, host, generation, for_s)

    def _open(self, kind: OperationKind, vm: VmId, reason: str, steps: tuple[Step, ...]) -> None:
        self.actions.append(OpenOperation(operation=vm_operation(kind, vm, reason, steps, self.view, self.epoch)))

    # -- helpers --

    def _leave_to_person(self, record: VmRecord, reason: str) -> None:
        """Name it as a person's matter, with what to do; written again only when there is something else to say."""
        if (record.state, record.reason) != (VmState.NEEDS_PERSON, reason):
            since = record.since if record.state is VmState.NEEDS_PERSON else self.view.now
            self._put(replace(record, state=VmState.NEEDS_PERSON, since=since, reason=reason), record.generation)

    def _set(self, record: VmRecord, state: VmState, reason: str) -> None:
        if record.state is state and (record.reason == reason or state is not VmState.WAITING):
            return
        self._put(
            replace(
                record,
                state=state,
                since=record.since if record.state is state else self.view.now,
                reason=reason,
            ),
            record.generation,
        )

    def _put(self, record: VmRecord, expected: Generation | None) -> None:
        self.actions.append(PutVm(record=record, expected=expected))
