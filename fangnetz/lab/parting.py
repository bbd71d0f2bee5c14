"""Two hosts that cannot reach each other, while both reach everybody else: the link between them alone is cut.

Done at the switch, by isolated ports: those reach every port but each other. A host that loses its power comes back
with an ordinary port, so a parting ends with it; `rejoin` ends it while both are on.
"""

from __future__ import annotations

import time

from fangnetz.lab.cuts import wired_node
from fangnetz.lab.plan import Link, Plan
from fangnetz.lab.run import run


def part(plan: Plan, one: str, other: str, link: Link = "cluster") -> float:
    """Cut the two hosts off each other. Return the instant before the effect. LabError if one of them is off."""
    ports = [plan.port(wired_node(plan, host, link), link) for host in (one, other)]
    at = time.time()
    for port in ports:
        run("ip", "-n", plan.switch, "link", "set", "dev", port, "type", "bridge_slave", "isolated", "on")
    return at


def rejoin(plan: Plan, link: Link = "cluster") -> None:
    """Let all hosts reach each other again; harmless where nobody was parted."""
    for host in plan.hosts:
        port = plan.port(host, link)
        isolated = ("type", "bridge_slave", "isolated", "off")
        run("ip", "-n", plan.switch, "link", "set", "dev", port, *isolated, tolerate=True)
