"""The witness as the rest of the lab sees it: start it, read its report. A silent witness is an error, not a peace."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from fangnetz.lab.errors import LabError
from fangnetz.lab.plan import Plan
from fangnetz.lab.processes import start

STALE_AFTER_S = 3.0
WRITING_WITHIN_S = 1.0


def start_witness(plan: Plan) -> None:
    """Start the witness of a lab in the background."""
    start(
        name=plan.name,
        node="root",
        role="witness",
        command=[sys.executable, "-m", "fangnetz.lab.witness", plan.folder, *plan.vms],
        logs=plan.folder / "log",
        more_env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def read_report(plan: Plan) -> dict[str, Any]:
    """Return the witness's latest report. Raises LabError if it is not alive to give one."""
    try:
        report: dict[str, Any] = json.loads((plan.folder / "witness.json").read_text())
    except (OSError, ValueError) as error:
        raise LabError(f"the witness of lab {plan.name} has not reported yet") from error
    late = time.time() - report["at"]
    if late > STALE_AFTER_S:
        raise LabError(f"the witness of lab {plan.name} has been silent for {late:.0f} s; its verdict would be old")
    return report


def writing_now(report: dict[str, Any]) -> set[str]:
    """Return the VMs on whose disks somebody wrote just before the report."""
    return {
        vm
        for vm, seen in report["vms"].items()
        if any(report["at"] - boot["last_at"] <= WRITING_WITHIN_S for boot in seen["boots"])
    }
