"""A client's connection to the server: time on the wire, cuts, time-outs, answers that are lost.

What was sent may arrive long after its sender gave up: its system goes on sending for a while. A broken connection is
tried once more, a silent one is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fangnetz.core.errors import StoreUnreachable
from fangnetz.sim.machine import Boot, Machine
from fangnetz.sim.network import Network
from fangnetz.sim.process import Process, Wait
from fangnetz.sim.store.server import Raised, Server

CONNECT_TIMEOUT_S = 1.0
SENDS_ON_S = 30.0
"""So long a system repeats what nobody acknowledged."""
WIRE_S = 0.0002
"""One way, at least; as much again by chance."""

SILENT, BROKEN = "TimeoutError", "ConnectionError"


class ServerLine:
    """`store.twin.Line` over the network."""

    def __init__(
        self, process: Process, machine: Machine, server: Server, network: Network, timeout_s: float = 2.0
    ) -> None:
        self._process, self._kernel, self._machine = process, process.kernel, machine
        self._server, self._network, self._timeout = server, network, timeout_s
        self._here, self._there = machine.name, server.machine.name
        self._chance = process.kernel.chance.random
        self._connected = False

    def __call__(self, script: Callable[..., Any], *args: Any, confirmed: bool = False) -> Any:
        answer = self._try(script, args, confirmed)
        if answer is BROKEN:
            answer = self._try(script, args, confirmed)
        if answer is SILENT or answer is BROKEN:
            self._connected = False
            raise StoreUnreachable(f"the store did not answer: {answer}")
        if isinstance(answer, Raised):
            raise answer.error
        return answer

    def _try(self, script: Callable[..., Any], args: tuple[Any, ...], confirmed: bool) -> Any:
        kernel, server = self._kernel, self._server
        wait = self._process.wait()
        joined = self._network.whole or self._network.both_ways(self._here, self._there)
        if not self._connected:
            if not joined or not server.machine.up:
                kernel.after(min(CONNECT_TIMEOUT_S, self._timeout), wait.wake, SILENT)
                return self._process.give_way()
            if not server.listening:
                kernel.after(WIRE_S, wait.wake, BROKEN)
                return self._process.give_way()
            self._connected = True
        until = kernel.now + self._timeout
        arrives = kernel.now + WIRE_S * (1 + self._chance())
        if not joined or not server.listening or server.stopped or not kernel.skip_to(arrives):
            kernel.at(arrives, self._arrive, wait, until, 0.2, script, args, confirmed)
            return self._process.give_way()
        answer = server.serve(script, args, confirmed=confirmed)
        answered = kernel.now + WIRE_S * (1 + self._chance())
        if not kernel.skip_to(answered):
            kernel.at(answered, self._reply, wait, until, 0.2, answer)
            return self._process.give_way()
        return answer

    def _arrive(
        self, wait: Wait, until: float, again: float, script: Callable[..., Any], args: tuple[Any, ...], confirmed: bool
    ) -> None:
        kernel, server = self._kernel, self._server
        if not self._network.passes(self._here, self._there) or not server.machine.up:
            kernel.at(until, wait.wake, SILENT)
            if kernel.now < until + SENDS_ON_S:
                boot = self._machine.boot
                kernel.after(again, self._send_again, boot, wait, until, 2 * again, script, args, confirmed)
            return
        if not server.listening:
            kernel.after(WIRE_S, wait.wake, BROKEN)
            return
        if server.stopped:
            kernel.at(until, wait.wake, SILENT)
            server.when_it_goes_on(lambda: self._arrive(wait, until, again, script, args, confirmed))
            return
        answer = server.serve(script, args, confirmed=confirmed)
        kernel.after(WIRE_S * (1 + self._chance()), self._reply, wait, until, 0.2, answer)

    def _send_again(self, boot: Boot | None, *request: Any) -> None:
        """A machine that lost its power or booted anew repeats nothing; a frozen one does when it thaws."""
        if boot is None or self._machine.boot is not boot:
            return
        if self._machine.frozen:
            self._kernel.after(0.2, self._send_again, boot, *request)
        else:
            self._arrive(*request)

    def _reply(self, wait: Wait, until: float, again: float, answer: object) -> None:
        if self._network.whole or self._network.passes(self._there, self._here):
            wait.due(answer)
            return
        self._kernel.at(until, wait.wake, SILENT)
        if self._kernel.now + again < until:
            self._kernel.after(again, self._reply, wait, until, 2 * again, answer)
