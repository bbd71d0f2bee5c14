"""The Fangnetz processes of a lab that do not live on hosts: two controllers of four processes each, and Flower.

Kept up as systemd would keep them. Never started in a bare lab.
"""

from __future__ import annotations

from fangnetz.lab.errors import LabError
from fangnetz.lab.host import worker_program
from fangnetz.lab.plan import Plan
from fangnetz.lab.processes import start

CONTROLLER_ROLES = ("control", "work", "fence", "beat")


def check_product() -> None:
    """Raise LabError unless the programs the lab starts are installed beside our Python."""
    if not worker_program().exists():
        raise LabError(f"{worker_program()} is missing: run `make setup`, or use --bare for a lab without Fangnetz")


def start_controllers(plan: Plan) -> None:
    """Start every controller's processes and Flower."""
    for controller in plan.controllers:
        state = plan.folder / "controllers" / controller
        (state / "run").mkdir(parents=True)
        (state / "log").mkdir()
        for role in CONTROLLER_ROLES:
            start(
                name=plan.name,
                node=controller,
                role=role,
                command=[worker_program(), role],
                logs=state / "log",
                netns=plan.namespace(controller),
                keep_up=True,
                more_env={
                    "FANGNETZ_CONFIG": str(plan.config_path),
                    "FANGNETZ_CONTROLLER": controller,
                    "FANGNETZ_STATE_DIR": str(state),
                    "FANGNETZ_RUN_DIR": str(state / "run"),
                },
            )
    state = plan.folder / "controllers" / "flower"
    (state / "run").mkdir(parents=True)
    start(
        name=plan.name,
        node="root",
        role="flower",
        command=[worker_program(), "flower"],
        logs=plan.folder / "log",
        nice=0,
        keep_up=True,
        more_env={
            "FANGNETZ_CONFIG": str(plan.config_path),
            "FANGNETZ_STATE_DIR": str(state),
            "FANGNETZ_RUN_DIR": str(state / "run"),
        },
    )
