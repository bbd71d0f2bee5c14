"""A host's table: total, and the lines that must never be."""

from __future__ import annotations

import pytest

from fangnetz.core.errors import IllegalTransition
from fangnetz.core.lifecycle import TABLE, HostEvent, next_state
from fangnetz.core.model import HostState

S, E = HostState, HostEvent


@pytest.mark.parametrize("event", list(HostEvent))
@pytest.mark.parametrize("state", list(HostState))
def test_every_state_meets_every_event_with_an_answer_or_a_refusal_on_purpose(
    state: HostState, event: HostEvent
) -> None:
    after = TABLE[state][event]
    if after is None:
        with pytest.raises(IllegalTransition, match=f"{state} cannot meet {event}"):
            next_state(state, event)
    else:
        assert next_state(state, event) is after


@pytest.mark.parametrize("event", [e for e in HostEvent if e is not E.ACCEPTED])
@pytest.mark.parametrize("state", [S.FENCED, S.RETURNING, S.MAINTENANCE, S.LEFT, S.QUARANTINED])
def test_who_is_out_comes_online_only_by_being_accepted(state: HostState, event: HostEvent) -> None:
    assert TABLE[state][event] is not S.ONLINE


@pytest.mark.parametrize("event", [E.LOST, E.ISOLATED, E.NOT_KNOWN, E.WORKER_SILENT, E.FENCING, E.UNPROVEN])
def test_a_fenced_host_stays_fenced_while_it_is_silent(event: HostEvent) -> None:
    assert next_state(S.FENCED, event) is S.FENCED


@pytest.mark.parametrize("event", [e for e in HostEvent if e is not E.MAINTENANCE])
@pytest.mark.parametrize("state", [s for s in HostState if s is not S.MAINTENANCE])
def test_maintenance_is_only_ever_asked_for(state: HostState, event: HostEvent) -> None:
    if state is not S.QUARANTINED:
        assert TABLE[state][event] is not S.MAINTENANCE


@pytest.mark.parametrize("state", list(HostState))
def test_a_host_can_be_fenced_by_an_operator_from_every_state(state: HostState) -> None:
    assert next_state(state, E.FENCING) in (S.FENCING, S.FENCED)


@pytest.mark.parametrize("state", [S.FENCED, S.RETURNING, S.NEEDS_PERSON, S.MAINTENANCE])
def test_the_old_boot_speaking_ends_with_a_person(state: HostState) -> None:
    assert next_state(state, E.OLD_BOOT_SPEAKS) is S.NEEDS_PERSON


def test_a_host_that_waits_for_a_person_is_freed_by_life_or_proof_but_by_no_silence() -> None:
    silent = {next_state(S.NEEDS_PERSON, e) for e in (E.LOST, E.ISOLATED, E.NOT_KNOWN, E.WORKER_SILENT)}
    assert silent == {S.NEEDS_PERSON}
    assert next_state(S.NEEDS_PERSON, E.HEARD) is S.ONLINE
    assert next_state(S.NEEDS_PERSON, E.PROVEN_OFF) is S.FENCED
