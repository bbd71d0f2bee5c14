"""What every step on a host's own libvirt needs: the VM's lock, what is there, and the promise a report rests on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from fangnetz.core.errors import HypervisorUnreachable, StaleToken, StoredContentError, WorldError
from fangnetz.core.operations import Order, Outcome, Step, StepState
from fangnetz.core.units import Generation, Seconds, VmId
from fangnetz.engine.execute import Settlement
from fangnetz.ports import BootFiles, Domain, Hypervisor

LOCK_BOUND_S = Seconds(3.0)
"""Another worker process of this host may hold a VM's lock this long before we come back later."""


class NotNow(WorldError):
    """A file of this boot cannot be locked or written at the moment: nothing is reported that would rest on it."""


class HeldVm:
    """One VM of this host at a time, under its lock."""

    def __init__(self, hypervisor: Hypervisor, boot: BootFiles) -> None:
        self._hypervisor, self._boot = hypervisor, boot

    def carry_out(self, order: Order, effect: Callable[[], Settlement]) -> Settlement:
        """Have the effect under the VM's lock; come back where nothing can be known or written now."""
        try:
            with self.lock(order):
                return effect()
        except (NotNow, HypervisorUnreachable) as why:
            return again(str(why))
        except StoredContentError as error:
            return again(f"{order.vm}: {error}")

    @contextlib.contextmanager
    def lock(self, order: Order) -> Iterator[None]:
        """Hold the VM's lock; NotNow if another process of this host has it, or no file can be locked."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._boot.lock(order.vm, LOCK_BOUND_S))
            except TimeoutError:
                raise NotNow(f"another worker of {order.host} holds {order.vm}") from None
            except OSError as error:
                raise NotNow(f"{order.vm} cannot be locked on {order.host}, nothing is done to it: {error}") from error
            yield

    def promise(self, order: Order, sentence: str, left_for: Generation = Generation(0)) -> None:
        """Write the promise that a report rests on; NotNow if that fails: then `sentence` is not reported as the end.

        `left_for`: the copy that the VM left for, where it left by a migration.
        The run folder may be full, or the promise there damaged. Asked again, it all holds still, or is done anew.
        """
        try:
            self._boot.release(order.vm, order.generation, left_for)
        except (OSError, StoredContentError) as error:
            raise NotNow(f"{sentence}; not promised yet, {order.host} cannot write it down: {error}") from error

    def find(self, vm: VmId) -> Domain | None:
        """Return the domain of this name that is here now, None if none is. HypervisorUnreachable: not known."""
        return next((domain for domain in self._hypervisor.domains() if domain.vm == vm), None)


def again(sentence: str) -> Settlement:
    """Nothing is known, or nothing can be done now: come back in a second."""
    return Settlement(Outcome(state=StepState.READY, sentence=sentence, retry_after_s=Seconds(1.0)))


def ordered(step: Step) -> Order:
    """Return the step's order. StaleToken if it has none."""
    if step.order is None:
        raise StaleToken(f"{step.key} has no order")
    return step.order
