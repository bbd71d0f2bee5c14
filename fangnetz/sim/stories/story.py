"""A story as plain values: the cluster, what happens to it and when, and what is expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fangnetz.core.model import NO_RULES, Rules
from fangnetz.core.policy import Fallback, Policy
from fangnetz.core.retries import NO_RETRIES, Retries


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOfStory:
    name: str
    cpus: int = 8
    memory_mib: int = 32768
    fencing: tuple[tuple[str, ...], ...] = (("ipmi",),)
    powered: bool = True
    zone: str = ""
    times: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmOfStory:
    name: str
    host: str
    cpus: int = 1
    memory_mib: int = 1024
    priority: int = 0
    wish: str = "running"
    running: bool | None = None
    rules: Rules = NO_RULES
    live: bool = True
    retries: Retries = NO_RETRIES
    fallback: Fallback | None = None
    times: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the timeline. `names`: hosts, VMs and controllers it is about; `more`: the verb's own words."""

    at: float
    verb: str
    on: str = ""
    names: tuple[str, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the story must end with; None: nothing is said about it."""

    fenced: tuple[str, ...] | None = None
    placement: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    within: Mapping[str, float] = field(default_factory=dict)
    never_moved: tuple[str, ...] = ()
    no_outage: tuple[str, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    vms: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] | None = None
    max_moves: int | None = None
    alarms: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    """Laws that the story itself breaks, as nobody could keep them: what counts is what is done about it afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    name: str
    about: str = ""
    hosts: tuple[HostOfStory, ...]
    controllers: Mapping[str, str]
    """Controller -> the host whose fate it shares, or an empty string."""
    store_host: str = ""
    replicas: int = 0
    slots: bool = True
    """Whether each host keeps a slot on the shared storage."""
    vms: tuple[VmOfStory, ...]
    times: Mapping[str, float] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    timeline: tuple[Line, ...] = ()
    until: float = 300.0
    expected: Expected = field(default_factory=Expected)
    data: Mapping[str, object] = field(default_factory=dict)
    """The file it was read from, as plain data."""


WORLD_TIMES: Mapping[str, float] = {
    "boot_s": 60,
    "shutdown_s": 10,
    "start_s": 2,
    "stop_s": 5,
    "guest_up_s": 5,
    "fence_s": 1,
    "migrate_s": 10,
}
HOST_TIMES = ("boot_s", "shutdown_s", "fence_s")
VM_TIMES = ("start_s", "stop_s", "guest_up_s", "migrate_s")
