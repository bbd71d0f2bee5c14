"""What a VM takes of a host: the youngest sound measurement, else what it is configured with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.demand import FRESH_S, Demand, demands, total
from fangnetz.core.model import ClusterView, Heartbeat, HostState, VmUse
from fangnetz.core.policy import Policy, RankBy
from fangnetz.core.rooms import place_in, rooms
from fangnetz.core.units import MiB, Seconds, VmId
from tests.core.world import T0, beat, host_record, spec, verdicts_of, view, vm_doc, vm_record

A = VmId("a")
GUESSED = Demand(cpus=2, memory_mib=512, guessed=frozenset((A,)))


def saying(host: str, at: float, *uses: VmUse, age: float = 5.0) -> Heartbeat:
    return replace(beat(host, at), uses=uses, uses_age_s=Seconds(age))


def used(cpus: float, memory: int = 300, vm: str = "a") -> VmUse:
    return VmUse(VmId(vm), cpus, MiB(memory))


def seen(*beats: Heartbeat) -> ClusterView:
    return view(T0, beats=beats, vms=[(vm_doc("a", cpus=2), vm_record("a", "h1"))])


def test_a_fresh_measurement_counts() -> None:
    assert demands(seen(saying("h1", T0, used(0.25)))) == {A: Demand(cpus=0.25, memory_mib=300)}


@pytest.mark.parametrize(
    "said",
    [
        (),
        (beat("h1", T0),),
        (saying("h1", T0, used(0.25), age=FRESH_S + 0.1),),
        (saying("h1", T0 - FRESH_S, used(0.25), age=0.1),),
        (saying("h1", T0, used(0.25, vm="b")),),
        (saying("h1", T0, used(float("nan"))),),
        (saying("h1", T0, used(float("inf"))),),
        (saying("h1", T0, used(-1.0)),),
        (saying("h1", T0, used(0.1, -1)),),
    ],
    ids=["never heard", "nothing measured", "old", "long silent", "of another", "nan", "endless", "less than no cpu",
         "less than no memory"],
)  # fmt: skip
def test_without_one_the_configured_size_does_and_it_is_said_so(said: tuple[Heartbeat, ...]) -> None:
    assert demands(seen(*said)) == {A: GUESSED}


def test_what_a_host_said_before_it_was_lost_counts_for_a_while() -> None:
    assert demands(seen(saying("h1", T0 - 30, used(0.25)))) == {A: Demand(cpus=0.25, memory_mib=300)}


@pytest.mark.parametrize(("older", "younger"), [("h1", "h2"), ("h2", "h1")])
def test_the_youngest_word_counts_wherever_the_vm_was(older: str, younger: str) -> None:
    said = seen(saying(older, T0, used(7.0), age=20), saying(younger, T0 - 1, used(0.5), age=2))
    assert demands(said)[A].cpus == 0.5


def test_what_another_memory_of_the_store_heard_does_not_count() -> None:
    said = seen(saying("h1", T0, used(0.25)))
    later = replace(said, life=replace(said.life, since=T0 + 1))
    assert demands(later) == {A: GUESSED}


def test_several_take_what_each_takes_and_keep_who_was_guessed() -> None:
    assert total((GUESSED, Demand(cpus=0.5, memory_mib=100))) == Demand(
        cpus=2.5, memory_mib=612, guessed=frozenset((A,))
    )


def test_the_policy_decides_by_what_hosts_are_ranked() -> None:
    here = [saying("h1", T0, used(7.0, vm="x")), saying("h2", T0, used(0.1, vm="y"))]
    records = [host_record("h1", HostState.ONLINE), host_record("h2", HostState.ONLINE)]
    vms = [
        (vm_doc("a"), vm_record("a", None)),
        (vm_doc("x"), vm_record("x", "h1")),
        (vm_doc("y"), vm_record("y", "h2")),
    ]
    hosts = [spec("h1"), spec("h2")]
    said = view(T0, hosts=hosts, beats=here, records=records, vms=vms)
    where = {}
    for rank_by in RankBy:
        policy = Policy(rank_by=rank_by)
        (found,) = place_in(said, rooms(said, verdicts_of(said, policy=policy)), [A], policy)
        where[rank_by] = getattr(found, "host", found.reason)
    assert where == {RankBy.CONFIGURED: "h1", RankBy.MEASURED: "h2"}
