"""Results that add up: one JSON line a storm in a file, and the sum over all of them. Never rewrites a line."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCHEMA = 1


def append(path: Path, result: dict[str, Any]) -> None:
    """Add one storm's result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"schema": SCHEMA, **result}) + "\n")


def load(path: Path) -> list[dict[str, Any]]:
    """Return every result in the file, oldest first; a file that is not there holds none."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [line for line in lines if line.get("schema") == SCHEMA]


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum over storms: hours, seeds, faults and incidents by kind, recovery, and what may never be."""
    faults: Counter[str] = Counter()
    incidents: Counter[str] = Counter()
    deeds: Counter[str] = Counter()
    for result in results:
        faults.update(result["faults"])
        incidents.update(result["incidents"])
        deeds.update(result["person"])
    recovered = [seconds for result in results for seconds in result["recoveries_s"]]
    return {
        "storms": len(results),
        "seeds": len({result["seed"] for result in results}),
        "hours": round(sum(result["seconds"] for result in results) / 3600, 2),
        "faults": dict(faults.most_common()),
        "faults_total": faults.total(),
        "incidents": dict(incidents.most_common()),
        "starts": sum(result["starts"] for result in results),
        "power_offs": sum(result["power_offs"] for result in results),
        "recovery_s": None
        if not recovered
        else {
            "median": round(statistics.median(recovered), 2),
            "max": round(max(recovered), 2),
            "count": len(recovered),
        },
        "whole_again_max_s": max((result["whole_again_s"] or 0.0 for result in results), default=0.0),
        "person": dict(deeds.most_common()),
        "overlaps": sum(result["overlaps"] for result in results),
        "unproven_starts": sum(result["unproven_starts"] for result in results),
        "violations": sum(len(result["violations"]) for result in results),
    }
