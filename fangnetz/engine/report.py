"""What a host says of itself: an inventory kept by one thread, and a heartbeat sent by another that never waits for it.

Neither thread does anything to a VM.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fangnetz.core.errors import FangnetzError
from fangnetz.core.model import Heartbeat, HypervisorHealth, VmSighting
from fangnetz.core.ownership import unanswered_order
from fangnetz.core.units import HostId, Seconds, VmId
from fangnetz.engine.measuring import NOTHING, Measured
from fangnetz.engine.slots import NO_SLOTS, SlotKeeper
from fangnetz.ports import BootFiles, Domain, HostLoad, Hypervisor, Process, Store

HUNG_AFTER_S = 5.0
"""An inventory older than this means that libvirt hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    domains: tuple[VmSighting, ...]
    taken_at: float
    """Monotonic, from before libvirt was asked."""
    error: str


class InventoryKeeper:
    """Asks libvirt for its domains, every `interval` seconds and whenever kicked, and settles what starts are open."""

    def __init__(
        self, hypervisor: Hypervisor, interval: Seconds, changed: Callable[[], None], process: Process
    ) -> None:
        self._hypervisor, self._interval, self._changed, self._process = hypervisor, interval, changed, process
        self._kick, self._end = process.flag(), process.flag()
        self._asked = False
        self._listed: Sequence[Domain] = ()
        self._seen: tuple[VmSighting, ...] = ()
        self.latest = Inventory(domains=(), taken_at=float("-inf"), error="not asked yet")

    def start(self) -> None:
        self._process.spawn("inventory", self._run)

    def stop(self) -> None:
        self._end.set()
        self._kick.set()

    def kick(self) -> None:
        """Ask now, and have it reported whatever the answer: a promise is news where no domain has changed."""
        self._asked = True
        self._kick.set()

    def _sightings(self, listed: Sequence[Domain]) -> tuple[VmSighting, ...]:
        """Return what a report says of these domains; what it said before, where nothing has changed."""
        if listed != self._listed:
            self._listed = listed
            self._seen = tuple(
                VmSighting(vm=d.vm, state=d.state, generation=d.generation, start_sent_at=d.start_sent_at, held=d.held)
                for d in listed
            )
        return self._seen

    def _run(self) -> None:
        while not self._end.is_set():
            self._kick.clear()
            before = self._process.monotonic()
            asked, self._asked = self._asked, False
            try:
                domains = self._sightings(self._hypervisor.domains())
                news = domains != self.latest.domains or bool(self.latest.error)
                self.latest = Inventory(domains=domains, taken_at=before, error="")
            except (FangnetzError, OSError) as error:
                news = not self.latest.error
                self.latest = Inventory(domains=self.latest.domains, taken_at=self.latest.taken_at, error=str(error))
            if news or asked:
                self._changed()
            if not self.latest.error:
                with contextlib.suppress(FangnetzError, OSError):  # they stay open
                    self._hypervisor.settle()
            self._kick.wait(self._interval)


class Reporter:
    """Sends the heartbeat, every `interval` seconds and whenever kicked."""

    def __init__(
        self,
        *,
        host: HostId,
        store: Store,
        boot: BootFiles,
        inventory: Callable[[], Inventory],
        orders: Callable[[], Iterable[str]],
        unanswered: Callable[[], Iterable[VmId]],
        interval: Seconds,
        guids: Callable[[], tuple[str, ...]],
        load: Callable[[], HostLoad],
        worker: str,
        process: Process,
        measured: Callable[[], Measured] = lambda: NOTHING,
        slots: SlotKeeper | None = None,
        sent: Callable[[str], None] = lambda _trouble: None,
    ) -> None:
        self._host, self._store, self._boot = host, store, boot
        self._inventory, self._orders, self._unanswered = inventory, orders, unanswered
        self._interval = interval
        self._guids, self._measured, self._slots, self._sent = guids, measured, slots, sent
        self._load, self._worker, self._process = load, worker, process
        self._kick, self._end = process.flag(), process.flag()

    def start(self) -> None:
        self._process.spawn("heartbeat", self._run)

    def stop(self) -> None:
        self._end.set()
        self._kick.set()

    def kick(self) -> None:
        """Report now."""
        self._kick.set()

    def beat(self) -> Heartbeat:
        """Return the report as of now; never waits for libvirt."""
        orders = self._in_hand()  # before the inventory: what ended in between is in one of them
        inventory = self._inventory()
        age = self._process.monotonic() - inventory.taken_at
        if inventory.taken_at == float("-inf"):
            health, age = HypervisorHealth.DOWN, 86400.0
        elif inventory.error:
            health = HypervisorHealth.HUNG if age > HUNG_AFTER_S else HypervisorHealth.OK
        else:
            health = HypervisorHealth.HUNG if age > max(HUNG_AFTER_S, 3 * self._interval) else HypervisorHealth.OK
        load, measured = self._load(), self._measured()
        slots = self._slots.told() if self._slots is not None else NO_SLOTS
        return Heartbeat(
            host=self._host,
            incarnation=self._boot.incarnation,
            sequence=int(self._process.monotonic() * 1000),
            hypervisor=health,
            inventory=inventory.domains,
            inventory_age_s=Seconds(round(age, 3)),
            releases=self._boot.releases(),
            orders=orders,
            leaving=self._boot.leaving(),
            load=load.load,
            memory_free_mib=load.memory_free_mib,
            uses=measured.uses,
            uses_age_s=measured.age_s(self._process.monotonic()),
            slot_waits_s=slots.waits_s,
            slots=slots.seen,
            bmc_guids=self._guids(),
            worker=self._worker,
        )

    def _in_hand(self) -> tuple[str, ...]:
        """Return the steps in hand, and the starts that may still come though no step here waits for them.

        Steps first: one that ends in between without libvirt's answer has left its start open. A start whose own step
        is told is told by that alone: once the journal holds its answer, nobody need wait for the next report.
        """
        orders = set(self._orders())
        left = {vm for vm in self._unanswered() if not any(f"/start/{vm}/" in order for order in orders)}
        return tuple(sorted(orders | {unanswered_order(vm) for vm in left}))

    def _run(self) -> None:
        while not self._end.is_set():
            self._kick.clear()
            started = self._process.monotonic()
            try:
                received = self._store.put_heartbeat(self.beat())
                if self._slots is not None:
                    self._slots.reported(received)
                self._sent("")
            except (FangnetzError, OSError) as error:
                self._sent(str(error))
            self._kick.wait(max(0.05, self._interval - (self._process.monotonic() - started)))
