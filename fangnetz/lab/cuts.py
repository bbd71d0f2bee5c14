"""Cut and heal the links of a node. A cut is written down, so it outlives a power cycle; only `heal` removes it.

Cut at the switch, not on the node: the node cannot tell, and its own sends do not fail.
"""

from __future__ import annotations

from typing import Literal

from fangnetz.lab.errors import LabError
from fangnetz.lab.plan import Link, Plan
from fangnetz.lab.run import script

Direction = Literal["both", "in", "out"]


def cut(plan: Plan, node: str, link: Link, direction: Direction) -> float:
    """Cut a link: `in` loses what goes to the node, `out` what comes from it. Return the instant before the effect."""
    wired = wired_node(plan, node, link)
    (plan.folder / "cuts" / f"{wired}.{link}").write_text(f"{direction}\n")
    return rewire(plan, wired, link)


def heal(plan: Plan, node: str, link: Link) -> float:
    """Undo a cut; harmless when there is none. Return the instant before the effect."""
    wired = wired_node(plan, node, link)
    (plan.folder / "cuts" / f"{wired}.{link}").unlink(missing_ok=True)
    return rewire(plan, wired, link)


def cuts_of(plan: Plan) -> dict[str, dict[str, str]]:
    """Return node → link → direction of every cut there is; a BMC's link is listed under its host."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((plan.folder / "cuts").glob("*.*")):
        node, link = path.name.split(".")
        found.setdefault(node.removeprefix("bmc-"), {})[link] = path.read_text().strip()
    return found


def rewire(plan: Plan, node: str, link: Link) -> float:
    """Make the switch port of a node match what is written down about it."""
    return script("wire", plan.folder, node, link, plan.port(node, link))


def wired_node(plan: Plan, node: str, link: Link) -> str:
    """Return the node whose switch port is meant: for a host's `bmc` link its BMC. Raises LabError if there is none."""
    wired = f"bmc-{node}" if link == "bmc" and node in plan.hosts else node
    if wired not in plan.nodes:
        raise LabError(f"no {node!r} in lab {plan.name}; there are {', '.join(plan.nodes)}")
    if link not in plan.links_of(wired):
        raise LabError(f"{node} has no {link} link; it has {', '.join(plan.links_of(wired))}")
    return wired
