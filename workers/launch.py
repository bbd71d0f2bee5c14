"""`fangnetz-worker`: the one command behind every service, unit and container of Fangnetz."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

USAGE = """usage: fangnetz-worker ROLE

One long-running process of Fangnetz. ROLE is one of
  host      reports a host's liveness and runs libvirt operations on it   (FANGNETZ_HOST)
  control   watches and decides: the tick                                 (FANGNETZ_CONTROLLER)
  work      confirms, plans and probes                                    (FANGNETZ_CONTROLLER)
  fence     cuts power and reads it back                                  (FANGNETZ_CONTROLLER)
  beat      rings the tick, the sweep and the probes                      (FANGNETZ_CONTROLLER)
  flower    shows workers and tasks in a browser

       fangnetz-worker leave [reboot|shutdown]
       fangnetz-worker stay

Run on a host (FANGNETZ_HOST): `leave` announces that it goes down in order, and waits until its VMs are dealt with as
policy.on_shutdown says; without a word only if systemd is shutting the machine down. `stay` takes it back. Exit 1: a VM
of ours is still there.

Environment: FANGNETZ_CONFIG (/etc/fangnetz/cluster.yaml), FANGNETZ_STATE_DIR (/var/lib/fangnetz),
FANGNETZ_RUN_DIR (/run/fangnetz), FANGNETZ_FAULT (a fault point to fail at, for tests: `fangnetz lab faults`)."""

_COMMANDS = (["stay"], ["leave"], ["leave", "reboot"], ["leave", "shutdown"])
POOL = {"host": 8, "control": 1, "work": 16, "fence": 8}
"""Threads per role. A libvirt connection does not survive a fork, and threads cost less memory than processes."""


def queues(role: str, name: str) -> str:
    """Return the queues a role reads."""
    return {
        "host": f"host.{name}",
        "control": f"control.{name}",
        "work": f"work,probe,probe.{name}",
        "fence": "fence",
    }[role]


def worker_arguments(role: str, name: str, node: str) -> list[str]:
    """Return Celery's own arguments for a worker role."""
    return [
        "worker",
        f"--hostname={node}@%h",
        f"--queues={queues(role, name)}",
        "--pool=threads",
        f"--concurrency={POOL[role]}",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=INFO",
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one role until it is told to stop. Exit 2 on wrong usage, 1 on a bad cluster file, with a sentence."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(USAGE + "\n")
        return
    from workers.environment import ROLES

    if arguments in _COMMANDS:
        raise SystemExit(_command(arguments))
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.stderr.write(USAGE + "\n")
        raise SystemExit(2)
    _run(arguments[0])


def _command(words: Sequence[str]) -> int:
    from fangnetz.core.errors import FangnetzError
    from workers.environment import identity
    from workers.leave import run_command

    try:
        return run_command(identity("host"), words)
    except (FangnetzError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(role: str) -> None:
    from fangnetz.core.errors import FangnetzError
    from workers.environment import identity
    from workers.logs import set_up_logs

    try:
        me = identity(role)
        set_up_logs(me.role, me.name)
        os.chdir("/")  # a stray tasks.py in the folder we were started from must never shadow ours
        _serve(role)
    except FangnetzError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None


def _serve(role: str) -> None:
    import importlib

    from celery.signals import setup_logging

    from fangnetz.engine import faults
    from fangnetz.settings import Role, load_settings
    from workers.app import TASK_MODULES, create_app
    from workers.controller import install_controller, known_controller
    from workers.environment import identity
    from workers.flower import serve_flower
    from workers.host import install_host

    me = identity(role)
    faults.listen(me.run_dir, role)
    reads: Role = "host" if role == "host" else "flower" if role == "flower" else "controller"
    settings = load_settings(me.config, reads)
    app = create_app(settings, role, me.name)
    setup_logging.connect(lambda **_: None, weak=False)
    for module in TASK_MODULES:
        importlib.import_module(module)
    if role == "beat":
        known_controller(settings, me)
        app.start(argv=["beat", "--loglevel=INFO", "--pidfile="])
    elif role == "flower":
        serve_flower(app, settings)
    else:
        (install_host if role == "host" else install_controller)(app, settings, me)
        app.worker_main(worker_arguments(role, me.name, me.node))
