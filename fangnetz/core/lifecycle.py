"""A host's life as one table: (state, event) -> state. What is refused stands there as refused, on purpose.

Events come from verdicts, operations and operators; nothing here judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from fangnetz.core.errors import IllegalTransition
from fangnetz.core.model import HostState


class HostEvent(StrEnum):
    HEARD = "heard"
    """Fresh heartbeat of the accepted incarnation, libvirt well."""
    SICK = "sick"
    """Fresh heartbeat, libvirt hung or down."""
    WORKER_SILENT = "worker_silent"
    """No heartbeat, but its kernel answers."""
    ISOLATED = "isolated"
    """No heartbeat, no answer, disk slot fresh."""
    LOST = "lost"
    """No heartbeat, no answer, no fresh disk slot."""
    NOT_KNOWN = "not_known"
    """No heartbeat, and nobody able to ask."""
    FENCING = "fencing"
    PROVEN_OFF = "proven_off"
    UNPROVEN = "unproven"
    """Every fence level failed for now: a person is asked."""
    COMES_BACK = "comes_back"
    """A new incarnation speaks."""
    ACCEPTED = "accepted"
    """Clean and allowed to rejoin."""
    QUARANTINED = "quarantined"
    """Clean, but it went down too often: a member that takes no VMs."""
    OLD_BOOT_SPEAKS = "old_boot_speaks"
    """The very incarnation that was proven off speaks: the proof is void."""
    MAINTENANCE = "maintenance"
    EVACUATE = "evacuate"
    """Its VMs are to leave it while they run."""
    LEAVES = "leaves"


_S, _E = HostState, HostEvent
REFUSED = None
"""The event cannot meet this state; asking for it is a fault of ours."""

_SEEN_SILENT: Mapping[HostEvent, HostState | None] = {
    _E.HEARD: _S.ONLINE,
    _E.SICK: _S.DEGRADED,
    _E.WORKER_SILENT: _S.SUSPECT,
    _E.ISOLATED: _S.ISOLATED,
    _E.LOST: _S.LOST,
    _E.NOT_KNOWN: _S.UNKNOWN,
    _E.FENCING: _S.FENCING,
    _E.PROVEN_OFF: _S.FENCED,  # its plug was read OFF before any verdict (ask early)
    _E.UNPROVEN: _S.NEEDS_PERSON,
    _E.COMES_BACK: _S.RETURNING,
    _E.ACCEPTED: REFUSED,
    _E.QUARANTINED: _S.QUARANTINED,  # files remember it of a host whose record is gone
    _E.OLD_BOOT_SPEAKS: REFUSED,
    _E.MAINTENANCE: _S.MAINTENANCE,
    _E.EVACUATE: _S.EVACUATING,
    _E.LEAVES: _S.LEFT,
}
_OUT: Mapping[HostEvent, HostState | None] = {
    _E.HEARD: REFUSED,  # the accepted incarnation is off: hearing it is OLD_BOOT_SPEAKS
    _E.SICK: REFUSED,
    _E.WORKER_SILENT: _S.FENCED,  # it boots: its kernel answers before its worker does
    _E.ISOLATED: _S.FENCED,
    _E.LOST: _S.FENCED,
    _E.NOT_KNOWN: _S.FENCED,
    _E.FENCING: _S.FENCED,  # proven already; nothing is left to cut
    _E.PROVEN_OFF: _S.FENCED,
    _E.UNPROVEN: _S.FENCED,  # another device may fail; the proof stands
    _E.COMES_BACK: _S.RETURNING,
    _E.ACCEPTED: REFUSED,
    _E.QUARANTINED: REFUSED,  # once it is back
    _E.OLD_BOOT_SPEAKS: _S.NEEDS_PERSON,
    _E.MAINTENANCE: _S.MAINTENANCE,
    _E.EVACUATE: REFUSED,  # nothing runs there that could leave
    _E.LEAVES: _S.LEFT,
}
_BACK: Mapping[HostEvent, HostState | None] = {
    **_SEEN_SILENT,
    _E.HEARD: _S.RETURNING,  # heard, not yet accepted
    _E.SICK: _S.RETURNING,
    _E.COMES_BACK: _S.RETURNING,
    _E.ACCEPTED: _S.ONLINE,
    _E.EVACUATE: REFUSED,  # once it is accepted
    _E.OLD_BOOT_SPEAKS: _S.NEEDS_PERSON,
}
_AWAY: Mapping[HostEvent, HostState | None] = dict.fromkeys(HostEvent, _S.MAINTENANCE) | {
    _E.ACCEPTED: _S.ONLINE,
    _E.FENCING: _S.FENCING,  # only an operator's own fence reaches a host in maintenance
    _E.PROVEN_OFF: _S.FENCED,
    _E.OLD_BOOT_SPEAKS: _S.NEEDS_PERSON,
    _E.LEAVES: _S.LEFT,
}

TABLE: Mapping[HostState, Mapping[HostEvent, HostState | None]] = {
    _S.ONLINE: _SEEN_SILENT,
    _S.SUSPECT: _SEEN_SILENT,
    _S.ISOLATED: _SEEN_SILENT,
    _S.LOST: _SEEN_SILENT,
    _S.UNKNOWN: {**_SEEN_SILENT, _E.ACCEPTED: _S.ONLINE},
    _S.DEGRADED: _SEEN_SILENT,
    _S.FENCING: {
        **_SEEN_SILENT,
        _E.WORKER_SILENT: _S.FENCING,
        _E.ISOLATED: _S.FENCING,
        _E.LOST: _S.FENCING,
        _E.NOT_KNOWN: _S.FENCING,
    },
    _S.FENCED: _OUT,
    _S.RETURNING: _BACK,
    _S.EVACUATING: {**_SEEN_SILENT, _E.HEARD: _S.EVACUATING, _E.ACCEPTED: _S.ONLINE},
    _S.MAINTENANCE: _AWAY,
    _S.LEFT: {
        **_AWAY,
        **dict.fromkeys(
            (_E.LOST, _E.ISOLATED, _E.NOT_KNOWN, _E.WORKER_SILENT, _E.UNPROVEN, _E.EVACUATE, _E.QUARANTINED), _S.LEFT
        ),
        _E.HEARD: _S.RETURNING,
        _E.SICK: _S.RETURNING,
        _E.COMES_BACK: _S.RETURNING,
    },
    _S.QUARANTINED: {
        **_AWAY,
        **{
            event: _S.QUARANTINED
            for event in HostEvent
            if event not in (_E.ACCEPTED, _E.FENCING, _E.PROVEN_OFF, _E.OLD_BOOT_SPEAKS, _E.MAINTENANCE, _E.LEAVES)
        },
        _E.EVACUATE: _S.EVACUATING,  # what runs there leaves; its quarantine lasts, and then it is in maintenance
        _E.COMES_BACK: _S.RETURNING,  # and into quarantine again, once it is clean
    },
    _S.NEEDS_PERSON: {
        **_SEEN_SILENT,
        _E.WORKER_SILENT: _S.NEEDS_PERSON,
        _E.ISOLATED: _S.NEEDS_PERSON,
        _E.LOST: _S.NEEDS_PERSON,
        _E.NOT_KNOWN: _S.NEEDS_PERSON,
        _E.OLD_BOOT_SPEAKS: _S.NEEDS_PERSON,
        _E.ACCEPTED: _S.ONLINE,
    },
}


def next_state(state: HostState, event: HostEvent) -> HostState:
    """Return the state after `event`; IllegalTransition if the table refuses it."""
    after = TABLE[state][event]
    if after is None:
        raise IllegalTransition(f"a host that is {state} cannot meet {event}")
    return after
