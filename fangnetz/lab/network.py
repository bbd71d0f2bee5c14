"""The lab's network: one switch namespace with a bridge per network, one namespace per node, one door for the machine.

The bridges live in a namespace of their own, where no firewall of the machine reaches (a Docker sets FORWARD to DROP).
Never touches a link or a namespace without the lab's tag.
"""

from __future__ import annotations

import hashlib
import json
from ipaddress import IPv4Network

from fangnetz.lab.errors import LabError
from fangnetz.lab.plan import LINKS, PREFIX_LENGTH, Plan
from fangnetz.lab.processes import namespaces_of
from fangnetz.lab.run import ip, ip_batch, run

_FIRST_SECOND_BYTE, _SECOND_BYTES = 64, 64
_ATTEMPTS = 512


def free_subnet(tag: str) -> str:
    """Return a /24 of 10.64.0.0/10 that no route or address of the machine uses, by the tag."""
    used = _networks_in_use()
    seed = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:4])
    for attempt in range(_ATTEMPTS):
        number = (seed + attempt) % (_SECOND_BYTES * 256)
        subnet = IPv4Network(f"10.{_FIRST_SECOND_BYTE + number // 256}.{number % 256}.0/24")
        if not any(subnet.overlaps(network) for network in used):
            return str(subnet)
    raise LabError("no free /24 was found in 10.64.0.0/10; remove routes or labs that are not needed")


def build_network(plan: Plan) -> None:
    """Make the switch and every node but the hosts, which are built when they are switched on."""
    ip("netns", "add", plan.switch)
    ip_batch(
        plan.switch,
        [line for link in LINKS for line in (f"link add {link} type bridge", f"link set {link} up")]
        + ["link set lo up"],
    )
    (plan.folder / "switch.env").write_text(f"SWITCH={plan.switch}\n")
    for node in plan.nodes:
        if node not in plan.hosts:
            _add_node(plan, node)
    for link in ("cluster", "bmc"):
        door, port = f"fn{plan.tag}{link[0]}", f"root-{link[0]}"
        ip("link", "add", door, "type", "veth", "peer", "name", port, "netns", plan.switch)
        ip_batch(plan.switch, [f"link set {port} master {link}", f"link set {port} up"])
        ip("addr", "add", f"{plan.address('root', link)}/{PREFIX_LENGTH}", "dev", door)
        ip("link", "set", door, "up")


def remove_network(tag: str) -> None:
    """Remove every namespace and link with the lab's tag. Harmless when there is none."""
    for path in namespaces_of(tag).values():
        run("ip", "netns", "del", path.name, tolerate=True)
    for link in json.loads(ip("-j", "link", "show") or "[]"):
        if link["ifname"].startswith(f"fn{tag}"):
            run("ip", "link", "del", link["ifname"], tolerate=True)


def _add_node(plan: Plan, node: str) -> None:
    namespace = plan.namespace(node)
    ip("netns", "add", namespace)
    links = plan.links_of(node)
    ip_batch(
        plan.switch,
        [
            line
            for link in links
            for line in (
                f"link add {plan.port(node, link)} type veth peer name {link} address {plan.mac(node, link)}"
                f" netns {namespace}",
                f"link set {plan.port(node, link)} master {link}",
                f"link set {plan.port(node, link)} up",
            )
        ],
    )
    ip_batch(
        namespace,
        ["link set lo up"]
        + [
            line
            for link in links
            for line in (f"addr add {plan.address(node, link)}/{PREFIX_LENGTH} dev {link}", f"link set {link} up")
        ],
    )


def _networks_in_use() -> list[IPv4Network]:
    found = []
    for route in json.loads(ip("-4", "-j", "route", "show", "table", "all") or "[]"):
        if route.get("dst", "default") != "default":
            found.append(IPv4Network(route["dst"], strict=False))
    for link in json.loads(ip("-4", "-j", "addr", "show") or "[]"):
        found += [
            IPv4Network(f"{each['local']}/{each['prefixlen']}", strict=False) for each in link.get("addr_info", [])
        ]
    return [network for network in found if network.prefixlen > 0]
