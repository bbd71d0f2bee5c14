"""Did every VM of the dead host come back elsewhere, once? Pure: what was seen goes in, sentences come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fangnetz.lab.verdict import WRITING_WITHIN_S
from fangnetz.lab.whereabouts import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One VM of the dead host. `away_s`: nobody wrote on its disk for so long; `fault` is empty if all is well."""

    vm: str
    source: str
    targets: tuple[str, ...]
    boots: int
    away_s: float | None
    overlaps: int
    fault: str


def judge(vms: Sequence[str], source: str, now: Places, report: Mapping[str, Any], at: float) -> tuple[Judged, ...]:
    """Return the judgement on each VM that ran on `source` when its plug was pulled at `at` (seconds since the epoch).

    `now`: where QEMU processes live; `report`: the witness's.
    """
    return tuple(_one(vm, source, tuple(now.get(vm, ())), report, at) for vm in vms)


def _one(vm: str, source: str, targets: tuple[str, ...], report: Mapping[str, Any], at: float) -> Judged:
    boots = report["vms"][vm]["boots"]
    before = [boot for boot in boots if boot["first_at"] <= at]
    after = [boot for boot in boots if boot["first_at"] > at]
    last = max((boot["last_at"] for boot in before), default=None)
    overlaps = len(report["vms"][vm]["overlaps"])
    fault = ""
    if overlaps:
        fault = f"two copies of {vm} wrote on its disk"
    elif not after:
        fault = f"{vm} has not written since the plug of {source} was pulled"
    elif report["at"] - after[-1]["last_at"] > WRITING_WITHIN_S:
        fault = f"{vm} wrote again, but has stopped"
    elif not targets:
        fault = f"{vm} writes, but no QEMU of it is found"
    elif len(targets) > 1:
        fault = f"{vm} has {len(targets)} QEMU processes, on {', '.join(targets)}"
    elif targets == (source,):
        fault = f"{vm} runs on {source}, whose plug was pulled"
    return Judged(
        vm=vm,
        source=source,
        targets=targets,
        boots=len(boots),
        away_s=after[0]["first_at"] - last if after and last is not None else None,
        overlaps=overlaps,
        fault=fault,
    )


def faults(judged: Sequence[Judged], report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return every reason why the demo failed; empty means it succeeded. An overlap of any VM counts."""
    found = [each.fault for each in judged if each.fault]
    known = {each.vm for each in judged}
    found += [
        f"two copies of {vm} wrote on its disk"
        for vm in sorted({overlap["vm"] for overlap in report["overlaps"]} - known)
    ]
    return tuple(found)
