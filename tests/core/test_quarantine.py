"""Quarantine: a host that went down too often within an hour is kept from VMs, and only a person ends that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.actions import PutHost, PutHostDoc, PutVm
from fangnetz.core.lifecycle import TABLE, HostEvent
from fangnetz.core.model import ClusterView, HostDoc, HostRecord, HostState, VmState, WishKind
from fangnetz.core.policy import Policy, PolicyRefused
from fangnetz.core.quarantine import EXITS_MAX, HOUR_S, exits_on_return, why_quarantined, with_exit
from fangnetz.core.recovery import plan_starts
from fangnetz.core.units import HostId, Incarnation, Instant, VmId
from tests.core.world import T0, beat, decided, host_record, verdicts_of, view, vm_doc, vm_record, watched, wish

H1 = HostId("h1")
OFTEN = (Instant(T0 - 900), Instant(T0 - 500), Instant(T0 - 60))
WHY = "h1 went down too often"


def returning(exits: tuple[Instant, ...] = OFTEN, **more: object) -> ClusterView:
    records = [
        replace(host_record("h1", HostState.RETURNING), exits=exits), host_record("h2"), host_record("h3"),
    ]  # fmt: skip
    beats = [beat("h1", T0 - 0.2, boot="i2"), beat("h2", T0 - 0.2), beat("h3", T0 - 0.2)]
    return view(T0, records=more.pop("records", records), beats=more.pop("beats", beats), **more)


def h1_after(seen: ClusterView, policy: Policy | None = None) -> tuple[HostRecord | None, HostDoc | None]:
    """What is written of h1 in one tick."""
    done = decided(seen, policy=policy).actions
    records = [a.record for a in done if isinstance(a, PutHost) and a.record.id == H1]
    docs = [a.doc for a in done if isinstance(a, PutHostDoc) and a.doc.id == H1]
    assert len(docs) <= 1, "one written over the other would lose what it says"
    return (records or [None])[-1], (docs or [None])[-1]


# --- coming back -------------------------------------------------------------------------------------------------


def test_files_are_told_before_the_record() -> None:
    record, doc = h1_after(returning())
    assert record is None
    assert doc is not None
    assert "3 times within an hour" in doc.quarantine
    assert "1970-01-12 13:31:40 UTC" in doc.quarantine, "and when"
    record, doc = h1_after(returning(docs=[doc]))
    assert record is not None
    assert (record.state, record.incarnation, record.exits) == (HostState.QUARANTINED, "i2", OFTEN)
    assert record.reason == doc.quarantine if doc is not None and doc.quarantine else "3 times" in record.reason


def test_less_than_half_of_the_hosts_are_quarantined_also_if_all_come_back_at_once() -> None:
    def quarantined(hosts: int) -> list[str]:
        names = [f"h{number}" for number in range(1, hosts + 1)]
        look = view(
            T0,
            hosts=names,
            records=[replace(host_record(name, HostState.RETURNING), exits=OFTEN) for name in names],
            beats=[beat(name, T0 - 0.2, boot="i2") for name in names],
        )
        done = decided(look).actions
        return [action.doc.id for action in done if isinstance(action, PutHostDoc) and action.doc.quarantine]

    told = [quarantined(hosts) for hosts in range(1, 8)]
    assert told == [[], ["h1"], ["h1"], ["h1"], ["h1", "h2"], ["h1", "h2"], ["h1", "h2", "h3"]]
    before = HostDoc(id=HostId("h2"), quarantine=WHY)
    _, doc = h1_after(returning(docs=[before]))
    assert doc is None or not doc.quarantine


@pytest.mark.parametrize(
    ("exits", "allowed"),
    [
        (OFTEN[1:], 3),
        (OFTEN, 4),
        (OFTEN, 0),
        ((Instant(T0 - HOUR_S - 61), *OFTEN[1:]), 3),
    ],
    ids=["two only", "four are allowed", "never", "within more than an hour"],
)
def test_who_went_down_less_often_comes_online(exits: tuple[Instant, ...], allowed: int) -> None:
    record, doc = h1_after(returning(exits), Policy(quarantine_exits=allowed))
    assert record is not None
    assert record.state is HostState.ONLINE
    assert doc is None or not doc.quarantine


def test_what_stands_against_a_return_stands_against_a_quarantine() -> None:
    """A cut may still be on its way: no member yet, in quarantine or not."""
    docs = [HostDoc(id=H1, quarantine=WHY)]
    late = [
        replace(host_record("h1", HostState.RETURNING, cut_possible_until=T0 + 5), exits=OFTEN),
        host_record("h2"), host_record("h3"),
    ]  # fmt: skip
    record, _ = h1_after(returning(docs=docs, records=late))
    assert record is not None
    assert record.state is HostState.RETURNING


def test_files_remember_a_quarantine_of_a_host_whose_record_is_gone() -> None:
    docs = [HostDoc(id=H1, quarantine=WHY, incarnation=Incarnation("i1"))]
    beats = [beat("h1", T0 - 0.2), beat("h2", T0 - 0.2), beat("h3", T0 - 0.2)]
    record, _ = h1_after(returning(docs=docs, records=[host_record("h2"), host_record("h3")], beats=beats))
    assert record is not None
    assert (record.state, record.reason, record.incarnation) == (HostState.QUARANTINED, WHY, "i1")


def test_a_host_in_quarantine_that_boots_anew_comes_back_into_it() -> None:
    docs = [HostDoc(id=H1, quarantine=WHY, incarnation=Incarnation("i1"))]
    records = [host_record("h1", HostState.QUARANTINED), host_record("h2"), host_record("h3")]
    record, _ = h1_after(returning(docs=docs, records=records))
    assert record is not None
    assert record.state is HostState.RETURNING
    record, _ = h1_after(returning((), docs=docs))
    assert record is not None
    assert record.state is HostState.QUARANTINED


# --- in quarantine -----------------------------------------------------------------------------------------------


def quarantined(**more: object) -> ClusterView:
    records = [
        replace(host_record("h1", HostState.QUARANTINED), exits=OFTEN, reason=WHY), host_record("h2"),
        host_record("h3"),
    ]  # fmt: skip
    beats = [beat("h1", T0 - 0.2), beat("h2", T0 - 0.2), beat("h3", T0 - 0.2)]
    docs = [HostDoc(id=H1, quarantine=WHY, incarnation=Incarnation("i1"))]
    return returning(records=records, beats=beats, docs=docs, **more)


def test_it_takes_no_vm_and_an_alarm_says_why() -> None:
    seen = quarantined(vms=[(vm_doc("web"), vm_record("web", None, 0, state=VmState.WAITING))])
    plan = plan_starts({VmId("web"): ()}, seen, watched(seen), verdicts_of(seen), Policy())
    assert {chosen.host for chosen in plan.assignments} <= {"h2", "h3"}
    alone = replace(seen, hosts={H1: seen.hosts[H1]})
    plan = plan_starts({VmId("web"): ()}, alone, watched(alone), verdicts_of(alone), Policy())
    assert plan.assignments == ()
    assert [(a.kind, a.sentence) for a in decided(seen).alarms if a.subject == H1 and a.kind == "host_quarantined"] == [
        ("host_quarantined", f"h1: {WHY}")
    ]


def test_nothing_but_a_person_ends_it() -> None:
    record, doc = h1_after(quarantined())
    assert record is None
    assert doc is None
    asked = replace(quarantined(), wishes=(wish(WishKind.HOST_ACTIVATE, "h1"),))
    record, doc = h1_after(asked)
    assert record is not None
    assert doc is not None
    assert (record.state, record.exits, doc.quarantine) == (HostState.ONLINE, (), "")


@pytest.mark.parametrize("event", [event for event in HostEvent if event is not HostEvent.ACCEPTED])
def test_no_other_event_leads_out_of_it_to_online(event: HostEvent) -> None:
    assert TABLE[HostState.QUARANTINED][event] is not HostState.ONLINE


def test_a_vm_that_runs_there_runs_on() -> None:
    beats = [beat("h1", T0 - 0.2, runs={"web": 1}), beat("h2", T0 - 0.2), beat("h3", T0 - 0.2)]
    seen = replace(
        quarantined(vms=[(vm_doc("web"), vm_record("web", "h1"))]), heartbeats={one.host: one for one in beats}
    )
    assert [a for a in decided(seen).actions if isinstance(a, PutVm)] == []


# --- what counts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [HostState.LOST, HostState.ISOLATED, HostState.FENCING, HostState.NEEDS_PERSON])
def test_a_lost_host_that_booted_anew_by_itself_counts(state: HostState) -> None:
    lost = host_record("h1", state, suspected_at=T0 - 40)
    assert exits_on_return(lost) == (T0 - 40,)
    assert exits_on_return(replace(lost, suspected_at=None)) == (), "a fence that a person asked for"


@pytest.mark.parametrize("state", [HostState.ONLINE, HostState.SUSPECT, HostState.MAINTENANCE, HostState.FENCED])
def test_a_host_that_was_not_lost_counts_nothing_on_its_return(state: HostState) -> None:
    assert exits_on_return(host_record("h1", state, suspected_at=T0 - 40)) == ()


def test_its_return_is_written_with_its_exit() -> None:
    records = [host_record("h1", HostState.LOST, suspected_at=T0 - 40), host_record("h2"), host_record("h3")]
    record, _ = h1_after(returning(records=records))
    assert record is not None
    assert (record.state, record.exits) == (HostState.RETURNING, (T0 - 40,))


@given(st.lists(st.floats(0, 20_000), min_size=1, max_size=60), st.integers(0, EXITS_MAX))
def test_exits_are_bounded_in_order_and_of_one_hour_and_enough_of_them_are_needed(
    times: list[float], allowed: int
) -> None:
    exits: tuple[Instant, ...] = ()
    for at in times:
        exits = with_exit(exits, Instant(at))
        assert exits == with_exit(exits, Instant(at)), "told again it counts once"
    assert list(exits) == sorted(set(exits))
    assert len(exits) <= EXITS_MAX
    assert exits[-1] - exits[0] <= HOUR_S
    assert set(exits) <= set(times)
    record = replace(host_record("h1"), exits=exits)
    why = why_quarantined(record, Policy(quarantine_exits=allowed))
    assert bool(why) == (0 < allowed <= len(exits))


@pytest.mark.parametrize("value", [-1, 21])
def test_the_policy_is_bounded(value: int) -> None:
    with pytest.raises(PolicyRefused, match="quarantine_exits"):
        Policy(quarantine_exits=value)
