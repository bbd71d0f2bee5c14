"""How often a VM that ends by itself is started again, where, and when that is given up. Pure.

It is restarted on its host so many times, then on another one, and so on; `VmRecord.failures` counts its ends in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from fangnetz.core.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """What the definition of a VM says; None: as `start_attempts_max` says, and no other host."""

    restarts: int | None = None
    """So many times in a row on one host."""
    relocations: int | None = None
    """So many times it is then started on another host, with as many restarts there."""


NO_RETRIES = Retries()


def ends_per_host(retries: Retries, policy: Policy) -> int:
    """Return after how many ends in a row a VM is not started again on the same host."""
    return policy.start_attempts_max if retries.restarts is None else retries.restarts + 1


def gives_up(retries: Retries, failures: int, policy: Policy) -> bool:
    """Return whether a VM that ended so often in a row is left to a person."""
    return failures >= ends_per_host(retries, policy) * ((retries.relocations or 0) + 1)


def leaves(retries: Retries, failures: int, policy: Policy) -> bool:
    """Return whether a VM that ended so often in a row is started on another host than the one where it ended last."""
    on_host = failures % ends_per_host(retries, policy)
    return failures > 0 and on_host == 0 and not gives_up(retries, failures, policy)


def as_tree(retries: Retries) -> dict[str, int]:
    """Return what a definition says of it, in the words of the cluster file."""
    said = {"max_restarts": retries.restarts, "max_relocations": retries.relocations}
    return {key: value for key, value in said.items() if value is not None}
