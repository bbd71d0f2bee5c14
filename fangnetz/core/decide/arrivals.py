"""What becomes of a copy that arrives by a move: let run where it belongs, removed where nobody waits for it.

A copy that runs is nobody's to remove; and a VM goes on where it is, whatever became of its move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fangnetz.core.actions import Action, Alarm, EndOperation, OpenOperation, PutVm
from fangnetz.core.decide.openings import order_to, vm_operation
from fangnetz.core.detector import Verdict, heard
from fangnetz.core.model import ClusterView, Destination, Sighting, VmRecord, VmSighting, VmState
from fangnetz.core.operations import OperationKind, OperationState, Step, resume_steps, stop_steps
from fangnetz.core.ownership import arriving_at
from fangnetz.core.policy import Policy
from fangnetz.core.units import Epoch, Generation, HostId


@dataclass(slots=True)
class Arrival:
    """What is to be done and told about one VM; `settled`: nothing else is decided about it in this tick."""

    actions: list[Action] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    settled: bool = False


NOTHING = Arrival()
"""Of most VMs in most ticks; never added to."""


class Arrivals:
    """The decisions on copies that arrive, in one tick."""

    def __init__(self, view: ClusterView, verdicts: Mapping[HostId, Verdict], policy: Policy, epoch: Epoch) -> None:
        self.view, self.verdicts, self.policy, self.epoch = view, verdicts, policy, epoch

    def of_nobodys(self, record: VmRecord, sightings: Mapping[HostId, VmSighting]) -> Arrival:
        """A VM that no operation carries: end what is left of its move, or of one that this store does not remember."""
        if record.moving is None and all(seen.state is not Sighting.INCOMING for seen in sightings.values()):
            return NOTHING
        found = self._left_over(record, sightings)
        return found if found.settled else self._stray(record, sightings, found)

    def of_carried(self, record: VmRecord) -> Arrival:
        """A move whose destination is off or has booted anew is over, however long its executor waits for an answer."""
        to, found = record.moving, Arrival()
        if to is not None and not arriving_at(self.view, record):
            sentence = f"{to.host}, where {record.id} was going, is off or has booted anew: its move is over"
            found.actions.extend(
                EndOperation(id=op.id, state=OperationState.FAILED, sentence=sentence)
                for op in self.view.operations.values()
                if op.kind is OperationKind.MIGRATE and op.subject == record.id
            )
        return found

    def at_owner(self, record: VmRecord, owner: HostId) -> Arrival:
        """The copy that its owner is to run has arrived there and waits: it is let run.

        Also where its host booted anew before it arrived: what it belonged to is over, and the guest is all here.
        """
        beat, found = heard(self.view, owner), Arrival()
        seen = beat.sees(record.id) if beat is not None else None
        waits = seen is not None and seen.state is Sighting.INCOMING and seen.generation == record.generation
        if beat is not None and waits and self._is_fresh(owner):
            found.settled = True
            if beat.incarnation != record.owner_incarnation:
                reason = f"it has arrived on {owner}, which had booted anew before"
                taken_up = replace(record, owner_incarnation=beat.incarnation, since=self.view.now, reason=reason)
                found.actions.append(PutVm(record=taken_up, expected=record.generation))
                return found
            order = order_to(self.view, record.id, owner, record.generation, self.policy.start_bound_s)
            if order is not None:
                reason = f"it has arrived on {owner} and waits"
                found.actions.append(self._open(OperationKind.RESUME, record, reason, resume_steps(order)))
        return found

    def _left_over(self, record: VmRecord, sightings: Mapping[HostId, VmSighting]) -> Arrival:
        """The VM goes on where it is meanwhile; elsewhere it starts only once that copy is known to be gone."""
        to, found = record.moving, Arrival()
        if to is None:
            return found
        arriving = arriving_at(self.view, record)
        if not arriving:
            reason = f"its move to {to.host} has ended, and nothing of it is left there"
            found.actions.append(PutVm(record=replace(record, moving=None, reason=reason), expected=record.generation))
            found.settled = True
            return found
        beat = heard(self.view, to.host)
        if beat is None or beat.incarnation != to.incarnation or not self._is_fresh(to.host):
            sentence = f"{arriving}: {to.host} is silent"
            found.alarms.append(Alarm(kind="move_unfinished", subject=record.id, sentence=sentence))
            return found
        seen = beat.sees(record.id)
        if self._has_arrived(record, to, sightings):
            reason = f"it has left {record.owner} for {to.host}, and the word of that was lost with a life of the store"
            arrived = replace(
                record,
                owner=to.host,
                owner_incarnation=to.incarnation,
                generation=to.generation,
                state=VmState.MOVING,
                since=self.view.now,
                reason=reason,
                operation=None,
                moving=None,
            )
            found.actions.append(PutVm(record=arrived, expected=record.generation))
            found.settled = True
            return found
        if seen is None or seen.state is Sighting.INCOMING:  # one that runs is taken up by whoever decides on copies
            reason = f"its move to {to.host} has ended, and what came of it there is removed"
            self._remove(record, to.host, to.generation, reason, found)
        return found

    def _has_arrived(self, record: VmRecord, to: Destination, sightings: Mapping[HostId, VmSighting]) -> bool:
        """Whether its owner has let it go to that very copy, by libvirt's word, and it waits there: it is the guest.

        A promise alone is not enough: also a stop promises, and what had arrived before it is out of date.
        """
        beat = heard(self.view, record.owner) if record.owner is not None else None
        there = heard(self.view, to.host)
        if beat is None or there is None or beat.incarnation != record.owner_incarnation:
            return False
        copy = there.sees(record.id)
        return (
            beat.left_for(record.id, record.generation) == to.generation
            and beat.sees(record.id) is None
            and there.promised(record.id) < to.generation
            and copy is not None
            and (copy.state, copy.generation) == (Sighting.INCOMING, to.generation)
            and set(sightings) == {to.host}
        )

    def _stray(self, record: VmRecord, sightings: Mapping[HostId, VmSighting], found: Arrival) -> Arrival:
        """Told by its number, which is higher than the VM's own; one that somebody moves by hand keeps the VM's."""
        for host, seen in sorted(sightings.items()):
            if seen.state is Sighting.INCOMING and (seen.generation or 0) > record.generation:
                reason = f"it came to {host} by a move that nobody remembers, and never ran there"
                self._remove(record, host, seen.generation or Generation(0), reason, found)
                break
        return found

    def _remove(self, record: VmRecord, host: HostId, generation: Generation, reason: str, found: Arrival) -> None:
        found.settled = True
        order = order_to(self.view, record.id, host, generation, self.policy.start_bound_s)
        if order is not None:
            steps = stop_steps(replace(order, force=True, arriving=True))
            found.actions.append(self._open(OperationKind.STOP, record, reason, steps))

    def _open(self, kind: OperationKind, record: VmRecord, reason: str, steps: tuple[Step, ...]) -> OpenOperation:
        return OpenOperation(operation=vm_operation(kind, record.id, reason, steps, self.view, self.epoch))

    def _is_fresh(self, host: HostId) -> bool:
        return host in self.verdicts and self.verdicts[host].fresh
