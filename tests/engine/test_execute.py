"""The executor: a message is a doorbell, the journal's line is what counts."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fangnetz.adapters.system_process import SystemProcess
from fangnetz.core.convergence import Progress
from fangnetz.core.errors import FenceUnreachable, StaleToken, StoreUnreachable
from fangnetz.core.operations import OperationState, Outcome, Step, StepKind, StepState
from fangnetz.core.policy import Policy
from fangnetz.core.units import Instant, OperationId, Seconds
from fangnetz.engine import faults
from fangnetz.engine.execute import Context, Next, Settlement, bound_of
from fangnetz.engine.fault_points import STEP_STAGES
from fangnetz.ports import Claim
from tests.contract.subjects import C2, OP
from tests.engine.bench import Bench
from tests.redis_server import wait_for

DONE = Settlement(Outcome(state=StepState.DONE, sentence="done"))
A, B = Step(key="a", kind=StepKind.CONFIRM), Step(key="b", kind=StepKind.PLAN, after=("a",))


class Effect:
    """Counts how often it ran; does what it is told."""

    def __init__(self, *answers: Settlement | Exception) -> None:
        self.answers = list(answers) or [DONE]
        self.runs = 0
        self.lock = threading.Lock()

    def __call__(self, _context: Context) -> Settlement:
        with self.lock:
            answer = self.answers[min(self.runs, len(self.answers) - 1)]
            self.runs += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_step_is_done_written_down_and_the_chain_goes_on(bench: Bench) -> None:
    bench.open(A, B)
    effect = Effect()
    done = bench.do(bench.executor({StepKind.CONFIRM: effect}), "a")
    assert (done.next, effect.runs) == (Next.GO_ON, 1)
    assert (bench.step("a").state, bench.step("a").executor) == (StepState.DONE, "e1")


@pytest.mark.parametrize(
    ("state", "next_"),
    [(StepState.DONE, Next.GO_ON), (StepState.REFUSED, Next.STOP), (StepState.FAILED, Next.STOP)],
)
def test_what_is_settled_is_not_done_again_and_the_chain_follows_its_outcome(
    bench: Bench, state: StepState, next_: Next
) -> None:
    bench.open(A, B)
    bench.store.settle(bench.claim("a"), Outcome(state=state, sentence="earlier"))
    effect = Effect()
    done = bench.do(bench.executor({StepKind.CONFIRM: effect}), "a")
    assert (done.next, effect.runs, bench.step("a").sentence) == (next_, 0, "earlier")


def test_a_step_that_still_waits_for_another_is_not_done(bench: Bench) -> None:
    bench.open(A, B)
    effect = Effect()
    done = bench.do(bench.executor({StepKind.PLAN: effect}), "b")
    assert (done.next, effect.runs, bench.step("b").state) == (Next.STOP, 0, StepState.READY)


@pytest.mark.parametrize(
    ("identity", "key", "kind"),
    [("no-such", "a", StepKind.CONFIRM), (OP, "no-such", StepKind.CONFIRM), (OP, "a", StepKind.FENCE)],
)
def test_a_message_without_its_line_in_the_journal_does_nothing(
    bench: Bench, identity: str, key: str, kind: StepKind
) -> None:
    bench.open(A, B)
    before = bench.found()
    effect = Effect()
    done = bench.executor({StepKind.CONFIRM: effect, StepKind.FENCE: effect}).carry_out(
        OperationId(identity), key, kind
    )
    assert (done.next, effect.runs, bench.found()) == (Next.STOP, 0, before)
    assert "nothing is done" in done.sentence


def test_the_same_message_delivered_many_times_at_once_has_one_effect(bench: Bench) -> None:
    bench.open(A, B)
    gate, effect = threading.Event(), Effect()

    def slow(context: Context) -> Settlement:
        gate.wait(10)
        return effect(context)

    executors = [bench.executor({StepKind.CONFIRM: slow}, name=f"e{n}") for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(bench.do, executor, "a") for executor in executors]
        assert wait_for(lambda: sum(a.done() for a in answers) == 5)
        gate.set()
    assert effect.runs == 1
    assert sorted(a.result().next for a in answers) == [Next.GO_ON] + [Next.STOP] * 5


def test_a_step_somebody_else_is_at_is_left_to_them(bench: Bench) -> None:
    bench.open(A, B)
    held = bench.claim("a")
    effect = Effect()
    done = bench.do(bench.executor({StepKind.CONFIRM: effect}), "a")
    assert (done.next, effect.runs, bench.step("a")) == (Next.STOP, 0, held.step)


def test_the_lease_is_kept_alive_for_as_long_as_the_effect_takes(bench: Bench) -> None:
    bench.open(A, B)
    others: list[str] = []

    def long(_context: Context) -> Settlement:
        for _ in range(8):
            threading.Event().wait(0.25)
            others.append(bench.refused("a"))
        return DONE

    assert bench.do(bench.executor({StepKind.CONFIRM: long}), "a").next is Next.GO_ON
    assert set(others) == {"leased"}
    assert bench.step("a").attempt == 1


def test_one_renewal_that_fails_is_not_the_last(bench: Bench, tmp_path: Path) -> None:
    bench.open(A, B)
    others: list[str] = []

    def long(_context: Context) -> Settlement:
        for _ in range(8):
            threading.Event().wait(0.25)
            others.append(bench.refused("a"))
        return DONE

    deafen = faults.listen(tmp_path, "test", "confirm.before_renew:raise")
    try:
        assert bench.do(bench.executor({StepKind.CONFIRM: long}), "a").next is Next.GO_ON
    finally:
        deafen()
    assert set(others) == {"leased"}


def test_an_executor_that_lost_its_claim_knows_and_stops_quietly(bench: Bench) -> None:
    bench.open(A, B)
    noticed = threading.Event()

    def long(context: Context) -> Settlement:
        bench.lead(C2)
        assert wait_for(lambda: context.lost)
        noticed.set()
        context.guard()
        return DONE

    done = bench.do(bench.executor({StepKind.CONFIRM: long}), "a")
    assert noticed.is_set()
    assert (done.next, bench.step("a").state) == (Next.STOP, StepState.RUNNING)


def test_no_effect_right_after_losing_charge(bench: Bench) -> None:
    bench.open(A, B)
    effects: list[str] = []

    def careless(context: Context) -> Settlement:
        bench.store.end_operation(OP, OperationState.CANCELLED, "enough", bench.epoch)
        context.guard()
        effects.append("done all the same")
        return DONE

    assert bench.do(bench.executor({StepKind.CONFIRM: careless}), "a").next is Next.STOP
    assert effects == []


def test_an_executor_that_was_frozen_past_its_lease_has_no_effect_once_another_took_over(bench: Bench) -> None:
    bench.open(A, B)
    effects: list[str] = []

    def frozen(context: Context) -> Settlement:
        # What a stopped process looks like from inside: time has passed, and somebody else has claimed.
        step = bench.step_key("a")
        bench.raw.hset(step, mapping={"token": "another's", "until": str(2**52)})
        context.guard()
        effects.append("done all the same")
        return DONE

    done = bench.do(bench.executor({StepKind.CONFIRM: frozen}), "a")
    assert (done.next, effects) == (Next.STOP, [])
    assert bench.step("a").token == "another's"


def test_an_answer_that_comes_after_the_leases_end_is_no_permission(bench: Bench) -> None:
    bench.open(A, B)

    class SlowClock:
        """Every look at the clock is another two seconds later: the store's answer took longer than the lease."""

        now = 0.0

        def monotonic(self) -> float:
            self.now += 2.0
            return self.now

        def sleep(self, span: Seconds) -> None: ...

    clock = SlowClock()
    context = Context(
        claim=bench.claim("a"), journal=bench.store, policy=bench.policy, clock=clock, began=clock.monotonic()
    )
    with pytest.raises(StaleToken):
        context.guard()


class Moving:
    """An effect that comes on, looked at a hundred times a second for as long as a test says."""

    def __init__(self, for_s: float) -> None:
        self.for_s, self.looks = for_s, 0

    def __call__(self, context: Context) -> Settlement:
        ends = context.clock.monotonic() + self.for_s
        while context.clock.monotonic() < ends:
            self.looks += 1
            context.comes_on(share(self.looks))
            time.sleep(0.01)
        return DONE


def share(sent: float) -> Progress:
    return Progress(elapsed_s=Seconds(1.0), total_mib=1e6, sent_mib=sent, remaining_mib=1e6 - sent)


def test_how_an_effect_comes_on_is_written_with_its_lease_and_no_oftener_than_once_a_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.open(A, B)
    written: list[tuple[float, Progress | None]] = []
    told: list[Progress] = []
    store = bench.subject.another()
    renew = store.renew

    def counted(claim: Claim, lease: Seconds, progress: Progress | None = None, **more: bool) -> Instant:
        written.append((time.monotonic(), progress))
        return renew(claim, lease, progress, **more)

    monkeypatch.setattr(store, "renew", counted)
    monkeypatch.setattr(bench.subject, "another", lambda: store)
    effect = Moving(2.6)
    executor = bench.executor({StepKind.CONFIRM: effect})
    assert executor.carry_out(OP, "a", StepKind.CONFIRM, told.append).next is Next.GO_ON
    at = [when for when, progress in written if progress is not None]
    assert len(written) > len(at), "a lease is renewed oftener than that"
    assert 2 <= len(at) <= 3
    assert all(later - earlier > 0.9 for earlier, later in itertools.pairwise(at))
    assert bench.step("a").progress == [progress for _, progress in written if progress is not None][-1]
    assert told[0] == share(1)
    assert 2 <= len(told) <= 3, "and whoever listens is told no oftener"


def test_an_effect_that_comes_on_while_the_store_is_away_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.open(A, B)
    store = bench.subject.another()

    def away(*_asked: object, **_more: object) -> Instant:
        raise StoreUnreachable("away")

    monkeypatch.setattr(store, "renew", away)
    monkeypatch.setattr(bench.subject, "another", lambda: store)
    assert bench.do(bench.executor({StepKind.CONFIRM: Moving(0.6)}), "a").next is Next.GO_ON
    assert bench.step("a").progress is None, "lost, and nobody minds"


def test_a_world_that_says_no_gives_the_step_back_for_later(bench: Bench) -> None:
    bench.open(A, B)
    effect = Effect(FenceUnreachable("the BMC is dark"), DONE)
    executor = bench.executor({StepKind.CONFIRM: effect})
    done = bench.do(executor, "a")
    step = bench.step("a")
    assert (done.next, step.state, step.sentence) == (Next.AGAIN, StepState.READY, "the BMC is dark")
    assert done.wait_s > 0
    early = bench.do(executor, "a")
    assert (early.next, effect.runs) == (Next.AGAIN, 1)
    assert wait_for(lambda: bench.do(executor, "a").next is Next.GO_ON)
    assert (effect.runs, bench.step("a").attempt) == (2, 2)


def test_a_store_that_is_away_leaves_the_step_to_the_sweep(bench: Bench) -> None:
    bench.open(A, B)
    done = bench.do(bench.executor({StepKind.CONFIRM: Effect(StoreUnreachable("away"))}), "a")
    assert (done.next, bench.step("a").state) == (Next.STOP, StepState.RUNNING)


def test_an_effect_whose_grounds_changed_is_made_anew_and_not_for_ever(bench: Bench) -> None:
    bench.open(A, B)

    class Overtaken:
        runs = 0

        def __call__(self, _context: Context) -> Settlement:
            self.runs += 1
            clash = Step(key="b", kind=StepKind.CLOSE)
            return DONE if self.runs == 3 else Settlement(Outcome(state=StepState.DONE, sentence="", adds=(clash,)))

    effect = Overtaken()
    assert bench.do(bench.executor({StepKind.CONFIRM: effect}), "a").next is Next.GO_ON
    assert effect.runs == 3
    bench.open(A, B, identity="op-2", subject="db")
    effect.runs = 3
    assert bench.do(bench.executor({StepKind.CONFIRM: effect}), "a", "op-2").next is Next.STOP
    assert effect.runs < 100
    assert bench.step("a", "op-2").state is StepState.RUNNING


def test_a_fault_of_ours_is_loud_and_leaves_nothing_in_hand(bench: Bench) -> None:
    bench.open(A, B)
    effect = Effect(ZeroDivisionError("by nought"), DONE)
    executor = bench.executor({StepKind.CONFIRM: effect})
    with pytest.raises(ZeroDivisionError):
        bench.do(executor, "a")
    assert executor.in_hand == set()
    step = bench.step("a")
    assert (step.state, "ZeroDivisionError: by nought" in step.sentence) == (StepState.READY, True)
    assert wait_for(lambda: bench.do(executor, "a").next is Next.GO_ON)
    assert effect.runs == 2


FENCE = Step(key="a", kind=StepKind.FENCE)


class Hung:
    """Hangs the first time it is asked, as a library that does not come back; then wants to have its effect."""

    def __init__(self) -> None:
        self.context: Context | None = None
        self.let_go = threading.Event()
        self.effects: list[str] = []

    def __call__(self, context: Context) -> Settlement:
        first = self.context is None
        if first:
            self.context = context
            self.let_go.wait(30)
        context.guard()
        self.effects.append("late" if first else "in time")
        return DONE


def test_a_hung_effect_loses_its_lease_at_the_steps_bound_and_another_takes_over(bench: Bench) -> None:
    bench.open(FENCE, B)
    effect = Hung()
    executor = bench.executor({StepKind.FENCE: effect})
    began = SystemProcess().monotonic()
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(bench.do, executor, "a")
        assert wait_for(lambda: effect.context is not None)
        assert wait_for(lambda: bench.do(executor, "a").next is Next.GO_ON, 30, every=0.1)
        assert SystemProcess().monotonic() - began >= bench.policy.fence_bound_s, "a slow effect is not a hung one"
        assert effect.context is not None
        assert effect.context.lost
        assert executor.in_hand == {f"{OP}/a"}, "its thread is still there, and it is still told"
        effect.let_go.set()
        assert hung.result(10).next is Next.STOP
    assert (effect.effects, bench.step("a").attempt, executor.in_hand) == (["in time"], 2, frozenset())


def test_once_the_bound_has_passed_no_effect_is_allowed_even_if_nobody_took_over(bench: Bench) -> None:
    bench.open(FENCE, B)
    claim = bench.claim("a")
    long_ago = SystemProcess().monotonic() - bound_of(StepKind.FENCE, bench.policy)
    context = Context(claim=claim, journal=bench.store, policy=bench.policy, clock=SystemProcess(), began=long_ago)
    with pytest.raises(StaleToken):
        context.guard()
    assert bench.step("a").lease_until == claim.until, "and the lease is not renewed for asking"


def test_every_kind_of_step_has_a_bound_longer_than_a_lease(bench: Bench) -> None:
    policy = Policy()
    assert all(bound_of(kind, policy) > policy.step_lease_s for kind in StepKind)
    assert bound_of(StepKind.FENCE, policy) == policy.fence_bound_s + policy.step_lease_s
    assert bound_of(StepKind.START, policy) > policy.start_bound_s


@pytest.mark.parametrize("stage", sorted(STEP_STAGES))
def test_a_failure_raised_at_any_stage_is_told_and_the_step_ends_all_the_same(
    bench: Bench, tmp_path: Path, stage: str
) -> None:
    bench.open(A, Step(key="close", kind=StepKind.CLOSE, after=("*",)))
    runs: list[str] = []

    def effect(context: Context) -> Settlement:
        context.guard()
        runs.append("once more")
        return DONE

    executor = bench.executor({StepKind.CONFIRM: effect})
    deafen = faults.listen(tmp_path, "test", f"confirm.{stage}:raise")
    try:
        first = bench.do(executor, "a")
    finally:
        deafen()
    assert f"confirm.{stage}" in first.sentence
    step = bench.step("a")
    assert step.state is not StepState.RUNNING, "nobody has to wait for a lease"
    assert wait_for(lambda: bench.do(executor, "a").next is Next.GO_ON)
    assert bench.step("a").state is StepState.DONE
    assert len(runs) <= 2
    assert executor.in_hand == frozenset()


def test_what_is_in_hand_is_told_while_it_is(bench: Bench) -> None:
    bench.open(A, B)
    seen: list[set[str]] = []
    executor = bench.executor({StepKind.CONFIRM: lambda _context: (seen.append(set(executor.in_hand)), DONE)[1]})
    bench.do(executor, "a")
    assert seen == [{f"{OP}/a"}]
    assert executor.in_hand == set()


def test_a_step_that_ended_after_an_inventory_is_still_told_beside_it(bench: Bench) -> None:
    """Else a VM just started is neither in the inventory nor among the orders of a heartbeat."""
    bench.open(A, B)
    executor = bench.executor({StepKind.CONFIRM: Effect()})
    before = SystemProcess().monotonic()
    bench.do(executor, "a")
    assert executor.in_hand == frozenset()
    assert executor.in_hand_since(before) == {f"{OP}/a"}
    assert executor.in_hand_since(SystemProcess().monotonic()) == frozenset()


def test_fan_outs_and_joins_are_sent_and_the_follower_travels_along(bench: Bench) -> None:
    close = Step(key="close", kind=StepKind.CLOSE, after=("*",))
    bench.open(A, B, close)
    fan = tuple(Step(key=f"c{n}", kind=StepKind.SEE_RUNNING, after=("b",)) for n in range(2))
    bench.do(bench.executor({StepKind.CONFIRM: Effect()}), "a")
    assert bench.dispatcher.sent == [], "b is in the same chain"
    bench.do(
        bench.executor({StepKind.PLAN: Effect(Settlement(Outcome(state=StepState.DONE, sentence="", adds=fan)))}), "b"
    )
    assert bench.dispatcher.sent == [(OP, ("c0",)), (OP, ("c1",))]
    seeing = bench.executor({StepKind.SEE_RUNNING: Effect()})
    bench.do(seeing, "c0")
    assert len(bench.dispatcher.sent) == 2
    bench.do(seeing, "c1")
    assert bench.dispatcher.sent[2:] == [(OP, ("close",))]


def test_the_end_of_an_operation_is_told_and_the_tick_is_nudged(bench: Bench) -> None:
    bench.open(A)
    ending = Settlement(Outcome(state=StepState.DONE, sentence="all is well", closes=OperationState.DONE))
    done = bench.do(bench.executor({StepKind.CONFIRM: Effect(ending)}), "a")
    assert (done.next, bench.dispatcher.nudges) == (Next.STOP, 1)
    assert bench.events()[-1] == "operation_closed"


def test_what_comes_after_an_outcome_comes_once_it_is_written(bench: Bench) -> None:
    bench.open(A, B)
    seen: list[StepState] = []
    effect = Effect(
        Settlement(Outcome(state=StepState.DONE, sentence=""), after=lambda: seen.append(bench.step("a").state))
    )
    bench.do(bench.executor({StepKind.CONFIRM: effect}), "a")
    assert seen == [StepState.DONE]


def test_a_refused_settlement_does_nothing_further(bench: Bench) -> None:
    bench.open(A, B)
    seen: list[str] = []

    def overtaken(context: Context) -> Settlement:
        bench.raw.hset(bench.step_key("a"), "token", "another's")
        return Settlement(Outcome(state=StepState.DONE, sentence=""), after=lambda: seen.append("after"))

    assert bench.do(bench.executor({StepKind.CONFIRM: overtaken}), "a").next is Next.STOP
    assert (seen, bench.dispatcher.sent) == ([], [])
