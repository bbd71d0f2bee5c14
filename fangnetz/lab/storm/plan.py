"""A seed becomes a plan of faults: what, to whom, when, for how long. Pure; the same seed gives the same plan.

Faults come in flurries: one that takes a host away draws others after it within seconds, for that is when they hurt.
What no cluster survives without a person is left out: no lying BMC, and never more hosts away at once than one plus,
seldom, another.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fangnetz.lab.storm.faults import MASTER, NEW_LIFE, STORE_FAULTS, Fault, FaultKind, Planned

PAUSE_S = (3.0, 15.0)
"""Between two flurries."""
FOLLOWS_AFTER_S = (0.2, 7.0)
"""Between a fault that takes a host away and what comes on top of it."""
FOLLOWERS_MAX = 3
DRAWS_MAX = 4
"""What may not be at this moment is drawn anew so often; then nothing happens."""
CALM_AFTER_HOST_S = 14.0
"""A host that was away is left alone for so long, or nothing would ever be recovered to the end."""
CALM_AFTER_STORE_S = 12.0
"""So is the store after it forgot: its hold and one lease must have a chance to pass."""
QUIET_BEFORE_END_S = 3.0
SECOND_HOST_CHANCE = 0.12
QEMU_FAULTS_MAX = 3
"""Of each VM: one that ends by itself five times is rightly called failed."""
CONTROLLER_ROLES = ("control", "work", "fence", "beat")
HOST_ROLES = ("worker", "worker", "worker", "libvirtd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who may be hit."""

    hosts: tuple[str, ...]
    controllers: tuple[str, ...]
    vms: tuple[str, ...] = ()
    stores: tuple[str, ...] = ("redis",)
    points: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Role -> fault points that may be armed in its processes, as `POINT:ACTION`."""


_SINGLES: Sequence[tuple[int, FaultKind]] = (
    (22, FaultKind.POWER_OFF),
    (5, FaultKind.BLINK),
    (13, FaultKind.HOST_FREEZE),
    (20, FaultKind.CUT),
    (14, FaultKind.KILL),
    (10, FaultKind.FREEZE),
    (8, FaultKind.BMC),
    (6, FaultKind.STORE_KILL),
    (3, FaultKind.STORE_STOP),
    (5, FaultKind.STORE_HANG),
    (4, FaultKind.STORE_WIPE),
    (4, FaultKind.STORE_ROLLBACK),
    (12, FaultKind.POINT),
)
_FOLLOWERS: Sequence[tuple[int, FaultKind]] = (
    (10, FaultKind.KILL),
    (8, FaultKind.FREEZE),
    (7, FaultKind.BMC),
    (6, FaultKind.STORE_KILL),
    (3, FaultKind.STORE_STOP),
    (4, FaultKind.STORE_HANG),
    (3, FaultKind.STORE_WIPE),
    (2, FaultKind.STORE_ROLLBACK),
    (14, FaultKind.POINT),
    (4, FaultKind.CUT),
)
_OF_THE_MASTER = frozenset({FaultKind.STORE_FAILOVER, FaultKind.STORE_PART})
_LASTS_S: dict[FaultKind, tuple[float, float]] = {
    FaultKind.KILL: (0.0, 0.0),
    FaultKind.FREEZE: (1.0, 18.0),
    FaultKind.HOST_FREEZE: (1.5, 30.0),
    FaultKind.CUT: (1.5, 30.0),
    FaultKind.POWER_OFF: (4.0, 40.0),
    FaultKind.BLINK: (0.0, 2.0),
    FaultKind.BMC: (5.0, 60.0),
    FaultKind.STORE_KILL: (0.0, 0.0),
    FaultKind.STORE_STOP: (2.0, 15.0),
    FaultKind.STORE_HANG: (1.0, 20.0),
    FaultKind.STORE_WIPE: (0.0, 0.0),
    FaultKind.STORE_ROLLBACK: (2.0, 25.0),
    FaultKind.STORE_FAILOVER: (0.0, 0.0),
    FaultKind.STORE_PART: (1.0, 8.0),
    FaultKind.POINT: (8.0, 25.0),
}


def storm_plan(seed: int, seconds: float, cast: Cast) -> tuple[Planned, ...]:
    """Return the plan of a storm of so many seconds, by time; every fault of it has ended by then."""
    return tuple(sorted(_Weather(seed, seconds, cast).blow(), key=lambda planned: planned.begins_s))


class _Weather:
    """Draws flurry after flurry, remembering until when each host and the store are not to be hit again."""

    def __init__(self, seed: int, seconds: float, cast: Cast) -> None:
        self._chance = random.Random(seed)
        self._end_s = seconds - QUIET_BEFORE_END_S
        self._cast = cast
        self._host_free_at = dict.fromkeys(cast.hosts, 0.0)
        self._store_free_at = 0.0
        self._machine_free_at: dict[str, float] = {}
        self._qemu_faults = dict.fromkeys(cast.vms, 0)

    def blow(self) -> Iterator[Planned]:
        now = self._chance.uniform(*PAUSE_S) / 3
        while now < self._end_s:
            draws = (self._draw(_SINGLES, now) for _ in range(DRAWS_MAX))
            first = next((drawn for drawn in draws if drawn is not None), None)
            if first is not None:
                yield first
                if first.fault.takes_host:
                    yield from self._followers(first)
            now += self._chance.uniform(*PAUSE_S)

    def _followers(self, first: Planned) -> Iterator[Planned]:
        at = first.begins_s
        for _ in range(self._chance.randint(0, FOLLOWERS_MAX)):
            at += self._chance.uniform(*FOLLOWS_AFTER_S)
            more = self._draw(_FOLLOWERS, at, about=first.fault.machine)
            if more is not None:
                yield more

    def _draw(self, kinds: Sequence[tuple[int, FaultKind]], now: float, about: str = "") -> Planned | None:
        """Draw one fault that may begin now, or none. `about`: the host that is being taken away already."""
        weights = [weight for weight, _ in kinds]
        kind = self._chance.choices([kind for _, kind in kinds], weights)[0]
        lasts = self._chance.uniform(*_LASTS_S[kind])
        fault = self._fault(kind, now, about)
        if fault is None or not now + lasts < self._end_s:
            return None
        planned = Planned(begins_s=round(now, 3), lasts_s=round(lasts, 3), fault=fault)
        self._remember(planned)
        return planned

    def _fault(self, kind: FaultKind, now: float, about: str) -> Fault | None:
        chance, cast = self._chance, self._cast
        match kind:
            case FaultKind.POWER_OFF | FaultKind.BLINK | FaultKind.HOST_FREEZE:
                host = self._host(now)
                return Fault(kind=kind, target=host) if host else None
            case FaultKind.CUT:
                return self._cut(now, about)
            case FaultKind.BMC:
                host = about if about and chance.random() < 0.8 else chance.choice(cast.hosts)
                if self._busy(f"bmc-{host}", now):
                    return None
                return Fault(kind=kind, target=host, how=chance.choice(("dark", "dark", "slow", "wrong-password")))
            case FaultKind.KILL | FaultKind.FREEZE:
                target = self._process(kind)
                return Fault(kind=kind, target=target) if target and not self._busy(target, now) else None
            case FaultKind.POINT:
                if not cast.points:
                    return None
                role, points = chance.choice(cast.points)
                free = not self._busy(f"points {role}", now)
                return Fault(kind=kind, target=role, how=chance.choice(points)) if free else None
            case _:
                return self._store(kind, now)

    def _store(self, kind: FaultKind, now: float) -> Fault | None:
        """Of several stores the master is hit most; they are neither emptied nor put back, since each has copies."""
        if now < self._store_free_at:
            return None
        several = len(self._cast.stores) > 1
        if several and kind in NEW_LIFE:
            kind = FaultKind.STORE_FAILOVER if kind is FaultKind.STORE_WIPE else FaultKind.STORE_PART
        target = self._chance.choice((MASTER, MASTER, *self._cast.stores)) if several else self._cast.stores[0]
        return Fault(kind=kind, target=MASTER if kind in _OF_THE_MASTER else target)

    def _host(self, now: float) -> str:
        """Return a host that may be taken away now; empty if none may."""
        away = [host for host, free_at in self._host_free_at.items() if free_at > now]
        if away and (len(away) > 1 or self._chance.random() >= SECOND_HOST_CHANCE):
            return ""
        return self._chance.choice([host for host in self._cast.hosts if host not in away])

    def _cut(self, now: float, about: str) -> Fault | None:
        chance, cast = self._chance, self._cast
        direction = chance.choice(("both", "both", "in", "out"))
        choices = ["controller", "controller_bmc", "redis"] if about else ["host"] * 5 + ["controller", "redis"]
        match chance.choice(choices):
            case "host":
                target, link = self._host(now), "cluster"
            case "redis":
                store = self._store(FaultKind.CUT, now)
                target, link = (store.target if store else ""), "cluster"
            case "controller_bmc":
                target, link = chance.choice(cast.controllers), "bmc"
            case _:
                target, link = chance.choice(cast.controllers), "cluster"
        if not target or self._busy(f"{target} {link}", now):
            return None
        return Fault(kind=FaultKind.CUT, target=target, how=f"{link} {direction}")

    def _process(self, kind: FaultKind) -> str:
        """Return a process to hit; a VM's own QEMU is killed now and then, for VMs crash too."""
        chance, cast = self._chance, self._cast
        drawn = chance.random()
        if drawn < 0.35:
            return f"{chance.choice(cast.hosts)}/{chance.choice(HOST_ROLES)}"
        if drawn < 0.92 or kind is FaultKind.FREEZE or not cast.vms:
            return f"{chance.choice(cast.controllers)}/{chance.choice(CONTROLLER_ROLES)}"
        vm = chance.choice(cast.vms)
        if self._qemu_faults[vm] >= QEMU_FAULTS_MAX:
            return ""
        self._qemu_faults[vm] += 1
        return f"{vm}/qemu"

    def _busy(self, target: str, now: float) -> bool:
        return self._machine_free_at.get(target, 0.0) > now

    def _remember(self, planned: Planned) -> None:
        fault, ends = planned.fault, planned.ends_s
        if fault.takes_host:
            self._host_free_at[fault.target] = ends + CALM_AFTER_HOST_S
        if fault.kind in STORE_FAULTS or (fault.kind is FaultKind.CUT and fault.target in (MASTER, *self._cast.stores)):
            self._store_free_at = ends + (CALM_AFTER_STORE_S if fault.kind in NEW_LIFE else 1.0)
        match fault.kind:
            case FaultKind.BMC:
                self._machine_free_at[f"bmc-{fault.target}"] = ends
            case FaultKind.CUT:
                self._machine_free_at[f"{fault.target} {fault.how.partition(' ')[0]}"] = ends
            case FaultKind.POINT:
                self._machine_free_at[f"points {fault.target}"] = ends
            case FaultKind.KILL | FaultKind.FREEZE:
                self._machine_free_at[fault.target] = ends + 2.0
            case _:
                pass
