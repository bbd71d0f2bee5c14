"""What a storm that broke a law leaves for the one who looks for the cause: its story, the logs, the disks' history."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from fangnetz.lab.lab import Lab
from fangnetz.lab.storm.storm import Storm


def keep_evidence(lab: Lab, storm: Storm, root: Path) -> Path:
    """Copy it below `root`, while the lab is still up; return the folder."""
    folder = root / f"storm-{storm.result['seed']}-{int(time.time())}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "story.txt").write_text("\n".join([*storm.story, *storm.violations]) + "\n")
    (folder / "witness.json").write_text(json.dumps(lab.witness()))
    (folder / "status.json").write_text(json.dumps(lab.status(), indent=1))
    for log in lab.plan.folder.rglob("*.log"):
        target = folder / log.relative_to(lab.plan.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, target)
    return folder
