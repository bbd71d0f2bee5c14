"""`python -m fangnetz.lab.soak_idle`: JSON on stdout; exit 1 if a busy host was called lost or was fenced."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console

from fangnetz.core.errors import FangnetzError
from fangnetz.lab.errors import LabError
from fangnetz.lab.machine import check_root
from fangnetz.lab.plan import Policy
from fangnetz.lab.soak_idle.soak import soak
from fangnetz.lab.stage import own_name

SCHEMA = 1
POLICIES: dict[str, tuple[Policy, ...]] = {"default": ("default",), "fast": ("fast",), "both": ("default", "fast")}


def main() -> int:
    """Soak; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fangnetz.lab.soak_idle", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of saturation for each policy (default 10)")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="both")
    parser.add_argument("--name", default=own_name("soak"), help="the name of its labs")
    chosen = parser.parse_args()
    if chosen.minutes <= 0:
        parser.error("--minutes must be more than 0")
    errors = Console(stderr=True, highlight=False)

    def say(words: str) -> None:
        errors.print(f"soak-idle: {words}", style="dim", markup=False, soft_wrap=True)

    runs = []
    problem = ""
    try:
        check_root()
        for policy in POLICIES[chosen.policy]:
            runs.append(soak(chosen.name, policy, chosen.minutes, say))
            say(f"policy {policy}: {'; '.join(runs[-1]['faults']) or 'nobody was called lost, nothing was fenced'}")
    except (LabError, FangnetzError) as error:
        problem = str(error)
        errors.print(f"The soak failed: {error}", style="bold red", markup=False)
    except KeyboardInterrupt:
        problem = "interrupted"
    sys.stdout.write(json.dumps({"schema": SCHEMA, "runs": runs, "error": problem or None}, indent=1) + "\n")
    return 1 if problem or any(run["faults"] for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
