"""Rolling maintenance: hosts emptied, worked on and filled again in turn. Pure; whoever drives it looks, asks, writes.

values: what is remembered of a roll · doubts: what speaks against going on · begin: what must hold at the start ·
going: the next thing to do · words: what a person is told.
"""

from fangnetz.core.roll.begin import begun, obstacles, resumed, waves
from fangnetz.core.roll.doubts import doubt, unrest
from fangnetz.core.roll.going import Act, Activate, Evacuate, Finish, Keep, Pace, Run, Stop, Wait, next_act
from fangnetz.core.roll.values import (
    INTERRUPTED,
    OUTPUT_KEPT,
    Commanded,
    Limits,
    Resumption,
    Roll,
    Seen,
    Stage,
    Turn,
    answered,
    commanded,
    renewed,
    stopped,
)
from fangnetz.core.roll.words import how_to_go_on, told

__all__ = [
    "INTERRUPTED",
    "OUTPUT_KEPT",
    "Act",
    "Activate",
    "Commanded",
    "Evacuate",
    "Finish",
    "Keep",
    "Limits",
    "Pace",
    "Resumption",
    "Roll",
    "Run",
    "Seen",
    "Stage",
    "Stop",
    "Turn",
    "Wait",
    "answered",
    "begun",
    "commanded",
    "doubt",
    "how_to_go_on",
    "next_act",
    "obstacles",
    "renewed",
    "resumed",
    "stopped",
    "told",
    "unrest",
    "waves",
]
