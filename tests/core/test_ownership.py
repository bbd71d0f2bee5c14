"""No start without proof: the law written down a second time, from SAFETY's rule 2, and held against the one door."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangnetz.core.model import (
    ClusterView,
    Heartbeat,
    HostState,
    HypervisorHealth,
    OffProof,
    Sighting,
    VmRecord,
)
from fangnetz.core.ownership import Granted, may_own, owner_let_go, rebooted_without, unanswered_order
from fangnetz.core.units import HostId, Incarnation, Instant, VmId
from tests.core.world import T0, beat, host_record, off_proof, sighting, view, vm_doc, vm_record

H1, H2 = HostId("h1"), HostId("h2")
I1 = Incarnation("i1")
WEB = vm_record("web", "h1", 5)


def seen_with(*beats: Heartbeat, proof: OffProof | None = None) -> ClusterView:
    records = [host_record("h1", proof=proof), host_record("h2"), host_record("h3")]
    return view(T0, beats=beats, records=records, vms=[(vm_doc("web"), WEB)])


def free(seen: ClusterView, record: VmRecord = WEB, hold: tuple[HostId, ...] = ()) -> bool:
    return isinstance(may_own(seen, record, H2, I1, hold), Granted)


def test_silence_is_no_evidence() -> None:
    assert not free(seen_with(beat("h1", T0 - 9999)))
    assert not free(seen_with())


def test_a_standing_proof_frees_the_vm() -> None:
    assert free(seen_with(beat("h1", T0 - 20, runs={"web": 5}), proof=off_proof("h1", T0 - 10)))
    assert free(seen_with(proof=off_proof("h1", T0 - 10)))


@pytest.mark.parametrize(
    "proof",
    [off_proof("h1", T0 - 10, void=True), off_proof("h1", T0 - 10, boot="i0"), off_proof("h1", T0 - 10, boot="i2")],
    ids=["void", "of an earlier boot", "of a boot never heard"],
)
def test_another_proof_does_not(proof: OffProof) -> None:
    assert not free(seen_with(beat("h1", T0 - 20), proof=proof))


def test_a_report_after_the_proof_voids_it() -> None:
    assert not free(seen_with(beat("h1", T0 - 5), proof=off_proof("h1", T0 - 10)))


def test_a_living_owner_must_have_promised_this_number_or_a_higher_one() -> None:
    assert not free(seen_with(beat("h1", T0)))
    assert not free(seen_with(beat("h1", T0, releases={"web": 4})))
    assert not free(seen_with(beat("h1", T0, releases={"db": 9})))
    assert free(seen_with(beat("h1", T0, releases={"web": 5})))
    assert free(seen_with(beat("h1", T0, releases={"web": 6})))


def test_a_promise_beside_a_copy_that_runs_is_not_believed() -> None:
    assert not free(seen_with(beat("h1", T0, releases={"web": 5}, runs={"web": 4})))


def test_the_promise_of_another_boot_is_none() -> None:
    hung = beat("h1", T0, boot="i2", releases={"web": 5}, hypervisor=HypervisorHealth.HUNG)
    assert not free(seen_with(hung))


def test_a_new_boot_without_the_vm_frees_it_only_if_its_libvirt_answers() -> None:
    assert free(seen_with(beat("h1", T0, boot="i2")))
    assert not free(seen_with(beat("h1", T0, boot="i2", hypervisor=HypervisorHealth.HUNG)))
    assert not free(seen_with(beat("h1", T0, boot="i2", hypervisor=HypervisorHealth.DOWN)))
    assert not free(seen_with(beat("h1", T0, boot="i2", runs={"web": 5})))


def test_a_later_boot_proven_off_frees_what_an_earlier_one_owned() -> None:
    down = beat("h1", T0 - 20, boot="i2", hypervisor=HypervisorHealth.DOWN)
    assert free(seen_with(down, proof=off_proof("h1", T0 - 10, boot="i2")))
    assert not free(seen_with(replace(down, incarnation=Incarnation("i3")), proof=off_proof("h1", T0 - 10, boot="i2")))


@pytest.mark.parametrize("state", list(Sighting))
def test_a_vm_seen_anywhere_else_in_any_state_is_not_given_away(state: Sighting) -> None:
    third = beat("h3", T0 - 900, seen=(sighting("web", 3, state),))
    assert not free(seen_with(third, proof=off_proof("h1", T0 - 10)))


def test_a_vm_seen_on_a_host_proven_off_is_not_seen() -> None:
    seen = seen_with(beat("h3", T0 - 20, runs={"web": 5}), proof=off_proof("h1", T0 - 10))
    gone = host_record("h3", HostState.FENCED, proof=off_proof("h3", T0 - 10))
    assert free(replace(seen, host_records={**seen.host_records, HostId("h3"): gone}))


def test_hosts_unheard_in_this_life_hold_every_start_even_of_an_unowned_vm() -> None:
    assert not free(seen_with(), vm_record("web", None), hold=(HostId("h3"),))
    assert free(seen_with(), vm_record("web", None))


def test_the_owner_may_have_it_again_but_not_its_next_boot_without_evidence() -> None:
    seen = seen_with(beat("h1", T0))
    assert isinstance(may_own(seen, WEB, H1, I1, ()), Granted)
    assert not isinstance(may_own(seen, WEB, H1, Incarnation("i2"), ()), Granted)


def test_what_an_earlier_boot_owned_and_the_present_one_lacks() -> None:
    assert rebooted_without(seen_with(beat("h1", T0, boot="i2")), H1) == (VmId("web"),)
    assert rebooted_without(seen_with(beat("h1", T0)), H1) == ()
    assert rebooted_without(seen_with(beat("h1", T0, boot="i2", runs={"web": 5})), H1) == ()
    assert rebooted_without(seen_with(beat("h1", T0, boot="i2", hypervisor=HypervisorHealth.HUNG)), H1) == ()
    assert rebooted_without(seen_with(), H1) == ()


# --- the law, from the rule and not from the code ----------------------------------------------------------------

boots = st.sampled_from(["i1", "i2", "i3"])
instants = st.integers(-60, 0).map(lambda s: T0 + s)


@st.composite
def heartbeats(draw: st.DrawFn, host: str) -> Heartbeat:
    inventory = draw(st.dictionaries(st.just("web"), st.integers(1, 8), max_size=1))
    releases = draw(st.dictionaries(st.sampled_from(["web", "db"]), st.integers(1, 8), max_size=2))
    return beat(
        host,
        draw(instants),
        boot=draw(boots),
        runs=dict(inventory),
        releases=releases,
        hypervisor=draw(st.sampled_from(HypervisorHealth)),
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[ClusterView, VmRecord]:
    beats = [draw(heartbeats(h)) for h in ("h1", "h2", "h3") if draw(st.booleans())]
    records = [
        host_record(
            h,
            boot=draw(boots),
            proof=draw(
                st.none()
                | st.builds(
                    lambda at, boot, void, h=h: off_proof(h, at, boot=boot, void=void), instants, boots, st.booleans()
                )
            ),
        )
        for h in ("h1", "h2", "h3")
    ]
    record = vm_record("web", draw(st.sampled_from([None, "h1", "h3", "gone"])), draw(st.integers(1, 8)))
    life_since = draw(st.sampled_from([T0 - 3600, T0 - 30]))
    return view(T0, beats=beats, records=records, vms=[(vm_doc("web"), record)], life_since=life_since), record


def evidence_about_the_owner(seen: ClusterView, record: VmRecord, promised: int) -> bool:
    """Rule 2 in its own words: (a)/(d) off and silent since, (b) released at g and not there, (e) booted without it.

    `promised`: by a typed refusal. Anything else about the owner, above all silence, gives False.
    """
    assert record.owner is not None
    last = seen.heartbeats.get(record.owner)
    if last is not None and last.received_at < seen.life.since:
        last = None
    host = seen.host_records.get(record.owner)
    proof = host.proof if host else None
    if proof is not None and not proof.void:
        spoke_since = last is not None and last.incarnation == proof.incarnation and last.received_at > proof.proven_at
        if proof.incarnation == record.owner_incarnation and not spoke_since:
            return True
        if last is not None and proof.incarnation == last.incarnation and not spoke_since:
            return True  # a later boot, heard, then off: the machine is off
    if last is None:
        return False
    there = any(s.vm == record.id for s in last.inventory)
    if last.incarnation == record.owner_incarnation:
        told = [promised, *(r.generation for r in last.releases if r.vm == record.id)]
        return not there and max(told) >= record.generation
    return not there and last.hypervisor is HypervisorHealth.OK


@settings(max_examples=600)
@given(situations(), st.booleans(), st.integers(0, 8))
def test_ownership_never_moves_without_evidence_about_the_boot_that_had_it(
    situation: tuple[ClusterView, VmRecord], held: bool, promised: int
) -> None:
    seen, record = situation
    hold = (HostId("h3"),) if held else ()
    for target in ("h1", "h2", "h3"):
        for boot in ("i1", "i2"):
            answer = may_own(seen, record, HostId(target), Incarnation(boot), hold, promised)
            assert answer.because
            if not isinstance(answer, Granted):
                continue
            assert not held
            if record.owner is None or (record.owner, record.owner_incarnation) == (target, boot):
                continue
            assert evidence_about_the_owner(seen, record, promised)


@settings(max_examples=300)
@given(situations())
def test_a_vm_that_a_living_host_reports_is_never_given_to_another(situation: tuple[ClusterView, VmRecord]) -> None:
    seen, record = situation
    for host, last in seen.heartbeats.items():
        proof = seen.host_records[host].proof
        dead = proof is not None and not proof.void and proof.incarnation == last.incarnation
        if last.received_at < seen.life.since or dead or not any(s.vm == record.id for s in last.inventory):
            continue
        for target in seen.hosts:
            if target != host:
                assert not isinstance(may_own(seen, record, target, I1, ()), Granted)


def test_a_vm_nobody_owned_needs_no_evidence() -> None:
    assert isinstance(owner_let_go(seen_with(), vm_record("web", None)), Granted)


def test_a_vm_nobody_owns_waits_for_whoever_is_starting_it_by_an_order_of_a_forgotten_life() -> None:
    begun = beat("h1", T0 - 1, orders=("failover-h3-1a/start/web/1",))
    nobody = vm_record("web", None)
    assert not free(seen_with(begun), nobody)
    assert free(seen_with(beat("h1", T0 - 1, orders=("failover-h3-1a/start/web2/1",))), nobody)
    assert free(seen_with(begun, proof=off_proof("h1", T0 - 0.5)), nobody)


def test_a_start_that_libvirt_never_answered_keeps_the_vm_though_an_owner_of_an_older_record_promised() -> None:
    """The store was rolled back to before the VM went to h2, where the worker was killed in its start."""
    promised = beat("h1", T0 - 0.1, releases={"web": 5})
    assert free(seen_with(promised, beat("h3", T0 - 0.1)))
    assert not free(seen_with(promised, beat("h3", T0 - 0.1, orders=(unanswered_order(WEB.id),))))
    assert not free(seen_with(promised, beat("h2", T0 - 0.1, orders=(unanswered_order(WEB.id),)))), "nor again there"


@pytest.mark.parametrize(
    ("heard_for", "contested", "granted"), [(5.0, False, True), (1.0, False, False), (5.0, True, False)]
)
def test_a_new_boot_proves_something_only_settled_and_uncontested(
    heard_for: float, contested: bool, granted: bool
) -> None:
    late = replace(
        beat("h1", T0 - 0.1, boot="i2"),
        boot_since=Instant(T0 - 0.1 - heard_for),
        contested_at=Instant(T0 - 0.5 if contested else 0.0),
    )
    seen = view(T0, beats=[late, beat("h2", T0 - 0.1)], vms=[(vm_doc("web"), vm_record("web", "h1", 5))])
    assert isinstance(owner_let_go(seen, vm_record("web", "h1", 5)), Granted) is granted


@pytest.mark.parametrize("owner", ["h1", "h2", "h3", None])
def test_a_vm_with_a_held_copy_is_given_to_nobody_not_even_to_its_owner(owner: str | None) -> None:
    stale = replace(sighting("web", 5, Sighting.PAUSED), held=True)
    seen = seen_with(beat("h1", T0 - 30), beat("h2", T0, seen=(stale,)), beat("h3", T0), proof=off_proof("h1", T0 - 5))
    record = vm_record("web", owner, 5)
    ways = [may_own(seen, record, HostId(host), I1, ()) for host in ("h2", "h3")]
    assert not any(isinstance(way, Granted) for way in ways)


@pytest.mark.parametrize("state", [Sighting.RUNNING, Sighting.PAUSED])
def test_a_copy_without_that_mark_does_not_keep_its_owner_from_it(state: Sighting) -> None:
    seen = seen_with(beat("h1", T0, seen=(sighting("web", 5, state),)), beat("h2", T0))
    assert isinstance(may_own(seen, WEB, H1, I1, ()), Granted)
