"""Pings and knocks on a simulated network: `ports.Prober`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fangnetz.core.model import Answer
from fangnetz.core.units import HostId, Seconds
from fangnetz.ports import ProbeReply, ProbeTarget
from fangnetz.sim.libvirtd import Libvirtd
from fangnetz.sim.machine import Machine
from fangnetz.sim.network import Network
from fangnetz.sim.process import Process

ROUND_TRIP_S = Seconds(0.001)


class SimProber:
    def __init__(
        self, process: Process, here: Machine, hosts: Mapping[HostId, Machine],
        libvirt: Mapping[HostId, Libvirtd], network: Network,
    ) -> None:  # fmt: skip
        self._process, self._here, self._hosts = process, here, hosts
        self._libvirt, self._network = libvirt, network

    def probe(self, targets: Sequence[ProbeTarget], timeout: Seconds) -> tuple[ProbeReply, ...]:
        """Ask all at once; who is silent is asked again at the end."""
        self._process.sleep(ROUND_TRIP_S)
        answered = {target.host for target in targets if self._answers(target.host)}
        if len(answered) < len(targets):
            self._process.sleep(Seconds(max(0.0, timeout - ROUND_TRIP_S)))
            answered |= {target.host for target in targets if self._answers(target.host)}
        return tuple(self._reply(target.host, alive=target.host in answered) for target in targets)

    def _answers(self, host: HostId) -> bool:
        machine = self._hosts[host]
        return machine.answers and self._network.both_ways(self._here.name, machine.name)

    def _reply(self, host: HostId, *, alive: bool) -> ProbeReply:
        said = Answer.YES if alive else Answer.NO
        service = Answer.YES if alive and self._libvirt[host].state != "dead" else Answer.NO
        return ProbeReply(host=host, ping=said, kernel=said, libvirt=service)

    def reach(self, addresses: Sequence[str], timeout: Seconds) -> tuple[str, ...]:
        return ()
