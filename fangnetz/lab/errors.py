"""What goes wrong in a lab, by who must act. Each text is one sentence that says what to do."""

from __future__ import annotations

from fangnetz.core.errors import FangnetzError


class LabError(FangnetzError):
    """The lab cannot do what was asked (exit 1)."""


class LabUsageError(LabError):
    """The request itself is wrong (exit 2)."""
