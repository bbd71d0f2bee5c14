"""The laws, checked after every event that could break one: each write to the store, each VM that starts, each tick.

Predicates come from core.invariants; here is only what they are asked about. Truth is what the hypervisors and the
store's own history say, never what a controller believes, and never what a store remembers that was rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from fangnetz.core import invariants as law
from fangnetz.core.actions import Decision, PutHost, PutVm
from fangnetz.core.detector import Finding
from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostSpec,
    HypervisorHealth,
    OffProof,
    Release,
    Sighting,
    VmRecord,
    VmState,
    VmWish,
)
from fangnetz.core.operations import Operation, OperationKind, Outcome, StepKind, StepState
from fangnetz.core.units import ControllerId, Epoch, Generation, HostId, Incarnation, Instant, Seconds, VmId
from fangnetz.engine.tick import Ticked
from fangnetz.ports import Assign, Claim, NotClaimed, Store
from fangnetz.sim.chronicle import Chronicle
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.libvirtd import Copy
from fangnetz.sim.machine import Machine
from fangnetz.sim.store import journal, records, reports
from fangnetz.sim.store.memory import Memory
from fangnetz.sim.store.server import EPOCH_US, Raised
from fangnetz.sim.store.twin import StoreTwin

SAYS_WHY_S = Seconds(30.0)
"""A VM that ended has a reason in its record by then, as long as somebody has been in charge all the time."""


class _Watched:
    """A controller's store that keeps the last view its tick read."""

    def __init__(self, store: StoreTwin) -> None:
        self._store = store
        self.last: ClusterView | None = None

    def view(self, hosts: Mapping[HostId, HostSpec], controller: ControllerId | None) -> ClusterView:
        self.last = self._store.view(hosts, controller)
        return self.last

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        self.__dict__[name] = found
        return found


class Laws:
    def __init__(
        self, kernel: Kernel, chronicle: Chronicle, machines: Mapping[HostId, Machine], gap_s: Seconds
    ) -> None:
        """`gap_s`: whoever did not look for longer begins to watch anew, and needs its time again to say why."""
        self._kernel, self._chronicle, self._machines, self._gap_s = kernel, chronicle, machines, gap_s
        self._owned: dict[VmId, law.Assigned] = {}
        self._highest: dict[VmId, law.Assigned] = {}
        self._orders: dict[tuple[VmId, HostId, Incarnation, Generation], None] = {}
        self._proofs: dict[tuple[HostId, Incarnation], OffProof] = {}
        self._released: dict[tuple[HostId, Incarnation, VmId], law.Released] = {}
        self._beats: dict[HostId, dict[Incarnation, Heartbeat]] = {}
        self._latest: dict[tuple[HostId, Incarnation], Instant] = {}
        """When each boot was last heard."""
        self._running: dict[VmId, list[Copy]] = {}
        self._ended_at: dict[VmId, float] = {}
        self._lives: dict[VmId, str] = {}
        self._wished: dict[VmId, None] = {}
        self._in_charge_since = 0.0
        self._life_in_charge = ""
        self._ticked_at = 0.0
        self.last_view: ClusterView | None = None
        """What whoever was in charge read last."""
        self.memory: Callable[[], Memory] = lambda: cast("Memory", None)
        self.confirmed: Callable[[], Memory | None] = lambda: None
        """What would be left if the master failed now; None where there are no replicas."""
        self.starts_sent: Callable[[HostId, VmId], bool] = lambda _host, _vm: False
        """Whether a start was sent to a host's hypervisor and has not been answered."""
        self._leases: dict[tuple[str, str, str], tuple[str, Instant]] = {}
        """By memory, operation and step: who carries it out, and until when nobody else may."""

    # -- what the store was told --

    def look(self, script: Callable[..., Any], args: tuple[Any, ...], answer: object) -> None:
        """Called right after each script."""
        watch = _WATCHED.get(script)
        if watch is not None and not isinstance(answer, Raised):
            watch(self, args, answer)
        if script in _UNDER_EPOCH and answer is not False and not isinstance(answer, Raised):
            self._written(script.__name__, cast("Epoch", args[-1]))

    def _written(self, script: str, epoch: Epoch) -> None:
        """Only whoever holds the last epoch writes under one; an operation keeps going under that it was adopted by."""
        last = self.memory().epoch
        if epoch != last:
            self._chronicle.broke("epoch_over", f"{script} was done under epoch {epoch}, and the last one is {last}")

    def _claimed(self, args: tuple[Any, ...], answer: object) -> None:
        identity, key, token = args[:3]
        granted, before = cast("tuple[Claim | NotClaimed, StepState]", answer)
        if not isinstance(granted, Claim):
            return
        where = (self.memory().identity, identity, key)
        holder, until = self._leases.get(where, ("", Instant(0.0)))
        if before in (StepState.DONE, StepState.FAILED, StepState.REFUSED, StepState.SKIPPED):
            self._chronicle.broke("done_again", f"{identity} {key} was {before} and is carried out again")
        if before is StepState.RUNNING and holder not in ("", token) and until > self._now:
            self._chronicle.broke("two_at_one_step", f"{identity} {key} is carried out by two at once")
        self._leases[where] = (token, Instant(self._now + args[5]))

    def _renewed(self, args: tuple[Any, ...], answer: object) -> None:
        held: Claim = args[0]
        self._leases[self.memory().identity, held.operation.id, held.step.key] = (held.token, cast("Instant", answer))

    @property
    def _now(self) -> float:
        """By the store's clock."""
        return self.memory().seen_us() / 1e6

    def _logged(self, args: tuple[Any, ...], _answer: object) -> None:
        for event in args[0]:
            self._chronicle.logged(event)

    def _reported(self, args: tuple[Any, ...], answer: object) -> None:
        beat: Heartbeat = args[0]
        if answer is None:
            return
        kept = self.memory().beats[beat.host]
        self._latest[beat.host, beat.incarnation] = kept.received_at
        listed_at = kept.received_at - kept.inventory_age_s
        heard_since = min(kept.boot_since, Instant(self._life_began))  # a boot is heard anew in each life
        if beat.hypervisor is HypervisorHealth.OK or listed_at >= heard_since:
            self._beats.setdefault(beat.host, {})[beat.incarnation] = kept
        for release in beat.releases:
            self._promised(beat.host, beat.incarnation, release, cast("Instant", answer))

    def _promised(self, host: HostId, incarnation: Incarnation, release: Release, at: Instant) -> None:
        key = (host, incarnation, release.vm)
        old = self._released.get(key)
        if old is None or old.release.generation < release.generation:
            self._released[key] = law.Released(host=host, incarnation=incarnation, release=release, at=at)

    def _settled(self, args: tuple[Any, ...], answer: object) -> None:
        held, outcome, assigns, _ = cast("tuple[Claim, Outcome, tuple[Assign, ...], int]", args)
        order, memory = held.step.order, self.memory()
        released = outcome.facts.get("released")
        if order is not None and isinstance(released, int):
            release = Release(vm=order.vm, generation=Generation(released))
            self._promised(order.host, order.incarnation, release, Instant(memory.seen_us() / 1e6))
            boot = self._machines[order.host].boot if order.host in self._machines else None
            if boot is not None and boot.incarnation == order.incarnation and boot.released.get(order.vm, 0) < released:
                sentence = f"{order.host} said that it released {order.vm} at {released}, and has not promised it"
                self._chronicle.broke("promise_not_written", sentence, host=order.host, vm=order.vm)
        refused = held.step.kind is StepKind.START and outcome.state is StepState.REFUSED
        if order is not None and refused and self.starts_sent(order.host, order.vm):
            sentence = f"{order.host} is said to have refused {order.vm}, and its libvirt has not answered yet"
            self._chronicle.broke("silence_taken_for_refusal", sentence, host=order.host, vm=order.vm)
        after = cast("Operation", answer)
        line = after.step(held.step.key)
        if line is None or line.token != held.token:
            return
        for give in assigns:
            self._put(give.vm, give.owner, {other.vm for other in assigns})
            if give.moving:  # it stays whose it is until it is handed over
                continue
            vm = memory.vms[give.vm]
            if vm.operation == after.id and vm.owner is not None:
                self._assigned(vm, vm.owner)

    def _put(self, vm: VmId, host: HostId, together: set[VmId]) -> None:
        """A VM was given a host. One that is on its way itself is nowhere for sure."""
        memory = self.memory()
        docs = records.documents(memory).vms
        opened = (memory.operations[identity] for identity in memory.open.values())
        moving = {op.subject for op in opened if op.kind in (OperationKind.MIGRATE, OperationKind.RELOCATE)}
        at = {
            record.id: record.owner
            for record in memory.vms.values()
            if record.owner is not None
            and record.state is VmState.RUNNING
            and record.id not in moving | together
            and (record.owner, record.owner_incarnation) not in self._proofs
        }
        rules = {name: doc.spec.rules for name, doc in docs.items()}
        self._report(law.put_by_the_rules(vm, host, rules, at))

    def _assigned(self, vm: VmRecord, host: HostId) -> None:
        new = law.Assigned(vm=vm.id, host=host, incarnation=vm.owner_incarnation, generation=vm.generation, at=vm.since)
        before, highest = self._owned.get(vm.id), self._highest.get(vm.id)
        if before == new:
            return
        if before is not None and not self._void_since_new_life(before):
            self._report(law.no_start_without_proof((before, new), self._evidence(before)))
        if highest is not None:
            self._report(law.generations_never_repeat((highest, new)))
        self._owned[vm.id] = self._highest[vm.id] = new
        self._lives[vm.id] = self._life
        self._orders[vm.id, host, new.incarnation, new.generation] = None

    @property
    def _life(self) -> str:
        life = self.memory().life
        return life[1] if life is not None else ""

    @property
    def _life_began(self) -> float:
        """By the store's clock; a proof of an earlier life is by another clock."""
        life = self.memory().life
        return life[2] / 1e6 if life is not None else 0.0

    def _void_since_new_life(self, owner: law.Assigned) -> bool:
        """Whether its order was given in a former life of the store, where no claim of it is granted any more, and that
        very boot was heard in this life without the VM (SAFETY rule 4).

        A stop or a move in hand there brings nothing back: what is not listed any more it has ended, or sent away.
        """
        life = self.memory().life
        beat = self._beats.get(owner.host, {}).get(owner.incarnation)
        if life is None or beat is None or self._lives.get(owner.vm, "") == life[1]:
            return False
        in_hand = any(
            f"/{owner.vm}/" in f"{order}/" and not any(f"/{kind}/{owner.vm}" in order for kind in ("stop", "migrate"))
            for order in beat.orders
        )
        return beat.received_at >= life[2] / 1e6 and beat.sees(owner.vm) is None and not in_hand

    def _evidence(self, owner: law.Assigned) -> list[law.Evidence]:
        found: list[law.Evidence] = []
        proof, beat = (
            self._proofs.get((owner.host, owner.incarnation)),
            self._latest.get((owner.host, owner.incarnation)),
        )
        if proof is not None and (beat is None or beat <= proof.proven_at):
            # Given to a boot that was off already, from a view of before: it never came to run it.
            found.append(replace(proof, proven_at=max(proof.proven_at, owner.at)))
        elif proof is not None and proof.proven_at < self._life_began:
            found.append(proof)
        promise = self._released.get((owner.host, owner.incarnation, owner.vm))
        if promise is not None:
            found.append(promise)
        for boot, report in self._beats.get(owner.host, {}).items():
            if boot != owner.incarnation and _without(report, owner.vm):
                # One that was over when it was given the VM had been followed by the other: it is so since then.
                over = self._latest.get((owner.host, owner.incarnation), Instant(0.0)) < report.received_at
                at = max(report.received_at, owner.at) if over else report.received_at
                found.append(law.BootedWithout(host=owner.host, incarnation=boot, vm=owner.vm, at=at))
        return found

    def _recorded(self, args: tuple[Any, ...], answer: object) -> None:
        """A VM's record was written: taken up where it runs, or only its state changed."""
        record: VmRecord = args[0]
        before, highest = self._owned.get(record.id), self._highest.get(record.id)
        if answer is not True or record.owner is None:
            return
        if highest is not None and record.generation < highest.generation:
            return  # a record that was rolled back is written as it stands: by this number nobody gets anything
        new = law.Assigned(
            vm=record.id,
            host=record.owner,
            incarnation=record.owner_incarnation,
            generation=record.generation,
            at=Instant(self.memory().seen_us() / 1e6),
        )
        if before is None:
            self._owned[record.id] = new
            self._highest.setdefault(record.id, new)
            return
        if (before.host, before.incarnation) == (new.host, new.incarnation):
            return
        runs_there = any(
            (copy.host, copy.incarnation) == (new.host, new.incarnation) for copy in self._running.get(record.id, ())
        )
        last = self._beats.get(before.host, {}).get(before.incarnation)
        without = last is not None and last.sees(record.id) is None
        if not runs_there and not without and not self._void_since_new_life(before):
            self._report(law.no_start_without_proof((before, new), self._evidence(before)))
        kept = self.memory().beats.get(new.host)
        seen = kept.sees(new.vm) if kept is not None and kept.incarnation == new.incarnation else None
        arrived = seen is not None and (seen.state, seen.generation) == (Sighting.INCOMING, new.generation)
        if new.generation > before.generation or arrived:  # handed over: the copy that arrived there may run
            self._orders[new.vm, new.host, new.incarnation, new.generation] = None
            self._highest[new.vm] = new
        self._owned[record.id] = new
        self._lives[record.id] = self._life

    @property
    def proven(self) -> tuple[tuple[HostId, Incarnation], ...]:
        """Every boot of every host that was proven off in this story."""
        began = EPOCH_US / 1_000_000
        return tuple(boot for boot, proof in self._proofs.items() if proof.proven_at >= began)

    def _proven(self, proof: OffProof | None) -> None:
        if proof is not None:
            self._proofs[proof.host, proof.incarnation] = proof

    def _host_put(self, args: tuple[Any, ...], answer: object) -> None:
        if answer is True:
            self._proven(args[0].proof)

    def _ledger_put(self, args: tuple[Any, ...], _answer: object) -> None:
        if any(entry.key.startswith("proof/") for entry in args[0]):
            for proof in records.documents(self.memory()).proofs.values():
                self._proven(proof)

    # -- what the hypervisors do --

    def begin_with(self, copy: Copy | None, record: VmRecord) -> None:
        """How it was before the story: who owns a VM, and its copy if it runs."""
        if record.owner is not None:
            first = law.Assigned(
                vm=record.id,
                host=record.owner,
                incarnation=record.owner_incarnation,
                generation=record.generation,
                at=record.since,
            )
            self._owned[record.id] = self._highest[record.id] = first
            self._lives[record.id] = self._life
            self._orders[record.id, first.host, first.incarnation, first.generation] = None

    def begin_with_proof(self, proof: OffProof | None) -> None:
        """A host that was proven off before the story."""
        self._proven(proof)

    def copy_began(self, copy: Copy) -> None:
        others = self._running.setdefault(copy.vm, [])
        others.append(copy)
        self._chronicle.copy_began(copy)
        if len(others) > 1:
            self._report(law.one_writer(self._truth(copy.vm)))
        if copy.generation is None or self._kernel.now == 0.0:
            return
        if (copy.vm, copy.host, copy.incarnation, copy.generation) not in self._orders:
            sentence = f"{copy.host} started {copy.vm} at generation {copy.generation}, which nobody gave it"
            self._chronicle.broke("start_without_order", sentence, host=copy.host, vm=copy.vm)
        confirmed = self.confirmed()
        known = confirmed.vms.get(copy.vm) if confirmed is not None else None
        if confirmed is not None and (known is None or known.generation < copy.generation):
            sentence = f"{copy.host} started {copy.vm} at generation {copy.generation}, which no replica knows of"
            self._chronicle.broke("start_unconfirmed", sentence, host=copy.host, vm=copy.vm)
        highest = self._highest.get(copy.vm)
        if highest is not None and copy.generation < highest.generation and self._moved_on(copy, highest):
            sentence = f"{copy.host} started {copy.vm} at generation {copy.generation}, after {highest.host} got it"
            self._chronicle.broke("late_start", sentence, host=copy.host, vm=copy.vm)
        boot = self._machines[copy.host].boot
        if boot is not None and boot.released.get(copy.vm, 0) >= copy.generation:
            sentence = f"{copy.host} started {copy.vm} at generation {copy.generation}, which it had promised never to"
            self._chronicle.broke("promise_broken", sentence, host=copy.host, vm=copy.vm)

    @staticmethod
    def _moved_on(copy: Copy, highest: law.Assigned) -> bool:
        return (copy.host, copy.incarnation) != (highest.host, highest.incarnation)

    def copy_held(self, copy: Copy) -> None:
        """Paused as the later of two: another one of its number runs that was started no later."""
        others = [other for other in self._running.get(copy.vm, ()) if other is not copy and other.runs]
        alike = [other for other in others if other.generation == copy.generation]
        known = [other for other in alike if None not in (other.start_sent_at, copy.start_sent_at)]
        if not alike or (known and all(float(o.start_sent_at or 0) > float(copy.start_sent_at or 0) for o in known)):
            sentence = f"{copy.vm} was paused on {copy.host}, where it is the earlier or the only copy"
            self._chronicle.broke("earlier_copy_paused", sentence, host=copy.host, vm=copy.vm)

    def copy_ended(self, copy: Copy) -> None:
        self._running[copy.vm].remove(copy)
        self._ended_at[copy.vm] = self._kernel.now

    def _truth(self, *vms: VmId, now: float = 0.0) -> law.Truth:
        """`now`: the store's clock, to which instants of this story are set."""
        ahead = now - self._kernel.now
        return law.Truth(
            copies=tuple(
                law.RunningCopy(vm=copy.vm, host=copy.host, incarnation=copy.incarnation)
                for vm in vms or self._running
                for copy in self._running.get(vm, ())
            ),
            last_copy_ended_at={vm: Instant(at + ahead) for vm, at in self._ended_at.items()},
        )

    # -- what controllers decide --

    def watched(self, store: StoreTwin) -> Store:
        return cast("Store", _Watched(store))

    def ticked(self, store: Store, ticked: Ticked) -> None:
        """Called after each tick that came to its end."""
        view = cast("_Watched", store).last
        if view is None or not ticked.in_charge or ticked.decision is None:
            return
        before, self.last_view = self.last_view, view
        gap = before is None or not 0.0 <= view.now - before.now <= self._gap_s
        if self._kernel.now - self._ticked_at > self._gap_s:
            gap = True  # a clock that was set back while nobody looked has stood still: by it there was none
        self._ticked_at = self._kernel.now
        if gap or view.life.incarnation != self._life_in_charge:
            self._in_charge_since, self._life_in_charge = self._kernel.now, view.life.incarnation
        if view.wishes:
            return
        self._report(law.silence_is_named(view, ticked.decision))
        self._report(law.one_open_operation(view))
        for vm, doc in view.vms.items():
            if not doc.to_run or vm not in self._wished:
                self._ended_at[vm] = self._kernel.now  # not before somebody wanted it to run
            self._wished[vm] = None
        idle = [vm for vm, doc in view.vms.items() if doc.wish is VmWish.RUNNING and not self._running.get(vm)]
        if idle:
            self._nobody_can_know(idle, view, ticked.decision)
        if idle and self._kernel.now - self._in_charge_since > SAYS_WHY_S:
            self._report(law.wished_vms_run_or_say_why(self._truth(now=view.now), view, SAYS_WHY_S))

    def _nobody_can_know(self, idle: Sequence[VmId], view: ClusterView, decision: Decision) -> None:
        """Count from now on for VMs whose host does not report, or not of its VMs, while an alarm says so.

        Or is about to: it follows from the state that is written now.
        """
        said = {alarm.subject for alarm in decision.alarms}
        said |= {action.record.id for action in decision.actions if isinstance(action, PutHost)}
        silent = {v.host for v in decision.verdicts if not v.fresh or v.finding is Finding.DEGRADED} & said
        if silent:
            records = {**view.vm_records, **{a.record.id: a.record for a in decision.actions if isinstance(a, PutVm)}}
            unknown = [vm for vm in idle if vm in records and records[vm].owner in silent]
            self._ended_at |= dict.fromkeys(unknown, self._kernel.now)

    def _report(self, broken: tuple[law.Broken, ...]) -> None:
        for item in broken:
            known = any(b.what == item.rule and item.subject in (b.host, b.vm) for b in self._chronicle.broken)
            if not known:
                host = item.subject if item.subject in self._machines else ""
                self._chronicle.broke(item.rule, item.sentence, host=host, vm="" if host else item.subject)


def _without(beat: Heartbeat, vm: VmId) -> bool:
    """Whether nothing of this VM runs there: a copy that arrives by a move is not there until it is let run."""
    seen = beat.sees(vm)
    return seen is None or seen.state is Sighting.INCOMING


_WATCHED: Mapping[Callable[..., Any], Callable[[Laws, tuple[Any, ...], object], None]] = {
    records.log: Laws._logged,
    reports.put_heartbeat: Laws._reported,
    journal.settle: Laws._settled,
    journal.claim: Laws._claimed,
    journal.renew: Laws._renewed,
    records.put_vm: Laws._recorded,
    records.put_host: Laws._host_put,
    records.put_ledger: Laws._ledger_put,
}
_UNDER_EPOCH = frozenset(
    {records.put_host, records.put_vm, records.mark_vm, records.forget_vm, records.put_alarms, records.settle_wish}
)
"""Writes of whoever is in charge: their last argument is its epoch."""
