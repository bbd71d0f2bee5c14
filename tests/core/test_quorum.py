"""The brakes: off by one nowhere, maintenance never cut, and who holds every start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.detector import Watch
from fangnetz.core.model import ClusterView, Heartbeat, HostDoc, HostState, HypervisorHealth
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import BrakeKind, away, brakes, lost_allowed, unheard_in_this_life
from fangnetz.core.units import ControllerId, HostId, Instant
from tests.core.world import (
    T0,
    beat,
    binding,
    host_record,
    off_proof,
    probe_round,
    spec,
    verdicts_of,
    view,
    watched,
)

POLICY = Policy()
H1 = HostId("h1")


def cluster(hosts: int, lost: int, **more: object) -> ClusterView:
    names = [f"h{n}" for n in range(1, hosts + 1)]
    gone = set(names[:lost])
    beats = [beat(h, T0 - (9.0 if h in gone else 0.2)) for h in names]
    probes = tuple(probe_round(T0 - n, {h: h not in gone for h in names}, references=("router",)) for n in (1, 0))
    return view(T0, hosts=names, beats=beats, probes=probes, **more)  # type: ignore[arg-type]


def kinds(seen: ClusterView, *, started: float = T0 - 3000, host: HostId = H1) -> set[BrakeKind]:
    return {b.kind for b in brakes(host, seen, watched(seen, started=started), verdicts_of(seen), POLICY)}


@pytest.mark.parametrize(
    ("hosts", "most"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (8, 2), (9, 3), (10, 3), (100, 34)]
)
def test_a_share_is_rounded_down_but_one_host_always_may_be_lost(hosts: int, most: int) -> None:
    assert lost_allowed(hosts, 0.34) == most


@pytest.mark.parametrize(("hosts", "lost"), [(2, 1), (3, 1), (4, 1), (6, 2), (10, 3)])
def test_as_many_as_allowed_may_be_cut(hosts: int, lost: int) -> None:
    assert kinds(cluster(hosts, lost)) == set()


@pytest.mark.parametrize(("hosts", "lost"), [(2, 2), (3, 2), (4, 2), (6, 3), (10, 4)])
def test_one_more_is_our_own_failure(hosts: int, lost: int) -> None:
    assert BrakeKind.MASS_FAILURE in kinds(cluster(hosts, lost))


@pytest.mark.parametrize(("hosts", "lost"), [(1, 1), (2, 2), (3, 2), (3, 3), (10, 6)])
def test_without_a_majority_nobody_is_cut(hosts: int, lost: int) -> None:
    assert BrakeKind.NO_QUORUM in kinds(cluster(hosts, lost))


def test_a_host_that_is_overdue_already_counts_as_lost() -> None:
    seen = cluster(3, 1)
    beats = {**seen.heartbeats, HostId("h2"): beat("h2", T0 - 1.6)}
    assert BrakeKind.MASS_FAILURE in kinds(replace(seen, heartbeats=beats))


def test_a_host_only_just_back_counts_as_lost_until_the_others_had_a_window_to_come_back_too() -> None:
    seen = cluster(3, 1)
    watch = watched(seen)

    def back(ago: float) -> Watch:
        h2 = replace(watch.hosts[HostId("h2")], back_at=Instant(T0 - ago))
        return replace(watch, hosts={**watch.hosts, HostId("h2"): h2})

    now, later = (brakes(H1, seen, back(ago), verdicts_of(seen), POLICY) for ago in (0.5, 3.1))
    assert [b.kind for b in now] == [BrakeKind.MASS_FAILURE]
    assert later == ()


def test_a_host_proven_off_is_out_of_the_count() -> None:
    seen = cluster(3, 2)
    records = {**seen.host_records, HostId("h2"): host_record("h2", HostState.FENCED, proof=off_proof("h2", T0 - 5))}
    assert kinds(replace(seen, host_records=records)) == set()


def test_a_host_proven_off_that_speaks_as_a_new_boot_is_in_the_count_again() -> None:
    fenced = host_record("h1", HostState.RETURNING, proof=off_proof("h1", T0 - 50))
    seen = view(T0, beats=[beat("h1", T0 - 1, boot="i2")], records=[fenced])
    assert not away(seen, H1)
    assert away(view(T0, beats=[beat("h1", T0 - 51)], records=[fenced]), H1)


def test_a_host_in_maintenance_is_never_cut_and_never_counted() -> None:
    doc = HostDoc(id=H1, maintenance=True)
    assert kinds(cluster(3, 1, docs=[doc])) == {BrakeKind.MAINTENANCE}
    assert kinds(cluster(3, 2, docs=[doc]), host=HostId("h2")) == set()
    assert BrakeKind.NO_QUORUM in kinds(cluster(3, 3, docs=[doc]), host=HostId("h2"))


@pytest.mark.parametrize(("age", "braked"), [(59.0, True), (61.0, False)])
def test_a_host_that_has_not_reported_yet_brakes_for_the_startup_grace(age: float, braked: bool) -> None:
    seen = cluster(10, 1)
    beats = {h: b for h, b in seen.heartbeats.items() if h != "h1"}
    by_controller = kinds(replace(seen, heartbeats=beats), started=T0 - age)
    by_life = kinds(
        replace(seen, heartbeats=beats, life=replace(seen.life, since=Instant(T0 - age))), started=T0 - 86400
    )
    assert (BrakeKind.STARTUP_GRACE in by_controller) == (BrakeKind.STARTUP_GRACE in by_life) == braked


def test_a_young_controller_may_act_once_everybody_has_reported() -> None:
    assert kinds(cluster(3, 1), started=T0 - 10) == set()


def standing_on(seen: ClusterView, **places: str) -> ClusterView:
    """The same with controllers that run on hosts."""
    specs = {
        host: replace(it, controllers=tuple(ControllerId(c) for c, place in places.items() if place == host))
        for host, it in seen.hosts.items()
    }
    return replace(seen, hosts=specs)


@pytest.mark.parametrize(
    ("holder", "place", "braked"),
    [("c1", "h1", True), ("c1", "h2", False), ("c2", "h1", False), (None, "h1", False)],
    ids=["decides on the lost host", "on a living one", "another decides", "nobody does"],
)
def test_who_decides_on_the_very_host_to_be_cut_does_not_order_that_cut(
    holder: str | None, place: str, braked: bool
) -> None:
    for hosts in (2, 3):
        seen = standing_on(cluster(hosts, 1, holder=holder), c1=place, c2="h2")
        assert kinds(seen) == ({BrakeKind.OWN_HOST} if braked else set())


def own_host_advice(looked: dict[str, float], left: tuple[str, ...] = (), **places: str) -> str:
    """What is said while c1, on the lost h1, decides. `looked`: seconds since each controller last did."""
    seen = standing_on(
        cluster(3, 2, holder="c1", looked={name: T0 - ago for name, ago in looked.items()}), **{"c1": "h1", **places}
    )
    seen = replace(seen, files={ControllerId(name): "" if name in left else "digest" for name in looked})
    (brake,) = (b for b in brakes(H1, seen, watched(seen), verdicts_of(seen), POLICY) if b.kind is BrakeKind.OWN_HOST)
    return brake.sentence


@pytest.mark.parametrize(("place", "looked"), [("", 0.5), ("h2", 0.5), ("h3", POLICY.resume_s)])
def test_who_must_not_cut_its_own_host_names_a_controller_elsewhere_that_still_looks(place: str, looked: float) -> None:
    advice = own_host_advice({"c1": 0, "c2": looked}, **({"c2": place} if place else {}))
    assert "c2" in advice
    assert "stop c1 " in advice
    assert "host fence" not in advice


@pytest.mark.parametrize(
    ("looked", "left", "place"),
    [
        ({"c1": 0}, (), "h2"),
        ({"c1": 0, "c2": POLICY.resume_s + 0.1}, (), "h2"),
        ({"c1": 0, "c2": 0.5}, (), "h1"),
        ({"c1": 0, "c2": 0.5}, ("c2",), "h2"),
    ],
    ids=["never looked", "looked long ago", "on the same host", "has left"],
)
def test_where_no_controller_elsewhere_looks_a_person_is_told_what_is_left_to_do(
    looked: dict[str, float], left: tuple[str, ...], place: str
) -> None:
    advice = own_host_advice(looked, left, c2=place)
    assert "stop c1" not in advice
    assert "`fangnetz host fence h1`" in advice
    assert "`fangnetz host confirm-off h1`" in advice
    assert "only once another controller runs" in advice, "the cut ends the one that decides, too"


def test_all_controllers_on_the_host_are_stopped_or_another_of_them_takes_the_lease() -> None:
    assert "stop c1 and c3 " in own_host_advice({"c1": 0, "c2": 0.5, "c3": 0.5}, c3="h1")


def test_of_two_hosts_one_is_cut_only_while_the_other_beats() -> None:
    two = standing_on(cluster(2, 1), c1="h2")
    assert kinds(two) == set()
    silent = {**two.heartbeats, HostId("h2"): beat("h2", T0 - 9)}
    never = {host: said for host, said in two.heartbeats.items() if host != "h2"}
    away_too = replace(two, host_docs={HostId("h2"): HostDoc(id=HostId("h2"), maintenance=True)}, heartbeats=silent)
    for seen in (replace(two, heartbeats=silent), replace(two, heartbeats=never, host_records={}), away_too):
        assert BrakeKind.NO_QUORUM in kinds(seen)


def test_every_brake_says_why() -> None:
    seen = cluster(3, 3, docs=[HostDoc(id=H1, maintenance=True)])
    for brake in brakes(H1, seen, watched(seen), verdicts_of(seen), POLICY):
        assert "h" in brake.sentence
        assert len(brake.sentence) > 15


@given(hosts=st.integers(1, 40), lost=st.integers(0, 40))
def test_never_more_than_a_third_but_one_and_never_without_a_majority(hosts: int, lost: int) -> None:
    lost = min(lost, hosts)
    if lost and not kinds(cluster(hosts, lost)):
        assert lost == 1 or lost / hosts <= 0.34
        assert (hosts - lost) + 1 > (hosts + 1) / 2


# --- who holds starts --------------------------------------------------------------------------------------------


def holds(seen: ClusterView, *, started: float = T0 - 3000) -> tuple[HostId, ...]:
    return unheard_in_this_life(seen, watched(seen, started=started), POLICY)


def heard(*beats: Heartbeat, life_since: float = T0 - 100, **more: object) -> ClusterView:
    return view(T0, beats=beats, life_since=life_since, **more)  # type: ignore[arg-type]


TWO = (beat("h2", T0), beat("h3", T0))


def test_a_member_unheard_in_this_life_holds_every_start() -> None:
    assert holds(heard(*TWO)) == ("h1",)
    assert holds(heard(*TWO, beat("h1", T0 - 101))) == ("h1",)
    assert holds(heard(*TWO, beat("h1", T0 - 90))) == ()


def test_a_host_only_fence_memory_knows_holds_too() -> None:
    assert holds(heard(*TWO, records=(), bindings=[binding("h1")])) == ("h1",)


def test_a_host_nobody_remembers_holds_for_the_grace_of_the_stores_life_too() -> None:
    assert holds(heard(*TWO, records=(), life_since=T0 - 30)) == ("h1",)
    assert holds(heard(*TWO, records=()), started=T0 - 30) == ("h1",)
    assert holds(heard(*TWO, records=())) == ()


def test_proven_off_lifts_the_hold_and_a_void_proof_does_not() -> None:
    rest = [host_record("h2"), host_record("h3")]
    proof = off_proof("h1", T0 - 10)
    assert holds(heard(*TWO, records=[host_record("h1", proof=proof), *rest])) == ()
    assert holds(heard(*TWO, records=[host_record("h1", proof=replace(proof, void=True)), *rest])) == ("h1",)


@pytest.mark.parametrize("state", [HostState.MAINTENANCE, HostState.LEFT])
def test_neither_maintenance_nor_a_goodbye_lifts_the_hold(state: HostState) -> None:
    records = [host_record("h1", state), host_record("h2"), host_record("h3")]
    assert holds(heard(*TWO, records=records, docs=[HostDoc(id=H1, maintenance=True)])) == ("h1",)


def test_a_report_whose_inventory_is_older_than_the_life_is_no_inventory() -> None:
    hung = beat("h1", T0, hypervisor=HypervisorHealth.HUNG, age=500)
    assert holds(heard(*TWO, hung)) == ("h1",)
    assert holds(heard(*TWO, replace(hung, inventory_age_s=5.0))) == ()  # type: ignore[arg-type]


def test_a_host_that_is_merely_silent_now_holds_nothing() -> None:
    assert holds(heard(*TWO, beat("h1", T0 - 60))) == ()


def test_hosts_are_counted_from_the_cluster_file() -> None:
    seen = view(T0, hosts=[spec("h1"), spec("h9")], beats=[beat("h1", T0)], records=[host_record("h9")])
    assert holds(seen) == ("h9",)
