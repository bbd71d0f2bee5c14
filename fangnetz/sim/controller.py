"""A controller as four simulated processes: control ticks, work decides and probes, fence cuts, beat rings.

Mirrors workers/controller.py, tasks/control.py, tasks/watching.py and beat/schedule.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from fangnetz.core.errors import FangnetzError, StaleToken, StoredContentError, StoreUnreachable
from fangnetz.core.operations import QUEUE_FENCE, QUEUE_WORK, StepKind
from fangnetz.core.units import ControllerId, DeviceName, HostId, Seconds
from fangnetz.engine.execute import Effect, Executor
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.marked import marked_store
from fangnetz.engine.steps.failover import FailoverSteps
from fangnetz.engine.steps.fence import FenceSteps
from fangnetz.engine.steps.move import MoveSteps
from fangnetz.engine.tick import Controller
from fangnetz.engine.watching import PowerAsker, probe_hosts
from fangnetz.ports import ProbeTarget
from fangnetz.sim.bmc import SimDevice
from fangnetz.sim.bus import (
    PROBE,
    QUEUE_PROBE,
    READ_POWER,
    RUNG,
    SWEEP,
    TICK,
    SimDispatcher,
    Task,
    Worker,
    control_queue,
    probe_queue,
)
from fangnetz.sim.files import SimLedgerFiles
from fangnetz.sim.kernel import Entry
from fangnetz.sim.machine import Machine
from fangnetz.sim.prober import SimProber
from fangnetz.sim.process import Process
from fangnetz.sim.store.line import ServerLine
from fangnetz.sim.store.queues import Message
from fangnetz.sim.store.twin import StoreTwin

if TYPE_CHECKING:
    from fangnetz.sim.world import World

STARTS_S = 1.0
STARTS_AGAIN_S = 5.0
"""What the service manager waits before it starts a killed process again."""
CONTRADICTION_S = Seconds(0.15)
"""As in workers.controller."""
SLOTS = {"control": 1, "work": 16, "fence": 8}
"""As in workers.launch."""


class ControllerProcesses:
    """The services of one controller."""

    def __init__(self, world: World, machine: Machine, me: ControllerId) -> None:
        self._world, self.machine, self.me = world, machine, me
        self.wanted = True
        self.processes: list[Process] = []

    def start(self) -> None:
        if not self.wanted:
            return
        at_once = self._world.kernel.now == 0.0
        chance = self._world.kernel.chance.random()
        self._world.kernel.after(0.4 + 0.4 * chance if at_once else STARTS_S, self._start, self.machine.boot)

    def power_lost(self) -> None:
        self.processes.clear()

    def thawed(self) -> None: ...

    def kill(self) -> None:
        """Nobody starts it again before somebody asks for it."""
        self.wanted = False
        for process in self.processes:
            process.kill()
        self.processes.clear()

    def kill_role(self, process: Process) -> None:
        """End one of them; its service manager starts it again."""
        role = process.name.partition(" ")[0]
        boot = self.machine.boot
        process.kill()
        if process in self.processes:
            self.processes.remove(process)
            self._world.kernel.after(STARTS_AGAIN_S, self._start_role, role, boot)

    def _start_role(self, role: str, boot: object) -> None:
        if self.wanted and self.machine.boot is boot and not any(p.name == f"{role} {self.me}" for p in self.processes):
            {"control": self._control, "work": self._work, "fence": self._fence, "beat": self._beat}[role]()

    def start_again(self) -> None:
        if not self.processes and self.machine.up:
            self.wanted = True
            self.start()
        self.wanted = True

    def _start(self, boot: object) -> None:
        if self.machine.boot is not boot or self.machine.boot is None or not self.wanted or self.processes:
            return
        self._control()
        self._work()
        self._fence()
        self._beat()

    # -- parts --

    def _process(self, role: str) -> tuple[Process, ServerLine, StoreTwin, SimDispatcher]:
        world = self._world
        process = self.machine.run(f"{role} {self.me}", world.failed)
        self.processes.append(process)
        line = ServerLine(process, self.machine, world.server, world.network)
        store = StoreTwin(line)
        return (
            process,
            line,
            marked_store(store) if world.strikes.wanted else store,
            SimDispatcher(process, line, world.server, world.controllers),
        )

    def _worker(
        self, role: str, process: Process, dispatcher: SimDispatcher, queues: tuple[str, ...],
        tasks: Mapping[str, Task], executor: Executor | None,
    ) -> None:  # fmt: skip
        world = self._world
        Worker(
            process, self.machine, world.server, world.network, dispatcher,
            queues=queues, slots=SLOTS[role], tasks=tasks, executor=executor,
        )  # fmt: skip

    def _executor(
        self, role: str, process: Process, store: StoreTwin, dispatcher: SimDispatcher,
        effects: Mapping[StepKind, Effect],
    ) -> Executor:  # fmt: skip
        return Executor(
            name=f"{role}-{self.me}",
            journal=store,
            dispatcher=dispatcher,
            process=process,
            policy=self._world.policy,
            effects=effects,
        )

    def _ledger(self, process: Process, store: StoreTwin) -> Ledger:
        return Ledger(store, SimLedgerFiles(self.machine, f"controller {self.me}", process), process)

    def _control(self) -> None:
        world = self._world
        process, _, store, dispatcher = self._process("control")
        watched = world.laws.watched(store)
        controller = Controller(
            me=self.me,
            store=watched,
            dispatcher=dispatcher,
            ledger=self._ledger(process, store),
            hosts=world.hosts,
            declared={},
            policy=world.policy,
        )
        alarm: list[Entry] = []

        def ring() -> None:
            process.spawn("alarm clock", lambda: dispatcher.send(Message(TICK, (RUNG,), control_queue(self.me))))

        def ring_if_alive() -> None:
            if not process.dead:
                ring()

        def tick(args: tuple[str, ...]) -> None:
            world.controller_steps += 1
            try:
                ticked = controller.tick(rung=RUNG in args)
            except (StaleToken, StoreUnreachable, StoredContentError):
                return
            world.laws.ticked(watched, ticked)
            for entry in alarm:
                world.kernel.cancel(entry)
            alarm.clear()
            if ticked.due_in is not None:
                alarm.append(world.kernel.after(ticked.due_in, ring_if_alive))

        def sweep(_args: tuple[str, ...]) -> None:
            try:
                controller.sweep()
            except (StaleToken, StoreUnreachable, StoredContentError):
                return

        self._worker("control", process, dispatcher, (control_queue(self.me),), {TICK: tick, SWEEP: sweep}, None)

    def _work(self) -> None:
        world = self._world
        process, _, store, dispatcher = self._process("work")
        steps = FailoverSteps(store, world.hosts, world.policy, self._ledger(process, store))
        moves = MoveSteps(store, world.hosts, world.policy)
        executor = self._executor(
            "work", process, store, dispatcher,
            {
                StepKind.CONFIRM: steps.confirm,
                StepKind.PROVE: steps.prove,
                StepKind.PLAN: steps.plan,
                StepKind.SEE_RUNNING: steps.see_running,
                StepKind.CLOSE: steps.close,
                StepKind.PLAN_MOVE: moves.plan_move,
                StepKind.HAND_OVER: moves.hand_over,
            },
        )  # fmt: skip
        prober = SimProber(process, self.machine, world.machines_of_hosts, world.daemons, world.network)
        targets = [ProbeTarget(host=host, address=host, libvirt_port=16509) for host in world.hosts]

        def contradict(host: HostId) -> None:
            own = [target for target in targets if target.host == host]
            probe_hosts(store, prober, self.me, own, (), world.policy, CONTRADICTION_S)

        power = PowerAsker(
            store, world.hosts, world.policy, partial(self._devices, process), dispatcher, process, contradict
        )

        def probe(_args: tuple[str, ...]) -> None:
            try:
                probe_hosts(store, prober, self.me, targets, (), world.policy)
            except StoreUnreachable:
                return

        def read_power(args: tuple[str, ...]) -> None:
            host, *names = args
            try:
                power.ask(HostId(host), [DeviceName(name) for name in names])
            except StoreUnreachable:
                return

        queues = (QUEUE_WORK, QUEUE_PROBE, probe_queue(self.me))
        self._worker("work", process, dispatcher, queues, {PROBE: probe, READ_POWER: read_power}, executor)

    def _devices(self, process: Process, host: HostId) -> dict[DeviceName, SimDevice]:
        world = self._world
        return {name: SimDevice(process, self.machine, bmc, world.network) for name, bmc in world.bmcs[host].items()}

    def _fence(self) -> None:
        world = self._world
        process, _, store, dispatcher = self._process("fence")
        steps = FenceSteps(store, world.hosts, world.policy, partial(self._devices, process))
        effects = {StepKind.FENCE: steps.fence, StepKind.POWER_ON: steps.power_on}
        executor = self._executor("fence", process, store, dispatcher, effects)
        self._worker("fence", process, dispatcher, (QUEUE_FENCE,), {}, executor)

    def _beat(self) -> None:
        policy = self._world.policy
        process, _, _, dispatcher = self._process("beat")
        mine = control_queue(self.me)
        entries = [
            (policy.tick_s, Message(TICK, (), mine)),
            (policy.tick_s, Message(SWEEP, (), mine)),
            (policy.heartbeat_s, Message(PROBE, (), probe_queue(self.me))),
        ]

        def beat() -> None:
            due = [process.monotonic()] * len(entries)
            while True:
                for index, (every, message) in enumerate(entries):
                    if process.monotonic() >= due[index]:
                        dispatcher.send(message)
                        now, steady = process.monotonic(), due[index] + every
                        due[index] = steady if steady > now else now + every
                process.sleep(Seconds(max(0.001, min(min(due) - process.monotonic(), 1.0))))

        process.spawn("beat", beat)


__all__ = ["ControllerProcesses", "FangnetzError"]
