"""`vm remove` beside a start: a VM is forgotten, and its disk free for another, only once no copy of it can come up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from fangnetz.core.actions import Action, ForgetVm, PutVmDoc, SettleWish
from fangnetz.core.model import REMOVED, ClusterView, Heartbeat, HostState, VmDoc, VmRecord, VmState, VmWish, WishKind
from fangnetz.core.operations import (
    Operation,
    OperationKind,
    Order,
    Step,
    StepKind,
    StepState,
    failover_steps,
    vm_start_steps,
)
from fangnetz.core.ownership import may_run, starting_on, unanswered_order
from fangnetz.core.units import Epoch, Generation, HostId, Incarnation, Instant, OperationId, VmId
from tests.core.world import (
    LIFE,
    T0,
    beat,
    binding,
    decided,
    host_record,
    off_proof,
    view,
    vm_doc,
    vm_record,
    wish,
)

WEB = VmId("web")
DISK = ("/dev/d1",)
IN_HAND = ("fo/start/web/1",)
ASSIGNED = vm_record("web", "h1", 9, state=VmState.STARTING, operation="fo", since=T0 - 1)
STARTED = vm_record("web", "h1", 9, state=VmState.RUNNING, since=T0 - 30)
ORDER = Order(
    vm=WEB, host=HostId("h1"), incarnation=Incarnation("i1"), generation=Generation(9), life=LIFE,
    deadline=Instant(T0 + 30),
)  # fmt: skip


def failover(start: StepState | None, *, ended: float = 0.0) -> Operation:
    """h3 is proven off; the start of web on h1 is in this state, or not planned yet."""
    steps: tuple[Step, ...] = failover_steps()
    if start is not None:
        steps = tuple(replace(step, state=StepState.DONE) for step in failover_steps()[:-1])
        steps += tuple(
            replace(step, state=start, ended_at=Instant(ended)) if step.kind is StepKind.START else step
            for step in vm_start_steps(ORDER, attempt=1, after="plan/1")
        )
    return Operation(
        id=OperationId("fo"), kind=OperationKind.FAILOVER, subject="h3", epoch=Epoch(7), opened_at=Instant(T0 - 5),
        reason="", incarnation=Incarnation("i1"), steps=steps,
    )  # fmt: skip


def seen(
    said: Heartbeat,
    record: VmRecord | None,
    *operations: Operation,
    doc: VmDoc | None = None,
    life_since: float = T0 - 3600,
) -> ClusterView:
    """h1 says so; h3 is proven off."""
    return view(
        T0,
        beats=[said, beat("h2", T0 - 0.1)],
        records=[host_record("h1"), host_record("h2"), host_record("h3", HostState.FENCED, proof=off_proof("h3", T0))],
        bindings=[binding(h) for h in ("h1", "h2", "h3")],
        vms=[(doc or vm_doc("web", disks=DISK), record)],
        operations=operations,
        life_since=life_since,
    )


def removed(at: ClusterView) -> tuple[bool, list[Action]]:
    actions = decided(replace(at, wishes=(wish(WishKind.VM_REMOVE, "web"),))).actions
    (answer,) = [a for a in actions if isinstance(a, SettleWish)]
    return answer.granted, [a for a in actions if isinstance(a, ForgetVm | PutVmDoc)]


def kept(at: ClusterView) -> bool:
    """Whether the wish is granted and the VM stays known as one that was removed."""
    granted, actions = removed(at)
    assert granted
    return [a.doc.source for a in actions if isinstance(a, PutVmDoc)] == [REMOVED]


MAY_COME_UP = {
    "being started": seen(beat("h1", T0 - 0.1, orders=IN_HAND), ASSIGNED, failover(StepState.RUNNING)),
    "ordered, not begun": seen(beat("h1", T0 - 0.1), ASSIGNED, failover(StepState.READY)),
    "started since the last report": seen(beat("h1", T0 - 0.1), STARTED, failover(StepState.DONE, ended=T0 - 0.05)),
    "given up, still in hand": seen(
        beat("h1", T0 - 0.1, orders=IN_HAND), ASSIGNED, failover(StepState.FAILED, ended=T0 - 0.5)
    ),
    "being planned": seen(beat("h1", T0 - 0.1), vm_record("web", "h3", 8), failover(None)),
    "begun in a life nobody remembers": seen(beat("h1", T0 - 0.1, orders=IN_HAND), None),
    "never answered by libvirt": seen(
        beat("h1", T0 - 0.1, orders=(unanswered_order(WEB),)), STARTED, failover(StepState.DONE, ended=T0 - 20)
    ),
    "on a host not heard since the store's life began": seen(beat("h1", T0 - 500), None, life_since=T0 - 100),
}


@pytest.mark.parametrize("case", list(MAY_COME_UP))
def test_a_removed_vm_that_may_still_come_up_is_kept_in_mind(case: str) -> None:
    assert kept(MAY_COME_UP[case])


@pytest.mark.parametrize("case", [c for c in MAY_COME_UP if c != "being planned"])
def test_once_removed_it_is_not_forgotten_for_an_inventory_it_cannot_be_in(case: str) -> None:
    gone = vm_doc("web", disks=DISK, source=REMOVED, wish=VmWish.IGNORED)
    at = replace(MAY_COME_UP[case], vms={WEB: gone})
    assert not any(isinstance(a, ForgetVm) for a in decided(at, declared=[]).actions)


def test_its_disk_goes_to_no_other_vm_meanwhile() -> None:
    gone = vm_doc("web", disks=DISK, source=REMOVED, wish=VmWish.IGNORED)
    other = wish(WishKind.VM_ADD, "web2", doc=vm_doc("web2", disks=DISK))
    at = replace(MAY_COME_UP["being started"], vms={WEB: gone}, wishes=(other,))
    assert [a.granted for a in decided(at).actions if isinstance(a, SettleWish)] == [False]


def forgets(actions: Iterable[Action]) -> bool:
    return any(isinstance(a, ForgetVm) for a in actions)


def test_a_vm_of_which_nothing_can_come_up_is_forgotten_at_once() -> None:
    ended = seen(beat("h1", T0 - 0.1), STARTED, failover(StepState.DONE, ended=T0 - 20))
    refused = seen(
        beat("h1", T0 - 0.1, orders=IN_HAND, releases={"web": 9}), ASSIGNED, failover(StepState.REFUSED, ended=T0 - 0.3)
    )
    for at in (ended, refused, seen(beat("h1", T0 - 0.1), None), seen(beat("h1", T0 - 0.1), vm_record("web", "h3", 8))):
        granted, actions = removed(at)
        assert granted
        assert forgets(actions)


def test_a_start_ordered_after_the_operations_were_read_may_come_all_the_same() -> None:
    """h1 lists its VMs before it claims that start; the record names its operation already, which does not show it."""
    given = seen(beat("h1", T0 - 0.1), ASSIGNED, failover(None))
    _, actions = removed(given)
    assert not forgets(actions)
    doc = replace(vm_doc("web", disks=DISK), source=REMOVED, wish=VmWish.IGNORED, declared=None)
    left = seen(beat("h1", T0 - 0.1), ASSIGNED, failover(None), doc=doc)
    assert not forgets(decided(left, declared={}).actions)


def test_a_start_that_was_given_up_is_in_hand_for_as_long_as_its_host_says_so() -> None:
    given_up = failover(StepState.FAILED, ended=T0 - 0.5)
    assert starting_on(seen(beat("h1", T0 - 0.1, orders=IN_HAND), ASSIGNED, given_up), WEB) == ("h1",)
    assert starting_on(seen(beat("h1", T0 - 0.1), ASSIGNED, given_up), WEB) == ()
    answered = failover(StepState.REFUSED, ended=T0 - 0.05)
    assert starting_on(seen(beat("h1", T0 - 0.1, orders=IN_HAND), ASSIGNED, answered), WEB) == ()


def test_a_vm_without_a_record_may_run_where_it_is_being_started() -> None:
    assert "h1" in may_run(seen(beat("h1", T0 - 0.1, orders=IN_HAND), None), WEB)


# --- add ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("added", ["web2", "db"])
def test_nothing_is_added_while_a_vm_cannot_be_read(added: str) -> None:
    new = wish(WishKind.VM_ADD, added, doc=vm_doc(added, disks=("/dev/d2",)))
    at = replace(seen(beat("h1", T0 - 0.1), STARTED), wishes=(new,))
    for broken, granted in (((), True), ((VmId("other"),), False)):
        actions = decided(replace(at, unreadable_vms=broken)).actions
        (answer,) = [a for a in actions if isinstance(a, SettleWish)]
        assert answer.granted is granted
        assert any(isinstance(a, PutVmDoc) for a in actions) is granted
    assert "other" in answer.sentence
