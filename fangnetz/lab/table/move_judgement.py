"""What a struck live migration must look like afterwards. Pure: what was seen goes in.

Where it ended does not matter, as long as it ended with a name: done, the VM is where it was to go; else it is where
it was. What matters is that it ran once, all the time, as the boot it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fangnetz.core.operations import OperationState
from fangnetz.lab.table.move_cells import MoveCell, Victim

ENDED_WELL = (OperationState.DONE, OperationState.FAILED, OperationState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveSeen:
    """What one cell came to. Instants are seconds since the epoch; `boots`: VM -> boots that began after the cause."""

    cell: MoveCell
    vm: str
    source: str
    target: str
    caused_at: float
    struck: str
    struck_at: float
    went_on_at: float | None
    """When the struck step was taken up; None where nobody carried it out, or nothing was left to take up."""
    ended_at: float
    state: str
    sentence: str
    others: tuple[str, ...]
    """What else was opened about the VM, each with its end."""
    still_open: tuple[str, ...]
    boots: Mapping[str, int]
    died_with: tuple[str, ...]
    runs_on: Mapping[str, tuple[str, ...]]
    """VM -> hosts with a QEMU process of it, when all was at rest."""
    overlaps: int
    silence_s: float
    """The longest time the VM wrote nothing; what is shorter than a second is a busy machine and counted as none."""
    rest_s: float

    @property
    def resumed_s(self) -> float | None:
        """From the blow until somebody took the struck step up."""
        return None if self.went_on_at is None else max(0.0, self.went_on_at - self.struck_at)


def move_faults(seen: MoveSeen, bound_s: float) -> tuple[str, ...]:
    """Return everything that must not be; `bound_s`: twice what the policy computes for going on."""
    cell, found = seen.cell, list[str]()
    if seen.overlaps:
        found.append(f"two copies of a VM wrote, {seen.overlaps} times")
    for vm, boots in seen.boots.items():
        allowed = cell.boots() if vm == seen.vm else (1,) if vm in seen.died_with else (0,)
        if boots not in allowed:
            found.append(f"{vm} booted {boots} times, not {' or '.join(map(str, allowed))}")
    found += [f"{vm} has {len(on)} QEMU processes" for vm, on in seen.runs_on.items() if len(on) != 1]
    if seen.state not in ENDED_WELL:
        found.append(f"the move is {seen.state}: {seen.sentence}")
    elif not seen.sentence:
        found.append(f"the move is {seen.state} and nobody says why")
    found += [f"{each} is open" for each in seen.still_open]
    found += _misplaced(seen)
    found += _not_resumed(seen, bound_s)
    return tuple(found)


def _misplaced(seen: MoveSeen) -> list[str]:
    """Where a host died, a failover said where to; an evacuation tries again what came to nothing.

    A new life of the store ends every order of the former one: what had arrived by then is let run by an order anew.
    """
    if seen.cell.victim in (Victim.SOURCE, Victim.TARGET, Victim.STORE):
        return []
    on = seen.runs_on.get(seen.vm, ())
    done = seen.state == OperationState.DONE
    wanted = seen.target if done else seen.source
    if seen.cell.way == "evacuate":
        return [f"{seen.vm} is left on {seen.source}"] if seen.source in on else []
    return [] if on == (wanted,) else [f"{seen.vm} runs on {', '.join(on) or 'no host'}, not on {wanted}"]


def _not_resumed(seen: MoveSeen, bound_s: float) -> list[str]:
    if not seen.cell.of_executor or seen.cell.is_last or seen.state != OperationState.DONE:
        return []
    resumed = seen.resumed_s
    if resumed is None:
        return [f"nobody took up what {seen.struck} left"]
    return [f"it went on after {resumed:.1f} s, more than {bound_s:g} s"] if resumed > bound_s else []


def move_rows(seen: Sequence[MoveSeen], bound_s: float) -> list[dict[str, object]]:
    """Return the table as plain values."""
    return [
        {
            "name": each.cell.name,
            "way": each.cell.way,
            "step": each.cell.step,
            "moment": each.cell.moment.value if each.cell.point else "memory is being sent",
            "point": each.cell.point,
            "victim": each.cell.victim.value,
            "struck": each.struck,
            "vm": each.vm,
            "source": each.source,
            "target": each.target,
            "resumed_s": None if each.resumed_s is None else round(each.resumed_s, 2),
            "move_s": round(each.ended_at - each.caused_at, 2),
            "state": each.state,
            "sentence": each.sentence,
            "others": list(each.others),
            "runs_on": list(each.runs_on.get(each.vm, ())),
            "boots": each.boots.get(each.vm, 0),
            "boots_allowed": list(each.cell.boots()),
            "overlaps": each.overlaps,
            "silence_s": round(each.silence_s, 2),
            "rest_s": round(each.rest_s, 2),
            "faults": list(move_faults(each, bound_s)),
        }
        for each in seen
    ]
