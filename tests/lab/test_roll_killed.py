"""A roll whose command is killed -9 in a stage of its first host is gone on with by another one, on real libvirt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster import Cluster
from tests.lab.test_evacuation import boots, write_on

pytestmark = pytest.mark.lab

STAGES = ("emptying", "command", "return", "home")
AT_WORK = """\
echo $$ $FANGNETZ_HOST >>{folder}/began
until [ -e {folder}/go ]; do sleep 0.05; done
exec {python} -c "
from pathlib import Path
from fangnetz.lab import Lab
lab = Lab.open('{lab}')
lab.power('$FANGNETZ_HOST', 'off')
if not Path('{folder}/held').exists():
    lab.power('$FANGNETZ_HOST', 'on')
"
"""
"""What a person does to a host: begins, waits for leave, pulls its plug, and puts it back unless somebody holds it."""


class Roll:
    """One roll and the commands that had it in hand, one after the other."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self._script = folder / "work.sh"
        self._script.write_text(AT_WORK.format(folder=folder, python=sys.executable, lab=cluster.lab.name))
        self.command: subprocess.Popen[bytes] | None = None

    def begin(self, *hosts: str) -> None:
        waits = ("--wait-return", "120", "--wait-moves", "120")
        self._start("--hosts", ",".join(hosts), "--reboots", *waits, "--run", f"/bin/sh {self._script}")

    def resume(self, *words: str) -> None:
        """Begin the next command, once the one that was killed has let the roll go by its silence."""
        self.cluster.until(lambda: self.shown()["state"] == "stopped", 30, "the killed command's hold has run out")
        self._start("--resume", *words)

    def _start(self, *words: str) -> None:
        program = Path(sys.executable).parent / "fangnetz"
        with (self.folder / "said").open("ab") as said:
            self.command = subprocess.Popen(
                [program, "--config", self.cluster.lab.config_path, "maintenance", "roll", *words],
                stdout=said,
                stderr=said,
            )

    def shown(self) -> dict[str, Any]:
        roll: dict[str, Any] | None = json.loads(self.cluster.asked("maintenance", "show", "--json"))["roll"]
        return roll or {"state": "none", "turns": []}

    def stage(self) -> str:
        """Return the stage of the first host."""
        turns = self.shown()["turns"]
        return str(turns[0]["stage"]) if turns else ""

    def work(self) -> list[tuple[int, str]]:
        """Return the process and the host of every time the person's own work was begun."""
        try:
            lines = (self.folder / "began").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(int(pid), host) for pid, host in (line.split() for line in lines)]

    def may_work(self) -> None:
        (self.folder / "go").touch()

    def kill_in(self, stage: str) -> None:
        command = self.command
        assert command is not None

        def there() -> bool:
            assert command.poll() is None, (self.folder / "said").read_text()[-2000:]
            return self.stage() == stage and (stage != "command" or bool(self.work()))

        self.cluster.until(there, 60, f"the roll is in {stage}")
        command.kill()
        assert command.wait(10) == -signal.SIGKILL
        assert self.stage() == stage, "nobody went on with it"

    def ended(self) -> str:
        """Wait for the command to end well; return all that was said."""
        assert self.command is not None
        code = self.command.wait(150)
        said = (self.folder / "said").read_text()
        assert code == 0, said[-2000:]
        return said

    def end(self) -> None:
        if self.command is not None and self.command.poll() is None:
            self.command.kill()
            self.command.wait(10)


@pytest.fixture
def roll(cluster: Cluster, tmp_path: Path) -> Iterator[Roll]:
    mine = Roll(cluster, tmp_path)
    try:
        yield mine
    finally:
        mine.end()
        for pid, _ in mine.work():
            end_orphan(pid, tmp_path)
        if mine.shown()["state"] != "done":  # the next test begins with no roll
            for host in cluster.lab.plan.hosts:
                cluster.lab.power(host, "on")
                cluster.asked("host", "activate", host)


def end_orphan(pid: int, folder: Path) -> None:
    """End the person's work that a killed command left behind, if this number is still its."""
    try:
        if str(folder) in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return


@pytest.mark.parametrize(
    ("stages", "turns"),
    [(("command",), 1), pytest.param(STAGES, 2, marks=pytest.mark.soak)],  # each kill waits for a hold to run out
)
def test_a_roll_that_was_killed_is_gone_on_with_and_ends_well(
    cluster: Cluster, roll: Roll, tmp_path: Path, stages: tuple[str, ...], turns: int
) -> None:
    first = cluster.busiest()
    hosts = (first, *(host for host in cluster.lab.plan.hosts if host != first))[:turns]
    homes = {vm: item["host"] for vm, item in cluster.vms().items()}
    machines = {host: cluster.host(host)["incarnation"] for host in cluster.lab.plan.hosts}
    before, at = boots(cluster), cluster.cursor()
    if "command" not in stages:
        roll.may_work()
    if "return" in stages:
        (tmp_path / "held").touch()
    roll.begin(*hosts)
    for stage in stages:
        roll.kill_in(stage)
        if stage == "command":
            end_orphan(roll.work()[-1][0], tmp_path)
            cluster.until(lambda: roll.shown()["state"] == "stopped", 30, "its hold has run out")
            assert "nobody knows how the command ended" in cluster.refused("maintenance", "roll", "--resume")
            roll.may_work()
        if stage == "return":
            (tmp_path / "held").unlink()
            cluster.lab.power(first, "on")
        roll.resume(*(("--again",) if stage == "command" else ()))
    assert f"{', '.join(hosts)} had {'its' if len(hosts) == 1 else 'their'} turn." in roll.ended()
    assert {vm: (item["host"], item["state"]) for vm, item in cluster.vms().items()} == {
        vm: (host, "running") for vm, host in homes.items()
    }, "every guest is home"
    write_on(cluster)
    assert boots(cluster) == before, "no guest was started anew"
    begun = [host for _, host in roll.work()]
    assert [begun.count(host) for host in hosts] == [2 if "command" in stages else 1, *[1] * (turns - 1)]
    changed = {host for host in machines if cluster.host(host)["incarnation"] != machines[host]}
    assert changed == set(hosts), "the machines were"
    assert cluster.since(at, "vm_lost", "fence_sent") == []
    assert (roll.shown()["state"], roll.shown()["done"]) == ("done", list(hosts))
