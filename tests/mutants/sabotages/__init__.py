"""All sabotages, by what they spoil. `stories` of each are played first; only if they see nothing are all others."""

from tests.mutants.sabotages import (
    executor,
    leaving,
    liveness,
    moves,
    numbers,
    orders,
    pause,
    placement,
    proof,
    reality,
    rolls,
    silence,
    slots,
)
from tests.mutants.sabotages.sabotage import Sabotage

ROOMS = (proof, orders, numbers, executor, silence, reality, moves, liveness, placement, pause, leaving, rolls, slots)
SABOTAGES: tuple[Sabotage, ...] = tuple(each for room in ROOMS for each in room.SABOTAGES)

__all__ = ["SABOTAGES", "Sabotage"]
