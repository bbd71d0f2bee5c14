"""Messages as the task side has them: `ports.Dispatcher`, chains, tries again, pools of threads. A doorbell, no more.

Mirrors what `tasks` and `workers` make of Celery; what a task does is the engine's, and is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.operations import Operation, StepKind, queue_of
from fangnetz.core.units import DeviceName, HostId, OperationId, Seconds
from fangnetz.engine.execute import Executor, Next
from fangnetz.sim.machine import Machine
from fangnetz.sim.network import Network
from fangnetz.sim.process import Process
from fangnetz.sim.store.line import ServerLine
from fangnetz.sim.store.memory import Memory
from fangnetz.sim.store.queues import Bound, Message
from fangnetz.sim.store.server import Server

TICK, SWEEP, PROBE, READ_POWER = "tick", "sweep", "probe_hosts", "read_power"
RUNG = "rung"
"""Said with a tick: the alarm clock asks for it, between two beats."""
QUEUE_PROBE = "probe"
PAUSE_S = 2.0
"""As in tasks.dispatcher: after a silent broker nothing is sent for so long."""
RETRY_MAX_S = 5.0
"""As in tasks.steps: a longer wait is left to the sweep."""
NOTICES_S = 5.0
"""A worker that waits for messages notices a dead connection after about so long, and so long a message is resent."""
OWN = Bound(length_max=1000, idle_s=30)
SHARED = Bound(length_max=1000, idle_s=3600)
TICKS = Bound(length_max=16, idle_s=30)
PROBES = Bound(length_max=2, idle_s=30)


def control_queue(controller: str) -> str:
    return f"control.{controller}"


def probe_queue(controller: str) -> str:
    return f"probe.{controller}"


def _push(_memory: Memory, server: Server, message: Message) -> None:
    server.queues.push(message)


class SimDispatcher:
    """`ports.Dispatcher`. Never raises: what could not be sent is sent again by the sweep."""

    def __init__(self, process: Process, line: ServerLine, server: Server, controllers: Iterable[str]) -> None:
        self._process, self._line, self._server = process, line, server
        self._controllers = tuple(controllers)
        self._pause_until = 0.0

    def send(self, message: Message) -> None:
        if self._process.monotonic() < self._pause_until:
            return
        try:
            self._line(_push, self._server, message)
        except StoreUnreachable as away:
            if "TimeoutError" in str(away):
                self._pause_until = self._process.monotonic() + PAUSE_S

    def dispatch(self, operation: Operation, chains: Sequence[Sequence[str]]) -> None:
        for keys in chains:
            steps = [step for key in keys if (step := operation.step(key)) is not None]
            links = [Message(step.kind.value, (operation.id, step.key), queue_of(step)) for step in steps]
            if links:
                first, *rest = links
                self.send(Message(first.task, first.args, first.queue, tuple(rest)))

    def ask_power(self, host: HostId, devices: Sequence[DeviceName]) -> None:
        self.send(Message(READ_POWER, (host, *devices), QUEUE_PROBE))

    def nudge(self) -> None:
        for controller in self._controllers:
            self.send(Message(TICK, (), control_queue(controller)))


Task = Callable[[tuple[str, ...]], None]
NO_TASKS: Mapping[str, Task] = {}


class Worker:
    """A pool of threads that reads some queues: a step goes to the executor, anything else to its task."""

    def __init__(
        self,
        process: Process,
        machine: Machine,
        server: Server,
        network: Network,
        dispatcher: SimDispatcher,
        *,
        queues: Sequence[str],
        slots: int,
        tasks: Mapping[str, Task] = NO_TASKS,
        executor: Executor | None = None,
    ) -> None:
        self._process, self._machine, self._server, self._network = process, machine, server, network
        self._dispatcher, self.queues, self._free = dispatcher, queues, slots
        self._tasks, self._executor = tasks, executor
        self._reading = False
        process.at_end.append(self._end)
        self._connect(0.2)

    @property
    def silent(self) -> bool:
        return self._process.dead

    def _end(self) -> None:
        if self._machine.powered:  # its system closes the connection; without power nobody says anything
            self._server.queues.leave(self)

    # -- reading --

    def _connect(self, pause: float) -> None:
        if self._process.dead or self._reading or self._free == 0:
            return
        server, here = self._server, self._machine.name
        reachable = server.listening and not server.stopped
        if reachable and not self._process.frozen and self._network.both_ways(here, server.machine.name):
            self._reading = True
            server.queues.read(self)
        else:
            self._process.kernel.after(pause, self._connect, min(2.0, pause + 0.3))

    def disconnected(self) -> None:
        self._reading = False
        self._connect(0.2)

    def take(self, message: Message) -> None:
        """A message is on its way; it gets lost if the way is cut for long."""
        self._process.kernel.after(0.0003, self._arrive, message, self._process.kernel.now + NOTICES_S)

    def _arrive(self, message: Message, until: float) -> None:
        kernel = self._process.kernel
        if self._process.dead:
            return
        if not self._network.passes(self._server.machine.name, self._machine.name):
            if kernel.now < until:
                kernel.after(0.5, self._arrive, message, until)
            else:
                self._reading = False
                self._connect(0.2)
            return
        self._free -= 1
        self._process.spawn(message.task, lambda: self._run(message))

    def _run(self, message: Message) -> None:
        self._reading = False
        self._connect(0.2)
        try:
            self._do(message)
        finally:
            self._free += 1
            self._connect(0.2)

    def _do(self, message: Message) -> None:
        task = self._tasks.get(message.task)
        if task is not None:
            task(message.args)
            return
        if self._executor is None:
            raise RuntimeError(f"{self._process.name} has no part for {message.task}")
        operation, step = message.args
        done = self._executor.carry_out(OperationId(operation), step, StepKind(message.task))
        if done.next is Next.AGAIN and done.wait_s <= RETRY_MAX_S:
            self._process.spawn("later", lambda: self._again(message, done.wait_s))
        if done.next is Next.GO_ON and message.chain:
            first, *rest = message.chain
            self._dispatcher.send(Message(first.task, first.args, first.queue, tuple(rest)))

    def _again(self, message: Message, span: Seconds) -> None:
        self._process.sleep(span)
        self._dispatcher.send(message)
