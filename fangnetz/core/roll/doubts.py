"""What speaks against going on: a doubt ends a roll at once, unrest only if it does not pass. Nothing is done here."""

from __future__ import annotations

from collections.abc import Iterator

from fangnetz.core.evacuation import held_back
from fangnetz.core.model import HostState, VmState
from fangnetz.core.roll.values import Roll, Seen, Stage
from fangnetz.core.units import HostId

_H, _V = HostState, VmState
GONE = frozenset({_H.LOST, _H.ISOLATED, _H.FENCING, _H.FENCED, _H.LEFT, _H.QUARANTINED, _H.NEEDS_PERSON})
AT_WORK = frozenset({_H.MAINTENANCE, _H.LEFT, _H.SUSPECT, _H.UNKNOWN, _H.DEGRADED, _H.RETURNING, _H.ONLINE})
"""What a host may be called while a person works on it, down or not."""
_EXPECTED = {
    Stage.EMPTYING: frozenset({_H.ONLINE, _H.EVACUATING, _H.MAINTENANCE}),
    Stage.COMMAND: frozenset({_H.MAINTENANCE}),
    Stage.RETURN: AT_WORK,
    Stage.HOME: frozenset({_H.MAINTENANCE, _H.ONLINE}),
}
_BROKEN = frozenset({_V.FAILED, _V.LOST, _V.NEEDS_PERSON})
_AS_WISHED = frozenset({_V.RUNNING, _V.MOVING})


def doubt(roll: Roll, seen: Seen) -> str:
    """Return what must end the roll now, or an empty string."""
    return next(_doubts(roll, seen), "")


def unrest(roll: Roll, seen: Seen) -> str:
    """Return what has to pass before anything new is begun, or an empty string."""
    return next(_unrest(roll, seen), "")


def state_of(host: HostId, seen: Seen) -> HostState:
    return seen.view.record_of(host).state


def _doubts(roll: Roll, seen: Seen) -> Iterator[str]:
    yield from (alarm.sentence for alarm in seen.alarms if alarm.highest)
    yield from seen.view.unreadable
    for host in seen.view.hosts:
        if state_of(host, seen) in GONE - _expected(host, roll):
            yield f"{host} is {state_of(host, seen)}: {seen.view.host_records[host].reason}"
    yield from _vms(seen, broken=True)


def _unrest(roll: Roll, seen: Seen) -> Iterator[str]:
    if seen.watch is None and not any(turn.stage is Stage.RETURN for turn in roll.in_hand):
        yield seen.unwatched  # while a host is away, the controller on it may be, too: that is part of its return
    for host in seen.view.hosts:
        state = state_of(host, seen)
        if state not in _expected(host, roll) | GONE:
            yield f"{host} is {state}"
    yield from _vms(seen, broken=False)


def _expected(host: HostId, roll: Roll) -> frozenset[HostState]:
    turn = next((turn for turn in roll.in_hand if turn.host == host), None)
    if turn is not None:
        return _EXPECTED[turn.stage]
    return frozenset(HostState) if host in roll.out else frozenset({_H.ONLINE})


def _vms(seen: Seen, *, broken: bool) -> Iterator[str]:
    planned = held_back(seen.view)
    for vm, doc in sorted(seen.view.vms.items()):
        record = seen.view.vm_records.get(vm)
        state = record.state if record is not None else _V.WAITING
        if vm in planned and state not in _BROKEN:
            continue  # down by its fallback until its host is activated
        if doc.to_run and state not in _AS_WISHED and (state in _BROKEN) is broken:
            yield f"{vm} is wished to run and is {state}" + (f": {record.reason}" if record is not None else "")
