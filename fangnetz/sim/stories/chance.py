"""Stories by chance: a cluster and a schedule of faults from one seed, as the data of a scenario file.

Every fault ends, so that the story can end well. What no system survives is left out: a device that lies about a host
nobody else can ask, and a person who says that a running host is off.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from fangnetz.core.policy import Fallback, OnShutdown
from fangnetz.engine.fault_points import POINTS
from fangnetz.settings.tree import Tree
from fangnetz.sim.stories.read import story_of
from fangnetz.sim.stories.story import Story

QUIET_S = 7
"""Before the first fault: hosts and controllers have met."""
STORM_S = 30
"""So long faults begin."""
AFTERWARDS_S = 180
"""After the last one: time to boot, to be fenced and to recover."""
Lines = list[dict[str, Any]]
STRUCK = tuple(sorted(point for point in POINTS if not point.startswith(("heartbeat.", "watch.", "files.", "life."))))


def story_by_chance(seed: int, *, hosts: int = 5, vms: int = 20, faults: int = 8) -> Story:
    """Return the story of a seed; the same for the same numbers."""
    return story_of(Tree(file=f"seed {seed}", data=_Maker(seed, hosts, vms, faults).data()))


class _Maker:
    def __init__(self, seed: int, hosts: int, vms: int, faults: int) -> None:
        self._chance = Random(f"story {seed}")
        self._seed, self._faults = seed, faults
        self._hosts = [f"host{number}" for number in range(1, hosts + 1)]
        self._vms = [f"vm{number}" for number in range(1, vms + 1)]
        self._replicas = self._chance.choice((0, 0, 1))
        self._lines: Lines = []

    def data(self) -> dict[str, Any]:
        chance = self._chance
        hosts: dict[str, Any] = {name: {"boot_s": chance.choice((8, 20, 45))} for name in self._hosts}
        for name in self._hosts:
            if chance.random() < 0.2:
                hosts[name]["fencing"] = chance.choice((["ipmi-a", "ipmi-b"], [["ipmi-a", "ipmi-b"]]))
        self._devices = {
            name: [device for level in host.get("fencing", ["ipmi"]) for device in _devices(level)]
            for name, host in hosts.items()
        }
        vms = {
            name: {"host": chance.choice(self._hosts), "memory_mib": chance.choice((512, 1024, 4096))}
            for name in self._vms
        }
        if chance.random() < 0.5:
            self._rule(vms)
        for _ in range(self._faults):
            self._fault(QUIET_S + chance.random() * STORM_S)
        self._lines.sort(key=lambda line: line["at"])
        data: dict[str, Any] = {
            "name": f"seed {self._seed}",
            "hosts": hosts,
            "store": {"replicas": self._replicas},
            "vms": vms,
            "timeline": self._lines,
            "until": round(max(line["at"] for line in self._lines) + AFTERWARDS_S, 1),
        }
        self._busy_and_zoned(data)
        self._slots(data)
        if any(line.keys() & {"reboot", "shutdown"} for line in self._lines):
            modes = [mode.value for mode in OnShutdown]
            data.setdefault("policy", {}).update(
                {"on_shutdown": chance.choice(modes), "evacuate_deadline_s": chance.choice((20, 300))}
            )
        if chance.random() < 0.3:
            controllers = chance.sample(self._hosts, 2)
            data["controllers"] = {"c1": {"host": controllers[0]}, "c2": {"host": controllers[1]}}
        return data

    def _rule(self, vms: dict[str, dict[str, Any]]) -> None:
        """Rules that leave every VM a host even while one is lost."""
        chance = self._chance
        names = chance.sample(self._vms, min(len(self._vms), 8))
        for name, other in zip(names[::2], names[1::2], strict=False):
            kind = chance.choice(("together", "apart", "allowed", "preferred"))
            if kind in ("together", "apart"):
                vms[name][kind] = [other]
                if kind == "together":  # whichever host they end up on has room for both
                    for vm in vms.values():
                        vm["memory_mib"] = min(vm["memory_mib"], 1024)
            elif kind == "allowed":
                vms[name][kind] = chance.sample(self._hosts, min(len(self._hosts), 3))
            else:
                vms[name][kind] = {chance.choice(self._hosts): chance.choice((-1, 1, 5))}
                if chance.random() < 0.5:
                    vms[name]["failback"] = True

    def _slots(self, data: dict[str, Any]) -> None:
        """Who keeps no slots, and who leaves alone what is isolated. A chance of its own."""
        chance = Random(f"slots {self._seed}")
        if chance.random() < 0.2:
            data["slots"] = False
        if chance.random() < 0.25:
            data.setdefault("policy", {})["isolated"] = "leave"

    def _busy_and_zoned(self, data: dict[str, Any]) -> None:
        """Zones, ranking by real use, retries, fallbacks. A chance of its own: what else is drawn stays as it was."""
        chance = Random(f"use {self._seed}")
        if chance.random() < 0.3:
            for host in data["hosts"].values():
                host["zone"] = chance.choice(("a", "b"))
        if chance.random() < 0.3:
            data["policy"] = {"rank_by": "measured"}
            for vm in chance.sample(self._vms, len(self._vms) // 2):
                use = {"vm": vm, "cpus_used": chance.choice((0, 0.5, 8)), "memory_used_mib": chance.choice((10, 4000))}
                data["timeline"].append({"at": round(chance.uniform(0, QUIET_S + STORM_S), 3), "load": use})
            data["timeline"].sort(key=lambda line: line["at"])
        for vm in chance.sample(self._vms, len(self._vms) // 4):
            data["vms"][vm] |= {"max_restarts": chance.choice((0, 1, 3)), "max_relocations": chance.choice((0, 1, 2))}
        if chance.random() < 0.3:
            for vm in chance.sample(self._vms, len(self._vms) // 3):
                fallback = chance.choice([one.value for one in Fallback])
                data["vms"][vm] |= {"evacuate_fallback": fallback, "live": chance.random() < 0.5}

    # -- faults --

    def _fault(self, at: float) -> None:
        self._chance.choices(*zip(*_FAULTS, strict=True))[0](self, at)

    def _add(self, at: float, **verb: Any) -> None:
        self._lines.append({"at": round(at, 3), **verb})

    def _for_a_while(self, at: float, begin: dict[str, Any], end: dict[str, Any], span: tuple[float, float]) -> None:
        self._add(at, **begin)
        self._add(at + self._chance.uniform(*span), **end)

    def _power(self, at: float) -> None:
        chance, host = self._chance, self._chance.choice(self._hosts)
        verb = chance.choice(("power_off", "power_off", "unplug"))
        self._add(at, **{verb: host})
        span = chance.choice((1.0, 4.0, 20.0, 70.0))
        if verb == "unplug" and span > 20:
            self._add(at + chance.uniform(25, span - 5), confirm_off=host)
        self._add(at + span, power_on=host)

    def _leave(self, at: float) -> None:
        """A host goes down in order; it is called off, or the host is switched on again."""
        chance, host = self._chance, self._chance.choice(self._hosts)
        self._add(at, **{chance.choice(("reboot", "shutdown")): host})
        self._add(at + chance.choice((3.0, 12.0, 40.0, 90.0)), power_on=host)

    def _reset(self, at: float) -> None:
        self._add(at, reset=self._chance.choice(self._hosts))

    def _cut(self, at: float) -> None:
        chance = self._chance
        host = chance.choice([*self._hosts, *self._hosts, "c1", "c2", "redis"])
        words: dict[str, Any] = {"host": host, "direction": chance.choice(("both", "both", "in", "out"))}
        words["links"] = chance.choice((["cluster"], ["cluster"], ["bmc"], ["storage"], ["cluster", "bmc"]))
        self._for_a_while(at, {"cut": words}, {"heal": words}, (0.5, chance.choice((3.0, 15.0, 60.0))))

    def _partition(self, at: float) -> None:
        chance = self._chance
        all_names = [*self._hosts, "c1", "c2", "redis"]
        side = [name for name in all_names if chance.random() < 0.5]
        other = [name for name in all_names if name not in side]
        if side and other:
            self._for_a_while(at, {"partition": [side, other]}, {"heal": "all"}, (1.0, 40.0))

    def _freeze(self, at: float) -> None:
        name = self._chance.choice([*self._hosts, "c1", "c2"])
        span = self._chance.choice((2.0, 6.0, 12.0, 40.0))
        self._for_a_while(at, {"freeze": name}, {"thaw": name}, (0.5, span))

    def _libvirt(self, at: float) -> None:
        host = self._chance.choice(self._hosts)
        state = self._chance.choice(("hung", "dead"))
        begin, end = ({"libvirt": {"host": host, "state": s}} for s in (state, "ok"))
        self._for_a_while(at, begin, end, (1.0, 40.0))

    def _bmc(self, at: float) -> None:
        host = self._chance.choice(self._hosts)
        device = self._chance.choice(self._devices[host])
        state = self._chance.choice(("dark", "slow", "wrong-password"))
        begin, end = ({"bmc": {"host": host, "device": device, "state": s}} for s in (state, "ok"))
        self._for_a_while(at, begin, end, (5.0, 80.0))

    def _kill_worker(self, at: float) -> None:
        self._add(at, kill_worker=self._chance.choice(self._hosts))

    def _kill_controller(self, at: float) -> None:
        name = self._chance.choice(("c1", "c2"))
        self._for_a_while(at, {"kill_controller": name}, {"start_controller": name}, (1.0, 40.0))

    def _redis(self, at: float) -> None:
        states = ["down", "hung", "wiped", "rolled-back", *(["failover"] * 2 if self._replicas else [])]
        state = self._chance.choice(states)
        seconds = round(self._chance.choice((1.0, 4.0, 12.0)) * self._chance.uniform(0.5, 1.5), 1)
        self._add(at, redis={"state": state, "seconds": seconds})

    def _messages(self, at: float) -> None:
        chance = self._chance
        words = {
            "drop": chance.choice((0, 0.3)),
            "duplicate": chance.choice((0, 0.5)),
            "delay": chance.choice((0, 5, 30)),
        }
        self._add(at, messages={**words, "for": chance.choice((5, 30))})

    def _clock(self, at: float) -> None:
        name = self._chance.choice([*self._hosts, "redis"])
        self._add(at, clock={"host": name, "jump_s": self._chance.choice((-3600, -30, -2, 2, 30, 3600))})

    def _vm(self, at: float) -> None:
        chance, vm = self._chance, self._chance.choice(self._vms)
        verb = chance.choice(("vm_crash", "vm_crash", "guest_hang", "start_fails", "stop_fails"))
        if verb == "start_fails":
            self._add(at, start_fails={"vm": vm, "times": chance.choice((1, 3))})
        elif verb == "stop_fails":
            self._add(at, stop_fails={"vm": vm, "times": chance.choice((1, 3))})
        else:
            self._add(at, **{verb: vm})

    def _wish(self, at: float) -> None:
        chance, vm, host = self._chance, self._chance.choice(self._vms), self._chance.choice(self._hosts)
        match chance.choice(("fence", "stop", "stop", "start", "activate", "remove", "evacuate", "evacuate")):
            case "fence":
                self._add(at, fence=host)
            case "stop":
                self._add(at, stop=vm)
                self._add(at + chance.uniform(0.5, 40), start=vm)
            case "start":
                self._add(at, start=vm)
            case "activate":
                self._add(at, activate=host)
            case "evacuate":
                self._add(at, evacuate=host)
                words = {"host": host, "failback": chance.random() < 0.5}
                self._add(at + chance.uniform(1, 40), activate=words)
            case "remove":
                self._add(at, remove=vm)

    def _migrate(self, at: float) -> None:
        """VMs are on the move, running or stopped for it, one of them perhaps in vain, while other things happen."""
        chance = self._chance
        for vm in chance.sample(self._vms, min(3, len(self._vms))):
            if chance.random() < 0.2:
                self._add(at, migrate_fails={"vm": vm, "times": 1})
            verb = "relocate" if chance.random() < 0.4 else "migrate"
            words = {"vm": vm, **({"to": chance.choice(self._hosts)} if chance.random() < 0.5 else {})}
            self._add(at + chance.uniform(0.0, 5.0), **{verb: words})

    def _strike(self, at: float) -> None:
        chance = self._chance
        role = chance.choice(("host", "control", "work", "fence"))
        name = chance.choice(self._hosts if role == "host" else ["c1", "c2"])
        points = {
            "host": ("start.", "stop.", "promise.", "ledger.", "prepare.", "migrate.", "resume."),
            "control": ("operation.", "host.", "vm.", "lease.", "ledger.", "alarms.", "events.", "wish.", "step."),
            "work": (
                "confirm.", "prove.", "plan.", "running.", "close.", "reading.", "probe.", "host.", "ledger.",
                "plan_move.", "hand_over.",
            ),
            "fence": ("fence.", "power_on.", "host.", "reading."),
        }[role]  # fmt: skip
        point = chance.choice([p for p in STRUCK if p.startswith(points)])
        words: dict[str, Any] = {"process": f"{role} {name}", "at_point": point}
        words["action"] = chance.choice(("kill", "freeze"))
        words["seconds"] = chance.choice((2, 6, 15, 45))
        self._add(at, strike=words)


def _devices(level: str | list[str]) -> list[str]:
    return level if isinstance(level, list) else [level]


_FAULTS: list[tuple[Callable[[_Maker, float], None], int]] = [
    (_Maker._power, 8),
    (_Maker._reset, 3),
    (_Maker._leave, 4),
    (_Maker._cut, 7),
    (_Maker._partition, 2),
    (_Maker._freeze, 6),
    (_Maker._libvirt, 3),
    (_Maker._bmc, 4),
    (_Maker._kill_worker, 3),
    (_Maker._kill_controller, 3),
    (_Maker._redis, 5),
    (_Maker._messages, 3),
    (_Maker._clock, 2),
    (_Maker._vm, 4),
    (_Maker._wish, 4),
    (_Maker._migrate, 6),
    (_Maker._strike, 8),
]
"""Each kind of fault and how often it comes."""
