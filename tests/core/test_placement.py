"""Placement: never more than fits, every VM a host or a reason, and an order that does not depend on luck."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fangnetz.core.demand import Demand
from fangnetz.core.model import VmSpec
from fangnetz.core.placement import NotPlaced, Placed, place
from fangnetz.core.policy import Capacity, Policy, RankBy
from fangnetz.core.room import HostRoom
from fangnetz.core.units import HostId, MiB, VmId
from tests.core.world import spec

POLICY = Policy()


def vm(name: str, memory: int = 512, *, cpus: int = 1, priority: int = 0) -> VmSpec:
    return VmSpec(id=VmId(name), memory_mib=MiB(memory), cpus=cpus, priority=priority)


def room(name: str, memory: int = 4096, *, used: int = 0, cpus: int = 8, cpus_used: int = 0) -> HostRoom:
    return HostRoom(spec=spec(name, memory=memory, cpus=cpus), memory_used_mib=used, cpus_used=cpus_used)


def hosts_of(*results: Placed | NotPlaced) -> dict[str, str | None]:
    return {r.vm: r.host if isinstance(r, Placed) else None for r in results}


def test_the_emptiest_host_takes_it_and_then_the_next() -> None:
    assert hosts_of(*place([vm("a"), vm("b")], [room("h1", used=100), room("h2")], POLICY)) == {"a": "h2", "b": "h1"}


def test_the_highest_priority_is_placed_first_and_then_the_biggest() -> None:
    wanted = [vm("small", 300), vm("big", 900), vm("vital", 200, priority=5)]
    assert [r.vm for r in place(wanted, [room("h1")], POLICY)] == ["vital", "big", "small"]
    last = place(wanted, [room("h1", 1100)], POLICY)
    assert hosts_of(*last) == {"vital": "h1", "big": "h1", "small": None}


def test_where_it_belongs_wins_if_it_fits_there() -> None:
    preferred = {VmId("a"): HostId("h1")}
    assert hosts_of(*place([vm("a")], [room("h1", used=3000), room("h2")], POLICY, preferred=preferred)) == {"a": "h1"}
    full = [room("h1", used=4000), room("h2")]
    assert hosts_of(*place([vm("a")], full, POLICY, preferred=preferred)) == {"a": "h2"}


def test_a_host_that_refused_it_is_not_asked_again_and_says_so() -> None:
    forbidden = {VmId("a"): {HostId("h1"): "h1 refused it"}}
    (left,) = place([vm("a")], [room("h1")], POLICY, forbidden=forbidden)
    assert left == NotPlaced(vm=VmId("a"), reason="h1 refused it")


def test_memory_to_the_last_mib_fits_and_one_more_does_not() -> None:
    assert hosts_of(*place([vm("a", 96)], [room("h1", used=4000)], POLICY)) == {"a": "h1"}
    assert hosts_of(*place([vm("a", 97)], [room("h1", used=4000)], POLICY)) == {"a": None}


def test_cpus_count_with_their_overcommit() -> None:
    tight = replace(POLICY, cpu_overcommit=1.0)
    assert hosts_of(*place([vm("a", cpus=2)], [room("h1", cpus_used=7)], tight)) == {"a": None}
    assert hosts_of(*place([vm("a", cpus=2)], [room("h1", cpus_used=7)], POLICY)) == {"a": "h1"}


def test_every_reason_is_kept() -> None:
    (left,) = place([vm("a", 5000)], [room("h1"), room("h2", used=4000)], POLICY)
    assert isinstance(left, NotPlaced)
    assert "4096 MiB free" in left.reason
    assert "h2 has 96 MiB" in left.reason


def test_without_a_host_the_reason_says_that() -> None:
    assert place([vm("a")], [], POLICY) == (NotPlaced(vm=VmId("a"), reason="no host is online and open for VMs"),)


def test_sizes_only_rank_where_the_policy_says_so() -> None:
    assert hosts_of(*place([vm("a", 9999)], [room("h1")], replace(POLICY, capacity=Capacity.RANK))) == {"a": "h1"}


names = st.text("abcdefgh", min_size=1, max_size=3)
wanted_vms = st.lists(
    st.builds(vm, names, st.integers(1, 3000), cpus=st.integers(1, 9), priority=st.integers(0, 2)),
    max_size=12,
    unique_by=lambda v: v.id,
)
open_rooms = st.lists(
    st.builds(room, names, st.integers(1, 6000), used=st.integers(0, 7000), cpus=st.integers(1, 4)),
    max_size=6,
    unique_by=lambda r: r.spec.id,
)


@settings(max_examples=300)
@given(wanted_vms, open_rooms, st.data())
def test_nothing_is_ever_overfilled_and_no_vm_is_missed(
    vms: list[VmSpec], rooms: list[HostRoom], data: st.DataObject
) -> None:
    hosts = [r.spec.id for r in rooms]
    some_hosts = st.lists(st.sampled_from(hosts)) if hosts else st.just([])
    forbidden = {v.id: dict.fromkeys(data.draw(some_hosts), "no") for v in vms}
    results = place(vms, rooms, POLICY, forbidden=forbidden)
    assert sorted(r.vm for r in results) == sorted(v.id for v in vms)
    sizes = {v.id: v for v in vms}
    for at in rooms:
        here = [sizes[r.vm] for r in results if isinstance(r, Placed) and r.host == at.spec.id]
        if here:
            assert at.memory_used_mib + sum(v.memory_mib for v in here) <= at.spec.memory_mib
            assert at.cpus_used + sum(v.cpus for v in here) <= at.spec.cpus * POLICY.cpu_overcommit
    for result in results:
        assert result.reason
        if isinstance(result, Placed):
            assert result.host not in forbidden[result.vm]
    assert results == place(list(reversed(vms)), list(reversed(rooms)), POLICY, forbidden=forbidden) or any(
        isinstance(r, NotPlaced) for r in results
    )


@given(wanted_vms, open_rooms)
def test_a_vm_is_left_out_only_if_it_fits_nowhere_beside_those_before_it(
    vms: list[VmSpec], rooms: list[HostRoom]
) -> None:
    used = {r.spec.id: r.memory_used_mib for r in rooms}
    cpus = {r.spec.id: r.cpus_used for r in rooms}
    sizes = {v.id: v for v in vms}
    for result in place(vms, rooms, POLICY):
        size = sizes[result.vm]
        if isinstance(result, Placed):
            used[result.host] += size.memory_mib
            cpus[result.host] += size.cpus
            continue
        for at in rooms:
            full = used[at.spec.id] + size.memory_mib > at.spec.memory_mib
            busy = cpus[at.spec.id] + size.cpus > at.spec.cpus * POLICY.cpu_overcommit
            assert full or busy


# --- by what was measured ----------------------------------------------------------------------------------------

MEASURED = Policy(rank_by=RankBy.MEASURED)


def using(cpus: float, memory: float = 100) -> Demand:
    return Demand(cpus=cpus, memory_mib=memory)


def carrying(name: str, *vms: VmSpec) -> HostRoom:
    return room(name).with_more(vms)


def test_the_less_busy_of_two_hosts_that_are_alike_by_configuration_takes_it() -> None:
    rooms = [carrying("h1", vm("busy")), carrying("h2", vm("idle"))]
    demand = {VmId("busy"): using(3.5), VmId("idle"): using(0.1), VmId("a"): using(0.5)}
    assert hosts_of(*place([vm("a")], rooms, POLICY, demand=demand)) == {"a": "h1"}
    (placed,) = place([vm("a")], rooms, MEASURED, demand=demand)
    assert hosts_of(placed) == {"a": "h2"}
    assert "least busy of 2 that fit, with 0.1 of 8 cpus and 100 of 4096 MiB in use" in placed.reason
    assert "as configured" not in placed.reason


def test_what_a_host_has_less_of_is_what_counts() -> None:
    rooms = [carrying("h1", vm("eater")), carrying("h2", vm("reckoner"))]
    demand = {VmId("eater"): using(0.1, 2900), VmId("reckoner"): using(5, 100), VmId("a"): using(0.1, 10)}
    assert hosts_of(*place([vm("a")], rooms, MEASURED, demand=demand)) == {"a": "h2"}


def test_what_is_placed_is_counted_by_what_it_used_where_it_was() -> None:
    demand = {VmId("a"): using(6), VmId("b"): using(0.1), VmId("c"): using(0.1)}
    wanted = [vm("a", priority=2), vm("b", priority=1), vm("c")]
    placed = place(wanted, [room("h1"), room("h2")], MEASURED, demand=demand)
    assert hosts_of(*placed) == {"a": "h1", "b": "h2", "c": "h2"}


def test_what_was_not_measured_counts_as_configured_and_is_named() -> None:
    many = [vm(f"v{number}", 100) for number in range(5)]
    demand = {VmId("a"): using(0.1), VmId("other"): using(0.1)} | {
        v.id: Demand(cpus=1, memory_mib=100, guessed=frozenset((v.id,))) for v in many
    }
    (placed,) = place([vm("a")], [carrying("h1", *many), carrying("h2", vm("other"))], MEASURED, demand=demand)
    assert hosts_of(placed) == {"a": "h2"}
    assert "v0, v1, v2 and 2 more count as configured" in placed.reason
    (placed,) = place([vm("a")], [room("h1")], MEASURED)
    assert "a counts as configured" in placed.reason


def test_noise_decides_nothing_and_rules_and_home_go_before_load() -> None:
    rooms = [carrying("h1", vm("x", 100)), carrying("h2", vm("y", 900))]
    noise = {VmId("x"): using(0.104), VmId("y"): using(0.1), VmId("a"): using(0.1)}
    assert hosts_of(*place([vm("a")], rooms, MEASURED, demand=noise)) == {"a": "h1"}
    busy = {VmId("x"): using(7), VmId("y"): using(0.1), VmId("a"): using(0.1)}
    home = {VmId("a"): HostId("h1")}
    assert hosts_of(*place([vm("a")], rooms, MEASURED, demand=busy, preferred=home)) == {"a": "h1"}


@settings(max_examples=300)
@given(
    wanted_vms,
    open_rooms,
    st.dictionaries(names.map(VmId), st.builds(using, st.floats(0, 99), st.floats(0, 9999)), max_size=12),
)
def test_no_measurement_puts_a_vm_where_its_configured_size_does_not_fit(
    vms: list[VmSpec], rooms: list[HostRoom], demand: dict[VmId, Demand]
) -> None:
    sizes = {v.id: v for v in vms}
    measured = place(vms, rooms, MEASURED, demand=demand)
    assert sorted(r.vm for r in measured) == sorted(sizes)
    for at in rooms:
        here = [sizes[r.vm] for r in measured if isinstance(r, Placed) and r.host == at.spec.id]
        if here:
            assert at.memory_used_mib + sum(v.memory_mib for v in here) <= at.spec.memory_mib
            assert at.cpus_used + sum(v.cpus for v in here) <= at.spec.cpus * MEASURED.cpu_overcommit
