"""A VM that cannot be read: its definition is written anew, its record only forgotten, where that is safe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.actions import Action, Decision, ForgetRecord, ForgetVm, OpenOperation, PutVm, PutVmDoc, SettleWish
from fangnetz.core.model import ClusterView, Heartbeat, HostDoc, HypervisorHealth, VmDoc, VmState, WishKind
from fangnetz.core.operations import Operation, OperationKind, failover_steps
from fangnetz.core.ownership import unanswered_order
from fangnetz.core.units import Epoch, HostId, Incarnation, Instant, OperationId, VmId
from tests.core.world import T0, beat, decided, host_record, off_proof, view, vm_doc, vm_record, wish

WEB = VmId("web")
ALL = tuple(beat(h, T0 - 0.1) for h in ("h1", "h2", "h3"))
FENCED = [host_record("h1", proof=off_proof("h1", T0 - 5)), host_record("h2"), host_record("h3")]


def answer(seen: ClusterView, kind: WishKind, name: str = "web", doc: VmDoc | None = None) -> tuple[str, list[Action]]:
    """Return the refusal, if it is one, and what was decided before the answer."""
    actions = list(decided(replace(seen, wishes=(wish(kind, name, doc=doc),))).actions)
    (settled,) = [a for a in actions if isinstance(a, SettleWish)]
    return "" if settled.granted else settled.sentence, actions[: actions.index(settled)]


# --- a definition ------------------------------------------------------------------------------------------------


def definition_broken(**more: object) -> ClusterView:
    seen = view(T0, beats=ALL, vms=[(vm_doc("db", disks=("/dev/d2",)), vm_record("db", "h2", 5))], **more)  # type: ignore[arg-type]
    return replace(seen, vm_records={**seen.vm_records, WEB: vm_record("web", "h1", 7)}, unreadable_vms=(WEB,))


def test_an_unreadable_definition_is_written_anew_and_nothing_else() -> None:
    doc = vm_doc("web", disks=("/dev/d1",))
    refusal, actions = answer(definition_broken(), WishKind.VM_ADD, doc=doc)
    assert refusal == ""
    assert [a.doc for a in actions if isinstance(a, PutVmDoc)] == [doc]
    assert not [a for a in actions if isinstance(a, (PutVm, ForgetVm, OpenOperation))], "owner and number stand"


@pytest.mark.parametrize(
    "beats",
    [
        (beat("h1", T0 - 0.1, runs={"web": 7}), *ALL[1:]),
        (ALL[0], beat("h2", T0 - 0.1, runs={"web": 6}), ALL[2]),
        (beat("h1", T0 - 2), *ALL[1:]),
        (beat("h1", T0 - 0.1, hypervisor=HypervisorHealth.HUNG), *ALL[1:]),
        (beat("h1", T0 - 0.1, orders=("fo/start/web/1",)), *ALL[1:]),
    ],
    ids=["runs at its owner", "runs elsewhere", "owner silent", "owner's libvirt hangs", "is being started"],
)
def test_a_definition_is_not_written_anew_while_a_copy_may_write_a_disk_that_nobody_knows(
    beats: tuple[Heartbeat, ...],
) -> None:
    seen = replace(definition_broken(), heartbeats={b.host: b for b in beats})
    if beats[0].received_at < T0 - 1:  # an inventory older than the record tells nothing
        seen = replace(seen, vm_records={**seen.vm_records, WEB: vm_record("web", "h1", 7, since=T0 - 1.5)})
    refusal, actions = answer(seen, WishKind.VM_ADD, doc=vm_doc("web", disks=("/dev/d3",)))
    assert "which disk" in refusal
    assert actions == []


def test_a_definition_is_written_anew_once_its_owner_is_proven_off() -> None:
    seen = definition_broken(records=FENCED)
    seen = replace(seen, heartbeats={b.host: b for b in (beat("h1", T0 - 60, runs={"web": 7}), *ALL[1:])})
    assert answer(seen, WishKind.VM_ADD, doc=vm_doc("web"))[0] == ""


def test_a_definition_that_mends_takes_nobody_elses_disk() -> None:
    refusal, actions = answer(definition_broken(), WishKind.VM_ADD, doc=vm_doc("web", disks=("/dev/d2",)))
    assert "db" in refusal
    assert actions == []


def test_one_definition_is_not_mended_beside_another_that_is_broken_but_its_wishes_name_the_way() -> None:
    both = replace(definition_broken(), unreadable_vms=(VmId("other"), WEB))
    assert "other" in answer(both, WishKind.VM_ADD, doc=vm_doc("web"))[0]
    for kind in (WishKind.VM_START, WishKind.VM_STOP, WishKind.VM_REMOVE):
        assert "`fangnetz vm add web --xml FILE`" in answer(definition_broken(), kind)[0]


# --- a record ----------------------------------------------------------------------------------------------------


HAD = vm_doc("web", disks=("/dev/d1",))


def record_broken(**more: object) -> ClusterView:
    seen = view(T0, **{"beats": ALL, "unreadable_records": ["web"], **more})  # type: ignore[arg-type]
    return replace(seen, set_aside={WEB: HAD})


def test_a_vm_whose_record_cannot_be_read_is_forgotten_once_every_host_is_heard_without_it_or_proven_off() -> None:
    for seen in (record_broken(), record_broken(beats=ALL[1:], records=FENCED)):
        refusal, actions = answer(seen, WishKind.VM_REMOVE)
        assert refusal == ""
        assert [a.vm for a in actions if isinstance(a, ForgetVm)] == [WEB]


def failover() -> Operation:
    return Operation(
        id=OperationId("fo"), kind=OperationKind.FAILOVER, subject="h9", epoch=Epoch(7), opened_at=Instant(T0),
        reason="", steps=failover_steps(), incarnation=Incarnation("i1"),
    )  # fmt: skip


MAY_RUN = {
    "it runs": record_broken(beats=(beat("h1", T0 - 0.1, runs={"web": 5}), *ALL[1:])),
    "it is being started": record_broken(beats=(beat("h1", T0 - 0.1, orders=("fo/start/web/1",)), *ALL[1:])),
    "libvirt never answered its start": record_broken(
        beats=(beat("h1", T0 - 0.1, orders=(unanswered_order(WEB),)), *ALL[1:])
    ),
    "a host is silent": record_broken(beats=(beat("h1", T0 - 2), *ALL[1:])),
    "a host was never heard in this life": record_broken(beats=ALL[1:]),
    "libvirt gives no answer": record_broken(beats=(beat("h1", T0 - 0.1, hypervisor=HypervisorHealth.HUNG), *ALL[1:])),
    "a boot is too young": record_broken(beats=(replace(ALL[0], boot_since=Instant(T0 - 0.5)), *ALL[1:])),
    "two machines carry one name": record_broken(beats=(replace(ALL[0], contested_at=Instant(T0 - 9)), *ALL[1:])),
    "a host outside the file is silent": record_broken(
        beats=(*ALL, beat("h9", T0 - 60)), docs=[HostDoc(id=HostId("h9"), incarnation=Incarnation("i1"))]
    ),
    "a proof was withdrawn": record_broken(
        beats=(beat("h1", T0 - 60), *ALL[1:]),
        records=[host_record("h1", proof=off_proof("h1", T0 - 5, void=True)), *FENCED[1:]],
    ),
    "a plan may be giving it away": record_broken(operations=[failover()]),
}


@pytest.mark.parametrize("why", list(MAY_RUN))
def test_it_is_not_forgotten_while_a_copy_may_run(why: str) -> None:
    refusal, actions = answer(MAY_RUN[why], WishKind.VM_REMOVE)
    assert refusal
    assert not any(isinstance(a, ForgetVm) for a in actions)


@pytest.mark.parametrize("runs", [True, False])
def test_a_vm_whose_record_cannot_be_read_is_taken_up_again_where_its_one_copy_is(runs: bool) -> None:
    refusal, actions = answer(MAY_RUN["it runs"] if runs else record_broken(), WishKind.VM_ADD, doc=HAD)
    assert refusal == ""
    assert [type(a) for a in actions[:2]] == [ForgetRecord, PutVmDoc]
    assert not any(isinstance(a, ForgetVm) for a in actions)


@pytest.mark.parametrize("disks", [(), ("/dev/d3",)])
def test_it_is_taken_up_where_it_runs_only_with_the_disk_it_had(disks: tuple[str, ...]) -> None:
    other = vm_doc("web", disks=disks)
    refusal, actions = answer(MAY_RUN["it runs"], WishKind.VM_ADD, doc=other)
    assert "/dev/d1" in refusal
    assert actions == []
    assert answer(record_broken(), WishKind.VM_ADD, doc=other)[0] == "", "no copy runs: it may be given another"
    more = vm_doc("web", disks=("/dev/d1", *disks))
    assert answer(MAY_RUN["it runs"], WishKind.VM_ADD, doc=more)[0] == ""


def test_it_is_not_taken_up_where_it_runs_if_its_definition_cannot_be_read_either() -> None:
    refusal, actions = answer(replace(MAY_RUN["it runs"], set_aside={}), WishKind.VM_ADD, doc=HAD)
    assert "which disk" in refusal
    assert actions == []
    assert answer(replace(record_broken(), set_aside={}), WishKind.VM_ADD, doc=HAD)[0] == ""


TWICE = record_broken(beats=(beat("h1", T0 - 0.1, runs={"web": 5}), beat("h2", T0 - 0.1, runs={"web": 4}), ALL[2]))


@pytest.mark.parametrize("why", [*(why for why in MAY_RUN if why != "it runs"), "it runs twice"])
def test_it_is_not_taken_up_while_a_second_copy_may_run(why: str) -> None:
    refusal, actions = answer(MAY_RUN.get(why, TWICE), WishKind.VM_ADD, doc=vm_doc("web"))
    assert refusal
    assert actions == []


def test_the_copy_is_adopted_and_its_hosts_last_report_keeps_others_from_starting_it_until_then() -> None:
    def after(age: float) -> Decision:
        """One tick after the record was forgotten: there is one again, and nobody in it."""
        beats = (beat("h1", T0 - age, runs={"web": 5}), *ALL[1:])
        empty = vm_record("web", None, 0, state=VmState.WAITING)
        return decided(view(T0, beats=beats, vms=[(vm_doc("web"), empty)]))

    (put,) = [a.record for a in after(0.1).actions if isinstance(a, PutVm)]
    assert (put.owner, put.owner_incarnation, put.generation) == ("h1", "i1", 5)
    assert not [a for a in after(30).actions if isinstance(a, OpenOperation) and a.operation.subject == "web"]


# --- alarms ------------------------------------------------------------------------------------------------------


def test_the_alarm_names_the_command_that_mends() -> None:
    seen = replace(record_broken(), unreadable_vms=(VmId("db"), WEB))
    said = {a.subject: a.sentence for a in decided(seen).alarms if a.kind == "vm_unreadable"}
    assert said.keys() == {"db", "web"}
    assert "`fangnetz vm add db --xml FILE`" in said["db"]
    assert "`fangnetz vm add web --xml FILE`" in said["web"]
    assert "`fangnetz vm remove web`" in said["web"]
