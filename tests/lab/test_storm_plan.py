"""A storm's plan: the same seed blows the same storm, and no storm asks more than a cluster can survive."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from fangnetz.engine.faults import parse
from fangnetz.lab.storm.faults import MASTER, NEW_LIFE, STORE_FAULTS, FaultKind, Planned
from fangnetz.lab.storm.plan import (
    CALM_AFTER_HOST_S,
    CALM_AFTER_STORE_S,
    PAUSE_S,
    QEMU_FAULTS_MAX,
    Cast,
    storm_plan,
)
from fangnetz.lab.storm.points import points_by_role

CAST = Cast(hosts=("host1", "host2", "host3"), controllers=("c1", "c2"), vms=("vm1", "vm2", "vm3", "vm4"))
seeds = st.integers(min_value=0, max_value=2**63)
spans = st.floats(min_value=20.0, max_value=1200.0)


def together(plan: tuple[Planned, ...], one: Planned, calm_s: float = 0.0) -> list[Planned]:
    """What else is on, or was until `calm_s` before, when `one` begins."""
    return [other for other in plan if other is not one and other.begins_s <= one.begins_s < other.ends_s + calm_s]


@given(seeds, spans)
def test_the_same_seed_gives_the_same_plan(seed: int, seconds: float) -> None:
    assert storm_plan(seed, seconds, CAST) == storm_plan(seed, seconds, CAST)


def test_different_seeds_give_different_plans() -> None:
    plans = {storm_plan(seed, 300.0, CAST) for seed in range(50)}
    assert len(plans) == 50


@given(seeds, spans)
def test_every_fault_ends_before_the_storm_does(seed: int, seconds: float) -> None:
    for planned in storm_plan(seed, seconds, CAST):
        assert 0.0 <= planned.begins_s <= planned.ends_s < seconds


@given(seeds)
def test_never_more_than_two_hosts_are_away_and_none_is_hit_again_at_once(seed: int) -> None:
    plan = storm_plan(seed, 1200.0, CAST)
    away = [planned for planned in plan if planned.fault.takes_host]
    for one in away:
        others = together(tuple(away), one, CALM_AFTER_HOST_S)
        assert len(others) <= 1
        assert all(other.fault.target != one.fault.target for other in others)


@given(seeds)
def test_the_store_has_one_fault_at_a_time_and_is_left_alone_after_it_forgot(seed: int) -> None:
    plan = storm_plan(seed, 1200.0, CAST)
    stores = tuple(planned for planned in plan if planned.fault.kind in STORE_FAULTS)
    for one in stores:
        assert not together(stores, one)
    forgot = tuple(planned for planned in stores if planned.fault.kind in NEW_LIFE)
    for one in stores:
        assert together(forgot, one, CALM_AFTER_STORE_S) == []


@given(seeds)
def test_no_bmc_ever_lies_and_each_has_one_trouble_at_a_time(seed: int) -> None:
    bmcs = tuple(p for p in storm_plan(seed, 1200.0, CAST) if p.fault.kind is FaultKind.BMC)
    for one in bmcs:
        assert one.fault.how in ("dark", "slow", "wrong-password")
        assert one.fault.target not in {other.fault.target for other in together(bmcs, one)}


@given(seeds)
def test_a_vm_s_own_process_is_not_hit_so_often_that_it_is_rightly_given_up(seed: int) -> None:
    plan = storm_plan(seed, 1200.0, CAST)
    for vm in CAST.vms:
        assert sum(1 for p in plan if p.fault.target == f"{vm}/qemu") <= QEMU_FAULTS_MAX


@settings(max_examples=20)
@given(seeds)
def test_a_long_storm_is_dense_and_holds_every_kind(seed: int) -> None:
    plan = storm_plan(seed, 3600.0, CAST)
    assert {p.fault.kind for p in plan} == set(FaultKind) - {
        FaultKind.POINT,
        FaultKind.STORE_FAILOVER,
        FaultKind.STORE_PART,
    }
    assert max(later.begins_s - earlier.begins_s for earlier, later in pairwise(plan)) < 4 * PAUSE_S[1]
    assert len([p for p in plan if p.fault.takes_host]) > 60


@settings(max_examples=20)
@given(seeds)
def test_of_several_stores_none_is_emptied_and_the_master_is_hit_most(seed: int) -> None:
    several = Cast(hosts=CAST.hosts, controllers=CAST.controllers, stores=("redis1", "redis2", "redis3"))
    stores = [p.fault for p in storm_plan(seed, 3600.0, several) if p.fault.kind in STORE_FAULTS]
    assert not [fault for fault in stores if fault.kind in NEW_LIFE]
    assert {fault.kind for fault in stores} >= {FaultKind.STORE_FAILOVER, FaultKind.STORE_PART}
    assert {fault.target for fault in stores} <= {MASTER, *several.stores}
    assert 3 * len([fault for fault in stores if fault.target == MASTER]) > len(stores)


def test_fault_points_are_armed_only_where_there_are_some() -> None:
    points = Cast(hosts=CAST.hosts, controllers=CAST.controllers, points=(("fence", ("fence.sent:kill",)),))
    armed = [p for p in storm_plan(1, 3600.0, points) if p.fault.kind is FaultKind.POINT]
    assert armed
    assert {(p.fault.target, p.fault.how) for p in armed} == {("fence", "fence.sent:kill")}
    assert not [p for p in storm_plan(1, 3600.0, points) if p.fault.target.endswith("/qemu")]


def test_every_fault_point_a_storm_arms_is_one_of_the_product_s() -> None:
    by_role = points_by_role()
    assert set(by_role) == {"control", "work", "fence", "worker"}
    for words in by_role.values():
        assert len(words) > 20
        for word in words:
            assert len(parse(word)) == 1


@given(seeds)
def test_every_fault_can_be_told_in_a_sentence(seed: int) -> None:
    for planned in storm_plan(seed, 600.0, CAST):
        sentence = planned.fault.sentence
        assert "{" not in sentence
        assert planned.fault.machine in sentence or "store" in sentence or "point" in sentence
