"""Redis killed, hung or failed over under busy workers: nobody exits, all are back by themselves, and work goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from kombu.exceptions import OperationalError

from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.model import VmState, VmWish
from fangnetz.core.operations import OperationKind
from fangnetz.core.units import ControllerId
from tasks.dispatcher import CeleryDispatcher
from tests.redis_server import wait_for
from tests.tasks.cluster import Processes
from tests.tasks.sentinels import ReplicatedProcesses
from workers.celery_settings import SOCKET_TIMEOUT_S

ROLES = ("host", "control", "work", "fence", "beat")
HANG_S = 15.0
"""Longer than a waiting worker needs to notice, to give up and to try again several times."""
BACK_S = 30.0
"""Far above the few seconds it takes; for a machine that does other things as well."""


def started(cluster: Processes) -> Processes:
    try:
        cluster.start(*ROLES)
        cluster.define("web", VmWish.RUNNING)
        cluster.define("db", VmWish.STOPPED)
        assert cluster.becomes("web", VmState.RUNNING, 90), said(cluster)
        assert cluster.becomes("db", VmState.STOPPED, 60), said(cluster)
    except BaseException:
        cluster.end()
        raise
    return cluster


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    cluster = started(Processes(tmp_path_factory.mktemp("one")))
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedProcesses]:
    cluster = started(ReplicatedProcesses(tmp_path_factory.mktemp("three")))
    yield cluster
    cluster.end()


def said(cluster: Processes) -> str:
    return "\n".join(f"--- {role}\n{cluster.said(role)[-2500:]}" for role in ROLES)


def begin_work(cluster: Processes) -> str:
    """Wish the other of db's two states, so that an operation begins; return the wished state."""
    now = cluster.state("db")
    assert now in (VmState.RUNNING, VmState.STOPPED), now
    task, then = ("vm_stop", "stopped") if now is VmState.RUNNING else ("vm_start", "running")
    kind = OperationKind.STOP if task == "vm_stop" else OperationKind.START
    before = {op.id for op in cluster.operations(kind, "db")}
    assert wait_for(lambda: was_wished(cluster, task), 30), "the broker takes no message"
    # On a quick machine it may be over before it is seen open.
    assert wait_for(lambda: any(op.id not in before for op in cluster.operations(kind, "db")), 20, 0.01), said(cluster)
    return then


def was_wished(cluster: Processes, task: str) -> bool:
    """A person's message that could not be sent is not sent: the person sees it and sends it again."""
    try:
        cluster.wish(task, "db", "a test")
    except OperationalError:
        return False
    return True


def goes_on(cluster: Processes, then: str) -> None:
    """The work that was under way ends, new work is done, and every process is the one it was."""
    pids = {role: cluster.running[role].pid for role in ROLES}
    assert becomes(cluster, then), said(cluster)
    assert becomes(cluster, begin_work(cluster)), said(cluster)
    assert {role: cluster.running[role].pid for role in ROLES} == pids
    assert not [role for role in ROLES if cluster.died(role)]


def becomes(cluster: Processes, state: str) -> bool:
    def is_there() -> bool:
        try:
            return cluster.state("db") == VmState(state)
        except StoreUnreachable:
            return False

    return wait_for(is_there, 90, every=0.1)


def test_workers_and_beats_are_back_after_redis_was_killed_and_restarted(one: Processes) -> None:
    then = begin_work(one)
    one.server.restart()
    goes_on(one, then)
    assert not one.raw.acl_log(), "a worker lacked a right"


def test_workers_and_beats_are_back_after_redis_was_away_for_some_seconds(one: Processes) -> None:
    then = begin_work(one)
    one.server.kill()
    assert wait_for(lambda: all("broker lost" in one.said(role) for role in ("host", "control", "work", "fence")), 30)
    time.sleep(5)  # the outage itself: several tries to reconnect fail
    one.server.restart()
    began = time.monotonic()
    goes_on(one, then)
    assert time.monotonic() - began < 6 * BACK_S


def test_a_beat_that_starts_while_redis_is_away_ticks_as_soon_as_it_is_back(one: Processes) -> None:
    one.kill("beat")
    one.server.kill()
    one.start("beat")
    assert wait_for(lambda: "broker away" in one.said("beat"), 30), one.said("beat")
    one.server.restart()
    goes_on(one, begin_work(one))


def test_a_hung_redis_holds_nobody_for_long_and_all_go_on_when_it_answers(one: Processes) -> None:
    then = begin_work(one)
    dispatcher = CeleryDispatcher(one.insider, [ControllerId("c1")])
    dispatcher.nudge()  # a connection is there and in use
    one.server.freeze()
    thaw_at = time.monotonic() + HANG_S
    try:
        began = time.monotonic()
        for _ in range(5):
            dispatcher.nudge()
        # One message waits; the others are left to the sweep.
        assert time.monotonic() - began < 3 * SOCKET_TIMEOUT_S
        began = time.monotonic()
        with pytest.raises(OperationalError):
            one.insider.send_task("fangnetz.tick", queue="control.c1")
        assert time.monotonic() - began < 3 * SOCKET_TIMEOUT_S
        # It was waiting for a message, or for an answer: either way it notices by itself.
        noticed = ("Redis BRPOP got no reply", "Cannot connect to redis")
        assert wait_for(lambda: any(words in one.said("work") for words in noticed), 30), said(one)
        time.sleep(max(0.0, thaw_at - time.monotonic()))
    finally:
        one.server.thaw()
    goes_on(one, then)


def test_a_right_that_lacks_is_said_in_a_sentence_and_the_worker_goes_on_once_it_is_there(one: Processes) -> None:
    before = len(one.said("host"))
    one.raw.execute_command("ACL", "SETUSER", "fn-host", "-brpop")
    sentence = "users' file lacks a right of this worker"
    assert wait_for(lambda: sentence in one.said("host")[before:], 30), one.said("host")[-2500:]
    assert "brpop" in one.said("host")[before:]
    one.raw.execute_command("ACL", "LOAD")
    goes_on(one, begin_work(one))


@pytest.mark.parametrize("way", ["killed", "hung"])
def test_workers_and_beats_follow_a_failover_by_sentinels(three: ReplicatedProcesses, way: str) -> None:
    old = three.master()
    assert old is not None
    then = begin_work(three)
    (old.kill if way == "killed" else old.freeze)()
    assert wait_for(lambda: three.master() not in (None, old), 30), "the Sentinels made no new master"
    goes_on(three, then)
    if way == "killed":
        old.restart()
    else:
        old.thaw()
    assert wait_for(old.is_linked, 60), "the old master does not follow the new one"
    assert three.master() is not old
    goes_on(three, begin_work(three))
