"""One storm over a lab that is up: faults by plan, eyes on everything, then all is healed and must be whole again.

It stops at once when two copies of a VM lived at the same time: what follows would only cover the traces.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fangnetz.core.errors import FangnetzError
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.lab.storm.copies import unproven_starts
from fangnetz.lab.storm.ear import Ear
from fangnetz.lab.storm.faults import Fault, FaultKind, Planned
from fangnetz.lab.storm.hands import Hands
from fangnetz.lab.storm.laws import Done, PowerCommand
from fangnetz.lab.storm.person import Person
from fangnetz.lab.storm.plan import Cast, storm_plan
from fangnetz.lab.storm.points import points_by_role
from fangnetz.lab.storm.tally import Seen, figures, violations
from fangnetz.lab.storm.truth import Truth
from fangnetz.lab.verdict import writing_now

WHOLE_WITHIN_S = 240.0
"""After everything was healed: an attempt under way has its bound (a start that nobody answers: 60 s, a fence 90 s),
hosts boot and rejoin, and the VMs that waited start."""
CHECK_EVERY_S = 1.0
CALM_FOR_S = 3.0

Say = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Storm:
    """What one storm left: its result line and its story, a sentence a line."""

    result: dict[str, Any]
    story: list[str]

    @property
    def violations(self) -> list[str]:
        found: list[str] = self.result["violations"]
        return found


def cast_of(lab: Lab) -> Cast:
    """Return who may be hit in this lab."""
    return Cast(
        hosts=lab.plan.hosts,
        controllers=lab.plan.controllers,
        vms=lab.plan.vms,
        stores=lab.plan.stores,
        points=tuple(points_by_role().items()),
    )


def blow(lab: Lab, seed: int, seconds: float, say: Say = lambda _: None) -> Storm:
    """Let a storm of so many seconds pass over the lab; it is healed afterwards, whatever came of it.

    Raises LabError if the lab itself cannot be healed.
    """
    plan = storm_plan(seed, seconds, cast_of(lab))
    with Truth(lab.plan) as truth, Ear(lab) as ear, Person(lab, truth) as person:
        return _Run(lab, plan, truth, ear, person, say).through(seed, seconds)


class _Run:
    """One storm from its first fault to the judgement."""

    def __init__(self, lab: Lab, plan: tuple[Planned, ...], truth: Truth, ear: Ear, person: Person, say: Say) -> None:
        self._lab, self._plan, self._truth, self._ear, self._person, self._say = lab, plan, truth, ear, person, say
        self._hands = Hands(lab)
        self._done: dict[int, Done] = {}
        self._notes: list[tuple[float, str]] = []
        self._blind: list[str] = []
        self._checked_at = 0.0
        self._witness: dict[str, Any] = lab.witness()
        self._began_at = time.time()

    def through(self, seed: int, seconds: float) -> Storm:
        stopped = self._faults()
        healed_at = time.time()
        unrest = "it was stopped at once, for two copies of a VM lived" if stopped else ""
        self._hands.heal()
        self._end_all(healed_at)
        self._note(healed_at, "everything is healed")
        if not stopped:
            unrest = self._until_whole()
        whole_s = round(time.time() - healed_at, 1)
        seen = self._seen(unrest)
        found = violations(seen)
        result = {
            "seed": seed,
            "began_at": round(self._began_at, 3),
            "seconds": round(seen.ended_at - self._began_at, 1),
            "asked_s": seconds,
            "policy": self._lab.plan.policy,
            "hosts": len(self._lab.plan.hosts),
            "vms": len(self._lab.plan.vms),
            **figures(seen),
            "whole_again_s": None if unrest else whole_s,
            "person": dict(self._person.deeds),
            "violations": list(found),
        }
        return Storm(result=result, story=self._story(seen))

    # -- faults --

    def _faults(self) -> bool:
        """Do and undo what is planned, each at its time; True if it was stopped at once."""
        todo = sorted(
            [(each.begins_s, 1, number) for number, each in enumerate(self._plan)]
            + [(each.ends_s, 0, number) for number, each in enumerate(self._plan)],
            key=lambda item: (item[0], item[2], -item[1]),
        )
        for at_s, begins, number in todo:
            while (left := self._began_at + at_s - time.time()) > 0:
                if self._check():
                    return True
                time.sleep(min(left, 0.1))
            if begins:
                self._begin(number)
            elif number in self._done:
                self._finish(number)
        return self._check()

    def _begin(self, number: int) -> None:
        fault = self._plan[number].fault
        at = time.time()
        trouble = self._hands.do(fault)
        self._done[number] = Done(fault=fault, began_at=at, ended_at=float("inf"), note=trouble)
        lasts = f" for {self._plan[number].lasts_s:.1f} s" if self._plan[number].lasts_s else ""
        self._note(at, f"{fault.sentence}{lasts}" + (f" – not done: {trouble}" if trouble else ""))

    def _finish(self, number: int) -> None:
        done = self._done[number]
        at = time.time()
        trouble = "" if done.note else self._hands.undo(done.fault)
        self._done[number] = replace(done, ended_at=time.time())
        if not done.note and self._plan[number].lasts_s:
            self._note(at, f"{_over(done.fault)}{f' – {trouble}' if trouble else ''}")

    def _end_all(self, at: float) -> None:
        for number, done in self._done.items():
            if done.ended_at == float("inf"):
                self._done[number] = replace(done, ended_at=at)

    # -- watching --

    def _check(self) -> bool:
        """Look at what must never be; True if two copies live."""
        now = time.monotonic()
        if now - self._checked_at < CHECK_EVERY_S:
            return False
        self._checked_at = now
        with self._ear.lock:
            view = self._ear.view
        self._person.look(view)
        if self._truth.error and self._truth.error not in self._blind:
            self._blind.append(self._truth.error)
        try:
            self._witness = self._lab.witness()
        except LabError as error:
            if str(error) not in self._blind:
                self._note(time.time(), str(error))
                self._blind.append(str(error))
        return bool(self._witness["overlaps"] or unproven_starts(self._truth.copies()))

    def _until_whole(self) -> str:
        """Wait until the cluster is at its best again and every VM writes; return what lacks, or nothing."""
        until = time.monotonic() + WHOLE_WITHIN_S
        calm_since: float | None = None
        while True:
            self._check()
            unrest = self._unrest()
            now = time.monotonic()
            calm_since = None if unrest else (calm_since if calm_since is not None else now)
            if calm_since is not None and now - calm_since >= CALM_FOR_S:
                return ""
            if now > until:
                return unrest or "it only just is"
            time.sleep(0.5)

    def _unrest(self) -> str:
        try:
            unrest = self._ear.onlooker.unrest()
        except FangnetzError as error:
            return str(error)
        silent = sorted(set(self._lab.plan.vms) - writing_now(self._witness))
        return unrest or (f"nobody writes on {', '.join(silent)}" if silent else "")

    def _seen(self, unrest: str) -> Seen:
        self._check()
        now = time.time()
        with self._ear.lock:
            away = self._ear.away(now)
            if self._ear.error:
                self._blind.append(self._ear.error)
        if not unrest and now - self._ear.heard_at > 10.0:
            self._blind.append(f"the store did not answer us for {now - self._ear.heard_at:.0f} s at the end")
        return Seen(
            began_at=self._began_at,
            ended_at=now,
            done=tuple(self._done.values()),
            copies=self._truth.copies(),
            commands=self._commands(),
            chronicle=self._ear.chronicle,
            away=away,
            witness=self._witness,
            unrest=unrest,
            blind=tuple(self._blind),
        )

    def _commands(self) -> tuple[PowerCommand, ...]:
        """Return what the BMCs were told since the storm began, from their own logs."""
        boots = self._truth.boots()
        found: list[PowerCommand] = []
        for host in self._lab.plan.hosts:
            log = self._lab.plan.folder / "bmc" / host / "power.log"
            for line in log.read_text().splitlines() if log.exists() else ():
                at, to, _mode = line.split()
                if float(at) < self._began_at:
                    continue
                was_on = any(b.host == host and b.seen_from <= float(at) <= b.seen_until + 0.3 for b in boots)
                found.append(PowerCommand(host=host, at=float(at), off=to == "0", was_on=was_on))
        return tuple(sorted(found, key=lambda command: command.at))

    # -- the story --

    def _note(self, at: float, sentence: str) -> None:
        self._notes.append((at, sentence))
        self._say(f"{at - self._began_at:8.2f} s  {sentence}")

    def _story(self, seen: Seen) -> list[str]:
        lines = [(at, f"storm    {sentence}") for at, sentence in self._notes]
        lines += [(at, f"person   {sentence}") for at, sentence in self._person.said]
        lines += [
            (each.at, f"{'ALARM' if each.highest else 'cluster'}  {each.kind}: {each.sentence}")
            for each in self._ear.said
        ]
        lines += [
            (
                copy.started_at,
                f"qemu     {copy.vm} begins on {copy.host} (pid {copy.pid}, generation {copy.generation})",
            )
            for copy in seen.copies
        ]
        lines += [
            (copy.ended_at, f"qemu     {copy.vm} ends on {copy.host} (pid {copy.pid})")
            for copy in seen.copies
            if not copy.alive
        ]
        lines += [
            (command.at, f"bmc      {command.host} is told to switch {'off' if command.off else 'on'}")
            for command in seen.commands
        ]
        lines += [
            (boot["first_at"], f"witness  {vm} writes as boot {boot['boot'][:6]}")
            for vm, disk in seen.witness["vms"].items()
            for boot in disk["boots"]
        ]
        begin = self._began_at - 1.0
        return [f"{at - self._began_at:8.2f} s  {line}" for at, line in sorted(lines) if at >= begin]


def _over(fault: Fault) -> str:
    match fault.kind:
        case FaultKind.POWER_OFF | FaultKind.BLINK:
            return f"{fault.target} has power again"
        case FaultKind.STORE_ROLLBACK:
            return "the store is put back to its copy"
        case _:
            return f"over: {fault.sentence}"
