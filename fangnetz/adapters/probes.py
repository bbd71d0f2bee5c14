"""Probes: does a host's network stack answer a ping, and who speaks at its libvirt port?

Never calls a fault of our own silence: what we could not ask is UNKNOWN, only what was asked and stayed silent is NO.
Addresses are numeric; a name is UNKNOWN, since asking a name server could hold up the whole round.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from fangnetz.adapters.fping import start_pings
from fangnetz.adapters.tcp_knock import NOT_ASKED, knock
from fangnetz.core.model import Answer
from fangnetz.core.units import Seconds
from fangnetz.ports import ProbeReply, ProbeTarget


class NetworkProber:
    """`ports.Prober` by one fping process and non-blocking TCP connects from one thread; no state, thread-safe."""

    def probe(self, targets: Sequence[ProbeTarget], timeout: Seconds) -> tuple[ProbeReply, ...]:
        """Ask all targets at once. Within `timeout` when the machine has a core to spare, `timeout` + 1 s at most."""
        asked = [target for target in targets if _is_numeric(target.address)]
        pings = start_pings([target.address for target in asked], timeout)
        try:
            knocks = knock([(target.address, target.libvirt_port) for target in asked], timeout)
        finally:
            answers = pings.collect()
        replies = []
        for target in targets:
            kernel, libvirt = knocks.get((target.address, target.libvirt_port), NOT_ASKED)
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
        answers = start_pings([address for address in addresses if _is_numeric(address)], timeout).collect()
        return tuple(address for address in addresses if answers.get(address) is Answer.YES)


def _is_numeric(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
