"""Who this process is: role, host or controller, and where its files lie. Read once from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fangnetz.core.errors import SettingsError

ROLES = ("host", "control", "work", "fence", "beat", "flower")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`name` is the host's id for role host, the controller's id for control, work, fence and beat."""

    role: str
    name: str
    config: Path
    state_dir: Path
    run_dir: Path

    @property
    def node(self) -> str:
        """Name of the Celery node, the same at every start."""
        return self.name if self.role == "host" else f"{self.role}-{self.name}"


def identity(role: str | None = None) -> Identity:
    """Return who this process is; SettingsError if its name is missing."""
    environ = os.environ
    role = role or environ.get("FANGNETZ_ROLE", "")
    variable = {"host": "FANGNETZ_HOST", "flower": ""}.get(role, "FANGNETZ_CONTROLLER")
    name = environ.get(variable, "") if variable else "flower"
    if role in ROLES and not name:
        raise SettingsError(f"{variable} is not set: a {role} process has to know who it is")
    return Identity(
        role=role,
        name=name,
        config=Path(environ.get("FANGNETZ_CONFIG", "/etc/fangnetz/cluster.yaml")),
        state_dir=Path(environ.get("FANGNETZ_STATE_DIR", "/var/lib/fangnetz")),
        run_dir=Path(environ.get("FANGNETZ_RUN_DIR", "/run/fangnetz")),
    )
