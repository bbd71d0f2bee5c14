"""Plays the lines of a scenario file on a lab: what a verb does to the simulated world, done to real machines.

Bounded to the verbs that ten stories need; any other is refused before anything is done.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import cast

from fangnetz.lab.cuts import Direction
from fangnetz.lab.plan import Link
from fangnetz.lab.processes import LabProcess, processes_of, send
from fangnetz.sim.stories.story import Line, Story
from tests.lab.cluster import Cluster

_WISHES: Mapping[str, tuple[str, ...]] = {
    "start": ("vm", "start"),
    "stop": ("vm", "stop"),
    "activate": ("host", "activate"),
    "confirm_off": ("host", "confirm-off", "--yes"),
    "fence": ("host", "fence", "--yes"),
}


class Player:
    """Does the lines of one story, each at its time."""

    def __init__(self, cluster: Cluster, story: Story) -> None:
        self._cluster, self._lab, self._story = cluster, cluster.lab, story
        strange = sorted({line.verb for line in story.timeline} - {*_WISHES, *self._hands()})
        assert not strange, f"{story.name}: no lab plays {', '.join(strange)}"

    def set_up(self) -> None:
        """Bring every VM to where the story begins with it, and the lab to rest."""
        for vm in self._story.vms:
            if self._cluster.vm(vm.name)["host"] != vm.host:
                self._cluster.asked("vm", "migrate", vm.name, "--to", vm.host, "--wait")
        self._cluster.rest()

    def play(self) -> None:
        """Do every line, as far apart in time as the story has them."""
        began, first = time.monotonic(), self._story.timeline[0].at
        for line in self._story.timeline:
            time.sleep(max(0.0, began + line.at - first - time.monotonic()))
            self._do(line)

    def _do(self, line: Line) -> None:
        if line.verb == "migrate":
            self._cluster.asked("vm", "migrate", line.on, "--to", str(line.more["to"]))
        elif line.verb in _WISHES:
            noun, verb, *options = _WISHES[line.verb]
            self._cluster.asked(noun, verb, line.on, *options)
        else:
            self._hands()[line.verb](line)

    def _hands(self) -> dict[str, Callable[[Line], object]]:
        lab = self._lab
        return {
            "power_off": lambda line: lab.power(line.on, "off"),
            "unplug": self._unplug,
            "power_on": self._power_on,
            "freeze": lambda line: lab.freeze(line.on),
            "thaw": lambda line: lab.thaw(line.on),
            "cut": lambda line: [lab.cut(line.on, link, self._direction(line)) for link in self._links(line)],
            "heal": lambda line: [lab.heal(line.on, link) for link in self._links(line)],
            "redis": self._redis,
            "kill_worker": lambda line: self._kill(lambda process: (process.node, process.role) == (line.on, "worker")),
            "vm_crash": lambda line: self._kill(lambda process: process.role == f"qemu:{line.on}"),
            "migrate": lambda _line: None,
        }

    def _unplug(self, line: Line) -> None:
        self._lab.bmc(line.on, "dark")
        self._lab.power(line.on, "off")

    def _power_on(self, line: Line) -> None:
        self._lab.bmc(line.on, "ok")
        self._lab.power(line.on, "on")

    @staticmethod
    def _links(line: Line) -> tuple[Link, ...]:
        return cast("tuple[Link, ...]", tuple(cast("tuple[str, ...]", line.more["links"])))

    @staticmethod
    def _direction(line: Line) -> Direction:
        return cast("Direction", line.more["direction"])

    def _redis(self, line: Line) -> None:
        """Stop it; it is started again by itself while the story goes on."""
        assert line.more["state"] == "down", line
        self._lab.store("stop")
        threading.Timer(float(cast("float", line.more["seconds"])), self._lab.store, ("start",)).start()

    def _kill(self, meant: Callable[[LabProcess], bool]) -> None:
        found = [each for each in processes_of(self._lab.plan.name, self._lab.plan.tag) if meant(each)]
        assert found, "nobody to kill"
        for process in found:
            send(process, signal.SIGKILL)
