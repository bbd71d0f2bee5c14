"""Probes: does a host's network stack answer a ping, and who speaks at its libvirt port?

Never calls a fault of our own silence: what we could not ask is UNKNOWN, only what was asked and stayed silent is NO.
Addresses are numeric; a name would make a probe wait for a name server.
"""

from __future__ import annotations

from collections.abc import Sequence

from fangnetz.adapters.fping import start_pings
from fangnetz.adapters.tcp_knock import knock
from fangnetz.core.model import Answer
from fangnetz.core.units import Seconds
from fangnetz.ports import ProbeReply, ProbeTarget


class NetworkProber:
    """`ports.Prober` by one fping process and non-blocking TCP connects from one thread; no state, thread-safe."""

    def probe(self, targets: Sequence[ProbeTarget], timeout: Seconds) -> tuple[ProbeReply, ...]:
        """Ask all targets at once. Within `timeout` when the machine has a core to spare, `timeout` + 1 s at most."""
        if not targets:
            return ()
        pings = start_pings([target.address for target in targets], timeout)
        try:
            knocks = knock([(target.address, target.libvirt_port) for target in targets], timeout)
        finally:
            answers = pings.collect()
        replies = []
        for target in targets:
            kernel, libvirt = knocks[target.address, target.libvirt_port]
            replies.append(
                ProbeReply(
                    host=target.host,
                    ping=answers.get(target.address, Answer.UNKNOWN),
                    kernel=kernel,
                    libvirt=libvirt,
                )
            )
        return tuple(replies)

    def reach(self, addresses: Sequence[str], timeout: Seconds) -> tuple[str, ...]:
        """Return those addresses that answered a ping, in the order given."""
        if not addresses:
            return ()
        answers = start_pings(addresses, timeout).collect()
        return tuple(address for address in addresses if answers.get(address) is Answer.YES)
