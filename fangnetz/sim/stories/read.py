"""A scenario file to a story, strictly: an unknown name, verb, key or value is refused with one sentence and its line.

What the product cannot do yet is refused as well, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_type_hints

from fangnetz.core.errors import FangnetzError
from fangnetz.core.model import HostState, Rules, VmState
from fangnetz.core.policy import Fallback, Policy, PolicyRefused
from fangnetz.core.retries import Retries
from fangnetz.core.units import HostId, VmId
from fangnetz.engine.fault_points import POINTS
from fangnetz.settings.faults import KeyPath, did_you_mean, key_text, value_text
from fangnetz.settings.tree import Tree, read_tree
from fangnetz.sim.stories import words
from fangnetz.sim.stories.story import (
    HOST_TIMES,
    VM_TIMES,
    WORLD_TIMES,
    Expected,
    HostOfStory,
    Line,
    Story,
    VmOfStory,
)

T = TypeVar("T")
TOP = (
    "name", "about", "hosts", "controllers", "store", "slots", "vms", "world", "policy", "timeline", "until", "expect",
)  # fmt: skip
HOST_KEYS = ("cpus", "memory_mib", "fencing", "powered", "zone", *HOST_TIMES)
RULE_KEYS = ("allowed", "strict", "preferred", "together", "apart", "failback")
RETRY_KEYS = ("max_restarts", "max_relocations")
VM_KEYS = (
    "host", "cpus", "memory_mib", "priority", "wish", "running", "live", "evacuate_fallback", *RETRY_KEYS, *RULE_KEYS,
    *VM_TIMES,
)  # fmt: skip
WISHED = ("running", "stopped", "ignored")
AFTERWARDS_S = 300.0


class ScenarioRefused(FangnetzError):
    """A scenario file is wrong: the text names place, value and rule."""


def read_story(path: Path) -> Story:
    """Return the story of a file; ScenarioRefused with one sentence."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioRefused(f"{path}: cannot be read: {error}") from error
    tree = read_tree(str(path), text)
    if tree.faults:
        raise ScenarioRefused(str(tree.faults[0]))
    return story_of(tree)


def story_of(tree: Tree) -> Story:
    return _Reader(tree).story()


class _Reader:
    """Reads one tree; the first fault ends it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._hosts: dict[str, HostOfStory] = {}
        self._controllers: dict[str, str] = {}
        self._vms: dict[str, VmOfStory] = {}
        self._replicas = 0

    def story(self) -> Story:
        data = self._group(())
        self._known((), TOP)
        if "hosts" not in data:
            self._refuse(("hosts",), "is missing: a story needs hosts")
        for name in self._group(("hosts",)):
            self._hosts[name] = self._host(name)
        self._read_controllers()
        store_host = self._read_store()
        times = self._times(("world",), "world", tuple(WORLD_TIMES))
        for name in self._group(("vms",)):
            self._vms[name] = self._vm(("vms", name), name)
        self._no_two_alike()
        timeline = self._timeline()
        self._rules_name_vms()
        expected = self._expected()
        last = max((line.at for line in timeline), default=0.0)
        until = self._number(("until",), last + AFTERWARDS_S, low=1, high=1_000_000)
        return Story(
            name=self._text(("name",), self._tree.file),
            about=self._text(("about",), ""),
            hosts=tuple(self._hosts.values()),
            controllers=self._controllers,
            store_host=store_host,
            replicas=self._replicas,
            slots=self._bool(("slots",), True),
            vms=tuple(vm for vm in self._vms.values() if vm.name in self._group(("vms",))),
            times={**WORLD_TIMES, **times},
            policy=self._policy(),
            timeline=timeline,
            until=until,
            expected=expected,
            data=data,
        )

    # -- the cluster --

    def _host(self, name: str) -> HostOfStory:
        path: KeyPath = ("hosts", name)
        self._known(path, HOST_KEYS, "host")
        return HostOfStory(
            name=name,
            cpus=self._whole((*path, "cpus"), 8, low=1),
            memory_mib=self._whole((*path, "memory_mib"), 32768, low=1),
            fencing=self._fencing((*path, "fencing")),
            powered=self._bool((*path, "powered"), True),
            zone=self._zone((*path, "zone")),
            times=self._times(path, "host", HOST_TIMES, others=True),
        )

    def _zone(self, path: KeyPath) -> str:
        given = self._tree.get(path)
        if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
            self._refuse(path, "must be a word")
        return "" if given is None else str(given)

    def _fencing(self, path: KeyPath) -> tuple[tuple[str, ...], ...]:
        given = self._tree.get(path)
        if given is None:
            return (("ipmi",),)
        if not isinstance(given, list):
            self._refuse(path, "must be a list of levels, each a device or a list of devices")
        levels = tuple(tuple(level) if isinstance(level, list) else (level,) for level in given)
        for level in levels:
            for device in level:
                if not isinstance(device, str):
                    self._refuse(path, "must be a list of levels, each a device or a list of devices")
                if not device.startswith("ipmi"):
                    self._refuse(path, f"{device}: {words.not_built('fence driver', device)}; call it ipmi…")
        names = [device for level in levels for device in level]
        if len(set(names)) < len(names):
            self._refuse(path, "names a device twice")
        return levels

    def _read_controllers(self) -> None:
        given = self._tree.get(("controllers",))
        if given is None:
            self._controllers = {"c1": "", "c2": ""}
            return
        for name in self._group(("controllers",)):
            self._known(("controllers", name), ("host",))
            self._controllers[name] = self._name(("controllers", name, "host"), self._hosts, "host", missing="")

    def _read_store(self) -> str:
        self._known(("store",), ("host", "replicas"))
        self._replicas = self._whole(("store", "replicas"), 0, low=0, high=5)
        return self._name(("store", "host"), self._hosts, "host", missing="")

    def _vm(self, path: KeyPath, name: str, *, more: tuple[str, ...] = ()) -> VmOfStory:
        self._known(path, (*VM_KEYS, *more), "vm")
        running = self._tree.get((*path, "running"))
        return VmOfStory(
            name=name,
            host=self._name((*path, "host"), self._hosts, "host"),
            cpus=self._whole((*path, "cpus"), 1, low=1),
            memory_mib=self._whole((*path, "memory_mib"), 1024, low=1),
            priority=self._whole((*path, "priority"), 0, low=-1_000_000),
            wish=self._choice((*path, "wish"), WISHED, "running"),
            running=None if running is None else self._bool((*path, "running"), True),
            rules=self._rules(path, name),
            live=self._bool((*path, "live"), True),
            retries=Retries(
                **{
                    key.removeprefix("max_"): self._whole((*path, key), 0)
                    for key in RETRY_KEYS
                    if key in self._group(path)
                }
            ),
            fallback=Fallback(self._choice((*path, "evacuate_fallback"), tuple(Fallback), ""))
            if "evacuate_fallback" in self._group(path)
            else None,
            times=self._times(path, "vm", VM_TIMES, others=True),
        )

    def _rules(self, path: KeyPath, vm: str) -> Rules:
        """Other VMs may be named before they are read, and those that are added later."""
        for key in ("together", "apart"):
            for at, other in enumerate(self._list((*path, key))):
                if not isinstance(other, str) or other == vm:
                    self._refuse((*path, key, at), "must be another VM")
        return Rules(
            allowed=tuple(HostId(name) for name in self._names((*path, "allowed"), self._hosts, "host")),
            strict=self._bool((*path, "strict"), True),
            preferred=tuple(
                (
                    HostId(self._key((*path, "preferred", host), self._hosts, "host")),
                    self._whole((*path, "preferred", host), 0, low=-1_000_000),
                )
                for host in self._group((*path, "preferred"))
            ),
            together=tuple(VmId(str(other)) for other in self._list((*path, "together"))),
            apart=tuple(VmId(str(other)) for other in self._list((*path, "apart"))),
            failback=self._bool((*path, "failback"), False) if "failback" in self._group(path) else None,
        )

    def _rules_name_vms(self) -> None:
        for vm in self._vms.values():
            for other in (*vm.rules.together, *vm.rules.apart):
                if other not in self._vms:
                    hint = did_you_mean(other, self._vms)
                    self._refuse(("vms", vm.name), f"has a rule about {other}, which is no VM of this story{hint}")

    def _no_two_alike(self) -> None:
        seen: dict[str, str] = {words.REDIS: "the store"}
        for kind, names in (("host", self._hosts), ("controller", self._controllers), ("VM", self._vms)):
            for name in names:
                if name in seen:
                    self._refuse((), f"the {kind} {name} is called as {seen[name]}")
                seen[name] = f"a {kind}"

    def _times(self, path: KeyPath, kind: str, known: tuple[str, ...], *, others: bool = False) -> dict[str, float]:
        if not others:
            self._known(path, known, kind)
        given = self._group(path)
        return {key: self._number((*path, key), 0, low=0, high=86400) for key in known if key in given}

    def _policy(self) -> Policy:
        path: KeyPath = ("policy",)
        kinds = get_type_hints(Policy)
        keys = {field.name.rstrip("_"): field.name for field in fields(Policy)}
        self._known(path, tuple(keys), "policy")
        given: dict[str, Any] = {}
        for key in self._group(path):
            kind = kinds[keys[key]]
            if isinstance(kind, type) and issubclass(kind, StrEnum):
                given[keys[key]] = kind(self._choice((*path, key), tuple(kind), ""))
            elif kind is bool:
                given[keys[key]] = self._bool((*path, key), False)
            elif kind is int:
                given[keys[key]] = self._whole((*path, key), 0)
            else:
                given[keys[key]] = float(self._number((*path, key), 0))
        try:
            return Policy(**given)
        except PolicyRefused as refused:
            first = refused.faults[0]
            self._refuse((*path, first.key), first.rule)

    # -- the timeline --

    def _timeline(self) -> tuple[Line, ...]:
        lines = [self._line(("timeline", index)) for index in range(len(self._list(("timeline",))))]
        return tuple(sorted(lines, key=lambda line: line.at))

    def _line(self, path: KeyPath) -> Line:  # noqa: PLR0911 - one line a kind of verb
        given = self._group(path)
        at = self._number((*path, "at"), None, low=0, high=1_000_000)
        verbs = [key for key in given if key != "at"]
        if len(verbs) != 1:
            self._refuse(path, "must hold `at` and one verb")
        verb = verbs[0]
        where = (*path, verb)
        if verb == "activate" and isinstance(given[verb], dict):
            self._known(where, ("host", "failback"), verb)
            host = self._name((*where, "host"), self._hosts, "host")
            failback = self._bool((*where, "failback"), False)
            return Line(at=at, verb=verb, on=host, names=(host,), more={"failback": failback})
        if verb in words.OF_HOST:
            return self._about(at, verb, self._name(where, self._hosts, "host"))
        if verb in words.OF_CONTROLLER:
            return self._about(at, verb, self._name(where, self._controllers, "controller"))
        if verb in words.OF_MACHINE:
            return self._about(at, verb, self._name(where, {**self._hosts, **self._controllers}, "host or controller"))
        if verb in words.OF_VM:
            return self._about(at, verb, self._name(where, self._vms, "VM"))
        if verb == "heal" and given[verb] == "all":
            return Line(at=at, verb=verb)
        if verb == "partition":
            return self._partition(at, where)
        if verb == "add":
            return self._add(at, where)
        if verb in words.OF_CLUSTER:
            return self._of_cluster(at, verb, where)
        if verb == words.KILL_ROLL:
            self._must_be_true(where)
            return Line(at=at, verb=verb)
        if verb in words.WITH_WORDS:
            self._known(where, words.WITH_WORDS[verb])
            return self._VERBS[verb](self, at, verb, where)
        return self._refuse(where, f"is no verb of a timeline{did_you_mean(verb, words.VERBS)}")

    @staticmethod
    def _about(at: float, verb: str, name: str) -> Line:
        return Line(at=at, verb=verb, on=name, names=(name,))

    def _endpoints(self) -> dict[str, object]:
        return {**self._hosts, **self._controllers, words.REDIS: None}

    def _partition(self, at: float, path: KeyPath) -> Line:
        groups = tuple(
            tuple(
                self._name((*path, i, j), self._endpoints(), "host, controller or redis")
                for j in range(len(self._list((*path, i))))
            )
            for i in range(len(self._list(path)))
        )
        return Line(at=at, verb="partition", names=tuple(n for g in groups for n in g), more={"groups": groups})

    def _add(self, at: float, path: KeyPath) -> Line:
        name = self._text((*path, "name"), "")
        if not name or name in self._endpoints():
            self._refuse((*path, "name"), "must be the name of a VM")
        vm = self._vm(path, name, more=("name",))
        self._vms.setdefault(name, vm)
        return Line(at=at, verb="add", on=name, names=(name,), more={"vm": vm})

    def _cut(self, at: float, verb: str, path: KeyPath) -> Line:
        host = self._name((*path, "host"), self._endpoints(), "host, controller or redis")
        links = self._tree.get((*path, "links"))
        if links is None:
            chosen: tuple[str, ...] = ("cluster",)
        else:
            count = len(self._list((*path, "links")))
            chosen = tuple(self._choice((*path, "links", i), words.LINKS, "") for i in range(count))
        direction = self._choice((*path, "direction"), words.DIRECTIONS, "both")
        return Line(at=at, verb=verb, on=host, names=(host,), more={"links": chosen, "direction": direction})

    def _libvirt(self, at: float, verb: str, path: KeyPath) -> Line:
        host = self._name((*path, "host"), self._hosts, "host")
        state = self._choice((*path, "state"), words.LIBVIRT_STATES, "ok")
        return Line(at=at, verb=verb, on=host, names=(host,), more={"state": state})

    def _bmc(self, at: float, verb: str, path: KeyPath) -> Line:
        host = self._name((*path, "host"), self._hosts, "host")
        devices = tuple(device for level in self._hosts[host].fencing for device in level)
        device = self._choice((*path, "device"), devices, devices[0] if len(devices) == 1 else None)
        state = self._choice((*path, "state"), words.BMC_STATES, None)
        more = {"device": device, "state": state}
        if state != "swapped":
            return Line(at=at, verb=verb, on=host, names=(host,), more=more)
        other = self._name((*path, "with"), self._hosts, "host")
        if other == host or device not in (name for level in self._hosts[other].fencing for name in level):
            self._refuse((*path, "with"), f"must be another host with a device {device!r}")
        return Line(at=at, verb=verb, on=host, names=(host, other), more={**more, "with": other})

    def _redis(self, at: float, verb: str, path: KeyPath) -> Line:
        state = self._choice((*path, "state"), words.STORE_STATES, None)
        seconds = self._number((*path, "seconds"), 5.0, low=0, high=100_000)
        if state == "failover" and self._replicas == 0:
            self._refuse(path, "a store fails over only to a replica: give it `store: {replicas: 1}`")
        return Line(at=at, verb=verb, on=words.REDIS, names=(words.REDIS,), more={"state": state, "seconds": seconds})

    def _messages(self, at: float, verb: str, path: KeyPath) -> Line:
        more = {
            "drop": self._number((*path, "drop"), 0.0, low=0, high=1),
            "duplicate": self._number((*path, "duplicate"), 0.0, low=0, high=1),
            "delay": self._number((*path, "delay"), 0.0, low=0, high=86400),
            "for": self._number((*path, "for"), 60.0, low=0, high=100_000),
        }
        return Line(at=at, verb=verb, more=more)

    def _clock(self, at: float, verb: str, path: KeyPath) -> Line:
        host = self._name((*path, "host"), self._endpoints(), "host, controller or redis")
        jump = self._number((*path, "jump_s"), None, low=-1e7, high=1e7)
        return Line(at=at, verb=verb, on=host, names=(host,), more={"jump_s": jump})

    def _load(self, at: float, verb: str, path: KeyPath) -> Line:
        vm = self._name((*path, "vm"), self._vms, "VM")
        keys = [key for key in ("cpus_used", "memory_used_mib") if self._tree.get((*path, key)) is not None]
        if not keys:
            self._refuse(path, "must name cpus_used, memory_used_mib or both; what is left out stays as it is")
        more = {key: self._number((*path, key), None, low=0, high=1_000_000_000) for key in keys}
        return Line(at=at, verb=verb, on=vm, names=(vm,), more=more)

    def _start_fails(self, at: float, verb: str, path: KeyPath) -> Line:
        vm = self._name((*path, "vm"), self._vms, "VM")
        given = self._tree.get((*path, "hosts"))
        hosts = tuple(self._hosts) if given is None else self._names((*path, "hosts"), self._hosts, "host")
        times = self._whole((*path, "times"), 1, low=1)
        return Line(at=at, verb=verb, on=vm, names=(vm,), more={"hosts": hosts, "times": times})

    def _stop_fails(self, at: float, verb: str, path: KeyPath) -> Line:
        vm = self._name((*path, "vm"), self._vms, "VM")
        return Line(at=at, verb=verb, on=vm, names=(vm,), more={"times": self._whole((*path, "times"), 1, low=1)})

    def _migrate(self, at: float, verb: str, path: KeyPath) -> Line:
        vm = self._name((*path, "vm"), self._vms, "VM")
        to = self._name((*path, "to"), self._hosts, "host", missing="")
        return Line(at=at, verb=verb, on=vm, names=(vm,), more={"to": to})

    def _of_cluster(self, at: float, verb: str, path: KeyPath) -> Line:
        if verb == "resume":
            self._must_be_true(path)
            return Line(at=at, verb=verb)
        self._known(path, ("until",), verb)
        if self._tree.get((*path, "until")) is None:
            return Line(at=at, verb=verb)
        until = self._number((*path, "until"), None, low=0, high=1_000_000)
        if until <= at:
            self._refuse((*path, "until"), f"must be a later second than its own, {at:g}")
        return Line(at=at, verb=verb, more={"until": until})

    def _must_be_true(self, path: KeyPath) -> None:
        if self._tree.get(path) is not True:
            self._refuse(path, "must be true")

    def _roll(self, at: float, verb: str, path: KeyPath) -> Line:
        resume = self._choice((*path, "resume"), words.RESUMPTIONS, "")
        if resume and any(self._tree.get((*path, key)) is not None for key in ("hosts", "reboots")):
            self._refuse(path, "goes on as the roll was begun: neither hosts nor reboots can be changed with resume")
        given = self._tree.get((*path, "hosts"))
        hosts = tuple(self._hosts) if given is None else self._names((*path, "hosts"), self._hosts, "host")
        if not hosts or len(set(hosts)) < len(hosts):
            self._refuse((*path, "hosts"), "must name at least one host, and each once: it has one turn")
        fails_on = self._name((*path, "fails_on"), self._hosts, "host", missing="")
        if fails_on and fails_on not in hosts:
            self._refuse((*path, "fails_on"), "must be one of the hosts rolled over")
        more = {
            "hosts": hosts,
            "run_s": self._number((*path, "run_s"), 5.0, low=0, high=100_000),
            "reboots": self._bool((*path, "reboots"), False),
            "fails_on": fails_on,
            "resume": resume,
        }
        return Line(at=at, verb=verb, names=hosts, more=more)

    def _start_by_hand(self, at: float, verb: str, path: KeyPath) -> Line:
        vm = self._name((*path, "vm"), self._vms, "VM")
        host = self._name((*path, "host"), self._hosts, "host")
        return Line(at=at, verb=verb, on=vm, names=(vm, host), more={"host": host})

    def _strike(self, at: float, verb: str, path: KeyPath) -> Line:
        process = self._text((*path, "process"), "")
        role, _, name = process.partition(" ")
        known = self._hosts if role == "host" else self._controllers
        if role not in words.ROLES or name not in known:
            self._refuse((*path, "process"), "must be a role and a name, as `host host1` or `work c1`")
        point = self._choice((*path, "at_point"), tuple(POINTS), None)
        action = self._choice((*path, "action"), words.STRIKES, "kill")
        more = {
            "point": point,
            "subject": self._text((*path, "subject"), ""),
            "action": action,
            "seconds": self._number((*path, "seconds"), 10.0, low=0, high=100_000),
        }
        return Line(at=at, verb=verb, on=process, names=(name,), more=more)

    _VERBS: Mapping[str, Callable[[_Reader, float, str, KeyPath], Line]] = {
        "cut": _cut,
        "heal": _cut,
        "libvirt": _libvirt,
        "bmc": _bmc,
        "redis": _redis,
        "messages": _messages,
        "clock": _clock,
        "load": _load,
        "start_fails": _start_fails,
        "stop_fails": _stop_fails,
        "migrate_fails": _stop_fails,
        "migrate": _migrate,
        "relocate": _migrate,
        "start_by_hand": _start_by_hand,
        "roll": _roll,
        "strike": _strike,
    }

    # -- what is expected --

    def _expected(self) -> Expected:
        path: KeyPath = ("expect",)
        given = self._group(path)
        self._known(path, tuple(field.name for field in fields(Expected)))
        for key in ("placement", "within", "vms"):
            for name in self._group((*path, key)):
                if name not in self._vms:
                    self._refuse((*path, key, name), f"is no VM of this story{did_you_mean(name, self._vms)}")
        for name in self._group((*path, "hosts")):
            if name not in self._hosts:
                self._refuse((*path, "hosts", name), f"is no host of this story{did_you_mean(name, self._hosts)}")
        return Expected(
            fenced=self._names((*path, "fenced"), self._hosts, "host") if "fenced" in given else None,
            placement={
                vm: self._one_or_any((*path, "placement", vm), self._hosts) for vm in self._group((*path, "placement"))
            },
            within={vm: self._number((*path, "within", vm), None, low=0) for vm in self._group((*path, "within"))},
            never_moved=self._names((*path, "never_moved"), self._vms, "VM"),
            no_outage=self._names((*path, "no_outage"), self._vms, "VM"),
            hosts={h: self._choice((*path, "hosts", h), tuple(HostState), None) for h in self._group((*path, "hosts"))},
            vms={vm: self._choice((*path, "vms", vm), tuple(VmState), None) for vm in self._group((*path, "vms"))},
            refused=tuple(str(word) for word in self._list((*path, "refused"))) if "refused" in given else None,
            max_moves=self._whole((*path, "max_moves"), 0, low=0) if "max_moves" in given else None,
            alarms=tuple(str(word) for word in self._list((*path, "alarms"))),
            broken=tuple(str(word) for word in self._list((*path, "broken"))),
        )

    def _one_or_any(self, path: KeyPath, known: Mapping[str, object]) -> tuple[str, ...]:
        given = self._tree.get(path)
        if given in ("none", None):
            return ()
        return self._names(path, known, "host") if isinstance(given, list) else (self._name(path, known, "host"),)

    # -- values --

    def _refuse(self, path: KeyPath, rule: str) -> NoReturn:
        value = self._tree.get(path)
        shown = f" {value_text(path, value)}:" if value is not None and path else ""
        place = f"{self._tree.file}:{self._tree.line(path)}" if self._tree.lines else self._tree.file
        raise ScenarioRefused(f"{place}: {key_text(path) or '(file)'}:{shown} {rule}")

    def _known(self, path: KeyPath, known: Sequence[str], kind: str = "") -> None:
        for key in self._group(path):
            if key in words.NOT_BUILT_KEYS.get(kind, ()):
                self._refuse((*path, key), words.not_built("key", key))
            if key not in known:
                self._refuse((*path, key), f"is not a known key{did_you_mean(key, known)}")

    def _group(self, path: KeyPath) -> dict[str, object]:
        given = self._tree.get(path)
        if given is None and path:
            return {}
        if not isinstance(given, dict):
            self._refuse(path, "must be a group of keys")
        return cast("dict[str, object]", given)

    def _list(self, path: KeyPath) -> list[object]:
        given = self._tree.get(path)
        if given is None:
            return []
        if not isinstance(given, list):
            self._refuse(path, "must be a list")
        return given

    def _text(self, path: KeyPath, default: str) -> str:
        given = self._tree.get(path)
        return default if given is None else str(given)

    def _name(self, path: KeyPath, known: Mapping[str, object], kind: str, *, missing: str | None = None) -> str:
        given = self._tree.get(path)
        if given is None and missing is not None:
            return missing
        if not isinstance(given, str) or given not in known:
            hint = did_you_mean(str(given), known) if given is not None else ""
            self._refuse(path, f"must be a {kind} of this story{hint}")
        return given

    def _key(self, path: KeyPath, known: Mapping[str, object], kind: str) -> str:
        """Return the last part of a path, if it is such a name."""
        name = str(path[-1])
        if name not in known:
            self._refuse(path, f"must be a {kind} of this story{did_you_mean(name, known)}")
        return name

    def _names(self, path: KeyPath, known: Mapping[str, object], kind: str) -> tuple[str, ...]:
        return tuple(self._name((*path, i), known, kind) for i in range(len(self._list(path))))

    def _choice(self, path: KeyPath, known: Sequence[str], default: str | None) -> str:
        given = self._tree.get(path)
        if given is None and default is not None:
            return default
        if not isinstance(given, str) or given not in known:
            self._refuse(path, f"must be one of {', '.join(known)}{did_you_mean(str(given), known)}")
        return given

    def _number(self, path: KeyPath, default: float | None, *, low: float = -1e12, high: float = 1e12) -> float:
        given = self._tree.get(path)
        if given is None and default is not None:
            return default
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not low <= given <= high:
            self._refuse(path, f"must be a number from {low:g} to {high:g}")
        return float(given)

    def _whole(self, path: KeyPath, default: int, *, low: int = 0, high: int = 1_000_000_000) -> int:
        given = self._tree.get(path)
        if given is None:
            return default
        if isinstance(given, bool) or not isinstance(given, int) or not low <= given <= high:
            self._refuse(path, f"must be a whole number from {low} to {high}")
        return given

    def _bool(self, path: KeyPath, default: bool) -> bool:
        given = self._tree.get(path)
        if given is None:
            return default
        if not isinstance(given, bool):
            self._refuse(path, "must be true or false")
        return given
