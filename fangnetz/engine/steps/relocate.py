"""Steps of a relocation that a controller carries out: what is done before the VM is stopped, and what its plan adds.

The stop, the question to the new host and the start are those of every VM; who may have it is asked as for every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fangnetz.core.decide.openings import order_to_boot
from fangnetz.core.evacuation import fallback_of
from fangnetz.core.model import ClusterView, HostSpec, VmState
from fangnetz.core.moving import Move, Stays
from fangnetz.core.operations import Operation, Order, Outcome, StepKind, StepState, vm_relocate_steps
from fangnetz.core.ownership import Granted, owner_let_go
from fangnetz.core.policy import Fallback, Policy
from fangnetz.core.relocation import fell_back, is_stopped, plan_relocations
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, VmId
from fangnetz.engine.execute import Context, Settlement
from fangnetz.engine.observe import Observation
from fangnetz.ports import Assign, Store


class Relocating:
    """What the plan steps do about an operation that is a relocation."""

    def __init__(self, store: Store, hosts: Mapping[HostId, HostSpec], policy: Policy) -> None:
        self._store, self._hosts, self._policy = store, hosts, policy

    def planned(self, context: Context, operation: Operation, seen: Observation) -> Settlement:
        """Choose the host, ask it first, then stop the VM; nobody is given anything before it is stopped."""
        vm, view = VmId(operation.subject), seen.view
        (found,) = plan_relocations([vm], view, seen.watch, seen.verdicts, self._policy, target=operation.target)
        if isinstance(found, Stays):
            facts = {f"left/{vm}": found.because}
            return Settlement(Outcome(state=StepState.DONE, sentence=f"{vm} stays: {found.because}", facts=facts))
        record, stopped = view.vm_records[vm], is_stopped(vm, view)
        steps = vm_relocate_steps(vm, *self._orders(found, view, stopped=stopped), after=context.step.key)
        how = "its record moves" if stopped else "it is stopped, moved and started:"
        because = f"{how} from {found.source} to {found.target}: {found.because}"
        outcome = Outcome(
            state=StepState.DONE,
            sentence=f"{vm}: {because}",
            facts={f"from/{vm}": found.source, f"to/{vm}": found.target, f"because/{vm}": found.because},
            adds=steps,
        )

        def tell() -> None:
            if not stopped:
                self._store.mark_vm(vm, record.generation, VmState.MOVING, because, operation.epoch)

        return Settlement(outcome, after=tell)

    def _orders(self, move: Move, view: ClusterView, *, stopped: bool) -> tuple[Order | None, Order | None]:
        """Return the order to stop the VM, and the one to the host that is asked first: None where there is no need."""
        record = view.vm_records[move.vm]
        there = None if stopped else self._order(view, move.vm, move.target, move.incarnation, record.generation)
        if record.owner is None or isinstance(owner_let_go(view, record), Granted):
            return None, there
        stop = self._order(view, move.vm, record.owner, record.owner_incarnation, record.generation)
        until = Instant(view.now + self._policy.stop_bound_s + 2 * self._policy.start_bound_s)
        return replace(stop, deadline=until), there

    def _order(
        self, view: ClusterView, vm: VmId, host: HostId, incarnation: Incarnation, generation: Generation
    ) -> Order:
        return order_to_boot(view, vm, host, incarnation, generation, self._policy.start_bound_s)

    def stuck(self, operation: Operation) -> None:
        """Write down that a live migration failed, unless the VM stays all the same: no evacuation tries it again."""
        failed = next((s for s in operation.of_kind(StepKind.MIGRATE) if s.state is StepState.FAILED), None)
        if failed is None or failed.order is None:
            return
        view, order = self._store.view(self._hosts, None), failed.order
        doc, record = view.vms.get(order.vm), view.vm_records.get(order.vm)
        if doc is None or fallback_of(doc.spec, self._policy) is Fallback.STAY:
            return
        if record is not None and (record.owner, record.generation) == (order.host, order.generation):
            self._store.put_vm(replace(record, stuck_at=view.now), record.generation, operation.epoch)

    def given(self, operation: Operation, give: Assign) -> None:
        """Write down what giving it to a host leaves open: a VM that is to stay stopped is not starting, and one that
        had to go back where it was is not stopped at once to leave anew.
        """
        record = self._store.view(self._hosts, None).vm_records.get(give.vm)
        if record is None or record.operation != operation.id or record.state is not VmState.STARTING:
            return
        if not give.steps:
            why = f"stopped, as wished; its record has moved to {give.owner}"
            self._store.mark_vm(give.vm, record.generation, VmState.STOPPED, why, operation.epoch)
            return
        came_back = fell_back(operation, give.owner)
        counted = replace(record, failures=record.failures + 1) if came_back else replace(record, tries=0)
        if counted != record:
            self._store.put_vm(counted, record.generation, operation.epoch)
