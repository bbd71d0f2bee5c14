"""`python -m fangnetz.lab.demo`: exit 0 only if every VM of the dead host runs elsewhere, by its own writes, once.

KEEP=1 in the environment leaves the lab up.
"""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Console

from fangnetz.core.errors import FangnetzError
from fangnetz.lab.demo.screen import Screen
from fangnetz.lab.demo.story import tell
from fangnetz.lab.errors import LabError
from fangnetz.lab.machine import check_root
from fangnetz.lab.names import default_name


def main() -> int:
    """Play the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fangnetz.lab.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default=default_name(), help="the lab's name (default: this checkout's)")
    parser.add_argument("--keep", action="store_true", help="leave the lab up, as KEEP=1 does")
    chosen = parser.parse_args()
    keep = chosen.keep or os.environ.get("KEEP", "") not in ("", "0")
    errors = Console(stderr=True, highlight=False)
    try:
        check_root()
        return 1 if tell(Screen(Console(highlight=False)), chosen.name, keep=keep) else 0
    except (LabError, FangnetzError) as error:
        errors.print(f"The demo failed: {error}", style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        errors.print("Interrupted; the lab is taken down.", style="yellow")
        return 130


if __name__ == "__main__":
    sys.exit(main())
