"""A roll in the hands of the person at the command line: the engine's own, with a command that takes a while."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fangnetz.core.errors import Conflict, FangnetzError, StoreUnreachable, WishRefused, WorldError
from fangnetz.core.model import Leaving, Wish, WishKind
from fangnetz.core.roll.begin import begun
from fangnetz.core.roll.values import Limits, Resumption, Roll, Seen
from fangnetz.core.units import HostId, Instant, Seconds
from fangnetz.engine.observe import overlook
from fangnetz.engine.rolling import HAND_S, CommandEnded, Rolling, refuse_while_unfinished, take_in_hand, taken_up
from fangnetz.ports import Operators
from fangnetz.sim.machine import Machine
from fangnetz.sim.process import Process
from fangnetz.sim.store.line import ServerLine
from fangnetz.sim.store.twin import StoreTwin

if TYPE_CHECKING:
    from fangnetz.sim.world import World

ANSWER_S = 15.0
ASK_EVERY_S = Seconds(0.1)
"""As the command line waits for a controller's answer."""
RENEW_EVERY_S = Seconds(1.0)
LIMITS = Limits(return_s=Seconds(300.0), moves_s=Seconds(300.0), command_s=Seconds(300.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a line of the story says of a roll. `fails_on`: where the administrator's command fails, each time."""

    hosts: tuple[HostId, ...]
    run_s: Seconds
    reboots: bool
    fails_on: str
    resume: Resumption | None


class Rolls:
    """The rolls of one story, one at a time: each line begins a process of its own."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world, self._machine = world, machine
        self._process: Process | None = None

    def begin(self, course: Course) -> None:
        self._process = process = self._machine.run("roll", self._world.failed)
        hands = SimHands(self._world, self._machine, process, course)
        process.spawn("roll", lambda: self._carry_out(hands, course))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _carry_out(self, hands: SimHands, course: Course) -> None:
        try:
            rolling = Rolling(hands, self._taken_in_hand(hands, course))
            well = rolling.drive()
            sentence = rolling.sentence
        except WishRefused as refused:
            self._world.chronicle.tell("roll_refused", f"the roll is refused: {refused}")
        except Conflict as taken:
            self._world.chronicle.tell("roll_taken", str(taken))
        except FangnetzError as away:
            self._world.chronicle.tell("roll_refused", f"the roll does not begin: {away}")
        else:
            self._world.chronicle.tell("roll_done" if well else "roll_stopped", sentence)

    def _taken_in_hand(self, hands: SimHands, course: Course) -> Roll:
        with hands.asking() as store:
            stands, now = store.roll(), store.now()
        seen, token = hands.look(), self._world.kernel.name("r")
        if course.resume is not None:
            if stands is None:
                raise WishRefused("the store knows of no roll to go on with")
            wanted = taken_up(stands, seen, course.resume, token)
        else:
            refuse_while_unfinished(stands)
            new = Roll(
                id=token[:8], by="operator", began_at=now, hosts=course.hosts, command=("work",), limits=LIMITS,
                reboots=course.reboots, token=token, until=Instant(now + HAND_S),
            )  # fmt: skip
            wanted = begun(new, seen)
        take_in_hand(wanted, stands, seen, hands)
        return wanted


class SimHands:
    """`engine.rolling.Hands`."""

    def __init__(self, world: World, machine: Machine, process: Process, course: Course) -> None:
        self._world, self._process, self._course = world, process, course
        self._store = StoreTwin(ServerLine(process, machine, world.server, world.network))

    def monotonic(self) -> float:
        return self._process.monotonic()

    def sleep(self, span: Seconds) -> None:
        self._process.sleep(span)

    def asking(self) -> AbstractContextManager[Operators]:
        return nullcontext(self._store)

    def look(self) -> Seen:
        return overlook(self._store, self._world.hosts, self._world.policy)

    def wish(self, kind: WishKind, host: HostId, *, by: str, failback: bool) -> Wish:
        name, now = self._world.kernel.name("w"), self._store.now()
        wish = Wish(id=name, kind=kind, subject=host, by=by, at=now, failback=failback)
        self._store.add_wish(wish)
        return wish

    def answer(self, wish: Wish) -> str:
        end = self.monotonic() + ANSWER_S
        while True:
            late = self.monotonic() >= end
            try:
                result = self._store.wish_result(wish.id)
            except StoreUnreachable:
                if late:
                    raise
                result = None
            if result is not None and not result.granted:
                raise WishRefused(result.sentence)
            if result is not None:
                return result.sentence
            if late:
                raise WorldError(f"no controller has answered the wish {wish.kind} {wish.subject}")
            self.sleep(ASK_EVERY_S)

    def run(self, roll: Roll, host: HostId, renew: Callable[[], None]) -> CommandEnded:
        """Work on the host for a while; where the command reboots it, that begins as it ends."""
        self.show(roll, f"{host}: {' '.join(roll.command)}")
        bound = roll.limits.command_s
        end = self.monotonic() + min(self._course.run_s, bound)
        while (left := end - self.monotonic()) > 0:
            self.sleep(Seconds(min(left, RENEW_EVERY_S)))
            renew()
        if self._course.run_s > bound:
            return CommandEnded(exit_code=None, output="")
        if host == self._course.fails_on:
            return CommandEnded(exit_code=1, output="it does not work")
        if roll.reboots:
            kernel = self._world.kernel
            kernel.at(kernel.now, self._world.shutdowns[host].begin, Leaving.REBOOT)
        return CommandEnded(exit_code=0, output="")

    def show(self, roll: Roll, words: str) -> None:
        """A person's terminal shows what is waited for; the story tells only how it ends."""
