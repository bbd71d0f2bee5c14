"""The witness: reads every VM's disk ten times a second with its own clock and reports who writes. Runs by itself.

It knows nothing of Fangnetz, libvirt or Redis, so it cannot be fooled by them. `python -m fangnetz.lab.witness FOLDER`
keeps FOLDER/witness.json up to date and appends what happens to FOLDER/log/witness.log. Never writes to a disk.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from fangnetz.lab.history import DiskHistory
from fangnetz.lab.storage import disk_path
from fangnetz.lab.traces import read_traces

LOOK_EVERY_S = 0.1


def watch(folder: Path, vms: list[str]) -> None:
    """Look and report until killed."""
    histories = {vm: DiskHistory(vm=vm) for vm in vms}
    told: set[tuple[str, ...]] = set()
    with (folder / "log" / "witness.log").open("a") as log:
        while True:
            for vm, history in histories.items():
                known = set(history.boots)
                history.look(time.time(), read_traces(disk_path(folder, vm)))
                for boot in history.boots.keys() - known:
                    print(json.dumps({"at": time.time(), "vm": vm, "began": boot}), file=log, flush=True)
                for overlap in history.overlaps():
                    pair = (vm, *overlap["boots"])
                    if pair not in told:
                        told.add(pair)
                        print(json.dumps({"at": time.time(), "overlap": overlap}), file=log, flush=True)
            _publish(folder, histories)
            time.sleep(LOOK_EVERY_S)


def _publish(folder: Path, histories: dict[str, DiskHistory]) -> None:
    now = time.time()
    vms = {vm: history.report(now) for vm, history in histories.items()}
    report = {
        "schema": 1,
        "at": now,
        "vms": vms,
        "overlaps": [overlap for seen in vms.values() for overlap in seen["overlaps"]],
    }
    fresh = folder / "witness.json.new"
    fresh.write_text(json.dumps(report))
    fresh.rename(folder / "witness.json")


if __name__ == "__main__":
    watch(Path(sys.argv[1]), sys.argv[2:])
