"""Placement: never more than fits, every VM a host or a reason, and an order that does not depend on luck."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fangnetz.core.model import VmSpec
from fangnetz.core.placement import HostRoom, NotPlaced, Placed, place
from fangnetz.core.policy import Capacity, Policy
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
