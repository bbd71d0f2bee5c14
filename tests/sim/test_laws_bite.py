"""A law that cannot break is none: the product is sabotaged, and the law that forbids it is seen red."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fangnetz.core import recovery
from fangnetz.core.model import OffProof, ProofKind
from fangnetz.core.operations import Operation, OperationKind, Step, StepKind, StepState
from fangnetz.core.ownership import Granted
from fangnetz.core.units import Epoch, Generation, HostId, Instant, OperationId, VmId
from fangnetz.engine.steps.fence import FenceSteps
from fangnetz.ports import Claim
from fangnetz.settings.tree import read_tree
from fangnetz.sim.play import end, play
from fangnetz.sim.store import journal
from fangnetz.sim.store.memory import Memory
from fangnetz.sim.stories.read import read_story, story_of
from fangnetz.sim.world import World

SCENARIOS = Path(__file__).parents[1] / "scenarios"


def laws_broken_in(name: str) -> set[str]:
    return {item["what"] for item in play(read_story(SCENARIOS / f"{name}.yaml")).data["broken"]}


def test_without_sabotage_all_is_well() -> None:
    assert laws_broken_in("fencing/bmc_dark") == set()


def test_a_cut_that_is_not_read_back_makes_two_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    def believes_itself(self: FenceSteps, attempt: object, _number: int, _level: object) -> OffProof:
        return OffProof(
            host=attempt.host,  # type: ignore[attr-defined]
            incarnation=attempt.incarnation,  # type: ignore[attr-defined]
            kind=ProofKind.READ_BACK_OFF,
            proven_at=self._store.now(),
            sentence="it must be off by now",
        )

    monkeypatch.setattr(FenceSteps, "_try_level", believes_itself)
    assert "one_writer" in laws_broken_in("fencing/bmc_dark")


def test_a_plan_that_needs_no_proof_is_a_start_without_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def anybody(_view: object, _record: object, hosts: Mapping[str, str], *_more: object) -> dict[str, Granted]:
        return {host: Granted(because="why not") for host in hosts}

    monkeypatch.setattr(recovery, "who_may_own", anybody)
    monkeypatch.setattr("fangnetz.core.decide.vms.VmDecisions._known_absent", lambda *_: True)
    monkeypatch.setattr(
        "fangnetz.core.decide.vms.VmDecisions._not_seen",
        lambda self, _doc, record: self.wanted.append(record.id),
    )
    text = (SCENARIOS / "hosts" / "libvirt_hung.yaml").read_text()
    story = story_of(read_tree("story", text.replace("libvirt: {host: host2, state: hung}", "unplug: host2")))
    assert {item["what"] for item in play(story).data["broken"]} >= {"no_start_without_proof"}


def test_numbers_that_come_back_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fangnetz.sim.store.memory.Memory.next_number", lambda _self, *_seen: 1)
    assert "generations_never_repeat" in laws_broken_in("power/power_loss")


@pytest.fixture
def world() -> Iterator[World]:
    """A quiet cluster, ten seconds old."""
    made = World(read_story(SCENARIOS / "power" / "power_loss.yaml"), 0)
    made.kernel.run(10.0)
    yield made
    end(made)


def broken(world: World) -> set[str]:
    return {item.what for item in world.chronicle.broken}


def test_a_start_that_nobody_ordered_is_seen(world: World) -> None:
    assert broken(world) == set()
    world.daemons[HostId("host1")].run(VmId("web1"), Generation(77))
    assert broken(world) == {"one_writer", "start_without_order"}


def test_a_start_that_comes_late_and_against_a_promise_is_seen(world: World) -> None:
    web1, host2 = VmId("web1"), HostId("host2")
    boot = world.machines["host2"].boot
    assert boot is not None
    world.daemons[host2].crash(web1)
    boot.released[web1] = Generation(1)
    moved = replace(
        world.server.memory.vms[web1], owner=HostId("host1"), generation=Generation(9), owner_incarnation="b"
    )
    world.laws._assigned(moved, HostId("host1"))
    world.chronicle.broken.clear()
    world.daemons[host2].run(web1, Generation(1))
    assert broken(world) == {"late_start", "promise_broken"}


def test_a_write_under_an_epoch_that_is_over_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fangnetz.sim.store.memory.Memory.in_charge", lambda _self, _epoch: True)
    assert "epoch_over" in laws_broken_in("controllers/control_frozen_before_it_writes")


def test_a_start_that_no_replica_knows_of_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Memory(raw_us=lambda: 0, identity="")
    monkeypatch.setattr("fangnetz.sim.store.server.Server.confirmed", property(lambda _self: nothing))
    assert "start_unconfirmed" in laws_broken_in("power/power_loss")


@pytest.mark.parametrize("story", ["only_where_it_is_allowed", "apart_after_a_loss", "move_takes_the_group_along"])
def test_a_vm_that_is_put_against_its_rules_is_seen(monkeypatch: pytest.MonkeyPatch, story: str) -> None:
    monkeypatch.setattr("fangnetz.core.rules.RuleBook.why_not", lambda *_: "")
    monkeypatch.setattr("fangnetz.core.rules.RuleBook.group", lambda _, vm: frozenset((vm,)))
    assert laws_broken_in(f"placement/{story}") == {"put_by_the_rules"}


def test_a_step_that_two_carry_out_or_that_is_done_again_is_seen(world: World) -> None:
    step = Step(key="stop/web1", kind=StepKind.STOP, state=StepState.RUNNING)
    operation = Operation(
        id=OperationId("op"), kind=OperationKind.STOP, subject="web1", epoch=Epoch(1), opened_at=Instant(0.0),
        reason="", steps=(step,),
    )  # fmt: skip
    now = Instant(world.server.memory.seen_us() / 1e6)
    claim = Claim(operation=operation, step=step, token="one", now=now, until=now)
    asked = ("op", step.key, "one", "work-c1", "", 4.0)
    world.laws.look(journal.claim, asked, (claim, StepState.READY))
    assert broken(world) == set()
    world.laws.look(journal.claim, ("op", step.key, "two", *asked[3:]), (claim, StepState.RUNNING))
    assert broken(world) == {"two_at_one_step"}
    world.laws.look(journal.claim, asked, (claim, StepState.DONE))
    assert broken(world) == {"two_at_one_step", "done_again"}


def test_an_error_nobody_catches_is_a_fault_of_ours(world: World) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    world.machines["host1"].run("any", world.failed).spawn("thread", fails)
    world.kernel.run(11.0)
    assert broken(world) == {"uncaught"}


# --- once every fault is over ------------------------------------------------------------------------------------

CRASH = """
hosts: {host1: {}, host2: {}, host3: {}}
vms: {web1: {host: host1}, db1: {host: host2}}
timeline:
  - {at: 20, vm_crash: web1}
"""
DARK = """
hosts: {host1: {}, host2: {}, host3: {}}
vms: {web1: {host: host1}, db1: {host: host2}}
timeline:
  - {at: 20, unplug: host1}
"""


def by_chance(text: str) -> set[str]:
    """Play it as a story by chance is played: to its calm, then mended by a person."""
    return {item["what"] for item in play(story_of(read_tree("story", text)), until_calm=True).data["broken"]}


def test_a_vm_that_nobody_starts_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_chance(CRASH) == set()
    monkeypatch.setattr("fangnetz.core.decide.vms.VmDecisions._ended_by_itself", lambda *_: None)
    assert "wished_vms_run" in by_chance(CRASH)


def test_a_person_does_what_is_asked_for_and_then_all_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_chance(DARK) == set()
    monkeypatch.setattr("fangnetz.sim.play.mend", lambda _world: False)
    assert by_chance(DARK) == {"wished_vms_run"}
