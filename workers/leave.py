"""`fangnetz-worker leave` and `stay`: this host announces that it goes down in order, and waits until it may; or stays.

Run on the host itself, as root: by its unit at a shutdown, or by hand. Touches no VM; the host worker reports what is
announced, and the controllers decide.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from fangnetz import wiring
from fangnetz.core.errors import SettingsError
from fangnetz.core.model import Leaving
from fangnetz.core.units import HostId
from fangnetz.engine.leave import LeaveHost
from fangnetz.settings import Settings, load_settings
from workers.environment import Identity

JOBS = ("systemctl", "list-jobs", "--no-legend", "--no-pager", "--full")
JOBS_BOUND_S = 10.0
_TARGETS = {
    "reboot.target": Leaving.REBOOT,
    "kexec.target": Leaving.REBOOT,
    "soft-reboot.target": Leaving.REBOOT,
    "poweroff.target": Leaving.SHUTDOWN,
    "halt.target": Leaving.SHUTDOWN,
}


def pending_shutdown(jobs: str) -> Leaving:
    """Return what systemd is about to do by its jobs (number, unit, kind, state); NO if it only stops a unit."""
    for line in jobs.splitlines():
        words = line.split()
        if len(words) >= 3 and words[2] == "start" and words[1] in _TARGETS:
            return _TARGETS[words[1]]
    return Leaving.NO


def run_command(me: Identity, words: Sequence[str]) -> int:
    """Carry out `leave` or `stay`; return the exit code: 0 done, 1 the goodbye is not complete."""
    settings = load_settings(me.config, "host")
    host = HostId(me.name)
    if host not in settings.hosts:
        raise SettingsError(f"{me.config}: hosts: {me.name} (FANGNETZ_HOST) is not among {', '.join(settings.hosts)}")
    if words[0] == "stay":
        _leave_host(settings, me).stay()
        _say(f"{host} stays")
        return 0
    how = Leaving(words[1]) if len(words) > 1 else pending_shutdown(pending_jobs())
    if how is Leaving.NO:
        _say("no shutdown of this machine is pending: nothing is announced")
        return 0
    said = _leave_host(settings, me).leave(how)
    _say(said.sentence)
    return 0 if said.complete else 1


def _leave_host(settings: Settings, me: Identity) -> LeaveHost:
    return LeaveHost(
        host=HostId(me.name),
        hosts={name: each.spec for name, each in settings.hosts.items()},
        store=wiring.open_store(settings, name=f"leave-{me.name}", user="host"),
        boot=wiring.open_boot_files(me.run_dir),
        policy=settings.policy,
        process=wiring.this_process(),
        tell=_say,
    )


def pending_jobs() -> str:
    """Return systemd's list of jobs; empty where systemd does not answer: then nothing is announced."""
    try:
        return subprocess.run(JOBS, capture_output=True, text=True, timeout=JOBS_BOUND_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()
