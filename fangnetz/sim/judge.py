"""Whether a story ended as its file expects. Looks at the truth: hypervisors, power, events, the last records."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from fangnetz.core.units import VmId
from fangnetz.sim.chronicle import Broken, went_on
from fangnetz.sim.libvirtd import Copy
from fangnetz.sim.world import World


def judge(world: World, final: dict[str, Any]) -> list[Broken]:
    """Return every expectation that was not met."""
    return _Judge(world, final).unmet


class _Judge:
    def __init__(self, world: World, final: dict[str, Any]) -> None:
        self._world, self._final, self._expected = world, final, world.story.expected
        self.unmet: list[Broken] = []
        self._fenced()
        self._placement()
        self._within()
        self._moves()
        self._states()
        self._refused()
        self._alarms()
        self._broken()

    def _miss(self, what: str, sentence: str, *, host: str = "", vm: str = "", t: float | None = None) -> None:
        self.unmet.append(Broken(self._world.kernel.now if t is None else t, what, sentence, host, vm))

    def _of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self._world.chronicle.events if event["kind"] == kind]

    def _copies(self, vm: str) -> list[Copy]:
        return self._world.chronicle.copies.get(VmId(vm), [])

    def _broken(self) -> None:
        found = {item.what for item in self._world.chronicle.broken}
        for law in sorted(set(self._expected.broken) - found):
            self._miss("broken", f"{law} was not broken, although the story does what breaks it")

    def _fenced(self) -> None:
        if self._expected.fenced is None:
            return
        proven = self._world.laws.proven  # not its event: whoever proved it may have died before telling
        seen, wanted = Counter(str(host) for host, _ in proven), Counter(self._expected.fenced)
        for host in sorted({*seen, *wanted}):
            if seen[host] != wanted[host]:
                self._miss("fenced", f"{host} was fenced {seen[host]} times, not {wanted[host]}", host=host)

    def _placement(self) -> None:
        for vm, hosts in self._expected.placement.items():
            there = [copy.host for copy in self._copies(vm) if copy.ended_at is None]
            if (not there and hosts) or any(host not in hosts for host in there):
                where = ", ".join(there) or "nowhere"
                self._miss("placement", f"{vm} runs on {where}, not on {' or '.join(hosts) or 'none'}", vm=vm)

    def _within(self) -> None:
        for vm, bound in self._expected.within.items():
            copies = self._copies(vm)
            for before, after in zip(copies, [*copies[1:], None], strict=True):
                if before.ended_at is None:
                    continue
                since = self._cause(vm, before)
                if after is None:
                    self._miss("within", f"{vm} did not run again", vm=vm, t=before.ended_at)
                elif after.since - since > bound:
                    took = after.since - since
                    self._miss("within", f"{vm} ran again after {took:.1f} s, not {bound:g}", vm=vm, t=after.since)

    def _cause(self, vm: str, copy: Copy) -> float:
        """Return when the last line before an outage named this VM or its host."""
        ended = copy.ended_at if copy.ended_at is not None else self._world.kernel.now
        named = [line.at for line in self._world.story.timeline if line.at <= ended and {vm, copy.host} & {*line.names}]
        return named[-1] if named else ended

    def _moves(self) -> None:
        for vm in self._expected.never_moved:
            if len({copy.host for copy in self._copies(vm)}) > 1:
                self._miss("never_moved", f"{vm} moved", vm=vm)
        for vm in self._expected.no_outage:
            copies = self._copies(vm)
            handed = [one for one, two in pairwise(copies) if went_on(one, two)]
            if any(copy.ended_at is not None and copy not in handed for copy in copies) or not copies:
                self._miss("no_outage", f"{vm} was down", vm=vm)
        moves = sum(
            1
            for copies in self._world.chronicle.copies.values()
            for one, two in pairwise(copies)
            if one.host != two.host
        )
        if self._expected.max_moves is not None and moves > self._expected.max_moves:
            self._miss("max_moves", f"VMs moved {moves} times, more than {self._expected.max_moves}")

    def _states(self) -> None:
        for host, wanted in self._expected.hosts.items():
            state = self._final["hosts"][host]["state"]
            if state != wanted:
                self._miss("hosts", f"{host} is {state}, not {wanted}", host=host)
        for vm, wanted in self._expected.vms.items():
            state = self._final["vms"].get(vm, {}).get("state", "not known")
            if state != wanted:
                self._miss("vms", f"{vm} is {state}, not {wanted}", vm=vm)

    def _refused(self) -> None:
        if self._expected.refused is None:
            return
        refused = self._of_kind("wish_refused")
        seen = {f"{event['wish']} {event.get('host') or event.get('vm') or ''}".strip() for event in refused}
        for wish in sorted({*self._expected.refused} ^ seen):
            said = "was refused" if wish in seen else "was not refused"
            self._miss("refused", f"{wish} {said}")

    def _alarms(self) -> None:
        seen = {event["what"] for event in self._of_kind("alarm")}
        for kind in self._expected.alarms:
            if kind not in seen:
                self._miss("alarms", f"there was no alarm {kind}")
