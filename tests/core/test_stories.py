"""Whole stories in a little world: hosts, links, devices and probers by the clock, `look` and `decide` every second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core import invariants
from fangnetz.core.actions import Decision
from fangnetz.core.detector import Finding
from fangnetz.core.model import HostDoc, HostState, HypervisorHealth, StoreLife, VmState, WishKind
from fangnetz.core.operations import OperationKind
from fangnetz.core.policy import PROFILES, Policy
from fangnetz.core.units import Generation, HostId, Instant, StoreIncarnation, VmId
from tests.core.moving_world import World

H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
VM = VmId("web")


def keep_the_laws(world: World, _decision: Decision) -> None:
    """Checked at every tick of every story."""
    broken = [
        *invariants.one_writer(world.truth),
        *invariants.one_open_operation(world.view),
        *invariants.generations_never_repeat(world.history),
    ]
    invariants.must_hold(broken)


def steady(hosts: int = 3, *, vms: dict[str, str] | None = None, policy: Policy | None = None) -> World:
    """A cluster that has run for two minutes: everything heard, adopted and bound."""
    world = World(hosts, vms=vms, policy=policy)
    world.each_tick = keep_the_laws
    world.run(120)
    assert all(r.state is HostState.ONLINE for r in world.view.host_records.values())
    assert all(b.guid_matches for b in world.view.bindings.values())
    assert len(world.view.bindings) == hosts
    assert not world.opened
    return world


def failovers(world: World) -> list[str]:
    return [op.subject for op in world.opened if op.kind is OperationKind.FAILOVER]


def cuts(world: World) -> list[str]:
    """Hosts a failover was opened for without a proof in hand: those would have been cut."""
    return [op.subject for op in world.opened if op.kind is OperationKind.FAILOVER and op.proof is None]


def owner(world: World, vm: str = "web") -> str | None:
    return world.view.vm_records[VmId(vm)].owner


def fast_policy() -> Policy:
    return replace(Policy(), **PROFILES["fast"])  # type: ignore[arg-type]  # a table of overrides is untyped


@pytest.mark.parametrize("policy", [Policy(), fast_policy()], ids=["default", "fast"])
def test_power_lost_is_asked_early_and_recovered_with_proof_before_the_window_is_over(policy: Policy) -> None:
    world = steady(vms={"web": "h1"}, policy=policy)
    world.power_off("h1")
    took = world.until(lambda: VM in world.machines[H2].runs or VM in world.machines[H3].runs, within=10)
    assert took <= policy.overdue_s + 2 * policy.tick_s + 0.3
    assert failovers(world) == ["h1"]
    assert cuts(world) == []
    assert Finding.LOST not in world.findings[H1]
    assert world.view.host_records[H1].state is HostState.FENCED
    world.run(30)
    assert failovers(world) == ["h1"]
    assert not invariants.wished_vms_run_or_say_why(world.truth, world.view, policy.start_bound_s)


def test_a_host_cut_off_is_called_lost_only_after_its_window_and_then_fenced() -> None:
    world = steady(vms={"web": "h1"})
    world.cut("h1")
    took = world.until(lambda: failovers(world), within=10)
    assert 3.0 - world.policy.heartbeat_s <= took <= 3.0 + 2 * world.policy.tick_s
    assert cuts(world) == ["h1"]
    assert not world.machines[H1].powered
    world.run(5)
    assert owner(world) in ("h2", "h3")


@pytest.mark.parametrize("hosts", [2, 3, 4, 7])
@pytest.mark.parametrize("policy", [Policy(), fast_policy()], ids=["default", "fast"])
@pytest.mark.parametrize("references", [(), ("router",)], ids=["prober-cut-off", "router-answers"])
def test_all_hosts_cut_at_once_nobody_is_fenced_whatever_the_phase_of_their_reports(
    hosts: int, policy: Policy, references: tuple[str, ...]
) -> None:
    for phase in range(5):
        world = World(hosts, vms={"web": "h1"}, policy=policy)
        for n, machine in enumerate(world.machines.values()):
            machine.next_report = world.now + ((n * phase * 0.23) % 1) * policy.heartbeat_s
        world.each_tick, world.references = keep_the_laws, references
        world.run(100 + phase * 0.1)
        world.cut(*world.machines)
        world.run(120)
        assert world.opened == []
        assert all(m.powered for m in world.machines.values())
        kind = "braked_" if references else "host_unknown"
        assert {a.subject for a in world.alarms if a.kind.startswith(kind)} == set(world.machines)
        world.heal(*world.machines)
        world.run(5)
        assert all(r.state is HostState.ONLINE for r in world.view.host_records.values())
        assert world.opened == []


def test_two_of_three_hosts_cut_off_nobody_is_fenced() -> None:
    world = steady(vms={"web": "h1"})
    world.cut("h1", "h2")
    world.run(60)
    assert world.opened == []
    assert {a.kind for a in world.alarms if a.subject == "h1"} >= {"braked_mass_failure"}


def test_two_of_three_hosts_without_power_are_recovered_for_their_devices_are_proof() -> None:
    world = steady(vms={"web": "h1", "db": "h2"})
    world.power_off("h1")
    world.power_off("h2")
    world.run(15)
    assert sorted(failovers(world)) == ["h1", "h2"]
    assert cuts(world) == []
    assert owner(world, "web") == owner(world, "db") == "h3"


def test_two_of_three_hosts_lost_one_after_the_other_are_both_recovered() -> None:
    world = steady(vms={"web": "h1"})
    world.cut("h1")
    world.run(20)
    first = owner(world)
    assert first in ("h2", "h3")
    world.machines[HostId("h1")].device = "dark"  # it stays out
    world.cut(str(first))
    world.run(20)
    assert owner(world) not in ("h1", first)


def test_a_gap_of_the_store_is_never_counted_as_silence() -> None:
    world = steady(vms={"web": "h1"})
    world.store_up = False
    world.run(40)
    world.store_up = True
    world.run(20)
    assert world.opened == []
    assert not {Finding.LOST, Finding.SUSPECT, Finding.UNKNOWN} & {f for seen in world.findings.values() for f in seen}


def test_a_host_that_died_during_the_stores_gap_is_lost_one_window_after_it() -> None:
    world = steady(vms={"web": "h1"})
    world.store_up = False
    world.run(20)
    world.cut("h1")
    world.run(20)
    world.store_up = True
    took = world.until(lambda: failovers(world), within=10)
    assert took >= world.policy.window_s
    assert failovers(world) == ["h1"]


def test_a_new_controller_watches_a_full_window_itself() -> None:
    world = steady(vms={"web": "h1"})
    world.controller_up = False
    world.cut("h1")
    world.run(300)
    world.controller_up = True
    world.new_controller()
    took = world.until(lambda: failovers(world), within=10)
    assert took >= world.policy.window_s


def test_a_host_long_dead_is_never_called_alive_by_a_new_controller() -> None:
    world = steady(vms={"web": "h1"})
    world.machines[H1].device = "dark"
    world.cut("h1")
    world.until(lambda: world.view.host_records[H1].state is HostState.NEEDS_PERSON, within=20)
    world.run(30)
    world.findings[H1].clear()
    world.states[H1].clear()
    world.new_controller()
    world.run(20)
    assert Finding.ALIVE not in world.findings[H1]
    assert HostState.ONLINE not in world.states[H1]


def test_a_host_whose_device_is_dark_needs_a_person_and_its_vm_stays_its_own() -> None:
    world = steady(vms={"web": "h1"})
    world.machines[H1].device = "dark"
    world.cut("h1")
    world.run(60)
    assert world.view.host_records[H1].state is HostState.NEEDS_PERSON
    assert owner(world) == "h1"
    assert world.view.vm_records[VM].state is VmState.LOST
    assert "needs_person" in {a.kind for a in world.alarms if a.subject == "h1"}


def test_a_person_confirms_a_dark_host_off_and_its_vm_starts_elsewhere() -> None:
    world = steady(vms={"web": "h1"})
    world.machines[H1].device = "dark"
    world.power_off("h1")
    world.run(30)
    assert owner(world) == "h1"
    world.wish(WishKind.HOST_CONFIRM_OFF, "h1")
    world.run(5)
    assert world.settled[-1].granted, world.settled[-1].sentence
    assert owner(world) in ("h2", "h3")


def test_confirm_off_is_refused_at_every_moment_while_the_device_still_reads_on() -> None:
    world = steady(vms={"web": "h1"})
    world.executor = False  # nobody cuts it
    world.cut("h1", "h2")
    world.run(150)  # by now its device is asked only now and then
    for _ in range(15):
        world.wish(WishKind.HOST_CONFIRM_OFF, "h1")
        world.run(1)
    assert len(world.settled) >= 14
    assert not any(s.granted for s in world.settled)


def test_a_host_that_reboots_within_two_seconds_gets_its_missing_vm_started_once() -> None:
    world = steady(vms={"web": "h1", "db": "h2"})
    world.power_off("h1")
    world.power_on("h1", after=0.8)
    world.run(20)
    assert world.view.host_records[H1].state is HostState.ONLINE
    assert sum(VM in m.runs for m in world.machines.values()) == 1
    carried = [op for op in world.opened if op.subject in ("h1", "web")]
    assert len(carried) == 1
    assert cuts(world) == ["h1"]  # opened without a device's proof, for its earlier boot
    assert world.machines[H1].powered
    assert world.machines[H1].boots == 2


def test_a_host_that_flaps_through_a_boot_with_libvirt_down_does_not_lose_its_vm_for_ever() -> None:
    world = steady(vms={"web": "h1"})
    world.power_off("h1")
    world.machines[H1].hypervisor = HypervisorHealth.DOWN
    world.power_on("h1", after=0.5)
    world.run(5)
    assert world.view.heartbeats[H1].incarnation == "h1-boot2"
    world.power_off("h1")
    world.run(60)
    assert owner(world) in ("h2", "h3")


def test_a_voided_proof_raises_the_highest_alarm_and_stops_the_matter() -> None:
    world = steady(vms={"web": "h1"})
    world.each_tick = None  # a lying device does break one writer; the storage lease is the barrier there
    world.machines[H1].device = "lies_off"
    world.machines[H1].reports = False
    world.cut("h1")
    world.run(10)
    assert world.view.host_records[H1].state is HostState.FENCED
    world.machines[H1].reports = True
    world.heal("h1")
    world.run(5)
    record = world.view.host_records[H1]
    assert record.state is HostState.NEEDS_PERSON
    assert record.proof is not None
    assert record.proof.void
    assert any(a.kind == "proof_void" and a.highest for a in world.alarms)
    assert any(a.kind == "runs_twice" and a.highest for a in world.every_alarm)
    assert [c.host for c in world.truth.copies] == ["h2"]  # two facts together: the older copy was stopped


def test_a_host_in_maintenance_is_never_cut() -> None:
    world = steady(vms={"web": "h1"})
    world.wish(WishKind.HOST_MAINTENANCE, "h1")
    world.run(3)
    assert world.view.host_records[H1].state is HostState.MAINTENANCE
    world.cut("h1")
    world.run(60)
    assert world.opened == []
    assert world.machines[H1].powered
    assert owner(world) == "h1"


def test_a_worker_that_is_down_on_a_host_that_answers_is_never_fenced_for_it() -> None:
    world = steady(vms={"web": "h1"})
    world.machines[H1].reports = False
    world.run(300)
    assert world.opened == []
    assert world.view.host_records[H1].state is HostState.SUSPECT
    assert "host_suspect" in {a.kind for a in world.alarms if a.subject == "h1"}


def test_a_fenced_host_comes_back_as_a_new_boot_and_rejoins() -> None:
    world = steady(vms={"web": "h1"})
    world.cut("h1")
    world.run(10)
    world.heal("h1")  # whatever cut it is mended; our own power-on has it boot
    world.until(lambda: world.view.host_records[H1].state is HostState.ONLINE, within=60)
    assert world.machines[H1].boots == 2
    assert HostState.RETURNING in world.states[H1]
    assert sum(VM in m.runs for m in world.machines.values()) == 1


def begin_new_life(world: World, *, since: float | None = None) -> None:
    """The store restarts empty: records, heartbeats, readings are gone; fence memory comes back from files."""
    world.view = replace(
        world.view,
        life=StoreLife(incarnation=StoreIncarnation("life-2"), since=Instant(since or world.now)),
        heartbeats={},
        host_records={},
        vm_records={},
        readings={},
        probes=(),
        operations={},
    )


def test_after_a_wipe_no_vm_starts_before_every_host_was_heard() -> None:
    world = steady(vms={"web": "h1", "db": "h2"})
    world.cut("h1")
    world.machines[H1].device = "dark"
    begin_new_life(world)
    world.run(200)
    assert all(op.kind is not OperationKind.START for op in world.opened)
    assert owner(world) is None
    assert "hold" in {a.kind for a in world.alarms}
    assert owner(world, "db") == "h2"  # the others are adopted where they run


def test_after_a_wipe_a_host_no_memory_knows_of_holds_starts_at_least_for_the_grace() -> None:
    """A host without a fence device leaves no memory; the controllers have run for days when the store is wiped."""
    world = steady(vms={"web": "h1"})
    h1 = replace(world.view.hosts[H1], fencing=())
    world.view = replace(world.view, hosts={**world.view.hosts, H1: h1}, bindings={})
    world.cut("h1")
    begin_new_life(world)
    world.run(world.policy.startup_grace_s - 5)
    assert world.opened == []
    world.heal("h1")
    world.run(10)
    assert owner(world) == "h1"
    assert world.opened == []


def test_after_a_wipe_a_host_in_maintenance_still_holds_starts() -> None:
    world = steady(vms={"web": "h1"})
    world.view = replace(world.view, host_docs={H1: HostDoc(id=H1, maintenance=True, reason="memory swap")})
    world.run(3)
    world.cut("h1")
    begin_new_life(world)
    world.run(100)
    assert world.opened == []
    assert owner(world) is None


def test_after_a_wipe_a_host_with_a_hung_libvirt_still_holds_starts() -> None:
    """Its report arrives, but what runs there is not known: an empty inventory is no answer."""
    world = steady(vms={"web": "h1"})
    runs = dict(world.machines[H1].runs)
    world.each_tick = None  # its VM runs although its report is empty
    begin_new_life(world)
    world.machines[H1].hypervisor, world.machines[H1].inventory_age = HypervisorHealth.HUNG, 1e9
    world.machines[H1].runs.clear()
    world.run(100)
    assert [op for op in world.opened if op.kind is OperationKind.START] == []
    world.machines[H1].hypervisor = HypervisorHealth.OK
    world.machines[H1].inventory_age = 0.1
    world.machines[H1].runs.update(runs)
    world.run(5)
    assert owner(world) == "h1"


def test_a_vm_without_room_waits_with_a_reason_and_starts_when_room_appears_even_after_a_wipe_of_heartbeats() -> None:
    world = steady(vms={"web": "h1"})
    full = replace(world.view.vms[VM], spec=replace(world.view.vms[VM].spec, memory_mib=4000))  # type: ignore[arg-type]
    world.view = replace(world.view, vms={VM: full})
    for host in (H2, H3):
        small = replace(world.view.hosts[host], memory_mib=1000)  # type: ignore[arg-type]
        world.view = replace(world.view, hosts={**world.view.hosts, host: small})
    world.power_off("h1")
    world.machines[H1].device = "dark" if False else "ok"
    world.run(20)
    record = world.view.vm_records[VM]
    assert record.state is VmState.WAITING
    assert "MiB" in record.reason
    beats = {h: b for h, b in world.view.heartbeats.items() if h != H1}
    world.view = replace(
        world.view,
        heartbeats=beats,
        life=StoreLife(incarnation=StoreIncarnation("life-2"), since=Instant(world.now - 1.0)),
    )
    world.run(5)
    big = replace(world.view.hosts[H2], memory_mib=8000)  # type: ignore[arg-type]
    world.view = replace(world.view, hosts={**world.view.hosts, H2: big})
    world.run(10)
    assert owner(world) == "h2"


def test_a_foreign_copy_is_adopted_once_and_can_be_stopped() -> None:
    world = steady(vms={"web": "h1"})
    del world.machines[H1].runs[VM]
    world.view = replace(world.view, vm_records={})
    puts: list[object] = []

    def foreign(beats: World, decision: Decision) -> None:
        puts.extend(a for a in decision.actions if type(a).__name__ == "PutVm")
        seen = beats.view.heartbeats[H2]
        mine = tuple(replace(s, generation=None) for s in seen.inventory)
        beats.view = replace(beats.view, heartbeats={**beats.view.heartbeats, H2: replace(seen, inventory=mine)})

    world.machines[H2].runs[VM] = Generation(0)
    seen = world.view.heartbeats[H2]
    world.view = replace(world.view, vm_records={}, heartbeats={**world.view.heartbeats, H2: seen})
    world.each_tick = foreign
    world.STEP = 1.0  # every tick sees the foreign inventory
    world.run(30)
    world.wish(WishKind.VM_STOP, "web")
    world.run(10)
    assert VM not in world.machines[H2].runs
    assert len(puts) < 8
