"""Placement rules: what keeps a VM from a host whatever room there is, and what it prefers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangnetz.core.actions import OpenOperation, SettleWish
from fangnetz.core.decide.openings import vm_operation
from fangnetz.core.model import REMOVED, ClusterView, Rules, VmSpec, VmState, WishKind
from fangnetz.core.operations import OperationKind, migrate_steps
from fangnetz.core.placement import NotPlaced, Placed, place
from fangnetz.core.policy import Policy
from fangnetz.core.room import HostRoom
from fangnetz.core.rooms import whereabouts
from fangnetz.core.rules import RuleBook, contradictions
from fangnetz.core.units import Epoch, HostId, MiB, VmId
from tests.core.world import T0, beat, decided, host_record, spec, view, vm_doc, vm_record, wish

POLICY = Policy()


def rules(
    *,
    allowed: str = "",
    strict: bool = True,
    preferred: dict[str, int] | None = None,
    together: str = "",
    apart: str = "",
) -> Rules:
    return Rules(
        allowed=tuple(map(HostId, allowed.split())),
        strict=strict,
        preferred=tuple((HostId(host), weight) for host, weight in (preferred or {}).items()),
        together=tuple(map(VmId, together.split())),
        apart=tuple(map(VmId, apart.split())),
    )


def vm(name: str, memory: int = 512, *, priority: int = 0) -> VmSpec:
    return VmSpec(id=VmId(name), memory_mib=MiB(memory), cpus=1, priority=priority)


def room(name: str, used: int = 0, *, memory: int = 4096, residents: str = "") -> HostRoom:
    return HostRoom(
        spec=spec(name, memory=memory), memory_used_mib=used, cpus_used=0,
        residents=frozenset(map(VmId, residents.split())),
    )  # fmt: skip


def book(**given: Rules) -> RuleBook:
    return RuleBook({VmId(name): one for name, one in given.items()})


def put(vms: Iterable[VmSpec], rooms: Iterable[HostRoom], ruled: RuleBook, **where: str) -> dict[str, str]:
    """Where each VM goes; in brackets why nowhere. `where`: hosts of VMs that are not placed here."""
    known = {VmId(name): frozenset(map(HostId, hosts.split())) for name, hosts in where.items()}
    found = place(vms, rooms, POLICY, rules=ruled, where=known)
    return {r.vm: r.host if isinstance(r, Placed) else f"({r.reason})" for r in found}


# --- one VM ------------------------------------------------------------------------------------------------------


def test_it_runs_only_where_it_is_allowed_to() -> None:
    only = book(a=rules(allowed="h2 h3"))
    assert put([vm("a")], [room("h1"), room("h2", 100), room("h3", 200)], only) == {"a": "h2"}
    assert put([vm("a")], [room("h1")], only) == {"a": "(h1 is not among the hosts allowed for a (h2, h3))"}
    rather = book(a=rules(allowed="h2 h3", strict=False))
    assert put([vm("a")], [room("h1"), room("h2", 100), room("h3", 200)], rather) == {"a": "h2"}
    assert put([vm("a")], [room("h1")], rather) == {"a": "h1"}


def test_the_more_preferred_host_wins_over_the_emptier_one_and_over_its_last_one() -> None:
    likes = book(a=rules(preferred={"h2": 5, "h3": 1, "h4": -1}))
    rooms = [room("h1"), room("h2", 3000), room("h3", 2000), room("h4")]
    assert put([vm("a")], rooms, likes) == {"a": "h2"}
    assert put([vm("a", 2000)], rooms, likes) == {"a": "h3"}, "the best one has no room"
    assert put([vm("a", 3000)], rooms, likes) == {"a": "h1"}
    assert put([vm("a", 3000)], [room("h4")], likes) == {"a": "h4"}, "disliked, and still better than nowhere"
    (found,) = place([vm("a")], rooms, POLICY, rules=likes, preferred={VmId("a"): HostId("h1")})
    assert isinstance(found, Placed)
    assert (found.host, "preferred by rule" in found.reason) == ("h2", True)


# --- apart -------------------------------------------------------------------------------------------------------


def test_two_that_are_apart_never_meet_whichever_of_them_says_so() -> None:
    for ruled in (book(a=rules(apart="b")), book(b=rules(apart="a"))):
        assert put([vm("a"), vm("b")], [room("h1"), room("h2", 3000)], ruled) == {"a": "h1", "b": "h2"}
        told = put([vm("a"), vm("b")], [room("h1")], ruled)
        assert told == {"a": "h1", "b": "(b and a are to run apart, and a is on h1)"}
        assert put([vm("b")], [room("h1"), room("h2")], ruled, a="h1") == {"b": "h2"}
        assert put([vm("b")], [room("h1"), room("h2")], ruled, a="h1 h2")["b"].startswith("("), "it is on its way"


# --- together ----------------------------------------------------------------------------------------------------


def test_those_that_run_together_go_where_all_of_them_fit() -> None:
    ruled = book(a=rules(together="b"), b=rules(together="c"))
    three = [vm("a", 1000, priority=9), vm("b", 1000), vm("c", 1000)]
    assert put(three, [room("h1", 1200, memory=4100), room("h2", 3000, memory=6100)], ruled) == {
        "a": "h2", "b": "h2", "c": "h2"
    }, "h1 has more room for the first, and none for the last"  # fmt: skip


def test_where_not_all_of_them_fit_the_most_important_run_and_the_rest_wait_for_that_host() -> None:
    ruled = book(a=rules(together="b"))
    told = put([vm("a", 3000), vm("b", 3000, priority=5)], [room("h1"), room("h2", 500)], ruled)
    assert told["b"] == "h1"
    assert "h1 has 1096 MiB free" in told["a"]
    assert "a is to run together with b, which is on h1" in told["a"]


def test_one_goes_to_the_others_and_nowhere_else() -> None:
    ruled = book(a=rules(together="b"))
    assert put([vm("a")], [room("h1"), room("h2", 3000)], ruled, b="h2") == {"a": "h2"}
    assert put([vm("a")], [room("h1")], ruled, b="h2") == {
        "a": "(a is to run together with b, which is on h2)"
    }  # fmt: skip
    assert put([vm("a")], [room("h1")], ruled) == {"a": "h1"}, "the other one is nowhere"


def test_what_holds_for_one_of_a_group_holds_for_all_of_it() -> None:
    ruled = book(a=rules(together="b", allowed="h1 h2"), b=rules(apart="x", allowed="h2 h3"))
    assert put([vm("a"), vm("b")], [room("h1"), room("h2", 500), room("h3")], ruled) == {"a": "h2", "b": "h2"}
    assert put([vm("a")], [room("h2")], ruled, x="h2")["a"].startswith("(a and x are to run apart")


# --- what can never hold -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_rules", "told"),
    [
        ({"a": rules(together="b", apart="b")}, "apart, and together"),
        ({"a": rules(together="b"), "b": rules(together="c"), "c": rules(apart="a")}, "apart, and together"),
        ({"a": rules(together="b", allowed="h1"), "b": rules(allowed="h2")}, "no host is allowed for all of them"),
        ({"a": rules(together="b", allowed="h1"), "b": rules(allowed="h2", strict=False)}, ""),
        ({"a": rules(apart="b", allowed="h1"), "b": rules(allowed="h1")}, ""),
    ],
    ids=["both at once", "by way of a third", "no common host", "only preferred", "one of them can run"],
)
def test_rules_that_can_never_be_kept_are_found(given_rules: dict[str, Rules], told: str) -> None:
    known = {VmId(name): one for name, one in given_rules.items()}
    found = contradictions(RuleBook(known), known)
    assert (told in " ".join(found.values())) if told else (found == {})


def test_a_removed_vm_has_no_rules_any_more() -> None:
    doc = vm_doc("a")
    doc = replace(doc, spec=replace(doc.spec, rules=rules(apart="b")))
    assert RuleBook.of([doc])
    assert not RuleBook.of([replace(doc, source=REMOVED)])


# --- always ------------------------------------------------------------------------------------------------------

NAMES = [VmId(name) for name in "abcdef"]
HOSTS = [HostId(name) for name in ("h1", "h2", "h3", "h4")]
some_rules = st.builds(
    Rules,
    allowed=st.lists(st.sampled_from(HOSTS), max_size=3, unique=True).map(tuple),
    strict=st.booleans(),
    preferred=st.dictionaries(st.sampled_from(HOSTS), st.integers(-3, 3), max_size=2).map(lambda d: tuple(d.items())),
    together=st.lists(st.sampled_from(NAMES), max_size=1).map(tuple),
    apart=st.lists(st.sampled_from(NAMES), max_size=2).map(tuple),
)


@settings(max_examples=400)
@given(
    st.dictionaries(st.sampled_from(NAMES), some_rules),
    st.lists(st.builds(vm, st.sampled_from(NAMES), st.integers(1, 3000)), unique_by=lambda v: v.id),
    st.lists(st.builds(room, st.sampled_from(HOSTS), st.integers(0, 3000)), unique_by=lambda r: r.spec.id),
    st.dictionaries(st.sampled_from(NAMES), st.frozensets(st.sampled_from(HOSTS), min_size=1, max_size=2)),
)
def test_whatever_is_placed_is_placed_by_the_rules_and_nothing_is_overfilled(
    given_rules: dict[VmId, Rules],
    vms: list[VmSpec],
    rooms: list[HostRoom],
    where: dict[VmId, frozenset[HostId]],
) -> None:
    results = place(vms, rooms, POLICY, rules=RuleBook(given_rules), where=where)
    assert sorted(r.vm for r in results) == sorted(one.id for one in vms)
    there: dict[VmId, Collection[HostId]] = {**where, **dict.fromkeys((one.id for one in vms), ())}
    there.update({r.vm: (r.host,) for r in results if isinstance(r, Placed)})
    for result in results:
        if isinstance(result, NotPlaced):
            assert result.reason
            continue
        own = given_rules.get(result.vm, Rules())
        assert not (own.strict and own.allowed) or result.host in own.allowed
        for other, its in ((name, given_rules.get(name, Rules())) for name in NAMES if name != result.vm):
            if other in own.apart or result.vm in its.apart:
                assert result.host not in there.get(other, ())
            if other in own.together or result.vm in its.together:
                assert not there.get(other, ()) or result.host in there[other]
    for one in rooms:
        here = [v.memory_mib for v in vms if there[v.id] == (one.spec.id,)]
        assert not here or one.memory_used_mib + sum(here) <= one.spec.memory_mib


# --- in the cluster ----------------------------------------------------------------------------------------------


def cluster(ruled: dict[str, Rules], at: dict[str, str], **more: Any) -> ClusterView:
    """Three hosts; `at`: where each VM runs at generation 7."""
    docs = {name: vm_doc(name, memory=1000) for name in at}
    known = [
        (replace(doc, spec=replace(doc.spec, rules=ruled.get(name, Rules()))), vm_record(name, at[name], 7))
        for name, doc in docs.items()
    ]
    names = ("h1", "h2", "h3")
    beats = [beat(h, T0 - 0.1, runs={name: 7 for name, host in at.items() if host == h}) for h in names]
    return view(T0, hosts=names, beats=beats, records=[host_record(h) for h in names], vms=known, **more)


def asked_to_move(look: ClusterView, name: str, to: str | None) -> tuple[SettleWish, dict[str, str | None]]:
    wished = replace(wish(WishKind.VM_MIGRATE, name), to=None if to is None else HostId(to))
    actions = decided(replace(look, wishes=(wished,))).actions
    (settled,) = [a for a in actions if isinstance(a, SettleWish)]
    return settled, {a.operation.subject: a.operation.target for a in actions if isinstance(a, OpenOperation)}


def test_who_is_asked_to_move_takes_its_group_along() -> None:
    look = cluster({"a": rules(together="b")}, {"a": "h1", "b": "h1", "c": "h1"})
    settled, moved = asked_to_move(look, "b", "h2")
    assert (settled.granted, moved) == (True, {"a": "h2", "b": "h2"})
    assert settled.operation is not None
    assert settled.operation.startswith("migrate-b")
    _, chosen = asked_to_move(look, "a", None)
    assert set(chosen) == {"a", "b"}
    assert len(set(chosen.values())) == 1


def test_a_group_of_which_one_cannot_move_stays_whole() -> None:
    look = cluster({"a": rules(together="b")}, {"a": "h1", "b": "h1"})
    paused = replace(look, vm_records={**look.vm_records, VmId("b"): vm_record("b", "h1", 7, state=VmState.UNKNOWN)})
    settled, moved = asked_to_move(paused, "a", "h2")
    assert (settled.granted, moved) == (False, {})
    assert "b is unknown" in settled.sentence


@pytest.mark.parametrize(
    ("given_rules", "told"),
    [
        ({"a": rules(allowed="h1 h3")}, "h2 is not among the hosts allowed for a"),
        ({"a": rules(apart="c")}, "a and c are to run apart, and c is on h2"),
    ],
    ids=["not allowed", "apart"],
)
def test_a_move_against_a_rule_is_refused_with_the_rule(given_rules: dict[str, Rules], told: str) -> None:
    settled, moved = asked_to_move(cluster(given_rules, {"a": "h1", "c": "h2"}), "a", "h2")
    assert (settled.granted, moved) == (False, {})
    assert told in settled.sentence


def test_one_that_is_left_alone_binds_others_only_while_it_runs() -> None:
    look = cluster({}, {"a": "h1"})
    alone = replace(look, vm_records={VmId("a"): vm_record("a", "h1", 7, state=VmState.UNMANAGED)})
    assert whereabouts(alone) == {"a": {"h1"}}
    ended = replace(alone, heartbeats={**alone.heartbeats, HostId("h1"): beat("h1", T0 - 0.1)})
    assert whereabouts(ended) == {}
    unheard = replace(alone, heartbeats={})
    assert whereabouts(unheard) == {"a": {"h1"}}


def test_a_vm_on_its_way_is_at_both_ends_and_takes_room_at_both() -> None:
    look = cluster({}, {"a": "h1"})
    moving = vm_operation(OperationKind.MIGRATE, VmId("a"), "", migrate_steps(), look, Epoch(1))
    look = replace(look, operations={moving.id: replace(moving, target=HostId("h2"))})
    assert whereabouts(look) == {"a": {"h1", "h2"}}
    apart = cluster({"b": rules(apart="a")}, {"a": "h1", "b": "h3"}, operations=[replace(moving, target=HostId("h2"))])
    settled, _ = asked_to_move(apart, "b", "h2")
    assert "a is on h2" in settled.sentence


# --- zones -------------------------------------------------------------------------------------------------------


def at(name: str, zone: str, used: int = 0) -> HostRoom:
    return replace(room(name, used), spec=replace(spec(name), zone=zone))


ZONES = {HostId("h1"): "a", HostId("h2"): "a", HostId("h3"): "b", HostId("gone"): "b"}


def put_in_zones(vms: Iterable[VmSpec], rooms: Iterable[HostRoom], ruled: RuleBook, **where: str) -> dict[str, str]:
    known = {VmId(name): frozenset((HostId(host),)) for name, host in where.items()}
    found = place(vms, rooms, POLICY, rules=ruled, where=known, zones=ZONES)
    return {one.vm: one.host if isinstance(one, Placed) else f"({one.reason})" for one in found}


APART = book(db1=rules(apart="db2"))


def test_vms_that_run_apart_are_put_in_different_zones_if_that_can_be() -> None:
    rooms = [at("h1", "a"), at("h2", "a"), at("h3", "b", 3000)]
    assert put_in_zones([vm("db1"), vm("db2")], rooms, APART) == {"db1": "h1", "db2": "h3"}
    assert put_in_zones([vm("db2")], rooms[1:], APART, db1="h1") == {"db2": "h3"}
    assert put_in_zones([vm("db2")], rooms[1:], book(), db1="h1") == {"db2": "h2"}, "without a rule zones say nothing"


def test_the_zone_of_a_host_that_takes_no_vms_counts_as_well() -> None:
    assert put_in_zones([vm("db2")], [at("h1", "a", 2000), at("h3", "b")], APART, db1="gone") == {"db2": "h1"}


def test_a_zone_is_no_must() -> None:
    assert put_in_zones([vm("db2")], [at("h2", "a")], APART, db1="h1") == {"db2": "h2"}
    full = [at("h2", "a"), at("h3", "b", 4000)]
    assert put_in_zones([vm("db2")], full, APART, db1="h1") == {"db2": "h2"}


def test_preference_goes_before_zones_and_a_host_without_one_is_near_nobody() -> None:
    ruled = book(db1=rules(apart="db2"), db2=rules(preferred={"h2": 1}))
    assert put_in_zones([vm("db2")], [at("h2", "a"), at("h3", "b")], ruled, db1="h1") == {"db2": "h2"}
    assert put_in_zones([vm("db2")], [at("h2", "a"), at("h9", "")], APART, db1="h1") == {"db2": "h9"}


def test_the_zone_with_the_fewest_of_them_is_best() -> None:
    ruled = book(x=rules(apart="p q r"))
    found = put_in_zones([vm("x")], [at("h2", "a"), at("h3", "b", 3000)], ruled, p="h1", q="h1", r="gone")
    assert found == {"x": "h3"}


def test_the_reason_names_the_zone_and_who_is_near_all_the_same() -> None:
    def why(*rooms: HostRoom) -> str:
        where = {VmId("db1"): frozenset((HostId("h1"),))}
        (found,) = place([vm("db2")], rooms, POLICY, rules=APART, where=where, zones=ZONES)
        return found.reason

    assert "it is in zone b, away from db1" in why(at("h2", "a"), at("h3", "b"))
    assert "it is in no zone, away from db1" in why(at("h2", "a"), at("h9", ""))
    assert "db1, which must run apart, is in its zone a, too" in why(at("h2", "a"))
    assert "zone" not in why(at("h3", "b"))


some_zones = st.sampled_from(["", "a", "b", "c"])
ALL = ("h1", "h2", "h3", "h4")


@settings(max_examples=300)
@given(
    st.tuples(*(some_zones for _ in ALL)),
    st.tuples(*(st.integers(0, 4096) for _ in ALL)),
    st.dictionaries(st.sampled_from(["p", "q", "r"]), st.sampled_from(ALL)),
)
def test_zones_keep_no_vm_from_running_and_no_nearer_zone_is_taken_than_need_be(
    named: tuple[str, ...], used: tuple[int, ...], where: dict[str, str]
) -> None:
    zones = {HostId(host): zone for host, zone in zip(ALL, named, strict=True) if zone}
    rooms = [at(host, zone, full) for host, zone, full in zip(ALL, named, used, strict=True)]
    ruled = book(x=rules(apart="p q r"))
    known = {VmId(name): frozenset((HostId(host),)) for name, host in where.items()}
    (found,) = place([vm("x")], rooms, POLICY, rules=ruled, where=known, zones=zones)
    (without,) = place([vm("x")], rooms, POLICY, rules=ruled, where=known)
    assert isinstance(found, Placed) == isinstance(without, Placed)
    if isinstance(found, NotPlaced):
        return

    def near(host: str) -> int:
        zone = zones.get(HostId(host))
        return sum(zone is not None and zones.get(HostId(other)) == zone for other in where.values())

    fit = [host for host, full in zip(ALL, used, strict=True) if full + 512 <= 4096 and host not in where.values()]
    assert found.host in fit
    assert near(found.host) == min(near(host) for host in fit)
