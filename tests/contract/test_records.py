"""Records and reports: written only against what was read, ordered by the sender, and read back whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from fangnetz.core.actions import Alarm, Happened
from fangnetz.core.detector import HostWatch, Watch
from fangnetz.core.errors import StaleToken
from fangnetz.core.model import HostDoc, HostState, Power, VmState, WishKind
from fangnetz.core.operations import OperationState
from fangnetz.core.roll.values import Stage, Turn, stopped
from fangnetz.core.units import Generation, Incarnation, Instant, OperationId, Seconds
from fangnetz.ports import LedgerEntry, WishResult
from tests.contract.subjects import BOOT, C1, C2, DB, H1, H2, WEB, Cluster
from tests.core.roll.rolling import a_roll
from tests.core.world import beat, host_record, probe_round, reading, sighting, spec, wish

HOSTS = {H1: spec("h1"), H2: spec("h2")}


def test_a_hosts_record_is_written_only_over_what_was_read(cluster: Cluster) -> None:
    first, second = host_record("h1"), host_record("h1", HostState.FENCED)
    assert cluster.store.put_host(first, None, cluster.epoch)
    assert not cluster.store.put_host(second, None, cluster.epoch), "there is one already"
    assert cluster.store.put_host(second, first, cluster.epoch)
    assert not cluster.store.put_host(replace(first, reason="late"), first, cluster.epoch), "it has changed"
    assert cluster.store.view(HOSTS, None).host_records == {H1: second}


def test_what_was_read_can_be_written_over_whatever_it_holds(cluster: Cluster) -> None:
    awkward = replace(host_record("h1"), since=Instant(1_700_000_000.1234567), reason="ä “quoted” \\ \n")
    assert cluster.store.put_host(awkward, None, cluster.epoch)
    found = cluster.store.view(HOSTS, None).host_records[H1]
    assert found == awkward
    assert cluster.store.put_host(replace(found, reason="read and written"), found, cluster.epoch)


def test_of_many_that_write_over_the_same_record_one_does(cluster: Cluster) -> None:
    old = host_record("h1")
    assert cluster.store.put_host(old, None, cluster.epoch)
    stores = [cluster.subject.another() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda n: stores[n].put_host(replace(old, reason=f"r{n}"), old, cluster.epoch), range(6)))
    assert done.count(True) == 1
    assert cluster.store.view(HOSTS, None).host_records[H1].reason == f"r{done.index(True)}"


def test_a_vms_record_is_written_only_at_the_generation_that_was_read(cluster: Cluster) -> None:
    record = cluster.vm(generation=7)
    assert not cluster.store.put_vm(record, None, cluster.epoch), "there is one already"
    newer = replace(record, state=VmState.RUNNING, generation=Generation(9))
    assert cluster.store.put_vm(newer, Generation(7), cluster.epoch)
    assert not cluster.store.put_vm(record, Generation(7), cluster.epoch), "it has moved on"
    assert cluster.record() == newer


def test_a_vms_state_is_marked_only_at_its_generation(cluster: Cluster) -> None:
    record = cluster.vm(generation=7)
    assert not cluster.store.mark_vm(WEB, Generation(6), VmState.RUNNING, "late", cluster.epoch)
    assert cluster.record() == record
    assert cluster.store.mark_vm(WEB, Generation(7), VmState.RUNNING, "it runs", cluster.epoch)
    marked = cluster.record()
    assert (marked.state, marked.reason, marked.owner, marked.generation) == (VmState.RUNNING, "it runs", H1, 7)
    assert marked.since > record.since


def test_marking_what_is_not_there_makes_nothing(cluster: Cluster) -> None:
    assert not cluster.store.mark_vm(WEB, Generation(0), VmState.RUNNING, "late", cluster.epoch)
    assert not cluster.store.mark_vm(WEB, Generation(7), VmState.RUNNING, "late", cluster.epoch)
    assert cluster.store.view({}, None).vm_records == {}


def test_a_forgotten_vm_is_gone_and_may_come_again(cluster: Cluster) -> None:
    cluster.vm()
    cluster.vm(DB, generation=3)
    cluster.store.forget_vm(WEB, cluster.epoch)
    assert set(cluster.store.view({}, None).vm_records) == {DB}
    cluster.vm(generation=8)


# --- heartbeats --------------------------------------------------------------------------------------------------


def test_when_a_copy_was_started_is_reported_and_may_be_unknown(cluster: Cluster) -> None:
    known = replace(sighting("web", 7), start_sent_at=Instant(1_700_000_000.123456))
    cluster.store.put_heartbeat(beat("h1", 1.0, seen=(known, sighting("db", 7))))
    assert cluster.store.view(HOSTS, None).heartbeats[H1].inventory == (known, sighting("db", 7))


def test_a_heartbeats_time_is_the_stores(cluster: Cluster) -> None:
    before = cluster.store.now()
    at = cluster.store.put_heartbeat(beat("h1", 1.0))
    assert before <= at <= cluster.store.now()
    found = cluster.store.view(HOSTS, None).heartbeats[H1]
    assert found == replace(beat("h1", 1.0), received_at=at, boot_since=at)


def test_two_machines_of_one_name_contest_each_other_and_the_later_proves_nothing(cluster: Cluster) -> None:
    cluster.store.put_heartbeat(beat("h1", 1.0, boot="original", seq=5, runs={"web": 7}))
    cluster.store.put_heartbeat(beat("h1", 1.0, boot="clone", seq=1))
    assert not cluster.store.view(HOSTS, None).heartbeats[H1].contested
    with pytest.raises(StaleToken, match="later boot"):
        cluster.store.put_heartbeat(beat("h1", 1.0, boot="original", seq=6, runs={"web": 7}))
    found = cluster.store.view(HOSTS, None).heartbeats[H1]
    assert (found.incarnation, found.contested, found.settled) == ("clone", True, False)


@pytest.mark.parametrize("late", [4, 5])
def test_a_report_that_was_overtaken_changes_nothing(cluster: Cluster, late: int) -> None:
    at = cluster.store.put_heartbeat(beat("h1", 1.0, seq=5, runs={"web": 7}))
    assert cluster.store.put_heartbeat(beat("h1", 1.0, seq=late)) == at
    found = cluster.store.view(HOSTS, None).heartbeats[H1]
    assert (found.sequence, found.received_at, found.sees(WEB) is not None) == (5, at, True)


def test_a_later_report_counts(cluster: Cluster) -> None:
    first = cluster.store.put_heartbeat(beat("h1", 1.0, seq=5))
    assert cluster.store.put_heartbeat(beat("h1", 1.0, seq=6)) > first
    assert cluster.store.view(HOSTS, None).heartbeats[H1].sequence == 6


def test_a_new_boot_begins_its_own_count(cluster: Cluster) -> None:
    cluster.store.put_heartbeat(beat("h1", 1.0, seq=5000))
    cluster.store.put_heartbeat(beat("h1", 1.0, seq=1, boot="i2"))
    found = cluster.store.view(HOSTS, None).heartbeats[H1]
    assert (found.incarnation, found.sequence) == (Incarnation("i2"), 1)


def test_a_boot_that_another_one_followed_is_not_heard_again(cluster: Cluster) -> None:
    for boot in ("i1", "i2", "i3"):
        cluster.store.put_heartbeat(beat("h1", 1.0, seq=5, boot=boot))
    for boot in ("i1", "i2"):
        with pytest.raises(StaleToken):
            cluster.store.put_heartbeat(beat("h1", 1.0, seq=9, boot=boot))
    assert cluster.store.view(HOSTS, None).heartbeats[H1].incarnation == "i3"


# --- observation -------------------------------------------------------------------------------------------------


def test_the_latest_probe_rounds_of_each_prober_are_kept_in_order(cluster: Cluster) -> None:
    for who in (C1, C2):
        cluster.store.view({}, who)  # a prober is known once it has looked
        for second in range(40):
            cluster.store.put_probe_round(probe_round(1000.0 + second, {"h1": True}, by=who))
    rounds = cluster.store.view(HOSTS, None).probes
    assert [r.started_at for r in rounds] == sorted(r.started_at for r in rounds)
    for who in (C1, C2):
        mine = [r for r in rounds if r.prober == who]
        assert 2 <= len(mine) <= 20
        assert mine[-1] == probe_round(1039.0, {"h1": True}, by=who)


def test_a_probe_round_written_twice_is_one_round_of_evidence(cluster: Cluster) -> None:
    cluster.store.view({}, C1)
    for _ in range(2):
        cluster.store.put_probe_round(probe_round(1000.0, {"h1": False}, by=C1))
    assert cluster.store.view(HOSTS, None).probes == (probe_round(1000.0, {"h1": False}, by=C1),)


def test_the_latest_reading_of_each_device_is_kept(cluster: Cluster) -> None:
    for device, power in (("a", Power.ON), ("b", Power.ON), ("a", Power.OFF)):
        cluster.store.put_reading(reading("h1", power, 1000.0, device=device))
    found = {r.device: r.power for r in cluster.store.view(HOSTS, None).readings[H1]}
    assert found == {"a": Power.OFF, "b": Power.ON}


def test_executors_judge_with_the_watch_of_whoever_is_in_charge(cluster: Cluster) -> None:
    def watch(at: float) -> Watch:
        seen = HostWatch(incarnation=Incarnation("i1"), sequence=3, heard_at=Instant(at), silent_for=Seconds(0.25))
        return Watch(
            started_at=Instant(at), since=Instant(at), looked_at=Instant(at), life=cluster.incarnation, hosts={H1: seen}
        )

    assert cluster.store.holder_watch() is None
    cluster.store.put_watch(C1, watch(1.0))
    cluster.store.put_watch(C2, watch(2.0))
    assert cluster.store.holder_watch() == watch(1.0)
    cluster.lead(C2)
    assert cluster.store.holder_watch() == watch(2.0)


def test_who_watches_reads_the_very_reports_that_the_view_holds_and_is_known_to_have_looked(cluster: Cluster) -> None:
    cluster.store.put_heartbeat(beat("h1", 1.0, seq=5, runs={"web": 7}))
    cluster.store.put_heartbeat(beat("h9", 1.0, seq=5))
    cluster.store.put_files(C2, "d1")
    view, reports = cluster.store.view(HOSTS, None), cluster.store.reports(HOSTS, C2)
    assert (reports.life, reports.hosts, reports.heartbeats, reports.files) == (
        view.life, view.hosts, view.heartbeats, {C2: "d1"},
    )  # fmt: skip
    assert view.now <= reports.now <= cluster.store.now()
    assert cluster.store.view(HOSTS, None).controllers[C2] == reports.now


def test_the_view_tells_which_controllers_looked_and_when(cluster: Cluster) -> None:
    cluster.store.view(HOSTS, C2)
    assert set(cluster.store.view(HOSTS, None).controllers) == {C2}
    assert cluster.store.view(HOSTS, C2).controllers[C2] <= cluster.store.now()


# --- the ledger --------------------------------------------------------------------------------------------------


def entry(version: int, body: str = '{"id": "h1"}', key: str = "host/h1") -> LedgerEntry:
    return LedgerEntry(key=key, version=version, body=body)


def test_only_a_newer_document_is_written(cluster: Cluster) -> None:
    cluster.store.put_ledger([entry(5)])
    cluster.store.put_ledger([entry(4, '{"id": "old"}'), entry(5, '{"id": "same"}')])
    found = cluster.store.ledger(-1)
    assert found is not None
    assert found[1] == (entry(5),)
    cluster.store.put_ledger([entry(6, "")])
    again = cluster.store.ledger(found[0])
    assert again is not None
    assert again[1] == (entry(6, ""),)


def test_a_ledger_that_is_known_is_not_read_again(cluster: Cluster) -> None:
    empty = cluster.store.ledger(-1)
    assert empty is not None
    assert cluster.store.ledger(empty[0]) is None
    cluster.store.put_ledger([entry(5)])
    found = cluster.store.ledger(empty[0])
    assert found is not None
    assert cluster.store.ledger(found[0]) is None
    cluster.store.put_ledger([entry(5)])
    assert cluster.store.ledger(found[0]) is None, "nothing was newer"


def test_a_document_is_seen_by_the_next_look_and_also_that_all_was_forgotten(
    cluster: Cluster,
) -> None:
    other = cluster.subject.another()

    def reason() -> str:
        doc = cluster.store.view({}, None).host_docs.get(H1)
        return doc.reason if doc else "gone"

    for version, said in enumerate(("once", "twice"), start=1):
        body = TypeAdapter(HostDoc).dump_json(HostDoc(id=H1, reason=said)).decode()
        other.put_ledger([LedgerEntry(key="host/h1", version=version, body=body)])
        assert [reason(), reason()] == [said, said]
    cluster.subject.wipe()
    assert reason() == "gone"


def test_a_vms_definition_is_its_newest_document(cluster: Cluster) -> None:
    body = '{"spec": {"id": "web", "memory_mib": 64, "cpus": 1}, "xml": "<a/>", "wish": "running", "source": "cli"}'
    assert cluster.store.definition(WEB) is None
    cluster.store.put_ledger([entry(5, body, "vm/web")])
    found = cluster.store.definition(WEB)
    assert found is not None
    assert (found.xml, found.spec.id) == ("<a/>", WEB)
    assert cluster.store.view({}, None).vms == {WEB: found}
    cluster.store.put_ledger([entry(6, "", "vm/web")])
    assert cluster.store.definition(WEB) is None
    assert cluster.store.view({}, None).vms == {}


# --- wishes, alarms, events --------------------------------------------------------------------------------------


def test_a_wish_is_settled_once(cluster: Cluster) -> None:
    store = cluster.subject.another()
    asked = wish(WishKind.VM_START, "web")
    store.add_wish(asked)
    assert cluster.store.view({}, None).wishes == (asked,)
    assert cluster.store.wishes_waiting() == 1
    for sentence in ("first", "second"):
        result = WishResult(id=asked.id, granted=True, sentence=sentence, operation=None)
        cluster.store.settle_wish(asked, result, cluster.epoch)
    assert cluster.store.view({}, None).wishes == ()
    assert cluster.store.wishes_waiting() == 0
    answer = store.wish_result(asked.id)
    assert answer is not None
    assert answer.sentence == "first"


def test_a_wish_that_was_answered_is_not_taken_down_again(cluster: Cluster) -> None:
    """The answer to the first writing was lost, and the client asked again."""
    asked = wish(WishKind.VM_START, "web")
    cluster.store.add_wish(asked)
    cluster.store.settle_wish(asked, WishResult(id=asked.id, granted=True, sentence="", operation=None), cluster.epoch)
    cluster.store.add_wish(asked)
    assert cluster.store.view({}, None).wishes == ()


def test_the_view_tells_which_cluster_file_each_controller_reads(cluster: Cluster) -> None:
    cluster.store.put_files(C1, "aa")
    cluster.store.put_files(C2, "bb")
    assert cluster.store.view({}, None).files == {C1: "aa", C2: "bb"}


def test_a_host_that_is_only_remembered_is_still_read(cluster: Cluster) -> None:
    cluster.store.put_heartbeat(beat("h1", 1.0))
    cluster.store.put_host(host_record("h1"), None, cluster.epoch)
    assert cluster.store.view({}, None).heartbeats == {}
    body = TypeAdapter(HostDoc).dump_json(HostDoc(id=H1, incarnation=BOOT)).decode()
    cluster.store.put_ledger([LedgerEntry(key="host/h1", version=1, body=body)])
    view = cluster.store.view({}, None)
    assert (list(view.heartbeats), list(view.host_records), list(view.hosts)) == ([H1], [H1], [])


def test_a_host_that_owns_a_vm_is_read_though_neither_the_file_nor_a_document_names_it(cluster: Cluster) -> None:
    cluster.vm()
    cluster.store.put_heartbeat(beat("h1", 1.0))
    cluster.store.put_host(host_record("h1"), None, cluster.epoch)
    cluster.store.put_reading(reading("h1", Power.ON, 1.0))
    view = cluster.store.view({H2: spec("h2")}, C1)
    assert view.outside == (H1,)
    assert (list(view.heartbeats), list(view.host_records), len(view.readings[H1])) == ([H1], [H1], 1)


def test_a_roll_is_written_only_over_what_was_read(cluster: Cluster) -> None:
    store = cluster.store
    first = a_roll("h1", "h2", out=(H2,))
    assert store.roll() is None
    assert store.put_roll(first, None)
    assert not store.put_roll(first, None), "there is one already"
    turn = Turn(host=H1, vms=(WEB,), since=Instant(1.25), stage=Stage.COMMAND, exit_code=3, output="ä\n", asked=True)
    second = stopped(first.put(turn), "as the test says")
    assert store.put_roll(second, first)
    assert not store.put_roll(first, first), "it has changed"
    assert cluster.subject.another().roll() == second
    store.drop_roll()
    assert store.roll() is None


def test_alarms_are_the_standing_ones_only(cluster: Cluster) -> None:
    one, two = (Alarm(kind="k", subject=s, sentence=f"about {s}", highest=s == "b") for s in "ab")
    cluster.store.put_alarms([one, two], cluster.epoch)
    assert cluster.store.alarms() == (one, two)
    cluster.store.put_alarms([], cluster.epoch)
    assert cluster.store.alarms() == ()


def test_events_come_back_in_order_with_their_facts(cluster: Cluster) -> None:
    operators = cluster.subject.another()
    facts = {"text": "ä", "number": 7, "share": 0.5, "yes": True, "nothing": None}
    happened = [Happened(kind=f"k{n}", subject="web", sentence=f"s{n}", facts=facts) for n in range(5)]
    cluster.store.log(happened)
    found = operators.events("", 3, Seconds(0))
    assert [event.kind for event in found] == ["k2", "k3", "k4"]
    assert (found[0].subject, found[0].sentence, found[0].facts) == ("web", "s2", facts)
    assert operators.events(found[-1].id, 10, Seconds(0)) == ()
    assert [e.kind for e in operators.events(found[0].id, 10, Seconds(1))] == ["k3", "k4"]


def test_operations_are_listed_newest_first_open_and_closed(cluster: Cluster) -> None:
    operators = cluster.subject.another()
    for number in range(4):
        cluster.open(identity=f"op-{number}", subject=f"vm{number}")
    cluster.store.end_operation(OperationId("op-1"), OperationState.DONE, "done", cluster.epoch)
    assert [op.id for op in operators.operations(10)] == ["op-3", "op-2", "op-1", "op-0"]
