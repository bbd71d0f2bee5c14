"""VMs that run where a rule would not put them any more, or away from a host that they are to go back to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.actions import OpenOperation, PutVm
from fangnetz.core.model import ClusterView, HostDoc, HostState, Rules, VmState
from fangnetz.core.operations import Operation, OperationKind, migrate_steps
from fangnetz.core.policy import Policy
from fangnetz.core.rules import RuleBook
from fangnetz.core.units import Epoch, HostId, Incarnation, Instant, OperationId, VmId
from tests.core.world import T0, beat, decided, host_record, view, vm_doc, vm_record

H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
A, B, C = VmId("a"), VmId("b"), VmId("c")
HOSTS = ("h1", "h2", "h3")
BACK = Rules(preferred=((H2, 1),), failback=True)


def seen(
    where: Mapping[str, str],
    rules: Mapping[str, Rules],
    *,
    priority: Mapping[str, int] | None = None,
    states: Mapping[str, HostState] | None = None,
    docs: Mapping[str, HostDoc] | None = None,
    records: Mapping[str, Any] | None = None,
    operations: Any = (),
) -> ClusterView:
    """`where`: VM -> the host on which it runs; `records`: VM -> other fields of its record."""
    vms = [
        (
            vm_doc(vm, priority=(priority or {}).get(vm, 0), rules=rules.get(vm, Rules())),
            vm_record(vm, host, 7, **(records or {}).get(vm, {})),
        )
        for vm, host in where.items()
    ]
    return view(
        T0,
        hosts=HOSTS,
        beats=[beat(host, T0 - 0.1, runs={VmId(vm): 7 for vm, on in where.items() if on == host}) for host in HOSTS],
        records=[host_record(host, (states or {}).get(host, HostState.ONLINE)) for host in HOSTS],
        docs=[(docs or {}).get(host, HostDoc(id=HostId(host), incarnation=Incarnation("i1"))) for host in HOSTS],
        vms=vms,
        operations=operations,
    )


def moves(look: ClusterView, policy: Policy | None = None) -> dict[str, str | None]:
    opened = [a.operation for a in decided(look, policy=policy or Policy()).actions if isinstance(a, OpenOperation)]
    return {op.subject: op.target for op in opened if op.kind is OperationKind.MIGRATE}


def said(look: ClusterView) -> dict[str, str]:
    return {alarm.subject: alarm.sentence for alarm in decided(look).alarms if alarm.kind == "rule_waits"}


def test_it_goes_back_to_the_host_it_prefers_most_only_if_it_is_to() -> None:
    most = Rules(preferred=((H2, 1), (H3, 2)), failback=True)
    assert moves(seen({"a": "h1"}, {"a": most})) == {"a": "h3"}
    assert moves(seen({"a": "h2"}, {"a": most})) == {"a": "h3"}
    assert moves(seen({"a": "h3"}, {"a": most})) == {}
    assert moves(seen({"a": "h1"}, {"a": Rules(preferred=((H2, 1),), failback=False)}), Policy(failback=True)) == {}
    unsaid = seen({"a": "h1"}, {"a": Rules(preferred=((H2, 1),))})
    assert (moves(unsaid), moves(unsaid, Policy(failback=True))) == ({}, {"a": "h2"})


def test_a_disliked_host_is_left_too() -> None:
    assert moves(seen({"a": "h1"}, {"a": Rules(preferred=((H1, -5),), failback=True)})) == {"a": "h2"}


def test_one_that_runs_where_it_is_not_allowed_leaves_without_being_told_to_fail_back() -> None:
    rules = {"a": Rules(allowed=(H3,), failback=False)}
    assert moves(seen({"a": "h1"}, rules)) == {"a": "h3"}
    assert moves(seen({"a": "h3"}, rules)) == {}


def test_of_two_that_run_apart_the_less_important_one_leaves_and_only_that_one() -> None:
    rules = {"a": Rules(apart=(B,))}
    assert moves(seen({"a": "h1", "b": "h1"}, rules, priority={"a": 5})) == {"b": "h2"}
    assert moves(seen({"a": "h1", "b": "h1"}, rules, priority={"b": 5})) == {"a": "h2"}
    assert moves(seen({"a": "h1", "b": "h2"}, rules)) == {}


def test_if_that_one_cannot_leave_the_other_one_does() -> None:
    rules = {"a": Rules(apart=(B,)), "b": Rules(allowed=(H1,))}
    assert moves(seen({"a": "h1", "b": "h1"}, rules, priority={"a": 5})) == {"a": "h2"}


def test_three_that_run_apart_leave_to_different_hosts() -> None:
    rules = {"a": Rules(apart=(B, C)), "b": Rules(apart=(C,))}
    assert moves(seen({"a": "h1", "b": "h1", "c": "h1"}, rules, priority={"a": 2, "b": 1})) == {"b": "h2", "c": "h3"}


def test_a_group_comes_together_where_most_of_it_is_or_where_it_prefers() -> None:
    together = {"a": Rules(together=(B, C))}
    assert moves(seen({"a": "h1", "b": "h2", "c": "h2"}, together)) == {"a": "h2"}
    liked = {"a": Rules(together=(B, C), preferred=((H1, 1),))}
    assert moves(seen({"a": "h1", "b": "h2", "c": "h2"}, liked)) == {"b": "h1", "c": "h1"}
    bound = {"a": Rules(together=(B, C), allowed=(H1,))}
    assert moves(seen({"a": "h1", "b": "h2", "c": "h2"}, bound)) == {"b": "h1", "c": "h1"}


def test_a_group_goes_back_whole_and_only_if_all_that_prefer_a_host_agree() -> None:
    where = {"a": "h1", "b": "h1"}
    assert moves(seen(where, {"a": BACK, "b": Rules(together=(A,))})) == {"a": "h2", "b": "h2"}
    torn = {"a": BACK, "b": Rules(together=(A,), preferred=((H2, 1),), failback=False)}
    assert moves(seen(where, torn)) == {}


def test_a_broken_rule_that_nothing_mends_is_said() -> None:
    stuck = seen({"a": "h1"}, {"a": Rules(allowed=(H3,))}, states={"h3": HostState.QUARANTINED})
    assert moves(stuck) == {}
    assert said(stuck)["a"].startswith("h1 is not among the hosts allowed for a (h3); a cannot be moved: ")
    assert said(seen({"a": "h1"}, {"a": BACK}, states={"h2": HostState.QUARANTINED})) == {}


@pytest.mark.parametrize("doc", [HostDoc(id=H1, maintenance=True), HostDoc(id=H1, evacuate=True, maintenance=True)])
def test_what_runs_on_a_host_that_is_worked_on_is_left_alone(doc: HostDoc) -> None:
    assert moves(seen({"a": "h1"}, {"a": BACK}, docs={"h1": doc}, states={"h1": HostState.MAINTENANCE})) == {}


def test_nothing_goes_back_while_a_host_is_being_recovered_or_a_move_is_under_way() -> None:
    def operation(kind: OperationKind, subject: str) -> Operation:
        return Operation(
            id=OperationId(f"{kind}-{subject}-1"), kind=kind, subject=subject, epoch=Epoch(1), opened_at=T0,
            reason="", steps=migrate_steps(), incarnation=Incarnation("i1"),
        )  # fmt: skip

    rules, where = {"a": BACK, "b": Rules(together=(A,))}, {"a": "h1", "b": "h1"}
    assert moves(seen(where, rules)) == {"a": "h2", "b": "h2"}
    assert moves(seen(where, rules, operations=[operation(OperationKind.FAILOVER, "h3")])) == {}
    assert moves(seen(where, rules, operations=[operation(OperationKind.MIGRATE, "b")])) == {}


def test_one_that_a_move_did_not_help_rests_twice_as_long_each_time() -> None:
    for tries, age, begins in ((1, 59, False), (1, 61, True), (2, 119, False), (2, 121, True), (3, 200, False)):
        record = {"a": {"tries": tries, "tried_at": Instant(T0 - age)}}
        look = seen({"a": "h1"}, {"a": BACK}, records=record)
        assert bool(moves(look)) is begins, (tries, age)
        if begins:
            (put,) = [a.record for a in decided(look).actions if isinstance(a, PutVm)]
            assert (put.tries, put.tried_at) == (tries + 1, T0)


def test_one_that_does_not_run_is_not_moved() -> None:
    for state in (VmState.STARTING, VmState.STOPPED, VmState.NEEDS_PERSON):
        assert moves(seen({"a": "h1"}, {"a": BACK}, records={"a": {"state": state}})) == {}


# --- however it stands: it comes to rest, and never by breaking a rule ------------------------------------------------

NAMES = ("a", "b", "c", "d")
_RULES = st.fixed_dictionaries(
    {},
    optional={
        "allowed": st.sets(st.sampled_from(HOSTS), min_size=1).map(lambda hosts: tuple(map(HostId, sorted(hosts)))),
        "preferred": st.dictionaries(st.sampled_from(HOSTS), st.integers(-3, 3)).map(
            lambda weights: tuple((HostId(host), weight) for host, weight in sorted(weights.items()))
        ),
        "together": st.sets(st.sampled_from(NAMES), max_size=2).map(lambda names: tuple(map(VmId, sorted(names)))),
        "apart": st.sets(st.sampled_from(NAMES), max_size=2).map(lambda names: tuple(map(VmId, sorted(names)))),
        "failback": st.sampled_from([True, False, None]),
        "strict": st.booleans(),
    },
).map(lambda given: Rules(**given))


@given(
    where=st.fixed_dictionaries({name: st.sampled_from(HOSTS) for name in NAMES}),
    rules=st.fixed_dictionaries(dict.fromkeys(NAMES, _RULES)),
    failback=st.booleans(),
)
def test_moves_come_to_rest_and_break_no_rule_that_holds(
    where: dict[str, str], rules: dict[str, Rules], failback: bool
) -> None:
    kept = {
        vm: Rules(
            allowed=own.allowed, strict=own.strict, preferred=own.preferred, failback=own.failback,
            together=tuple(other for other in own.together if other != vm),
            apart=tuple(other for other in own.apart if other != vm),
        )
        for vm, own in rules.items()
    }  # fmt: skip
    book = RuleBook({VmId(vm): own for vm, own in kept.items()})

    def broken(at: Mapping[str, str]) -> set[str]:
        places = {VmId(vm): frozenset((HostId(host),)) for vm, host in at.items()}
        return {vm for vm, host in at.items() if book.why_not([VmId(vm)], HostId(host), places)}

    now = dict(where)
    for _ in range(24):
        begun = moves(seen(now, kept), Policy(failback=failback))
        if not begun:
            return
        before = broken(now)
        now |= {vm: str(target) for vm, target in begun.items()}
        assert broken(now) <= before | set(begun), (begun, now)
        assert len(broken(now)) <= len(before), (begun, now)
    raise AssertionError(f"still moving: {now}")
