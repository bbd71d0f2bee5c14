"""What a storm can do: one fault of one kind to one target, as a plain value. Never does anything itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """Each is what `fangnetz lab` can do by hand."""

    KILL = "kill"
    """kill -9 of one process; its service manager starts it again."""
    FREEZE = "freeze"
    """One process stands still for a while."""
    HOST_FREEZE = "host_freeze"
    """A whole host stands still, its VMs too, and answers nothing; its storage link is silent as well."""
    CUT = "cut"
    """A link loses frames: both ways, or one way only."""
    POWER_OFF = "power_off"
    """The plug is pulled, and put back after a while if nobody else did."""
    BLINK = "blink"
    """Off and on again within two seconds."""
    BMC = "bmc"
    """A BMC is dark, slow, or refuses our password."""
    STORE_KILL = "store_kill"
    STORE_STOP = "store_stop"
    """Killed, and not started again for a while."""
    STORE_HANG = "store_hang"
    """Accepts connections and answers nothing."""
    STORE_WIPE = "store_wipe"
    STORE_ROLLBACK = "store_rollback"
    """Copied when the fault begins, put back to that copy when it ends."""
    STORE_PART = "store_part"
    """What the master writes reaches no replica."""
    STORE_FAILOVER = "store_failover"
    """The Sentinels are asked to make another Redis master."""
    POINT = "point"
    """A fault point is armed: each process of that role fails when it next passes there, if it does in time."""


HOST_FAULTS = frozenset({FaultKind.HOST_FREEZE, FaultKind.POWER_OFF, FaultKind.BLINK})
"""What takes a whole host away; a cut of its cluster link does so too."""
STORE_FAULTS = frozenset(
    {
        FaultKind.STORE_KILL,
        FaultKind.STORE_STOP,
        FaultKind.STORE_HANG,
        FaultKind.STORE_WIPE,
        FaultKind.STORE_ROLLBACK,
        FaultKind.STORE_PART,
        FaultKind.STORE_FAILOVER,
    }
)
MASTER = "master"
"""The target that means whichever Redis is master when the fault begins."""
NEW_LIFE = frozenset({FaultKind.STORE_WIPE, FaultKind.STORE_ROLLBACK})
"""What makes the store forget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `target`: a host, a controller, `redis`, or MACHINE/ROLE; `how`: direction, link or mode, by kind.

    Of a fault point `target` is the role whose processes are armed."""

    kind: FaultKind
    target: str
    how: str = ""

    @property
    def takes_host(self) -> bool:
        """Whether the host may be called lost for it."""
        return self.kind in HOST_FAULTS or (self.kind is FaultKind.CUT and self.target.startswith("host"))

    @property
    def machine(self) -> str:
        """The machine it is done to."""
        return self.target.partition("/")[0]

    @property
    def sentence(self) -> str:
        """What is done, for the story."""
        link, _, direction = self.how.partition(" ")
        return _SENTENCES[self.kind].format(
            target=self.target, how=self.how, link=link, ways=_WAYS.get(direction, direction)
        )


_WAYS = {"both": "both ways", "in": "towards it", "out": "from it"}
_SENTENCES = {
    FaultKind.KILL: "{target} is killed",
    FaultKind.FREEZE: "{target} is frozen",
    FaultKind.HOST_FREEZE: "{target} freezes, VMs and all",
    FaultKind.CUT: "the {link} link of {target} is cut {ways}",
    FaultKind.POWER_OFF: "the plug of {target} is pulled",
    FaultKind.BLINK: "{target} loses its power for a moment",
    FaultKind.BMC: "the BMC of {target} is {how}",
    FaultKind.STORE_KILL: "the store ({target}) is killed",
    FaultKind.STORE_STOP: "the store ({target}) is stopped",
    FaultKind.STORE_HANG: "the store ({target}) hangs",
    FaultKind.STORE_PART: "no replica hears the store ({target})",
    FaultKind.STORE_FAILOVER: "the Sentinels make another store master",
    FaultKind.STORE_WIPE: "the store is killed and comes back empty",
    FaultKind.STORE_ROLLBACK: "the store's state is copied, to go back to it",
    FaultKind.POINT: "fault point {how} is armed in every {target}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One line of a storm's plan: the fault, when it begins and for how long, in seconds since the storm began."""

    begins_s: float
    lasts_s: float
    fault: Fault

    @property
    def ends_s(self) -> float:
        return self.begins_s + self.lasts_s
