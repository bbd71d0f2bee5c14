"""Real worker processes: operations run to their end through Celery, survive a kill in any step, and leak nothing."""

from __future__ import annotations

import base64
import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fangnetz.core.model import VmState
from fangnetz.core.operations import OperationKind, OperationState, StepState
from tests.redis_server import wait_for
from tests.tasks.cluster import BMC_SECRET, REDIS_SECRET, Processes


class Listener:
    """Celery's event stream, as Flower sees it."""

    def __init__(self, cluster: Processes) -> None:
        self.events: list[dict[str, Any]] = []
        self._cluster = cluster
        self._receiver: Any = None
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._cluster.app.connection_for_read() as connection:
            self._receiver = self._cluster.app.events.Receiver(connection, handlers={"*": self.events.append})
            while not self._receiver.should_stop:
                with contextlib.suppress(TimeoutError):
                    self._receiver.capture(limit=None, timeout=0.5, wakeup=False)

    def stop(self) -> None:
        if self._receiver is not None:
            self._receiver.should_stop = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def names(self) -> set[str]:
        return {event["name"] for event in list(self.events) if "name" in event}


@pytest.fixture
def listener(cluster: Processes) -> Iterator[Listener]:
    made = Listener(cluster)
    assert wait_for(lambda: made.events, 20), "it hears the workers' own heartbeats"
    yield made
    made.stop()


def test_a_wished_vm_is_started_by_a_chain_that_runs_to_its_end(cluster: Processes) -> None:
    operation = cluster.operations(OperationKind.START, "web")[-1]
    assert operation.state is OperationState.DONE
    assert {step.state for step in operation.steps} == {StepState.DONE}
    kinds = [step.kind.value for step in operation.steps]
    assert kinds == ["plan_recovery", "close_operation", "start_vm", "see_running"]
    beat = cluster.view().heartbeats[next(iter(cluster.settings.hosts))]
    seen = beat.sees(next(iter(cluster.view().vm_records)))
    record = cluster.view().vm_records
    generations = {s.vm: s.generation for s in beat.inventory}
    assert generations["web"] == record["web"].generation  # type: ignore[index]
    assert seen is None or seen.vm in record
    assert "112233445566778899aabbccddeeff00" in beat.bmc_guids


def test_a_public_task_is_a_wish_and_nothing_more(cluster: Processes) -> None:
    generation = cluster.view().vm_records["db"].generation  # type: ignore[index]
    cluster.wish("vm_start", "db", "ada")
    assert cluster.becomes("db", VmState.RUNNING), cluster.said("work")[-3000:]
    assert cluster.view().vm_records["db"].generation > generation  # type: ignore[index]
    granted = [e for e in cluster.store.events("", 200, 0.0) if e.kind == "wish_granted"]
    assert granted
    assert granted[-1].facts["wish"] == "start"
    assert "ada" in granted[-1].sentence
    cluster.wish("vm_stop", "db", "ada")
    assert cluster.becomes("db", VmState.STOPPED), cluster.said("host")[-3000:]


@pytest.mark.parametrize(
    ("role", "fault"),
    [("work", "plan.claimed"), ("work", "plan.before_settle"), ("work", "plan.settled"), ("host", "start.settled")],
)
def test_a_worker_killed_in_the_middle_of_a_step_delays_the_operation_and_no_more(
    cluster: Processes, role: str, fault: str
) -> None:
    """The test driver's domains live in the host worker: killing it ends them, so it dies only after its step."""
    before = {op.id for op in cluster.operations(OperationKind.START, "db")}
    (cluster.folder / f"run-{role}" / f"fault.{role}").write_text(f"{fault}:kill")
    cluster.wish("vm_start", "db", "ada")
    assert wait_for(lambda: cluster.died(role), 45, every=0.05), cluster.said(role)[-3000:]
    cluster.start(role)

    def ended() -> bool:
        new = [op for op in cluster.operations(OperationKind.START, "db") if op.id not in before]
        return bool(new) and all(op.state is not OperationState.OPEN for op in new)

    assert wait_for(ended, 60, every=0.1), cluster.said(role)[-3000:]
    assert cluster.becomes("db", VmState.RUNNING, 60), cluster.said("work")[-3000:]
    assert cluster.becomes("web", VmState.RUNNING, 60)
    for operation in cluster.operations(OperationKind.START, "db"):
        if operation.id not in before:
            assert all(step.settled for step in operation.steps)


@pytest.mark.parametrize(
    ("task", "queue", "role"),
    [("start_vm", "host.h1", "host"), ("stop_vm", "host.h1", "host"), ("pause_vm", "host.h1", "host"),
     ("fence_host", "fence", "fence"),
     ("plan_recovery", "work", "work")],
)  # fmt: skip
def test_a_step_sent_by_hand_without_its_line_does_nothing_and_says_so(
    cluster: Processes, task: str, queue: str, role: str
) -> None:
    before = cluster.view()
    said = len(cluster.said(role))
    cluster.insider.send_task(f"fangnetz.{task}", args=("no-such", f"by-hand/{task}"), queue=queue)
    assert wait_for(lambda: f"by-hand/{task}" in cluster.said(role)[said:], 20), cluster.said(role)[-2000:]
    (line,) = [line for line in cluster.said(role)[said:].splitlines() if f"by-hand/{task}: nothing is done" in line]
    assert "next=stop" in line
    after = cluster.view()
    assert (after.vm_records, after.operations) == (before.vm_records, before.operations)


@pytest.mark.parametrize(
    ("task", "arguments", "queue", "role"),
    [
        ("fangnetz.start_vm", (1, 2, 3), "host.h1", "host"),
        ("fangnetz.start_vm", ({"a": 1}, None), "host.h1", "host"),
        ("fangnetz.no_such_task", (), "host.h1", "host"),
        ("fangnetz.tick", (), "work", "work"),
        ("fangnetz.fence_host", ("op", "fence"), "work", "work"),
        ("fangnetz.start_vm", ("op", "start"), "fence", "fence"),
        ("fangnetz.vm_start", (), "work", "work"),
        ("fangnetz.read_power", ("no-such-host", ["ipmi"]), "probe", "work"),
    ],
)
def test_a_message_that_makes_no_sense_harms_nobody(
    cluster: Processes, task: str, arguments: tuple[object, ...], queue: str, role: str
) -> None:
    pid = cluster.running[role].pid
    before = cluster.view()
    cluster.insider.send_task(task, args=arguments, queue=queue)
    proof = {"host": "start_vm", "work": "plan_recovery", "fence": "fence_host"}[role]
    own = {"host": "host.h1", "work": "work", "fence": "fence"}[role]
    said = len(cluster.said(role))
    cluster.insider.send_task(f"fangnetz.{proof}", args=("no-such", "after"), queue=own)
    assert wait_for(lambda: "no-such after: nothing is done" in cluster.said(role)[said:], 20)
    assert cluster.running[role].poll() is None
    assert cluster.running[role].pid == pid
    assert cluster.view().vm_records == before.vm_records


def test_events_read_as_the_story_and_ticks_and_probes_are_silent(cluster: Processes, listener: Listener) -> None:
    wanted = {"fangnetz.plan_recovery", "fangnetz.start_vm", "fangnetz.see_running", "fangnetz.close_operation"}
    for _ in range(4):  # events are sent once and to whoever listens: one that falls between two captures is lost
        cluster.wish("vm_start", "db", "ada")
        assert cluster.becomes("db", VmState.RUNNING)
        if wait_for(lambda: wanted <= listener.names, 5):
            break
        cluster.wish("vm_stop", "db", "ada")
        assert cluster.becomes("db", VmState.STOPPED)
    assert wanted <= listener.names
    assert not {name for name in listener.names if name.split(".")[1] in ("tick", "sweep", "probe_hosts", "read_power")}


def test_no_secret_is_in_redis_in_a_message_an_event_or_a_log(cluster: Processes, listener: Listener) -> None:
    cluster.wish("vm_start", "db", "ada")
    assert cluster.becomes("db", VmState.RUNNING)
    cluster.insider.send_task("fangnetz.read_power", args=("h1", ["ipmi"]), queue="probe")
    assert wait_for(lambda: cluster.view().readings["h1"], 20), "the fence device, and so its secret, was used"
    commands = cluster.monitor.lines
    assert any("fangnetz.start_vm" in line for line in commands), "the monitor sees messages"
    assert any("evalsha" in line.lower() for line in commands)
    assert any("plan_recovery" in text for text in unpacked("\n".join(commands))), "bodies are looked into"
    texts = {
        "commands": "\n".join(commands),
        "values": "\n".join(everything(cluster)),
        "events": str(listener.events),
        **{f"log of {role}": cluster.said(role) for role in cluster.running},
        "processes": "\n".join(command_lines()),
    }
    for where, text in texts.items():
        assert text or where.startswith("log"), where
        for secret in (REDIS_SECRET, BMC_SECRET):
            assert secret not in text, f"a secret is in the {where}"
            assert not any(secret in body for body in unpacked(text)), f"a secret is in a message in the {where}"


def unpacked(text: str) -> Iterator[str]:
    """What base64 hides: the bodies of messages."""
    for word in re.findall(r"[A-Za-z0-9+/]{16,}={0,2}", text):
        with contextlib.suppress(ValueError):
            yield base64.b64decode(word, validate=True).decode(errors="replace")


def everything(cluster: Processes) -> Iterator[str]:
    """Every key of the server with all it holds."""
    raw = cluster.raw
    read = {
        "string": raw.get, "hash": raw.hgetall, "list": lambda k: raw.lrange(k, 0, -1), "set": raw.smembers,
        "zset": lambda k: raw.zrange(k, 0, -1), "stream": raw.xrange,
    }  # fmt: skip
    for key in raw.scan_iter("*", count=1000):
        yield f"{key} {read[raw.type(key)](key)}" if raw.type(key) in read else key


def command_lines() -> Iterator[str]:
    from pathlib import Path

    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
