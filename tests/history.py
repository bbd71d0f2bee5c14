"""A history as simulator and lab alike tell it: of hosts in order, and of each VM in its own order between them.

Two VMs go their ways side by side, so nothing is said of which of them comes first. Alarms come and go with the
moment they are looked at, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TOLD = (
    "host_state", "fence_sent", "fence_proven", "rejoined", "vm_started", "vm_stopped", "vm_lost",
    "operation_opened", "operation_closed", "decided_not_to", "migration_done", "migration_failed",
    "roll_done", "roll_stopped", "roll_refused", "roll_taken",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class History:
    """`hosts`: one line after the other. `vms`: VM -> (how many of those lines came before, its line)."""

    hosts: tuple[str, ...]
    vms: Mapping[str, tuple[tuple[int, str], ...]]

    def __str__(self) -> str:
        lines: list[str] = []
        for number, line in enumerate((*self.hosts, "(the end)")):
            lines += [f"    {vm}: {text}" for vm, told in self.vms.items() for before, text in told if before == number]
            lines.append(line)
        return "\n".join(lines)


def history_of(events: Iterable[Mapping[str, Any]], vms: Iterable[str]) -> History:
    """Return the history in events of the simulator or of the event log: both use the same words."""
    names = frozenset(vms)
    hosts: list[str] = []
    told: dict[str, list[tuple[int, str]]] = {vm: [] for vm in sorted(names)}
    for event in events:
        if event["kind"] not in TOLD:
            continue
        subject, line = _line(event)
        if subject in names:
            told[subject].append((len(hosts), line))
        else:
            hosts.append(f"{subject}: {line}")
    return History(tuple(hosts), {vm: tuple(lines) for vm, lines in told.items()})


def _line(event: Mapping[str, Any]) -> tuple[str, str]:
    kind = event["kind"]
    match kind:
        case "host_state":
            return event["host"], str(event["state"])
        case "roll_done" | "roll_stopped" | "roll_refused" | "roll_taken":
            return "roll", str(event["sentence"])
        case "decided_not_to":
            return event.get("host") or event["vm"], f"no {event['what']}: {event.get('why', 'it waits')}"
        case "fence_sent" | "fence_proven" | "rejoined":
            return event["host"], f"{kind} {event.get('proof', '')}".strip()
        case "vm_started" | "vm_lost" | "vm_stopped" | "migration_done" | "migration_failed":
            return event["vm"], f"{kind} {event['host']}"
        case _:
            return _of_operation(event)


def _of_operation(event: Mapping[str, Any]) -> tuple[str, str]:
    kind, rest = str(event["id"]).split("-", 1)
    subject = rest.rsplit("-", 1)[0]
    return subject, f"{kind} {event['kind'].removeprefix('operation_')} {event.get('state', '')}".strip()
