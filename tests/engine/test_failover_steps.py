"""Deciding steps: judged anew, proof before use, one host a VM however many plan at once, an end with a name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fangnetz.core.model import HostState, OffProof, ProofKind, VmState
from fangnetz.core.operations import OperationState, Order, Outcome, Step, StepKind, StepState, vm_start_steps
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, OperationId, Seconds, VmId
from fangnetz.engine import execute
from fangnetz.engine.execute import Done, Next
from fangnetz.engine.observe import observe
from fangnetz.engine.steps.failover import PROOF, grounds
from fangnetz.ports import Claim, LedgerEntry
from tests.contract.subjects import OP
from tests.engine.bench import Bench
from tests.redis_server import wait_for


@pytest.fixture
def lost(bench: Bench) -> Bench:
    """h1 was lost with two VMs; a failover of it is open."""
    bench.members()
    for vm in ("web", "db"):
        bench.define(vm, "h1")
    bench.lose("h1")
    bench.failover()
    return bench


def starts(bench: Bench, identity: str = OP) -> tuple[Step, ...]:
    return bench.found(identity).of_kind(StepKind.START)


def order_of(step: Step) -> Order:
    assert step.order is not None
    return step.order


# --- confirm -----------------------------------------------------------------------------------------------------


def test_a_loss_is_confirmed_with_its_signals(lost: Bench) -> None:
    assert lost.do(lost.deciding(), "confirm").next is Next.GO_ON
    facts = lost.step("confirm").facts
    assert facts["finding"] == "lost"
    assert [name for name in facts if name.startswith("signal_")]


def test_a_host_that_speaks_again_is_not_recovered(lost: Bench) -> None:
    lost.report("h1")
    lost.watch()
    assert lost.do(lost.deciding(), "confirm").next is Next.STOP
    assert lost.found().state is OperationState.CANCELLED


def test_a_host_that_booted_anew_needs_no_fence(lost: Bench) -> None:
    lost.reboot("h1")
    lost.watch()
    assert lost.do(lost.deciding(), "confirm").next is Next.GO_ON
    assert [lost.step(key).state for key in ("fence", "prove")] == [StepState.SKIPPED] * 2


def test_a_boot_heard_since_and_late_with_its_report_still_is_no_host_to_fence(lost: Bench) -> None:
    """Not even for the person who asked: what would be cut is the boot that came after."""
    lost.store.end_operation(lost.found().id, OperationState.CANCELLED, "", lost.epoch)
    lost.failover(identity="op-2", forced_by="ada")
    lost.reboot("h1")
    lost.watch(h1=lost.policy.window_s)
    assert lost.do(lost.deciding(), "confirm", "op-2").next is Next.GO_ON
    assert [lost.step(key, "op-2").state for key in ("fence", "prove")] == [StepState.SKIPPED] * 2


def forced(bench: Bench, asked_s_ago: float) -> None:
    """Ada asked for a fence of h1, which reports; the wish was taken up only now."""
    bench.members()
    bench.watch()
    bench.failover(forced_by="ada", suspected_at=Instant(bench.store.now() - asked_s_ago))


def test_a_persons_word_to_fence_is_not_carried_out_once_it_is_old(bench: Bench) -> None:
    forced(bench, 3600)
    assert bench.do(bench.deciding(), "confirm").next is Next.STOP
    found = bench.found()
    assert found.state is OperationState.CANCELLED
    assert "ada asked 3600 s ago" in found.sentence


def test_a_persons_word_to_fence_holds_for_a_moment(bench: Bench) -> None:
    forced(bench, 30)
    assert bench.do(bench.deciding(), "confirm").next is Next.GO_ON


def test_an_executor_that_knows_no_watch_confirms_nothing(lost: Bench) -> None:
    lost.raw.delete("fn:{test}:watch:c1")
    assert lost.do(lost.deciding(), "confirm").next is Next.STOP
    assert lost.found().state is OperationState.CANCELLED


def test_while_others_are_silent_too_nothing_is_confirmed(lost: Bench) -> None:
    lost.watch(h1=60.0, h2=60.0, h3=60.0)
    assert lost.do(lost.deciding(), "confirm").next is Next.STOP
    found = lost.found()
    assert found.state is OperationState.CANCELLED
    assert "not fenced" in found.sentence


def test_a_proof_that_files_have_withdrawn_confirms_no_loss_and_is_no_proof_to_the_fence(lost: Bench) -> None:
    proof = lost.proof("h1")
    lost.ledger.write([replace(proof, void=True)])
    operation = replace(lost.found(), proof=proof)
    seen = observe(lost.store, lost.hosts, lost.policy)
    assert "proven off" in grounds(operation, seen, lost.policy)[2]
    lost.ledger.write([proof])
    assert not grounds(operation, observe(lost.store, lost.hosts, lost.policy), lost.policy)[2]


# --- prove -------------------------------------------------------------------------------------------------------


def leave_proof(bench: Bench, proof: OffProof, **facts: float) -> None:
    bench.skip_to("fence")
    claim = bench.claim("fence", token="fence")
    found = Outcome(
        state=StepState.DONE, sentence=proof.sentence, facts={"proof": PROOF.dump_json(proof).decode(), **facts}
    )
    bench.store.settle(claim, found)


def test_a_proof_is_in_file_and_store_before_the_step_is_done(lost: Bench) -> None:
    proof = lost.proof("h1")
    leave_proof(lost, proof, fence_sent_at=1.0)
    assert lost.do(lost.deciding(), "prove").next is Next.GO_ON
    record = lost.host("h1")
    assert record is not None
    assert (record.state, record.proof, record.cut_by) == (HostState.FENCED, proof, OP)
    (entry,) = [e for e in lost.files.load() if e.key == "proof/h1"]
    assert PROOF.validate_json(entry.body) == proof
    assert "fence_proven" in lost.events()


def test_a_sign_of_life_after_the_proof_stops_everything_and_asks_a_person(lost: Bench) -> None:
    leave_proof(lost, lost.proof("h1"))
    lost.report("h1")
    assert lost.do(lost.deciding(), "prove").next is Next.STOP
    assert lost.found().state is OperationState.NEEDS_PERSON
    assert lost.host("h1").proof is None  # type: ignore[union-attr]


def test_what_a_sign_of_life_voids_stays_void_in_the_files(lost: Bench) -> None:
    leave_proof(lost, lost.proof("h1"))
    lost.report("h1")
    lost.do(lost.deciding(), "prove")
    (entry,) = [e for e in lost.files.load() if e.key == "proof/h1"]
    assert PROOF.validate_json(entry.body).void


def test_a_proof_that_files_have_withdrawn_is_not_written_over(lost: Bench) -> None:
    earlier = lost.proof("h1")
    lost.ledger.write([replace(earlier, void=True)])
    leave_proof(lost, lost.proof("h1"))
    assert lost.do(lost.deciding(), "prove").next is Next.STOP
    found = lost.found()
    assert (found.state, "confirm-off h1" in found.sentence) == (OperationState.NEEDS_PERSON, True)
    assert lost.host("h1").proof is None  # type: ignore[union-attr]
    (entry,) = [e for e in lost.files.load() if e.key == "proof/h1"]
    assert PROOF.validate_json(entry.body) == replace(earlier, void=True)


def test_a_fence_step_without_a_proof_proves_nothing(lost: Bench) -> None:
    lost.skip_to("prove")
    assert lost.do(lost.deciding(), "prove").next is Next.STOP
    record = lost.host("h1")
    assert record is not None
    assert (record.state, record.proof) == (HostState.ONLINE, None)


@pytest.mark.parametrize(("sent", "cut"), [({}, False), ({"fence_sent_at": 1.0}, True)])
def test_only_what_we_cut_counts_as_cut_by_us(lost: Bench, sent: dict[str, float], cut: bool) -> None:
    leave_proof(lost, replace(lost.proof("h1"), kind=ProofKind.ALREADY_OFF), **sent)
    lost.do(lost.deciding(), "prove")
    assert lost.host("h1").cut_by == (OP if cut else None)  # type: ignore[union-attr]


def test_a_fence_that_was_claimed_twice_leaves_time_for_the_lost_executors_cut(lost: Bench) -> None:
    lost.skip_to("fence")
    lost.claim("fence", token="lost", lease=0.02)
    assert wait_for(lambda: isinstance(lost.try_claim("fence", token="second"), Claim))
    second = lost.claim("fence", token="second")
    text = PROOF.dump_json(lost.proof("h1")).decode()
    lost.store.settle(second, Outcome(state=StepState.DONE, sentence="", facts={"proof": text}))
    lost.do(lost.deciding(), "prove")
    record = lost.host("h1")
    assert record is not None
    assert record.cut_possible_until >= second.now + lost.policy.fence_bound_s - 0.1


def test_an_unwritable_file_leaves_the_proof_unused(lost: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_proof(lost, lost.proof("h1"))

    def disk_is_full(_entries: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lost.files, "write", disk_is_full)
    with pytest.raises(OSError, match="No space"):
        lost.do(lost.deciding(), "prove")
    assert lost.host("h1").proof is None  # type: ignore[union-attr]
    step = lost.step("prove")
    assert (step.state, "No space left" in step.sentence) == (StepState.READY, True), "the sweep takes it up again"


def written_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Let something happen once the proof is in this machine's files and before it is in the host's record."""
    write = bench.files.write

    def written(entries: Sequence[LedgerEntry]) -> None:
        write(entries)
        if [entry for entry in entries if entry.key == "proof/h1"]:
            change()

    monkeypatch.setattr(bench.files, "write", written)


def claimed_by_another(bench: Bench) -> None:
    bench.raw.hset(bench.step_key("prove"), "token", "another's")


def closed(bench: Bench) -> None:
    bench.store.end_operation(OP, OperationState.CANCELLED, "enough", bench.epoch)


def beyond_its_bound(_bench: Bench) -> None:
    threading.Event().wait(0.4)


@pytest.mark.parametrize("change", [claimed_by_another, closed, beyond_its_bound])
def test_whoever_has_lost_the_step_calls_no_host_fenced(
    lost: Bench, monkeypatch: pytest.MonkeyPatch, change: Callable[[Bench], None]
) -> None:
    """An executor that froze before the record: by now its host may have come back, or a person have ended it all."""
    leave_proof(lost, lost.proof("h1"))
    if change is beyond_its_bound:
        monkeypatch.setattr(execute, "bound_of", lambda _kind, _policy: Seconds(0.3))
    written_meanwhile(lost, monkeypatch, lambda: change(lost))
    assert lost.do(lost.deciding(), "prove").next is Next.STOP
    record = lost.host("h1")
    assert record is not None
    assert (record.state, record.proof) == (HostState.ONLINE, None)
    assert "fence_proven" not in lost.events()


# --- plan --------------------------------------------------------------------------------------------------------


def to_plan(bench: Bench, identity: str = OP) -> None:
    bench.fenced("h1")
    bench.skip_to("plan/1", identity)
    bench.report("h2", "h3")
    bench.watch(h1=60.0)


def test_every_vm_gets_a_host_a_reason_and_a_start(lost: Bench) -> None:
    to_plan(lost)
    assert lost.do(lost.deciding(), "plan/1").next is Next.GO_ON
    facts = lost.step("plan/1").facts
    for step in starts(lost):
        order, record = order_of(step), lost.record(order_of(step).vm)
        assert (record.owner, record.generation, record.state) == (order.host, order.generation, VmState.STARTING)
        assert order.generation > 7
        assert (order.life, order.incarnation) == (lost.incarnation, "i1")
        assert order.deadline > lost.store.now()
        assert facts[f"to/{order.vm}"] == order.host
        assert facts[f"from/{order.vm}"] == "h1"
        assert facts[f"because/{order.vm}"]
    assert {order_of(s).host for s in starts(lost)} == {"h2", "h3"}
    assert sorted(chain for _, chain in lost.dispatcher.sent) == [
        ("start/db/1", "running/db/1"),
        ("start/web/1", "running/web/1"),
    ]


def test_without_proof_no_vm_leaves_its_owner(lost: Bench) -> None:
    lost.skip_to("plan/1")
    lost.report("h2", "h3")
    lost.watch(h1=60.0)
    lost.do(lost.deciding(), "plan/1")
    assert starts(lost) == ()
    for vm in ("web", "db"):
        record = lost.record(VmId(vm))
        assert (record.owner, record.generation, record.state) == ("h1", 7, VmState.LOST)
        assert "h1" in record.reason
    assert lost.do(lost.deciding(), "close").next is Next.STOP
    assert "0 of 2" in lost.found().sentence


def test_the_new_generation_exceeds_all_any_host_reported(lost: Bench) -> None:
    to_plan(lost)
    lost.report("h3", releases={"web": 2**52})
    lost.watch(h1=60.0)
    lost.do(lost.deciding(), "plan/1")
    assert lost.generation(VmId("web")) > 2**52


def test_what_fits_nowhere_waits_with_its_reason(lost: Bench) -> None:
    lost.define("big", "h1", memory=100_000)
    to_plan(lost)
    lost.do(lost.deciding(), "plan/1")
    record = lost.record(VmId("big"))
    assert (record.state, record.generation) == (VmState.WAITING, 7)
    assert "big" in lost.step("plan/1").facts["left/big"] or record.reason


def test_however_many_plan_at_once_no_vm_goes_to_two_hosts(bench: Bench) -> None:
    """Two operations that both hold the same VMs, planned at the same instant, again and again."""
    bench.members()
    for round_ in range(4):
        names = [f"vm{round_}-{n}" for n in range(3)]
        for name in names:
            bench.define(name)
        identities = []
        for name in names:
            for copy in ("a", "b"):
                identity = f"op-{name}-{copy}"
                made = replace(bench.operation(identity=identity, subject=name))
                # The same VM twice: as two controllers' epochs may leave it. The index admits one of a subject.
                bench.raw.hdel("fn:{test}:ops:open", f"start/{name}")
                assert bench.store.open_operation(made)
                identities.append(identity)
        bench.report()
        bench.watch()
        executors = [bench.deciding() for _ in identities]
        together = threading.Barrier(len(identities))

        def plan(number: int, executors=executors, identities=identities, together=together) -> Done:  # type: ignore[no-untyped-def]
            together.wait()
            return executors[number].carry_out(OperationId(identities[number]), "plan/1", StepKind.PLAN)

        with ThreadPoolExecutor(len(identities)) as pool:
            answers = list(pool.map(plan, range(len(identities))))
        assert Next.GO_ON in {a.next for a in answers}
        for name in names:
            orders = [order_of(s) for copy in "ab" for s in starts(bench, f"op-{name}-{copy}")]
            record = bench.record(VmId(name))
            assert len({o.generation for o in orders}) == len(orders), "a generation was given out twice"
            valid = [o for o in orders if o.generation == record.generation]
            assert [o.host for o in valid] == [record.owner]
            assert len({o.host for o in orders}) == 1, "its first owner has not let go of it"


def test_vms_planned_at_once_do_not_overfill_a_host(bench: Bench) -> None:
    bench.members()
    names = [f"vm{n}" for n in range(5)]
    for name in names:
        bench.define(name, memory=3000)  # one a host
        bench.open(identity=f"op-{name}", subject=name)
    bench.report()
    bench.watch()
    executors = [bench.deciding() for _ in names]
    with ThreadPoolExecutor(5) as pool:
        list(
            pool.map(lambda n: executors[n].carry_out(OperationId(f"op-{names[n]}"), "plan/1", StepKind.PLAN), range(5))
        )
    owners = [bench.record(VmId(name)).owner for name in names]
    assert sorted(str(o) for o in owners if o) == ["h1", "h2", "h3"]


# --- see running -------------------------------------------------------------------------------------------------


def started(bench: Bench, for_s: float = 60.0) -> str:
    bench.members()
    bench.define("web", "h2", state=VmState.STARTING)
    order = Order(
        vm=VmId("web"), host=HostId("h2"), incarnation=Incarnation("i1"), generation=Generation(7),
        life=bench.incarnation, deadline=Instant(bench.store.now() + for_s),
    )  # fmt: skip
    start, running = vm_start_steps(order, attempt=1, after="x")
    bench.open(replace(start, after=()), running)
    claim = bench.try_claim(start.key)
    assert isinstance(claim, Claim)
    bench.store.settle(claim, Outcome(state=StepState.DONE, sentence="started"))
    return running.key


def test_a_vm_is_running_once_its_host_says_so(bench: Bench) -> None:
    key = started(bench)
    bench.report("h2", runs={"web": 7})
    assert bench.do(bench.deciding(), key).next is Next.GO_ON
    assert bench.record().state is VmState.RUNNING
    assert "vm_started" in bench.events()


@pytest.mark.parametrize("runs", [{"web": 6}, {"web": None}, {"db": 7}])
def test_another_copy_is_not_the_one_that_was_started(bench: Bench, runs: dict[str, int | None]) -> None:
    key = started(bench)
    bench.report("h2", runs=runs)
    assert bench.do(bench.deciding(), key).next is Next.AGAIN
    assert bench.record().state is VmState.STARTING


def test_a_vm_that_moved_on_is_not_waited_for(bench: Bench) -> None:
    key = started(bench)
    bench.store.put_vm(replace(bench.record(), generation=Generation(8)), Generation(7), bench.epoch)
    assert bench.do(bench.deciding(), key).next is Next.STOP
    assert bench.step(key).facts["superseded"] is True


def test_a_vm_that_ended_at_once_is_told_as_such(bench: Bench) -> None:
    key = started(bench)
    assert wait_for(lambda: bench.store.now() > bench.step("start/web/1").ended_at + 1.2)
    bench.report("h2")
    assert bench.do(bench.deciding(), key).next is Next.STOP
    assert bench.step(key).state is StepState.FAILED
    assert bench.generation() == 7, "it is not given away for that"


# --- close -------------------------------------------------------------------------------------------------------


def test_an_operation_ends_with_how_many_run(lost: Bench) -> None:
    to_plan(lost)
    decide = lost.deciding()
    lost.do(decide, "plan/1")
    for step in starts(lost):
        order = order_of(step)
        claim = lost.claim(step.key, token=step.key)
        lost.store.settle(claim, Outcome(state=StepState.DONE, sentence=""))
        lost.report(order.host, runs={order.vm: order.generation})
        lost.do(decide, f"running/{order.vm}/1")
    assert lost.do(decide, "close").next is Next.STOP
    found = lost.found()
    assert (found.state, found.sentence) == (OperationState.DONE, "2 of 2 VMs run")


def test_a_start_nobody_answered_is_named_in_the_end(lost: Bench) -> None:
    to_plan(lost)
    decide = lost.deciding()
    lost.do(decide, "plan/1")
    for step in starts(lost):
        claim = lost.claim(step.key, token=step.key)
        lost.store.settle(
            claim, Outcome(state=StepState.FAILED, sentence="", skips=(step.key.replace("start", "running"),))
        )
    lost.do(decide, "close")
    found = lost.found()
    assert found.state in (OperationState.DONE, OperationState.NEEDS_PERSON)
    assert "0 of 2" in found.sentence
    assert "web" in found.sentence
    assert "db" in found.sentence
