"""The host worker: heartbeat beside the pool, libvirt operations in it. Stopping it leaves every VM running."""

from __future__ import annotations

import os
import threading
from typing import Any

import structlog
from celery import Celery, bootsteps

from fangnetz import wiring
from fangnetz.adapters.bmc_guid import read_in_band
from fangnetz.adapters.host_load import read_load
from fangnetz.core.errors import FangnetzError, SettingsError, StoredContentError
from fangnetz.core.operations import StepKind
from fangnetz.core.policy import RankBy
from fangnetz.core.slots import watched_by
from fangnetz.core.units import HostId, Seconds, VmId
from fangnetz.engine.execute import Executor
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.marked import marked_boot, marked_dispatcher, marked_files, marked_store
from fangnetz.engine.measuring import NOTHING, Meter
from fangnetz.engine.report import InventoryKeeper, Reporter
from fangnetz.engine.slots import SlotKeeper
from fangnetz.engine.steps.move import MoveAtHost
from fangnetz.engine.steps.vm import VmSteps
from fangnetz.settings import Settings
from tasks.dispatcher import CeleryDispatcher
from tasks.runtime import Runtime, install
from workers.environment import Identity
from workers.notify import tell

log = structlog.get_logger(__name__)
GUID_BOUND_S = Seconds(5.0)
LEDGER_EVERY_S = 2.0


class HostParts:
    """Everything one host worker is made of."""

    def __init__(self, app: Celery, settings: Settings, me: Identity) -> None:
        host = HostId(me.name)
        if host not in settings.hosts:
            raise SettingsError(
                f"{me.config}: hosts: {me.name} (FANGNETZ_HOST) is not among {', '.join(settings.hosts)}"
            )
        policy = settings.policy
        hosts = {name: each.spec for name, each in settings.hosts.items()}
        self._settings, self._host = settings, host
        self._guids: tuple[str, ...] = ()
        self._trouble = ""
        store = marked_store(wiring.open_store(settings, name=f"host-{host}", user="host"))
        beats = marked_store(wiring.open_store(settings, name=f"heartbeat-{host}", user="host", timeout_s=1.0))
        boot = marked_boot(wiring.open_boot_files(me.run_dir))
        hypervisor = wiring.open_hypervisor(settings, host, boot)
        process = wiring.this_process()
        self._ledger = Ledger(store, marked_files(wiring.open_ledger_files(me.state_dir)), process)
        self.inventory = InventoryKeeper(hypervisor, policy.heartbeat_s, self._report, process)
        hypervisor.watch(self.inventory.kick)
        self.meter = Meter(hypervisor, process) if policy.rank_by is RankBy.MEASURED else None
        disk = wiring.open_slots(settings)
        others = watched_by(host, settings.hosts)
        self._slots_trouble = ""
        self.slots = (
            None
            if disk is None
            else SlotKeeper(host, boot.incarnation, disk, others, policy, process, told=self._slots_told)
        )
        steps = VmSteps(
            journal=store,
            hypervisor=hypervisor,
            boot=boot,
            definition=self._definition,
            policy=policy,
            report=self.inventory.kick,
            look=lambda: store.view(hosts, None),
        )
        moves = MoveAtHost(
            journal=store,
            hypervisor=hypervisor,
            boot=boot,
            definition=self._definition,
            policy=policy,
            report=self.inventory.kick,
        )
        self._store = store
        self.executor = Executor(
            name=f"host-{host}",
            journal=store,
            dispatcher=marked_dispatcher(CeleryDispatcher(app, settings.controllers)),
            process=process,
            policy=policy,
            effects={
                StepKind.START: steps.start,
                StepKind.STOP: steps.stop,
                StepKind.PAUSE: steps.pause,
                StepKind.PREPARE: moves.prepare,
                StepKind.MIGRATE: moves.migrate,
                StepKind.RESUME: moves.resume,
            },
            incarnation=boot.incarnation,
        )
        self.reporter = Reporter(
            host=host,
            store=beats,
            boot=boot,
            inventory=lambda: self.inventory.latest,
            orders=lambda: self.executor.in_hand_since(self.inventory.latest.taken_at),
            unanswered=lambda: hypervisor.unanswered_since(self.inventory.latest.taken_at),
            interval=policy.heartbeat_s,
            guids=lambda: self._guids,
            load=read_load,
            measured=lambda: self.meter.latest if self.meter is not None else NOTHING,
            slots=self.slots,
            worker=f"{os.getpid()}",
            process=process,
            sent=self._heartbeat_sent,
        )
        self._end = threading.Event()

    def start(self) -> None:
        """Report at once; read the BMC's GUID and the ledger beside it."""
        self.inventory.start()
        if self.slots is not None:
            self.slots.start()
        self.reporter.start()
        if self.meter is not None:
            self.meter.start()
        threading.Thread(target=self._keep_ledger, name="ledger", daemon=True).start()
        tell("READY=1")

    def stop(self) -> None:
        self._end.set()
        self.inventory.stop()
        self.reporter.stop()
        if self.slots is not None:
            self.slots.stop()
        if self.meter is not None:
            self.meter.stop()

    def _heartbeat_sent(self, trouble: str) -> None:
        tell("WATCHDOG=1")  # the process lives, whatever the store says
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("heartbeat", trouble=trouble or "over")

    def _slots_told(self, trouble: str) -> None:
        if trouble != self._slots_trouble:
            self._slots_trouble = trouble
            log.warning("slots", trouble=trouble or "over")

    def _report(self) -> None:
        self.reporter.kick()

    def _definition(self, vm: VmId) -> str:
        doc = self._store.definition(vm)
        if doc is None:
            raise StoredContentError(f"the ledger has no definition of {vm}")
        return doc.xml

    def _keep_ledger(self) -> None:
        while not self._end.is_set():
            if not self._guids:
                command = self._settings.hosts[self._host].bmc_guid_command
                self._guids = read_in_band(command or None, GUID_BOUND_S)
            try:
                self._ledger.sync()
            except (FangnetzError, OSError) as error:
                log.warning("ledger", error=str(error))
            self._end.wait(LEDGER_EVERY_S)


def install_host(app: Celery, settings: Settings, me: Identity) -> None:
    """Make this process the worker of one host."""
    parts = HostParts(app, settings, me)
    install(Runtime(role="host", executor=parts.executor))

    class Liveness(bootsteps.StartStopStep):
        """A step of the worker, not of its consumer: it lives through every loss of the broker."""

        requires = ("celery.worker.components:Pool",)

        def start(self, _worker: Any) -> None:
            parts.start()

        def stop(self, _worker: Any) -> None:
            parts.stop()

        def terminate(self, _worker: Any) -> None:
            parts.stop()

    app.steps["worker"].add(Liveness)
