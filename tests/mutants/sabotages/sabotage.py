"""One sabotage, as a plain value: a piece of code replaced by a wrong one, and which rule that offends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """`old` stands exactly once in `file` (below `fangnetz/`). `rule`: the number of the rule it offends, or a word."""

    name: str
    rule: str
    file: str
    old: str
    new: str
    stories: tuple[str, ...] = ()
    more: tuple[tuple[str, str, str], ...] = ()
    """Further (file, old, new): guards behind the guard, which would hide that this one is gone."""
