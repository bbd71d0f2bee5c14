"""How long it takes to empty a host, beside the same moves made by `virsh migrate` one after the other.

Both in one lab, in turns, each from before its command is typed. What guests notice of it is read off their disks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fangnetz.core.units import HostId
from fangnetz.lab.bench.machine_load import MachineLoad, machine_load
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.patience import wait_until
from fangnetz.lab.storage import disk_path
from fangnetz.lab.traces import read_traces
from fangnetz.lab.whereabouts import places
from fangnetz.settings import load_settings

RATIO_MAX = 0.8
"""Emptying a host takes at most so much of the time of the same moves one after the other."""
RUN_ELSEWHERE_MAX_S = 2.7
IDLE_MAX_S = 5.0
"""Medians of five of Pacemaker in an equal lab: until the last of four guests ran elsewhere, and until it was idle."""
WITHIN_S = 120.0
POLL_S = 0.05
LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptied:
    """Seconds from the command until the last guest ran elsewhere; `gaps_s`: each guest's longest silence meanwhile."""

    last_s: float
    gaps_s: Mapping[str, float]
    idle_s: float | None = None
    """Until the host was in maintenance; None where nobody puts it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    ours: Emptied
    serial: Emptied
    load: MachineLoad

    @property
    def ratio(self) -> float:
        """Until our host was empty and out for work, over the serial moves alone."""
        return (self.ours.idle_s or self.ours.last_s) / self.serial.last_s


@dataclass(slots=True)
class Gaps:
    """Watches the guests' disks for the longest time without a write, each guest's."""

    lab: Lab
    longest: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Gaps:
        self._thread = threading.Thread(target=self._watch, name="gaps")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        now = time.monotonic()
        last = dict.fromkeys(self.lab.plan.vms, (now, -1))
        while not self._over.is_set():
            now = time.monotonic()
            for vm, (at, before) in last.items():
                writes = sum(trace.counter for trace in read_traces(disk_path(self.lab.plan.folder, vm)))
                self.longest[vm] = max(self.longest.get(vm, 0.0), now - at)
                if writes != before:
                    last[vm] = (now, writes)
            self._over.wait(LOOK_EVERY_S)


def emptying(lab: Lab, onlooker: Onlooker, rounds: int, say: Callable[[str], None]) -> list[Pair]:
    """Empty a host so often, and as often move the same guests by hand. LabError if one of them ended."""
    home, found = lab.plan.hosts[0], list[Pair]()
    for number in range(rounds):
        _gather(lab, onlooker, home)
        load = machine_load(lab.name)
        ours, went = _empty(lab, onlooker, home)
        lab.fangnetz("host", "activate", home, "--failback")
        _gather(lab, onlooker, home)
        serial = _by_hand(lab, home, went)
        found.append(Pair(ours=ours, serial=serial, load=load))
        say(
            f"  {number + 1}/{rounds}: {len(went)} guests left in {ours.last_s:.1f} s, the host was out after "
            f"{ours.idle_s:.1f} s; one after the other by virsh {serial.last_s:.1f} s; longest without a write "
            f"{max(ours.gaps_s.values()):.2f} s and {max(serial.gaps_s.values()):.2f} s"
        )
    _gather(lab, onlooker, home)
    # A move by hand keeps the VM's number, so the disks alone tell.
    if overlaps := lab.witness()["overlaps"]:
        raise LabError(f"{len(overlaps)} times two copies wrote one disk: {overlaps[0]}")
    return found


def _gather(lab: Lab, onlooker: Onlooker, home: str) -> None:
    """Have every guest on one host, moved there while it runs, and the cluster at rest."""
    onlooker.wait_until_calm()
    for vm, hosts in places(lab).items():
        if hosts != (home,):
            lab.fangnetz("vm", "migrate", vm, "--to", home, "--wait")
    onlooker.wait_until_calm()


def _empty(lab: Lab, onlooker: Onlooker, home: str) -> tuple[Emptied, dict[str, str]]:
    """Return what it took, and where each guest went, in the order in which they arrived."""
    at, cursor = time.time(), onlooker.latest_event()
    went: dict[str, tuple[str, float]] = {}
    idle: list[float] = []

    def missing() -> str:
        for event in onlooker.events_after(cursor):
            if event.kind == "vm_started":
                went.setdefault(str(event.facts["vm"]), (str(event.facts["host"]), event.at - at))
            if event.kind == "host_state" and event.facts.get("state") == "maintenance":
                idle.append(event.at - at)
        return "" if idle else ", ".join(set(lab.plan.vms) - set(went)) or home

    with Gaps(lab) as gaps:
        lab.fangnetz("host", "evacuate", home)
        wait_until(missing, WITHIN_S, POLL_S, "not emptied yet:")
    if set(went) != set(lab.plan.vms):
        raise LabError(f"{home} is in maintenance, and only {', '.join(went) or 'nothing'} has left it")
    last = max(after for _, after in went.values())
    return Emptied(last_s=last, idle_s=idle[0], gaps_s=gaps.longest), {vm: to for vm, (to, _) in went.items()}


def _by_hand(lab: Lab, home: str, went: Mapping[str, str]) -> Emptied:
    hosts = load_settings(lab.config_path, "host").hosts
    at = time.time()
    with Gaps(lab) as gaps:
        for vm, to in went.items():
            virsh = ("virsh", "-q", "-c", "qemu:///system", "migrate", "--live", "--p2p")
            lab.in_host(home, *virsh, vm, hosts[HostId(to)].migration_uri)
    return Emptied(last_s=time.time() - at, gaps_s=gaps.longest)
