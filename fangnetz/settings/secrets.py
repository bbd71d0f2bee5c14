"""Where a secret lies, and reading it at the moment it is needed. Never keeps or prints the secret itself."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from fangnetz.core.errors import SettingsError

SECRET_BYTES_MAX = 4096
_OTHERS = stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret's place: a file of one line, or an environment variable. Exactly one of the two is set.

    Holds no value, so neither repr nor JSON nor a pickle of it can give one away.
    """

    file: Path | None = None
    env: str = ""

    @property
    def place(self) -> str:
        """Where it comes from, in words that may be shown."""
        return f"file {self.file}" if self.file is not None else f"environment variable {self.env}"

    def read(self) -> str:
        """Return the secret as it is now. Raises SettingsError with a sentence that names the place."""
        value, rule = self._look()
        if rule:
            raise SettingsError(f"the secret in {self.place} cannot be used: it {rule}")
        return value

    def fault(self) -> str:
        """Return the rule its place breaks on this machine, or nothing."""
        return self._look()[1]

    def _look(self) -> tuple[str, str]:
        if self.file is None:
            value = os.environ.get(self.env, "")
            return (value, "") if value else ("", "must be set in the environment")
        return _read_file(self.file)


def _read_file(path: Path) -> tuple[str, str]:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "", "must be a file"
        if found.st_mode & _OTHERS:
            return "", "must not be readable by others, chmod 600"
        if found.st_size > SECRET_BYTES_MAX:
            return "", f"must be one line of at most {SECRET_BYTES_MAX} bytes"
        value = path.read_bytes().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return "", "must be text in UTF-8"
    except (OSError, ValueError) as error:
        return (
            "",
            f"must be a readable file ({(isinstance(error, OSError) and error.strerror) or 'not a path'})",
        )
    if not value.strip():
        return "", "must not be empty"
    if not value.isprintable():
        return "", "must be one line of printable text"
    return value, ""
