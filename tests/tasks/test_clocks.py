"""Workers whose clocks are an hour off: orders and failovers are carried out, none lost unsaid; a beat survives a jump.

The clock that is wrong is that of the process (wrong_clock.c); all others are right.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fangnetz.core.model import VmState, VmWish
from fangnetz.core.operations import OperationKind, OperationState, StepKind
from tests.contract.subjects import RedisSubject
from tests.core.world import spec
from tests.engine.bench import Bench
from tests.redis_server import RedisServer
from tests.tasks.cluster import Processes

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc (Debian package)")
HOUR_S = 3600
SLOW = 90.0


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What to preload into a process to give it a clock of its own."""
    source = Path(__file__).with_name("wrong_clock.c")
    made = tmp_path_factory.mktemp("clock") / "wrong_clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    return str(made)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    made = Processes(tmp_path_factory.mktemp("clocks"))
    made.define("db", VmWish.STOPPED)
    yield made
    made.end()


def said(cluster: Processes) -> str:
    return "\n".join(f"--- {role}\n{cluster.said(role)[-2500:]}" for role in cluster.running)


@pytest.mark.parametrize(
    ("wrong", "hours"),
    [(("host",), 1), (("host",), -1), (("control", "beat"), 1), (("work", "fence"), -1), (("control", "beat"), -1)],
)
def test_an_hour_between_clocks_neither_stops_nor_loses_an_order(
    cluster: Processes, wrong_clock: str, wrong: tuple[str, ...], hours: int
) -> None:
    for role in list(cluster.running):
        cluster.kill(role)
    cluster.start(*wrong, LD_PRELOAD=wrong_clock, WRONG_CLOCK_S=str(hours * HOUR_S))
    cluster.start(*({"host", "control", "work", "fence", "beat"} - set(wrong)))
    # The test driver's domains live in the host worker: a new one has none.
    assert cluster.becomes("db", VmState.STOPPED, SLOW), said(cluster)
    before = {op.id for kind in OperationKind for op in cluster.operations(kind, "db")}
    for task, state in (("vm_start", VmState.RUNNING), ("vm_stop", VmState.STOPPED)):
        cluster.wish(task, "db", "a test")
        assert cluster.becomes("db", state, SLOW), said(cluster)
    assert cluster.nothing_under_way(), said(cluster)
    since = [op for kind in OperationKind for op in cluster.operations(kind, "db") if op.id not in before]
    # A start planned in a moment when the host was missed orders nothing and is made again.
    done = [op for op in since if op.of_kind(StepKind.START) or op.of_kind(StepKind.STOP)]
    assert len(done) == 2, [(op.id, op.kind, op.state, op.sentence) for op in done]
    assert {op.state for op in done} == {OperationState.DONE}
    assert not any("revoked" in cluster.said(role).lower() for role in cluster.running)
    for role in wrong:
        assert "Drift" not in cluster.said(role)


JUMP = """
    import sys, time
    import celery.beat, redis
    from celery import Celery
    from datetime import timedelta
    from beat.scheduler import SteadyScheduler

    app = Celery("test", broker=sys.argv[1])
    app.conf.beat_max_loop_interval = 0.05
    every = {"schedule": timedelta(seconds=0.2), "options": {"queue": "q"}}
    app.conf.beat_schedule = {"one": {"task": "one", **every}, "two": {"task": "two", **every}}
    scheduler = SteadyScheduler(app)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        time.sleep(scheduler.tick())
    before = time.time()
    print("jump", flush=True)
    sys.stdin.readline()
    assert abs(time.time() - before) > 3000, "the clock was set"
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        time.sleep(scheduler.tick())
"""


@pytest.mark.parametrize("hours", [1, -1])
def test_a_beat_whose_clock_is_set_goes_on_with_all_its_entries(
    redis_server: RedisServer, wrong_clock: str, tmp_path: Path, hours: int
) -> None:
    clock = tmp_path / "off"
    clock.write_text("0\n")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(JUMP), redis_server.url],
        env={"PATH": "/usr/bin:/bin", "LD_PRELOAD": wrong_clock, "WRONG_CLOCK_FILE": str(clock)},
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    client = redis_server.client()
    try:
        assert process.stdout.readline() == "jump\n"
        sent = client.llen("q")
        assert sent >= 8
        clock.write_text(f"{hours * HOUR_S}\n")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    later = client.lrange("q", 0, client.llen("q") - sent - 1)
    for name in ("one", "two"):
        assert sum(f'"task": "{name}"' in text for text in later) >= 4, later
    assert len(later) <= 30, "nothing is made up for"


FAILOVER = """
    import sys, time
    from pathlib import Path
    import redis
    from fangnetz.adapters.ledger_files import LedgerFolder
    from fangnetz.adapters.redis import RedisStore
    from fangnetz.adapters.system_process import SystemProcess
    from fangnetz.core.operations import StepKind
    from fangnetz.engine.execute import Executor
    from fangnetz.engine.ledger import Ledger
    from fangnetz.engine.steps.failover import FailoverSteps
    from fangnetz.engine.steps.fence import FenceSteps
    from tests.contract.fence_devices import ScriptedDevice
    from tests.contract.subjects import OP
    from tests.core.world import spec
    from tests.engine.bench import QUICK, Recorder

    store = RedisStore(redis.Redis(port=int(sys.argv[1]), decode_responses=True), "test")
    hosts = {name: spec(name, levels=(("ipmi",),)) for name in ("h1", "h2", "h3")}
    plug = ScriptedDevice(name="ipmi", guid="guid-of-ipmi")
    fence = FenceSteps(store, hosts, QUICK, lambda _host: {"ipmi": plug})
    work = FailoverSteps(store, hosts, QUICK, Ledger(store, LedgerFolder(Path(sys.argv[2])), SystemProcess()))
    executor = Executor(
        name="e1", journal=store, dispatcher=Recorder(), process=SystemProcess(), policy=QUICK,
        effects={StepKind.CONFIRM: work.confirm, StepKind.FENCE: fence.fence, StepKind.PROVE: work.prove,
                 StepKind.PLAN: work.plan},
    )
    print(time.time(), flush=True)
    for line in sys.stdin:
        done = executor.carry_out(OP, line.strip(), StepKind[line.strip().partition("/")[0].upper()])
        print(done.next.value, "".join(order.value for order in plug.orders), done.sentence, flush=True)
"""


@pytest.mark.parametrize("hours", [1, -1])
def test_a_failover_by_executors_whose_clock_is_off_cuts_once_proves_and_plans_by_the_stores_clock(
    redis_server: RedisServer, wrong_clock: str, tmp_path: Path, hours: int
) -> None:
    subject = RedisSubject(redis_server)
    bench = Bench(subject, tmp_path)
    bench.hosts = {name: spec(name, levels=(("ipmi",),)) for name in bench.hosts}
    bench.members()
    bench.define("web", "h1")
    bench.bind("h1", "ipmi", guid="guid-of-ipmi")
    began = bench.store.now()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FAILOVER), str(redis_server.port), str(tmp_path / "its")],
        env={"PATH": "/usr/bin:/bin", "LD_PRELOAD": wrong_clock, "WRONG_CLOCK_S": str(hours * HOUR_S)},
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert abs(float(process.stdout.readline()) - began) > HOUR_S / 2, "its clock is right"
        bench.lose("h1")
        bench.failover("h1")
        said = []
        for key, orders in (("confirm", ""), ("fence", "off"), ("prove", "off"), ("plan/1", "off")):
            bench.lose("h1")
            process.stdin.write(f"{key}\n")
            process.stdin.flush()
            said.append(process.stdout.readline())
            assert said[-1].startswith(f"go_on {orders} "), said
    finally:
        process.kill()
        process.wait()
    now, fence, record = bench.store.now(), bench.step("fence").facts, bench.host("h1")
    assert record is not None
    assert record.proof is not None
    instants = [fence["fence_sent_at"], *(each.asked_at for each in record.proof.evidence), record.proof.proven_at]
    in_order = [began, *instants, record.since, now]
    assert in_order == sorted(in_order)
    (start,) = bench.found().of_kind(StepKind.START)
    assert start.order is not None
    assert 0 < start.order.deadline - now <= bench.policy.start_bound_s
    assert (start.order.host, bench.record().owner) in {("h2", "h2"), ("h3", "h3")}
    subject.close()
