"""Steps a host worker carries out on its own libvirt: start, stop and pause one VM, under that VM's lock.

Everything an order names is checked right before the effect; a refusal is promised in a file before it is reported; a
call without an answer is never a refusal (SAFETY rule 3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fangnetz.core.actions import Happened
from fangnetz.core.copies import is_to_pause
from fangnetz.core.errors import (
    HypervisorRefused,
    HypervisorUnreachable,
    StartNotSent,
    StorageLeaseHeld,
    StoredContentError,
    WorldError,
)
from fangnetz.core.model import Answer, ClusterView, Leaving, Sighting
from fangnetz.core.operations import Fact, Order, Outcome, Step, StepKind, StepState, chain_from, vm_start_steps
from fangnetz.core.policy import Policy
from fangnetz.core.recovery import LEASE_HELD
from fangnetz.core.units import Seconds, VmId
from fangnetz.engine.execute import Context, Settlement
from fangnetz.engine.faults import point
from fangnetz.engine.steps.at_host import HeldVm, NotNow, again, ordered
from fangnetz.ports import BootFiles, Hypervisor, Journal

POLL_S = Seconds(0.2)

Definition = Callable[[VmId], str]
"""Return the domain XML of a VM, from the newest copy this host can read."""


class _LeftAlone(WorldError):
    """Right before it is paused, a copy is not, or not known to be, the later of two."""

    def __init__(self, answer: Answer, sentence: str) -> None:
        super().__init__(sentence)
        self.answer = answer


class VmSteps:
    """Effects on the queue `host.<id>`."""

    def __init__(
        self,
        *,
        journal: Journal,
        hypervisor: Hypervisor,
        boot: BootFiles,
        definition: Definition,
        policy: Policy,
        report: Callable[[], None],
        look: Callable[[], ClusterView],
    ) -> None:
        """`look`: read the cluster as the store has it now; asked right before a copy is paused."""
        self._journal, self._hypervisor, self._boot = journal, hypervisor, boot
        self._definition, self._policy, self._report, self._look = definition, policy, report, look
        self._held = HeldVm(hypervisor, boot)

    # -- start --

    def start(self, context: Context) -> Settlement:
        """Start one VM as ordered, or refuse for good, or come back because nothing is known."""
        order = ordered(context.step)
        try:
            xml = self._definition(order.vm)
        except StoredContentError as error:
            return again(f"{order.vm}: its definition cannot be read: {error}")
        try:
            with self._held.lock(order):
                return self._start_locked(context, order, xml)
        except NotNow as why:
            return again(str(why))
        except StoredContentError as error:
            return again(f"{order.vm} is not started: {error}")

    def _start_locked(self, context: Context, order: Order, xml: str) -> Settlement:
        released = self._boot.released(order.vm)
        if released >= order.generation:
            return self._refuse(context, order, f"{order.host} released {order.vm} at generation {released} for good")
        try:
            present = self._held.find(order.vm)
        except HypervisorUnreachable as error:
            return again(str(error))
        closed = ""
        if present is not None:
            if present.generation == order.generation and present.state is Sighting.INCOMING:
                return again(f"{order.vm} has arrived on {order.host} by a move and waits to be resumed")
            if present.generation == order.generation:
                return self._started(order, f"{order.vm} runs on {order.host} already")
            closed = f"{order.host} has a domain {order.vm} of generation {present.generation} already"
        elif self._boot.leaving() is not Leaving.NO:
            closed = f"{order.host} is going down in order: it starts nothing any more"
        if closed:
            return self._refuse(context, order, closed)
        sent_at = self._journal.now()
        try:
            self._hypervisor.create(
                order.vm,
                xml,
                order.generation,
                partial(context.last_look, "start.before_create", order.vm),
                start_sent_at=sent_at,
            )
        except StorageLeaseHeld as error:
            return self._refused_by_libvirt(context, order, str(error), {"refusal": LEASE_HELD})
        except HypervisorRefused as error:
            return self._refused_by_libvirt(context, order, str(error), {"refusal": "libvirt"})
        except StartNotSent as error:
            return again(f"{order.host} was not asked to start {order.vm}: {error}")
        except HypervisorUnreachable as error:
            return again(f"{order.host} was asked to start {order.vm} and its libvirt did not answer: {error}")
        point("start.created", order.vm)
        return self._started(order, f"{order.vm} is started on {order.host}", sent_at)

    def _refused_by_libvirt(self, context: Context, order: Order, said: str, facts: dict[str, Fact]) -> Settlement:
        """Believe libvirt's no only once it also says that no such domain is there."""
        try:
            present = self._held.find(order.vm)
        except HypervisorUnreachable as error:
            return again(f"{order.vm}: libvirt refused ({said}) and then did not say what runs: {error}")
        if present is not None:
            return again(f"{order.vm}: libvirt refused ({said}), yet such a domain is there")
        return self._refuse(context, order, f"{order.host} cannot start {order.vm}: {said}", facts)

    def _refuse(
        self, context: Context, order: Order, sentence: str, facts: dict[str, Fact] | None = None
    ) -> Settlement:
        """Promise first, then report: after this no start up to this generation happens on this boot.

        Not while libvirt may still carry out a start that it never answered.
        """
        try:
            self._hypervisor.settled(order.vm)
        except HypervisorUnreachable as error:
            return again(f"{sentence}; not promised yet: {error}")
        self._held.promise(order, sentence)
        attempt = context.step.key.rpartition("/")[2]
        _, running = vm_start_steps(order, attempt=int(attempt), after="")
        replan = Step(key=f"replan/{order.vm}/{attempt}", kind=StepKind.PLAN)
        return Settlement(
            Outcome(
                state=StepState.REFUSED,
                sentence=sentence,
                facts={"released": order.generation, **(facts or {})},
                adds=(replan,),
                skips=(running.key,),
            ),
            events=[
                Happened(
                    kind="start_refused",
                    subject=order.vm,
                    sentence=sentence,
                    facts={"vm": order.vm, "host": order.host, "generation": order.generation},
                )
            ],
            after=self._report,
        )

    def _started(self, order: Order, sentence: str, sent_at: float | None = None) -> Settlement:
        self._report()
        facts: dict[str, Fact] = {} if sent_at is None else {"start_sent_at": sent_at}
        return Settlement(Outcome(state=StepState.DONE, sentence=sentence, facts=facts))

    # -- stop --

    def stop(self, context: Context) -> Settlement:
        """Stop one copy of one generation: ask the guest, then switch it off; released before it is reported."""
        order = ordered(context.step)
        try:
            with self._held.lock(order):
                return self._stop_locked(context, order)
        except NotNow as why:
            return again(str(why))
        except HypervisorUnreachable as error:
            return again(str(error))

    def _stop_locked(self, context: Context, order: Order) -> Settlement:
        present = self._held.find(order.vm)
        if present is not None and present.generation not in (None, order.generation):
            return Settlement(
                Outcome(
                    state=StepState.FAILED,
                    sentence=f"{order.host} runs {order.vm} of generation {present.generation}, "
                    f"not {order.generation}: left alone",
                    skips=chain_from(context.operation, context.step.key)[1:],
                )
            )
        if present is not None and order.arriving and present.state is not Sighting.INCOMING:
            sentence = f"{order.vm} was let run on {order.host} meanwhile: left alone"
            return Settlement(Outcome(state=StepState.FAILED, sentence=sentence))
        if present is not None:
            if not order.force:
                self._hypervisor.shutdown(order.vm, partial(context.last_look, "stop.before_shutdown", order.vm))
                point("stop.shut_down", order.vm)
                end = context.clock.monotonic() + self._policy.stop_bound_s
                while self._held.find(order.vm) is not None and context.clock.monotonic() < end:
                    context.still_held()
                    context.clock.sleep(POLL_S)
            if self._held.find(order.vm) is not None:
                self._hypervisor.destroy(order.vm, partial(context.last_look, "stop.before_destroy", order.vm))
                point("stop.destroyed", order.vm)
        self._hypervisor.settled(order.vm)  # before the last question: what was sent earlier must show in its answer
        if self._held.find(order.vm) is not None:
            return again(f"{order.vm} is still there after it was switched off")
        sentence = f"{order.vm} is stopped on {order.host}"
        self._held.promise(order, sentence)
        return Settlement(
            Outcome(state=StepState.DONE, sentence=sentence, facts={"released": order.generation}),
            events=[
                Happened(
                    kind="vm_stopped",
                    subject=order.vm,
                    sentence=sentence,
                    facts={"vm": order.vm, "host": order.host, "generation": order.generation},
                )
            ],
            after=self._report,
        )

    # -- pause --

    def pause(self, context: Context) -> Settlement:
        """Pause the later of two running copies of one generation; never the only one, and nothing is released."""
        order = ordered(context.step)
        try:
            with self._held.lock(order):
                return self._pause_locked(context, order)
        except NotNow as why:
            return again(str(why))
        except (HypervisorUnreachable, StoredContentError) as error:
            return again(f"{order.vm} is not paused: {error}")

    def _pause_locked(self, context: Context, order: Order) -> Settlement:
        present = self._held.find(order.vm)
        if present is None or present.generation != order.generation:
            there = "no copy" if present is None else f"generation {present.generation}"
            return self._not_paused(f"{order.host} has {there} of {order.vm}, not {order.generation}: left alone")
        try:
            self._hypervisor.suspend(
                order.vm, order.generation, partial(self._last_look_at_both, "pause.before_suspend", context, order)
            )
        except _LeftAlone as why:
            return again(str(why)) if why.answer is Answer.UNKNOWN else self._not_paused(str(why))
        except HypervisorRefused as error:
            return again(f"{order.vm} is not paused: {error}")  # it still runs twice
        point("pause.suspended", order.vm)
        present = self._held.find(order.vm)
        if present is None or present.state is not Sighting.PAUSED:
            return again(f"{order.vm} was paused, and libvirt does not show it so")
        sentence = f"{order.vm} is paused on {order.host}: an earlier started copy of it runs elsewhere"
        return Settlement(
            Outcome(state=StepState.DONE, sentence=sentence),
            events=[
                Happened(
                    kind="vm_paused",
                    subject=order.vm,
                    sentence=sentence,
                    facts={"vm": order.vm, "host": order.host, "generation": order.generation},
                )
            ],
            after=self._report,
        )

    def _last_look_at_both(self, point_name: str, context: Context, order: Order) -> None:
        """Read again what both hosts say, by lists they made after the order was written; then whether it still holds.

        A list made before may show a copy that has moved here since, and then this one is the only one.
        """
        answer, sentence = is_to_pause(self._look(), order, self._policy, context.operation.opened_at)
        if answer is not Answer.YES:
            raise _LeftAlone(answer, sentence)
        context.last_look(point_name, order.vm)

    @staticmethod
    def _not_paused(sentence: str) -> Settlement:
        return Settlement(Outcome(state=StepState.FAILED, sentence=sentence))
