"""The tick and the sweep: only who is in charge acts, and whatever was lost on its way is sent again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.adapters.ledger_files import LedgerFolder
from fangnetz.adapters.redis.keys import Keys
from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.detector import heard
from fangnetz.core.errors import StaleToken, StoredContentError
from fangnetz.core.model import HostDoc, HostState, PauseDoc, VmState, VmWish, WishKind
from fangnetz.core.operations import (
    OperationKind,
    OperationState,
    Outcome,
    Step,
    StepKind,
    StepState,
    queue_of,
    vm_start_steps,
)
from fangnetz.core.units import ControllerId, Epoch, HostId, Incarnation, Instant, OperationId, Seconds, VmId
from fangnetz.engine.execute import Context, Next, Settlement
from fangnetz.engine.ledger import Ledger
from fangnetz.engine.tick import Controller, void_order
from tests.contract.subjects import C1, C2, H1, OP, WEB
from tests.core.world import sighting, vm_doc, wish
from tests.engine.bench import Bench, Recorder
from tests.redis_server import wait_for


class Machine:
    """One controller."""

    def __init__(self, bench: Bench, name: ControllerId, folder: Path, declared: tuple[str, ...] = ()) -> None:
        self.dispatcher = Recorder()
        self.store = bench.subject.another()
        self.folder = folder / name
        self.controller = Controller(
            me=name,
            store=self.store,
            dispatcher=self.dispatcher,
            ledger=Ledger(self.store, LedgerFolder(self.folder), SystemProcess()),
            hosts=bench.hosts,
            declared={VmId(vm): replace(vm_doc(vm), source="file") for vm in declared},
            policy=bench.policy,
        )

    def tick(self) -> bool:
        return self.controller.tick().in_charge


@pytest.fixture
def c1(bench: Bench, tmp_path: Path) -> Machine:
    bench.store.drop_lease(C1)
    return Machine(bench, C1, tmp_path)


def lead(bench: Bench, machine: Machine) -> None:
    """Let the machine be in charge and the bench write under its epoch."""
    assert machine.tick()
    lease = bench.store.control_lease()
    assert lease is not None
    bench.epoch = lease.epoch


# --- the tick ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        Keys("test").vm(WEB), Keys("test").heartbeat(H1), Keys("test").host(H1), Keys("test").power(H1),
        Keys("test").wishes, Keys("test").events,
    ],
)  # fmt: skip
def test_a_key_of_another_type_stops_no_tick_and_the_others_are_decided_on(bench: Bench, c1: Machine, key: str) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", "h1")
    assert c1.tick()
    bench.raw.delete(key)
    bench.raw.geoadd(key, (1.0, 1.0, "x"))
    bench.store.drop_lease(C1)  # so that the next tick has something to write
    again = c1.controller.tick()
    assert again.decision is not None
    alarmed = [alarm.subject for alarm in again.decision.alarms if alarm.kind == "unreadable"]
    assert alarmed == ([] if key == Keys("test").events else [key])
    record = bench.store.view(bench.hosts, None).host_records.get(HostId("h2"))
    assert record is not None
    assert record.state is HostState.ONLINE


def test_whoever_takes_over_has_watched_all_along(bench: Bench, tmp_path: Path, c1: Machine) -> None:
    c2 = Machine(bench, C2, tmp_path)
    assert c1.tick()
    bench.report()
    assert not c2.tick()
    handed_over_at = bench.store.now()
    c1.controller.leave()
    assert c2.tick()
    watch = bench.store.holder_watch()
    assert watch is not None
    assert watch.started_at < handed_over_at
    assert watch.since < handed_over_at, "no gap: what it saw before counts"


def test_one_of_two_controllers_acts_and_the_other_watches(bench: Bench, tmp_path: Path, c1: Machine) -> None:
    c2 = Machine(bench, C2, tmp_path, declared=("web",))
    assert c1.tick()
    bench.report()
    assert not c2.tick()
    assert bench.store.view(bench.hosts, None).vms == {}, "c2 has brought nothing in"
    assert bench.host("h1") is None
    assert c2.controller.sweep() == 0
    c1.controller.leave()
    assert c2.tick()
    assert set(bench.store.view(bench.hosts, None).vms) == {"web"}


def test_a_host_that_reports_is_taken_up_and_told_of(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.report()

    def online() -> bool:
        bench.report()
        c1.tick()
        record = bench.host("h1")
        return record is not None and record.state is HostState.ONLINE

    assert wait_for(online)
    assert "host_state" in bench.events()


def test_a_wished_vm_gets_a_start_and_one_only(bench: Bench, tmp_path: Path) -> None:
    bench.store.drop_lease(C1)
    machine = Machine(bench, C1, tmp_path, declared=("web",))
    lead(bench, machine)
    bench.members()

    def opened() -> bool:
        bench.report()
        machine.tick()
        return bool(bench.store.view({}, None).operations)

    assert wait_for(opened)
    (operation,) = bench.store.view({}, None).operations.values()
    assert (operation.kind, operation.subject, operation.epoch) == (OperationKind.START, "web", bench.epoch)
    assert machine.dispatcher.sent == [(operation.id, ("plan/1",))]
    bench.report()
    machine.tick()
    assert list(bench.store.view({}, None).operations) == [operation.id]
    assert len(machine.dispatcher.sent) == 1


def test_a_wish_is_answered_once_with_a_sentence(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    asked = wish(WishKind.VM_START, "no-such")
    bench.store.add_wish(asked)
    c1.tick()
    answer = bench.store.wish_result(asked.id)
    assert answer is not None
    assert not answer.granted
    assert "no-such" in answer.sentence
    assert bench.store.view({}, None).wishes == ()


def test_a_host_found_empty_goes_out_with_the_next_look_and_that_is_due_at_once(bench: Bench, c1: Machine) -> None:
    bench.report("h1", "h2", "h3")
    lead(bench, c1)
    doc = HostDoc(id=H1, evacuate=True, reason="an operator asked to empty it", incarnation=Incarnation("i1"))
    bench.ledger.write([doc])
    due: Seconds | None = None
    for _ in range(5):
        due = c1.controller.tick().due_in
        docs = bench.store.view(bench.hosts, None).host_docs
        if docs[H1].maintenance:
            break
    assert due == 0.0
    assert c1.controller.tick().due_in != 0.0, "once, not again and again"
    assert bench.store.view(bench.hosts, None).host_records[H1].state is HostState.MAINTENANCE


def told(bench: Bench, kind: str) -> list[dict[str, object]]:
    """The facts of every event of a kind."""
    return [dict(event.facts) for event in bench.store.events("", 200, Seconds(0)) if event.kind == kind]


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (WishKind.VM_START, {"wish": "start", "vm": "no-such"}),
        (WishKind.HOST_CONFIRM_OFF, {"wish": "confirm_off", "host": "no-such"}),
    ],
)
def test_a_refused_wish_is_told_with_what_was_wished_and_of_whom(
    bench: Bench, c1: Machine, kind: WishKind, facts: dict[str, str]
) -> None:
    lead(bench, c1)
    bench.store.add_wish(replace(wish(kind, "no-such"), at=bench.store.now()))
    c1.tick()
    assert told(bench, "wish_refused") == [facts]


def test_what_is_lost_and_what_is_held_back_is_told_once_and_nobody_is_cut(bench: Bench, c1: Machine) -> None:
    """Two of three hosts fall silent: a fault of ours, so both are spared, and the VM of one of them is lost."""
    lead(bench, c1)
    bench.members()
    bench.bind("h1")
    bench.define("web", "h1", generation=7)
    c1.tick()
    silent = {"h1", "h2"}
    for _ in range(bench.policy.silent_rounds + 1):
        bench.probed(silent)
    c1.controller._watch = bench.seen(h1=60.0, h2=60.0)
    bench.report("h3")
    c1.tick()
    c1.tick()
    held = [facts for facts in told(bench, "decided_not_to") if facts["what"] == "fence"]
    assert held == [{"what": "fence", "host": host, "why": "mass_failure"} for host in ("h1", "h2")]
    assert told(bench, "vm_lost") == [{"vm": "web", "host": "h1", "generation": 7}]
    assert told(bench, "operation_opened") == []


def test_a_vm_without_a_place_is_told_as_not_started(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", state=VmState.WAITING, memory=1_000_000)

    def said() -> bool:
        bench.report()
        c1.tick()
        return bool(told(bench, "decided_not_to"))

    assert wait_for(said)
    assert told(bench, "decided_not_to") == [{"what": "start", "vm": "web"}]


def test_a_controller_that_lost_the_lease_during_its_tick_writes_nothing(
    bench: Bench, c1: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead(bench, c1)
    bench.report()
    wrote = c1.store.put_host

    def too_late(*what: object) -> bool:
        bench.lead(C2)
        return wrote(*what)  # type: ignore[arg-type]

    monkeypatch.setattr(c1.store, "put_host", too_late)
    with pytest.raises(StaleToken):
        c1.tick()
    assert bench.host("h1") is None


@pytest.mark.parametrize("trouble", ["a damaged file", "a full disk"])
def test_a_controller_with_a_broken_disk_does_not_stay_in_charge(
    bench: Bench, tmp_path: Path, c1: Machine, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    short = replace(bench.policy, control_lease_s=Seconds(3.0))
    monkeypatch.setattr(c1.controller, "_policy", short)
    assert c1.tick()
    if trouble == "a full disk":

        def full(_entries: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(c1.controller._ledger._files, "write", full)
    else:
        c1.folder.mkdir(exist_ok=True)
        (c1.folder / "vm%2Fweb.json").write_text("{")
    bench.ledger.write([vm_doc("db")])
    c2 = Machine(bench, C2, tmp_path)

    def both_tick() -> bool:
        with pytest.raises((StoredContentError, OSError)):
            c1.tick()
        return c2.tick()

    assert wait_for(both_tick, every=0.1), "c2 never got the lease"


def test_a_new_life_of_the_store_costs_the_lease(bench: Bench, c1: Machine) -> None:
    assert c1.tick()
    bench.subject.begin_new_life()
    assert not c1.tick()


def test_a_clock_set_back_by_an_hour_costs_no_more_than_a_lease(bench: Bench, c1: Machine) -> None:
    assert c1.tick()
    ahead = int((bench.store.now() + 3600) * 1_000_000)
    bench.raw.hset(Keys("test").clock, "latest", str(ahead))  # the store's server said so before its clock fell back
    bench.report()
    assert wait_for(c1.tick, bound=2 * bench.policy.control_lease_s, every=0.1), "nobody could lead"
    bench.report()
    view = bench.store.view(bench.hosts, None)
    assert view.now >= ahead / 1_000_000
    assert all(heard(view, host) for host in bench.hosts)


def test_a_start_that_is_just_being_planned_on_a_proof_ends_when_that_proof_is_void(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", "h1")
    bench.report()
    bench.fenced("h1")
    bench.watch(h1=60.0)
    assert c1.tick()
    (start,) = [op for op in bench.store.operations(10) if op.kind is OperationKind.START]
    assert start.state is OperationState.OPEN
    assert not start.of_kind(StepKind.PLAN)[0].settled
    bench.report("h1", runs={"web": 7})
    assert c1.tick()
    assert bench.found(start.id).state is OperationState.NEEDS_PERSON
    bench.do(bench.deciding(), "plan/1", start.id)
    record = bench.store.view(bench.hosts, None).vm_records[WEB]
    assert (record.owner, record.generation) == (H1, 7)


# --- the sweep ---------------------------------------------------------------------------------------------------


def old_enough(bench: Bench) -> None:
    """Past the span in which a message that was just sent is still expected to arrive."""
    for step in bench.steps():
        sent = bench.raw.hget(bench.step_key(step.key), "dispatched")
        if sent:
            aged = int(sent) - int((bench.policy.step_lease_s + 1) * 1_000_000)
            bench.raw.hset(bench.step_key(step.key), "dispatched", str(aged))


def test_what_was_lost_on_its_way_is_sent_again(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.open()
    assert c1.controller.sweep() == 1
    assert c1.dispatcher.sent == [(OP, ("plan/1",))]
    assert c1.controller.sweep() == 0, "it has only just been sent"
    old_enough(bench)
    assert c1.controller.sweep() == 1


def test_a_step_that_is_carried_out_is_not_sent_again_until_its_lease_ran_out(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.open()
    bench.claim("plan/1", lease=0.5)
    assert c1.controller.sweep() == 0
    assert wait_for(lambda: c1.controller.sweep() == 1)
    assert bench.store.now() >= bench.step("plan/1").lease_until


def test_a_step_given_back_is_sent_when_it_is_due(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.open()
    again = Outcome(state=StepState.READY, sentence="later", retry_after_s=Seconds(0.5))
    bench.store.settle(bench.claim("plan/1"), again)
    assert c1.controller.sweep() == 0
    assert wait_for(lambda: c1.controller.sweep() == 1)
    assert bench.store.now() >= bench.step("plan/1").not_before


def pause(bench: Bench, *, on: bool = True) -> None:
    bench.ledger.write([PauseDoc(on=on, by="ada", since=bench.store.now())])


def test_in_a_pause_no_new_step_is_sent_and_after_it_each_is(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.open()
    pause(bench)
    assert c1.controller.sweep() == 0
    assert c1.dispatcher.sent == []
    pause(bench, on=False)
    assert c1.controller.sweep() == 1


def test_a_pause_withdraws_starts_that_had_not_begun_and_leaves_those_that_had(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", "h1", state=VmState.STARTING)
    bench.open(bench.start_step())
    pause(bench)
    claimed = bench.step("start/web/1")
    assert claimed.attempt == 0
    c1.controller.sweep()
    assert bench.step("start/web/1").state is StepState.FAILED
    record = bench.store.view(bench.hosts, None).vm_records[WEB]
    assert (record.state, record.failures) == (VmState.WAITING, 0)
    assert "had not begun" in record.reason


def test_a_pause_leaves_a_start_that_had_begun(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", "h1", state=VmState.STARTING)
    bench.open(bench.start_step())
    bench.claim("start/web/1", lease=0.02)
    pause(bench)
    assert wait_for(lambda: c1.controller.sweep() == 1), "what came of it is asked"
    assert bench.step("start/web/1").state is StepState.RUNNING


def test_the_rest_of_a_chain_is_sent_from_where_it_was_lost(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.failover()
    bench.skip_to("prove")
    c1.controller.sweep()
    assert c1.dispatcher.sent == [(OP, ("prove", "plan/1"))]


def test_operations_of_a_former_holder_are_adopted_and_go_on(bench: Bench, tmp_path: Path, c1: Machine) -> None:
    lead(bench, c1)
    bench.open()
    c1.controller.leave()
    c2 = Machine(bench, C2, tmp_path)
    lead(bench, c2)
    assert c2.controller.sweep() == 1
    assert bench.found().epoch == bench.epoch
    bench.claim("plan/1")


def ordered(bench: Bench, for_s: float) -> Step:
    bench.members()
    bench.define("web", "h1", state=VmState.STARTING)
    start, running = vm_start_steps(bench.order(for_s=for_s), attempt=1, after="x")
    start = replace(start, after=())
    close = Step(key="close", kind=StepKind.CLOSE, after=("*",))
    bench.open(start, running, close)
    return start


def test_an_order_that_was_not_answered_in_time_is_given_up_and_its_vm_starts_nowhere_else(
    bench: Bench, c1: Machine
) -> None:
    lead(bench, c1)
    start = ordered(bench, 0.5)
    assert c1.controller.sweep() == 1
    assert wait_for(lambda: (c1.controller.sweep(), bench.step(start.key).settled)[1])
    assert bench.step(start.key).state is StepState.FAILED
    assert bench.step(f"running/{WEB}/1").state is StepState.SKIPPED
    assert "start_unanswered" in bench.events()
    assert (bench.record().owner, bench.generation()) == (H1, 7)
    assert c1.dispatcher.sent[-1] == (OP, ("close",))


def test_two_copies_that_run_get_one_pause_that_travels_to_the_later_ones_host(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", "h1")

    def twice() -> None:
        for host, started in (("h1", 10.0), ("h2", 20.0)):
            bench.report(host, seen=(replace(sighting("web", 7), start_sent_at=Instant(started)),))
        bench.report("h3")
        c1.tick()

    assert wait_for(lambda: (twice(), bench.store.view({}, None).operations)[1])
    (operation,) = bench.store.view({}, None).operations.values()
    pause = operation.steps[0]
    assert (operation.kind, pause.kind, queue_of(pause)) == (OperationKind.PAUSE, StepKind.PAUSE, "host.h2")
    assert c1.dispatcher.sent == [(operation.id, (f"pause/{WEB}",))]
    assert pause.order is not None
    assert pause.order.beside == ("h1",)
    assert bench.record().state is VmState.NEEDS_PERSON
    twice()
    assert len(c1.dispatcher.sent) == 1
    claim = bench.claim(pause.key, identity=operation.id)
    bench.store.settle(claim, Outcome(state=StepState.DONE, sentence="paused"))
    assert bench.do(bench.deciding(), "close", operation.id).next is Next.STOP
    assert bench.found(operation.id).state is OperationState.DONE
    twice()
    assert bench.store.view({}, None).operations == {}  # not again at once, whatever it came to


def test_a_pause_that_was_not_made_in_time_is_given_up_and_says_why(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", "h2")
    close = Step(key="close", kind=StepKind.CLOSE, after=("*",))
    bench.open(Step(key="pause/web", kind=StepKind.PAUSE, order=bench.order(for_s=0.5)), close)
    waits = Outcome(state=StepState.READY, sentence="h2 has not said anew")
    bench.store.settle(bench.claim("pause/web"), waits)
    assert wait_for(lambda: (c1.controller.sweep(), bench.step("pause/web").settled)[1])
    assert "h2 has not said anew" in bench.step("pause/web").sentence
    assert "pause_unanswered" in bench.events()


def test_a_stop_that_was_not_answered_in_time_is_not_called_a_start(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", "h1")
    close = Step(key="close", kind=StepKind.CLOSE, after=("*",))
    bench.open(Step(key="stop/web", kind=StepKind.STOP, order=bench.order(for_s=0.5)), close)
    assert wait_for(lambda: (c1.controller.sweep(), bench.step("stop/web").settled)[1])
    assert bench.step("stop/web").sentence.startswith("h1 was asked to stop web and has not answered")
    assert "stop_unanswered" in bench.events()
    assert "start_unanswered" not in bench.events()


def test_an_order_somebody_carries_out_is_not_given_up(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    start = ordered(bench, 0.3)
    bench.claim(start.key, lease=1.5)
    assert wait_for(lambda: bench.store.now() > bench.step(start.key).order.deadline)  # type: ignore[union-attr]
    c1.controller.sweep()
    assert bench.step(start.key).state is StepState.RUNNING


@pytest.mark.parametrize("why", ["moved on", "another boot"])
def test_an_order_that_can_never_be_carried_out_is_settled_at_once(bench: Bench, c1: Machine, why: str) -> None:
    lead(bench, c1)
    start = ordered(bench, 3600.0)
    if why == "moved on":
        record = bench.record()
        newer = type(record.generation)(8)
        assert bench.store.put_vm(replace(record, generation=newer), record.generation, bench.epoch)
    else:
        bench.reboot("h1")
    c1.controller.sweep()
    step = bench.step(start.key)
    assert step.state is StepState.FAILED
    assert step.facts["superseded"] is True
    # It was never started there, so it did not end there either: nothing is counted against it.
    assert bench.record().state is (VmState.STARTING if why == "moved on" else VmState.WAITING)


def test_the_sweep_of_whoever_is_not_in_charge_does_nothing(bench: Bench, tmp_path: Path, c1: Machine) -> None:
    lead(bench, c1)
    ordered(bench, 0.01)
    before = bench.found()
    c2 = Machine(bench, C2, tmp_path)
    assert c2.controller.sweep() == 0
    assert (bench.found(), c2.dispatcher.sent) == (before, [])


def test_closed_operations_are_not_sent(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.open()
    bench.store.end_operation(OperationId(OP), OperationState.CANCELLED, "", bench.epoch)
    assert c1.controller.sweep() == 0
    assert bench.step("plan/1").dispatched_at == Instant(0.0)


# --- the cluster file --------------------------------------------------------------------------------------------


def test_controllers_with_different_files_take_nothing_up_and_say_so(bench: Bench, tmp_path: Path) -> None:
    def known() -> dict[str, str]:
        return {vm: doc.source for vm, doc in bench.store.view(bench.hosts, None).vms.items()}

    bench.store.drop_lease(C1)
    one, two = Machine(bench, C1, tmp_path, declared=("web",)), Machine(bench, C2, tmp_path, declared=("db",))
    lead(bench, one)
    assert not two.tick()
    assert one.tick()
    assert [alarm.subject for alarm in bench.store.alarms() if alarm.kind == "files_differ"] == ["c1, c2"]
    one.store.drop_lease(C1)  # it goes on watching
    assert two.tick()
    assert known() == {"web": "file"}
    one.controller.leave()
    assert two.tick()
    assert known() == {"web": "dropped", "db": "file"}


def test_what_the_file_drops_is_marked_in_the_ledger_and_put_back_with_it(bench: Bench, tmp_path: Path) -> None:
    bench.store.drop_lease(C1)
    machine = Machine(bench, C1, tmp_path, declared=("web",))
    lead(bench, machine)
    assert bench.store.view(bench.hosts, None).vms[WEB].source == "file"
    machine.controller.leave()
    without = Machine(bench, C2, tmp_path)
    lead(bench, without)
    assert bench.store.view(bench.hosts, None).vms[WEB].source == "dropped"
    without.controller.leave()
    lead(bench, machine)
    assert bench.store.view(bench.hosts, None).vms[WEB].source == "file"


def test_an_end_that_comes_under_a_lost_epoch_is_left_to_the_new_holders_sweep(bench: Bench, tmp_path: Path) -> None:
    bench.open(Step(key="close", kind=StepKind.CLOSE))
    c2 = Machine(bench, C2, tmp_path)
    seen: list[Epoch] = []

    def close(_context: Context) -> Settlement:
        """The first time its controller is overthrown in the middle."""
        seen.append(bench.lead(C2) if not seen else seen[0])
        return Settlement(Outcome(state=StepState.DONE, sentence=f"by {len(seen)}", closes=OperationState.DONE))

    executor = bench.executor({StepKind.CLOSE: close})
    assert bench.do(executor, "close").next is Next.STOP
    assert (bench.found().state, bench.step("close").state) == (OperationState.OPEN, StepState.RUNNING)
    assert wait_for(c2.controller.sweep), "nobody holds it any more"
    assert (c2.dispatcher.sent, bench.found().epoch) == ([(OP, ("close",))], seen[0])
    bench.do(executor, "close")
    assert (bench.found().state, bench.found().sentence) == (OperationState.DONE, "by 2")


# --- wishes that are asked for, or carried out, more than once ---------------------------------------------------


def crash_before_settling(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_what: object) -> None:
        raise KeyboardInterrupt("killed between the wish's actions and its settling")

    with monkeypatch.context() as patch:
        patch.setattr(machine.store, "settle_wish", crash)
        with pytest.raises(KeyboardInterrupt):
            machine.tick()


@pytest.mark.parametrize("closed", [False, True], ids=["still at work", "ended already"])
def test_a_fence_wish_whose_settling_was_lost_is_carried_out_once(
    bench: Bench, c1: Machine, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    lead(bench, c1)
    bench.members()
    bench.report()
    asked = replace(wish(WishKind.HOST_FENCE, "h1"), at=bench.store.now())
    bench.store.add_wish(asked)
    crash_before_settling(c1, monkeypatch)
    (operation,) = [op for op in bench.store.operations(10) if op.kind is OperationKind.FAILOVER]
    if closed:
        bench.store.end_operation(operation.id, OperationState.DONE, "", bench.epoch)
    bench.report()
    c1.tick()
    answer = bench.store.wish_result(asked.id)
    assert answer is not None
    assert (answer.granted, answer.operation) == (True, operation.id)
    assert [op.id for op in bench.store.operations(10) if op.kind is OperationKind.FAILOVER] == [operation.id]
    assert bench.store.view(bench.hosts, None).wishes == ()


def test_a_wish_that_was_answered_is_not_carried_out_again_when_a_client_repeats_it(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.members()
    bench.define("web", "h1")
    bench.report(runs={"web": 7})
    stop, start = wish(WishKind.VM_STOP, "web"), wish(WishKind.VM_START, "web")
    for asked in (stop, start):
        bench.store.add_wish(asked)
        bench.report(runs={"web": 7})
        c1.tick()
        assert bench.store.wish_result(asked.id) is not None
    bench.store.add_wish(stop)  # its first answer was lost on the way to the client
    bench.report()
    c1.tick()
    assert bench.store.view(bench.hosts, None).vms[WEB].wish is VmWish.RUNNING


def test_a_proof_confirmed_for_a_host_outside_is_in_this_machines_files(bench: Bench, c1: Machine) -> None:
    lead(bench, c1)
    bench.ledger.write([HostDoc(id=HostId("h9"), incarnation=Incarnation("i1"))])
    asked = replace(wish(WishKind.HOST_CONFIRM_OFF, "h9"), at=bench.store.now())

    def granted() -> bool:
        again = replace(asked, id=f"again-{bench.store.now()}", at=bench.store.now())
        bench.store.add_wish(again)
        bench.report()
        c1.tick()
        answer = bench.store.wish_result(again.id)
        return answer is not None and answer.granted

    assert wait_for(granted, every=0.3), "its silence was never long enough"
    proofs = [entry for entry in LedgerFolder(c1.folder).load() if entry.key == "proof/h9"]
    assert len(proofs) == 1
    bench.report()
    c1.tick()
    assert bench.store.view(bench.hosts, None).outside == (), "it owns nothing and is forgotten"


@pytest.mark.parametrize("withdrawn", [False, True])
def test_an_order_to_a_host_proven_off_is_void_unless_that_proof_was_withdrawn(
    bench: Bench, c1: Machine, withdrawn: bool
) -> None:
    lead(bench, c1)
    start = ordered(bench, 3600.0)
    bench.ledger.write([replace(bench.proof("h1"), void=withdrawn)])
    bench.fenced("h1")
    found = bench.step(start.key)
    assert bool(void_order(found, bench.store.view(bench.hosts, None))) is not withdrawn
