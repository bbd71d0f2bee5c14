"""Who reaches whom: cuts of a machine's links, one way or both, and partitions. A cut lasts until it is healed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CLUSTER, STORAGE, BMC = "cluster", "storage", "bmc"
LINKS = (CLUSTER, STORAGE, BMC)


class Network:
    """Links of machines, by name. What is not cut passes."""

    def __init__(self) -> None:
        self._cuts: dict[tuple[str, str, str], None] = {}
        self._group: dict[str, int] = {}
        self.whole = True
        """Whether nothing at all is cut: then nobody has to ask further."""

    def cut(self, machine: str, links: Iterable[str], direction: str) -> None:
        for link in links:
            for way in ("in", "out") if direction == "both" else (direction,):
                self._cuts[machine, link, way] = None
        self._look()

    def heal(self, machine: str, links: Iterable[str], direction: str) -> None:
        for link in links:
            for way in ("in", "out") if direction == "both" else (direction,):
                self._cuts.pop((machine, link, way), None)
        self._look()

    def partition(self, groups: Sequence[Sequence[str]]) -> None:
        """Machines of different groups cannot talk; those of no group form one more."""
        self._group = {machine: number for number, group in enumerate(groups, start=1) for machine in group}
        self._look()

    def heal_all(self) -> None:
        self._cuts.clear()
        self._group.clear()
        self._look()

    def _look(self) -> None:
        self.whole = not self._cuts and not self._group

    def passes(self, sender: str, receiver: str, link: str = CLUSTER) -> bool:
        """Whether what one machine sends arrives at the other. Nothing leaves a machine that talks to itself."""
        if self.whole or sender == receiver:
            return True
        if (sender, link, "out") in self._cuts or (receiver, link, "in") in self._cuts:
            return False
        return link != CLUSTER or self._group.get(sender, 0) == self._group.get(receiver, 0)

    def both_ways(self, one: str, other: str, link: str = CLUSTER) -> bool:
        return self.whole or (self.passes(one, other, link) and self.passes(other, one, link))

    def to_device(self, machine: str, host: str) -> bool:
        """Whether a machine and a host's BMC reach each other: the link is never inside one machine."""
        ways = ((machine, "out"), (machine, "in"), (host, "in"), (host, "out"))
        return self.whole or not any((name, BMC, way) in self._cuts for name, way in ways)
