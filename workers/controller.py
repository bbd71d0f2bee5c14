"""The processes of a controller machine: control (ticks), work (decides and probes), fence (touches power)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from celery import Celery, bootsteps

from fangnetz import wiring
from fangnetz.core.errors import FangnetzError, SettingsError
from fangnetz.core.model import HostSpec
from fangnetz.core.operations import StepKind
from fangnetz.core.units import ControllerId, DeviceName, HostId, Seconds
from fangnetz.engine.execute import Executor
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.marked import marked_dispatcher, marked_files, marked_store
from fangnetz.engine.steps.failover import FailoverSteps
from fangnetz.engine.steps.fence import FenceSteps
from fangnetz.engine.steps.move import MoveSteps
from fangnetz.engine.tick import Controller
from fangnetz.engine.watching import PowerAsker, probe_hosts
from fangnetz.ports import FenceDevice, Operators
from fangnetz.settings import Settings
from tasks.dispatcher import CeleryDispatcher
from tasks.names import TICK, control_queue
from tasks.runtime import Runtime, install
from workers.environment import Identity
from workers.notify import tell

log = structlog.get_logger(__name__)
LISTEN_EVERY_S = 0.1
"""A wish is noticed this soon: at once, for a person; ten questions of a tenth of a millisecond cost nothing."""
DEAF_S = 1.0
"""A store that does not answer is not asked for wishes again at once: ticks ask it anyway."""
CONTRADICTION_S = Seconds(0.15)
"""A host whose plug reads OFF has this long to answer and contradict it; silence here proves nothing."""


def known_controller(settings: Settings, me: Identity) -> ControllerId:
    """Return this process's controller; SettingsError if the cluster file has no such one."""
    if me.name not in settings.controllers:
        known = ", ".join(settings.controllers)
        raise SettingsError(f"{me.config}: controllers: {me.name} (FANGNETZ_CONTROLLER) is not among {known}")
    return ControllerId(me.name)


def install_controller(app: Celery, settings: Settings, me: Identity) -> None:
    """Make this process one of a controller's: control, work or fence."""
    controller = known_controller(settings, me)
    policy = settings.policy
    hosts: dict[HostId, HostSpec] = {host: it.spec for host, it in settings.hosts.items()}
    store = marked_store(wiring.open_store(settings, name=f"{me.role}-{me.name}", user="controller"))
    dispatcher = marked_dispatcher(CeleryDispatcher(app, settings.controllers))
    process = wiring.this_process()
    ledger = Ledger(store, marked_files(wiring.open_ledger_files(me.state_dir)), process)
    kept: dict[HostId, dict[DeviceName, FenceDevice]] = {}

    def devices(host: HostId) -> dict[DeviceName, FenceDevice]:
        if host not in kept:
            kept[host] = wiring.open_devices(settings, host)
        return kept[host]

    runtime = Runtime(role=me.role, operators=store, nudge=dispatcher.nudge)
    match me.role:
        case "control":
            runtime.controller = Controller(
                me=controller,
                store=store,
                dispatcher=dispatcher,
                ledger=ledger,
                hosts=hosts,
                declared=settings.vms,
                policy=policy,
            )
            # Of its own, so that no answer the tick waits for keeps it from listening.
            ears = marked_store(wiring.open_store(settings, name=f"ear-{me.name}", user="controller"))
            _add_alarm_clock(app, runtime, me, ears)
        case "work":
            steps = FailoverSteps(store, hosts, policy, ledger)
            moves = MoveSteps(store, hosts, policy)
            effects = {
                StepKind.PLAN_MOVE: moves.plan_move,
                StepKind.HAND_OVER: moves.hand_over,
                StepKind.CONFIRM: steps.confirm,
                StepKind.PROVE: steps.prove,
                StepKind.PLAN: steps.plan,
                StepKind.SEE_RUNNING: steps.see_running,
                StepKind.CLOSE: steps.close,
            }
            runtime.executor = _executor(me, store, dispatcher, settings, effects)
            prober = wiring.open_prober()
            targets = wiring.probe_targets(settings)

            def contradict(host: HostId) -> None:
                own = [target for target in targets if target.host == host]
                probe_hosts(store, prober, controller, own, (), policy, CONTRADICTION_S)

            runtime.power = PowerAsker(store, hosts, policy, devices, dispatcher, process, contradict)
            runtime.probe = lambda: _probe(store, prober, controller, targets, settings)
            _say_ready(app)
        case "fence":
            fence = FenceSteps(store, hosts, policy, devices)
            runtime.executor = _executor(
                me, store, dispatcher, settings, {StepKind.FENCE: fence.fence, StepKind.POWER_ON: fence.power_on}
            )
            _say_ready(app)
        case _:
            raise SettingsError(f"{me.role} is no role of a controller")
    install(runtime)


def _executor(me: Identity, store: Any, dispatcher: CeleryDispatcher, settings: Settings, effects: Any) -> Executor:
    return Executor(
        name=me.node,
        journal=store,
        dispatcher=dispatcher,
        process=wiring.this_process(),
        policy=settings.policy,
        effects=effects,
    )


def _probe(store: Any, prober: Any, me: ControllerId, targets: Any, settings: Settings) -> None:
    probe_hosts(store, prober, me, targets, settings.references, settings.policy)


class AlarmClock:
    """Rings the next tick when a threshold is about to be crossed, instead of waiting for the next beat."""

    def __init__(self, ring: Any) -> None:
        self._ring = ring
        self._changed = threading.Condition()
        self._at: float | None = None
        self._end = False
        self._thread = threading.Thread(target=self._run, name="alarm clock", daemon=True)

    def set(self, span: Seconds | None) -> None:
        """Ring in `span` seconds at the latest; None: not before the next beat."""
        with self._changed:
            self._at = None if span is None else time.monotonic() + span
            self._changed.notify()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._end = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._end:
                    return
                left = None if self._at is None else self._at - time.monotonic()
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                self._at = None
            self._ring()


class Ear:
    """Rings a tick as soon as somebody wishes something: a person who says `fence` does not wait for the next beat.

    It asks how many wishes wait, and rings when there are more than before: whatever it misses, the beat brings.
    """

    def __init__(self, store: Operators, ring: Callable[[], None], every_s: float = LISTEN_EVERY_S) -> None:
        self._store, self._ring, self._every_s = store, ring, every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ear", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()

    def _run(self) -> None:
        known, pause = 0, self._every_s
        while not self._end.wait(pause):
            try:
                waiting, pause = self._store.wishes_waiting(), self._every_s
            except FangnetzError:
                pause = DEAF_S
                continue
            if waiting > known:
                self._ring()
            known = waiting


def _add_alarm_clock(app: Celery, runtime: Runtime, me: Identity, ears: Operators) -> None:
    queue = control_queue(me.name)

    def ring(*, rung: bool = False) -> None:
        try:
            app.send_task(TICK, queue=queue, kwargs={"rung": rung})
        except Exception as error:  # noqa: BLE001 - the beat's tick comes anyway
            log.warning("alarm clock", error=type(error).__name__)

    clock, ear = AlarmClock(partial(ring, rung=True)), Ear(ears, ring)
    runtime.due = clock.set

    class Waking(bootsteps.StartStopStep):
        """Starts the alarm clock with the worker and gives the control lease back at an orderly stop."""

        requires = ("celery.worker.components:Pool",)

        def start(self, _worker: Any) -> None:
            clock.start()
            ear.start()
            tell("READY=1")

        def stop(self, _worker: Any) -> None:
            clock.stop()
            ear.stop()
            if runtime.controller is not None:
                try:
                    runtime.controller.leave()
                except FangnetzError as error:
                    log.warning("lease not given back", error=str(error))

        def terminate(self, worker: Any) -> None:
            self.stop(worker)

    app.steps["worker"].add(Waking)


def _say_ready(app: Celery) -> None:
    class Ready(bootsteps.StartStopStep):
        """Tells the service manager that the pool is up."""

        requires = ("celery.worker.components:Pool",)

        def start(self, _worker: Any) -> None:
            tell("READY=1")

    app.steps["worker"].add(Ready)
