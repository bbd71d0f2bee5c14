"""Processes that are killed or frozen at a named fault point of the product, once, when they next come by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fangnetz.engine import faults
from fangnetz.sim.process import Process

if TYPE_CHECKING:
    from fangnetz.sim.world import World


@dataclass(frozen=True, slots=True)
class Strike:
    """`process`: as `host host1` or `work c1`; `subject`: of the point, empty for any."""

    process: str
    point: str
    subject: str
    action: str
    seconds: float


class Strikes:
    """`engine.faults.Armed`, for all processes of one story."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: list[Strike] = []
        self.wanted = any(line.verb == "strike" for line in world.story.timeline)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, strike: Strike) -> None:
        """From now on, and until it has fallen, the product's fault points ask this story."""
        self._waiting.append(strike)
        faults.listen_to(self)

    def meet(self, point: str, subject: str) -> None:
        """Fail here, if somebody asked for it. Called by the process at the point."""
        current = self._world.kernel.current
        if current is None:
            return
        process = current.process
        for strike in self._waiting:
            if strike.point == point and strike.process == process.name and strike.subject in ("", subject):
                self._waiting.remove(strike)
                faults.listen_to(self if self._waiting else None)
                self._fall(strike, process)
                return

    def _fall(self, strike: Strike, process: Process) -> None:
        kernel = self._world.kernel
        self._world.chronicle.tell("struck", f"{strike.process}: {strike.action} at {strike.point}", what=strike.point)
        wait = process.wait()
        if strike.action == "freeze":
            process.freeze()
            kernel.after(strike.seconds, process.thaw)
            kernel.after(0.0, wait.wake)
        else:
            kernel.after(0.0, self._kill, process)
        process.give_way()

    def _kill(self, process: Process) -> None:
        role, _, name = process.name.partition(" ")
        if role == "host":
            self._world.workers[next(h for h in self._world.hosts if h == name)].kill()
        else:
            controller = next(c for key, c in self._world.controllers.items() if key == name)
            controller.kill_role(process)
