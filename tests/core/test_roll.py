"""Rolling maintenance, look by look: which step comes when, what ends it at once, and how it is taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fangnetz.core.actions import Alarm
from fangnetz.core.errors import WishRefused
from fangnetz.core.evacuation import plan_evacuations
from fangnetz.core.model import Heartbeat, HostDoc, HostState, HypervisorHealth, VmDoc, VmRecord, VmState, VmWish
from fangnetz.core.operations import Operation, OperationKind, migrate_steps
from fangnetz.core.policy import Policy
from fangnetz.core.roll import (
    INTERRUPTED,
    Act,
    Activate,
    Evacuate,
    Finish,
    Keep,
    Limits,
    Pace,
    Resumption,
    Roll,
    Run,
    Seen,
    Stage,
    Stop,
    Wait,
    answered,
    begun,
    commanded,
    how_to_go_on,
    next_act,
    obstacles,
    resumed,
    stopped,
    told,
)
from fangnetz.core.roll.going import STANDS_S, STEADY_ANEW_S, STEADY_S, UNREST_S
from fangnetz.core.roll.values import OUTPUT_KEPT, Commanded
from fangnetz.core.units import Epoch, HostId, Instant, OperationId, Seconds, VmId
from tests.core.world import T0, beat, host_record, spec, verdicts_of, view, vm_doc, vm_record, watched

H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")
LIMITS = Limits(return_s=Seconds(600.0), moves_s=Seconds(900.0), command_s=Seconds(60.0))


def a_roll(*hosts: str, **more: Any) -> Roll:
    return Roll(
        id="r1",
        by="ada",
        began_at=Instant(T0),
        hosts=tuple(map(HostId, hosts or ("h1", "h2", "h3"))),
        command=("patch", "{host}"),
        limits=LIMITS,
        token="t1",
        until=Instant(T0 + 15),
        **more,
    )


@dataclass
class Cluster:
    """What a look shows, changed by hand between two looks: each host runs one VM that is named after it."""

    now: float = T0
    hosts: tuple[Any, ...] = ("h1", "h2", "h3")
    states: dict[str, HostState] = field(default_factory=dict)
    docs: dict[str, HostDoc] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=lambda: {"a1": "h1", "a2": "h2", "a3": "h3"})
    vms: dict[str, VmState] = field(default_factory=dict)
    wishes: dict[str, VmWish] = field(default_factory=dict)
    boots: dict[str, str] = field(default_factory=dict)
    boot_since: dict[str, float] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    silent: dict[str, float] = field(default_factory=dict)
    health: dict[str, HypervisorHealth] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()
    moving: tuple[str, ...] = ()
    unwatched: str = ""
    memory: int = 512

    def seen(self) -> Seen:
        names = [spec(name) if isinstance(name, str) else name for name in self.hosts]
        known = view(
            self.now,
            hosts=names,
            beats=[self._beat(host.id) for host in names],
            records=[
                host_record(h.id, self.states.get(h.id, HostState.ONLINE), boot=self.boots.get(h.id, "i1"))
                for h in names
            ],
            docs=[self.docs.get(h.id, HostDoc(id=h.id)) for h in names],
            vms=[self._vm(vm, host) for vm, host in self.homes.items()],
            operations=[
                Operation(
                    id=OperationId(f"migrate-{vm}-1"), kind=OperationKind.MIGRATE, subject=vm, epoch=Epoch(1),
                    opened_at=Instant(self.now), reason="as the test says", steps=migrate_steps(),
                )
                for vm in self.moving
            ],
            unreadable=self.unreadable,
        )  # fmt: skip
        watch = None if self.unwatched else watched(known, self.silent)
        return Seen(
            view=known,
            watch=watch,
            unwatched=self.unwatched,
            verdicts={} if watch is None else verdicts_of(known, self.silent),
            alarms=self.alarms,
            policy=Policy(),
        )

    def _beat(self, host: str) -> Heartbeat:
        runs = {VmId(vm): 7 for vm, home in self.homes.items() if home == host}
        made = beat(
            host, self.now - self.silent.get(host, 0.1), boot=self.boots.get(host, "i1"), runs=runs,
            hypervisor=self.health.get(host, HypervisorHealth.OK),
        )  # fmt: skip
        return replace(made, boot_since=Instant(self.boot_since.get(host, 0.0)))

    def _vm(self, vm: str, host: str) -> tuple[VmDoc, VmRecord]:
        doc = vm_doc(vm, memory=self.memory, wish=self.wishes.get(vm, VmWish.RUNNING))
        boot = self.boots.get(host, "i1")
        return doc, vm_record(vm, host, 7, boot=boot, state=self.vms.get(vm, VmState.RUNNING))

    # -- what controllers and hosts do --

    def emptied(self, host: str, *, to: str) -> None:
        away = tuple(VmId(vm) for vm, home in self.homes.items() if home == host)
        self.homes.update(dict.fromkeys(away, to))
        self.docs[host] = HostDoc(id=HostId(host), evacuate=True, maintenance=True, away=away)
        self.states[host] = HostState.MAINTENANCE

    def activated(self, host: str) -> None:
        self.docs[host] = replace(self.docs[host], evacuate=False, maintenance=False, failback=True)
        self.states[host] = HostState.ONLINE

    def home(self, host: str) -> None:
        self.homes.update(dict.fromkeys(self.docs[host].away, host))
        self.docs[host] = HostDoc(id=HostId(host))


@dataclass
class Driven:
    """A roll carried on by hand: `ask` looks once, `on` looks until something is to be done."""

    roll: Roll
    cluster: Cluster
    pace: Pace = field(default_factory=Pace)
    kept: list[str] = field(default_factory=list)

    def ask(self) -> Act:
        self.pace, act = next_act(self.roll, self.pace, self.cluster.seen())
        return act

    def on(self) -> Act:
        while isinstance(act := self.ask(), Keep):
            self.roll = act.roll
            self.kept.append(act.sentence)
        match act:
            case Evacuate(hosts=hosts) | Activate(hosts=hosts):
                self.roll = answered(self.roll, hosts)
            case Run(roll=roll):
                self.roll = roll
        return act

    def ran(self, host: str, code: int = 0, output: str = "") -> None:
        self.roll = commanded(self.roll, HostId(host), code, output, Instant(self.cluster.now))

    def after(self, span: float) -> Act:
        self.cluster.now += span
        return self.on()


def driven(*hosts: str, cluster: Cluster | None = None, **more: Any) -> Driven:
    cluster = cluster or Cluster()
    return Driven(begun(a_roll(*hosts, **more), cluster.seen()), cluster)


def at_the_command(*hosts: str, **more: Any) -> Driven:
    made = driven(*hosts, **more)
    assert made.on() == Evacuate(hosts=(H1,))
    made.cluster.docs["h1"] = HostDoc(id=H1, evacuate=True)
    made.cluster.emptied("h1", to="h2")
    return made


def at_the_return(*hosts: str, **more: Any) -> Driven:
    made = at_the_command(*hosts, **more)
    assert isinstance(made.on(), Run)
    made.ran("h1")
    made.cluster.now += 0.5
    return made


def at_home(*hosts: str, **more: Any) -> Driven:
    made = at_the_return(*hosts, **more)
    made.cluster.boots["h1"] = "i2"
    made.on()
    assert made.after(STEADY_ANEW_S) == Activate(hosts=(H1,))
    made.cluster.activated("h1")
    return made


def because(act: Act) -> str:
    assert isinstance(act, Stop), act
    return act.because


# --- the order of steps ------------------------------------------------------------------------------------------


def test_each_host_is_emptied_worked_on_awaited_and_filled_before_the_next_one() -> None:
    made, told_in_order = driven(), []
    others = {"h1": "h2", "h2": "h3", "h3": "h1"}
    for host, other in others.items():
        asked = made.on()
        assert asked == Evacuate(hosts=(HostId(host),))
        told_in_order.append(asked)
        made.cluster.docs[host] = HostDoc(id=HostId(host), evacuate=True)
        made.cluster.states[host] = HostState.EVACUATING
        assert isinstance(made.on(), Wait), "what runs there has not left"
        made.cluster.emptied(host, to=other)
        run = made.on()
        assert isinstance(run, Run)
        assert run.host == host
        assert run.roll.turn(HostId(host)).command is Commanded.BEGUN, "written before it is run"
        made.ran(host)
        made.cluster.boots[host] = "i2"
        made.cluster.now += 0.5
        assert isinstance(made.on(), Wait)
        assert made.after(STEADY_ANEW_S) == Activate(hosts=(HostId(host),))
        made.cluster.activated(host)
        assert isinstance(made.on(), Wait), "its VM is not home"
        made.cluster.home(host)
    assert made.on() == Finish()
    assert made.roll.done == (H1, H2, H3)
    assert made.roll.finished
    assert told(made.roll) == "h1, h2, h3 had their turn"


def test_the_command_is_not_run_before_the_host_is_empty_and_in_maintenance() -> None:
    made = driven()
    made.on()
    made.cluster.emptied("h1", to="h2")
    made.cluster.homes["a1"] = "h1"
    assert isinstance(made.on(), Wait), "in maintenance, and something runs there"
    made.cluster.homes["a1"] = "h2"
    made.cluster.states["h1"] = HostState.EVACUATING
    assert isinstance(made.on(), Wait), "empty, and not yet in maintenance"
    made.cluster.states["h1"] = HostState.MAINTENANCE
    assert isinstance(made.on(), Run)


def test_no_command_runs_for_a_host_that_does_not_report() -> None:
    made = at_the_command()
    made.cluster.silent["h1"] = 30.0
    assert isinstance(made.on(), Wait)
    assert "h1 does not report" in because(made.after(UNREST_S + 1))


def test_a_host_that_somebody_activated_meanwhile_is_not_worked_on() -> None:
    made = at_the_command()
    made.on()
    made.roll = made.roll.put(replace(made.roll.turn(H1), command=Commanded.NOT_YET))
    made.cluster.activated("h1")
    made.cluster.states["h1"] = HostState.MAINTENANCE  # the record follows the wish a tick later
    assert "somebody changed that" in because(made.on())


def test_an_evacuation_that_somebody_called_off_is_a_doubt() -> None:
    made = driven()
    made.on()
    assert "somebody activated it" in because(made.on()), "it was granted, and is not wished any more"


# --- the return --------------------------------------------------------------------------------------------------


def test_a_host_in_the_same_boot_is_back_once_it_was_well_for_long_enough() -> None:
    made = at_the_return()
    assert isinstance(made.on(), Wait)
    assert isinstance(made.after(STEADY_S - 1), Wait), "what the command began may still take it down"
    assert made.after(1) == Activate(hosts=(H1,))


def test_a_silence_makes_the_wait_for_a_steady_host_begin_anew() -> None:
    made = at_the_return()
    made.on()
    made.cluster.silent["h1"] = 30.0
    made.after(STEADY_S - 1)
    made.cluster.silent.clear()
    assert isinstance(made.after(2), Wait)
    assert isinstance(made.after(STEADY_S - 1), Wait)
    assert made.after(1) == Activate(hosts=(H1,))


def test_a_command_that_restarts_the_host_is_not_believed_before_another_boot_reports() -> None:
    made = at_the_return(reboots=True)
    made.on()
    assert isinstance(made.after(STEADY_S * 10), Wait), "the reboot is still to come"
    made.cluster.boots["h1"] = "i2"
    assert isinstance(made.on(), Wait)
    assert made.after(STEADY_ANEW_S) == Activate(hosts=(H1,))


@pytest.mark.parametrize("reboots", [False, True])
def test_a_host_that_is_not_back_in_time_ends_the_roll(reboots: bool) -> None:
    made = at_the_return(reboots=reboots)
    made.cluster.silent["h1"] = 601.0
    assert isinstance(made.after(LIMITS.return_s - 1), Wait)
    assert "not cleanly back after 600 s: h1 does not report" in because(made.after(2))


def test_a_host_whose_libvirt_is_not_well_is_not_back() -> None:
    made = at_the_return()
    made.cluster.health["h1"] = HypervisorHealth.HUNG
    made.cluster.boots["h1"] = "i2"
    made.on()
    assert isinstance(made.after(STEADY_S + 1), Wait)
    assert "its libvirt is hung" in because(made.after(LIMITS.return_s))


def test_a_report_from_before_the_commands_end_is_no_return() -> None:
    made = at_the_return()
    made.roll = made.roll.put(replace(made.roll.turn(H1), since=Instant(made.cluster.now)))
    act = made.on()
    assert isinstance(act, Wait)
    assert "does not report" in act.sentence


def test_a_boot_that_was_just_heard_first_is_not_yet_a_return() -> None:
    made = at_the_return()
    made.cluster.boots["h1"] = "i2"
    made.cluster.boot_since["h1"] = made.cluster.now + STEADY_ANEW_S - 1
    made.on()
    made.after(1)
    assert isinstance(made.after(STEADY_ANEW_S - 1), Wait), "two machines may carry one name"
    made.after(1)
    assert made.after(STEADY_ANEW_S) == Activate(hosts=(H1,))


def test_what_was_not_watched_for_a_while_counts_for_nothing() -> None:
    made = at_the_return()
    made.on()
    made.cluster.vms["a3"] = VmState.STARTING
    made.after(1)
    made.cluster.vms.clear()
    assert isinstance(made.after(STEADY_S), Wait)
    assert made.after(STEADY_S) == Activate(hosts=(H1,))


def test_a_controller_that_is_away_with_its_host_is_part_of_the_return() -> None:
    made = at_the_return()
    made.cluster.unwatched = "no controller watches"
    assert isinstance(made.on(), Wait)
    assert isinstance(made.after(UNREST_S * 2), Wait)
    assert "no controller watches" in because(made.after(LIMITS.return_s))


# --- going home --------------------------------------------------------------------------------------------------


def test_a_vm_that_cannot_go_home_is_named_and_the_roll_goes_on() -> None:
    made = at_home()
    made.cluster.alarms = (Alarm(kind="failback_waits", subject="a1", sentence="a1 cannot go home to h1 yet: no room"),)
    assert isinstance(made.on(), Wait)
    assert isinstance(made.after(STANDS_S), Wait)
    made.cluster.now += 1
    assert made.on() == Evacuate(hosts=(H2,))
    assert made.roll.turn(H1).not_home == ("a1 cannot go home to h1 yet: no room",)
    assert "h1 is done, but a1 cannot go home" in made.kept[-2]


def test_a_vm_on_its_way_is_waited_for_whatever_is_said_of_it() -> None:
    made = at_home()
    made.cluster.alarms = (Alarm(kind="failback_waits", subject="a1", sentence="a1 cannot go home to h1 yet"),)
    made.cluster.moving = ("a1",)
    made.on()
    assert isinstance(made.after(STANDS_S * 5), Wait)


def test_a_vm_that_is_not_home_in_time_without_a_reason_is_a_doubt() -> None:
    made = at_home()
    made.on()
    assert "h1 still waits for a1" in because(made.after(LIMITS.moves_s + 1))


def test_a_vm_that_stayed_elsewhere_is_named_and_one_that_was_stopped_is_not() -> None:
    made = at_home()
    made.cluster.docs["h1"] = HostDoc(id=H1)
    made.on()
    assert made.roll.turn(H1).not_home == ("a1 is running on h2",)
    other = at_home()
    other.cluster.docs["h1"] = HostDoc(id=H1)
    other.cluster.wishes["a1"] = VmWish.STOPPED
    other.cluster.vms["a1"] = VmState.STOPPED
    other.on()
    assert other.roll.turn(H1).not_home == ()


def test_a_host_that_somebody_takes_out_again_while_it_is_filled_is_a_doubt() -> None:
    made = at_home()
    made.on()
    made.cluster.docs["h1"] = HostDoc(id=H1, maintenance=True)
    assert "somebody took it out again" in because(made.on())


# --- doubts ------------------------------------------------------------------------------------------------------

DOUBTS: Mapping[str, tuple[dict[str, Any], str]] = {
    "an alarm of the highest level": (
        {"alarms": (Alarm(kind="runs_twice", subject="a3", sentence="a3 runs twice", highest=True),)}, "a3 runs twice"
    ),
    "what nobody can read": ({"unreadable": ("vm:a9 is no record",)}, "vm:a9 is no record"),
    "another host lost": ({"states": {"h3": HostState.LOST}}, "h3 is lost"),
    "another host fenced": ({"states": {"h3": HostState.FENCED}}, "h3 is fenced"),
    "a VM lost": ({"vms": {"a3": VmState.LOST}}, "a3 is wished to run and is lost"),
    "a VM failed": ({"vms": {"a3": VmState.FAILED}}, "a3 is wished to run and is failed"),
    "a VM needs a person": ({"vms": {"a1": VmState.NEEDS_PERSON}}, "a1 is wished to run and is needs_person"),
}  # fmt: skip
UNREST: Mapping[str, tuple[dict[str, Any], str]] = {
    "a VM that starts again": ({"vms": {"a3": VmState.STARTING}}, "a3 is wished to run and is starting"),
    "a VM that waits": ({"vms": {"a3": VmState.WAITING}}, "a3 is wished to run and is waiting"),
    "a late host": ({"states": {"h3": HostState.SUSPECT}}, "h3 is suspect"),
    "a host that somebody else empties": ({"states": {"h3": HostState.EVACUATING}}, "h3 is evacuating"),
    "nobody decides": ({"unwatched": "no controller watches"}, "no controller watches"),
}


def changed(cluster: Cluster, change: Mapping[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, dict):
            getattr(cluster, name).update(value)
        else:
            setattr(cluster, name, value)


@pytest.mark.parametrize("what", DOUBTS)
@pytest.mark.parametrize("moment", [driven, at_the_command, at_the_return, at_home])
def test_a_doubt_ends_the_roll_at_every_step(what: str, moment: Any) -> None:
    made = moment()
    change, sentence = DOUBTS[what]
    changed(made.cluster, change)
    assert sentence in because(made.on())


@pytest.mark.parametrize("what", UNREST)
@pytest.mark.parametrize("moment", [driven, at_the_command, at_home])
def test_nothing_is_begun_while_something_is_unsettled_and_if_that_stays_it_is_a_doubt(what: str, moment: Any) -> None:
    made = moment()
    change, sentence = UNREST[what]
    changed(made.cluster, change)
    act = made.on()
    assert isinstance(act, Wait)
    assert sentence in act.sentence
    assert sentence in because(made.after(UNREST_S + 1))


def test_unrest_that_passed_is_forgotten() -> None:
    made = driven()
    made.cluster.vms["a3"] = VmState.STARTING
    made.on()
    made.cluster.vms.clear()
    made.cluster.now += UNREST_S
    assert isinstance(made.on(), Evacuate)
    made.cluster.docs["h1"] = HostDoc(id=H1, evacuate=True)
    made.cluster.vms["a3"] = VmState.STARTING
    assert isinstance(made.after(UNREST_S), Wait), "another one"


def test_a_host_that_was_out_before_is_no_doubt_and_nor_is_a_vm_that_is_wished_to_rest() -> None:
    cluster = Cluster(states={"h3": HostState.FENCED}, wishes={"a3": VmWish.STOPPED}, vms={"a3": VmState.STOPPED})
    made = driven("h1", cluster=cluster)
    assert made.roll.out == (H3,)
    assert made.on() == Evacuate(hosts=(H1,))


def test_what_stays_on_a_host_for_now_ends_the_roll_with_the_controllers_words() -> None:
    made = driven()
    made.on()
    made.cluster.docs["h1"] = HostDoc(id=H1, evacuate=True)
    said = Alarm(kind="evacuation_waits", subject="h1", sentence="h1 has 1 left, because a1: no room")
    made.cluster.alarms = (said,)
    assert isinstance(made.on(), Wait)
    made.cluster.moving = ("a1",)
    assert isinstance(made.after(STANDS_S + 1), Wait), "it is on its way"
    made.cluster.moving = ()
    assert isinstance(made.on(), Wait)
    assert because(made.after(STANDS_S + 1)) == said.sentence


def test_a_host_that_is_not_empty_in_time_is_a_doubt() -> None:
    made = driven()
    made.on()
    made.cluster.docs["h1"] = HostDoc(id=H1, evacuate=True)
    assert "h1 is not empty after 900 s: a1 is left" in because(made.after(LIMITS.moves_s + 1))


# --- beginning ---------------------------------------------------------------------------------------------------


def test_a_roll_does_not_begin_where_a_vm_of_a_later_host_has_nowhere_to_go() -> None:
    cluster = Cluster(hosts=("h1", "h2", spec("h3", memory=8192)), homes={"a1": "h1", "a3": "h3"}, memory=4096)
    cluster.homes["b3"] = "h3"
    against = obstacles(a_roll(), cluster.seen())
    assert len(against) == 1
    assert "b3 cannot leave h3" in against[0]


def test_a_vm_that_lost_its_place_meanwhile_ends_the_roll_before_its_host_is_asked_for() -> None:
    made = at_home()
    made.cluster.home("h1")
    made.cluster.memory = 4096
    made.cluster.homes = {"a1": "h1", "a2": "h2", "a3": "h3"}
    assert "a2 cannot leave h2" in because(made.on())
    assert made.roll.waiting == (H2, H3), "its turn has not begun"


@pytest.mark.parametrize(
    ("hosts", "sentence"),
    [(("h9",), "h9 is no host of this cluster; it has h1, h2, h3"), (("h1", "h1"), "h1 is named twice")],
)
def test_hosts_that_make_no_sense_are_refused(hosts: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(WishRefused, match=sentence):
        begun(a_roll(*hosts), Cluster().seen())


def test_a_host_in_maintenance_already_is_an_obstacle_and_an_idle_one_is_not() -> None:
    cluster = Cluster(states={"h2": HostState.MAINTENANCE}, docs={"h2": HostDoc(id=H2, maintenance=True)})
    del cluster.homes["a2"]
    roll = a_roll("h1", "h2")
    assert "h2 is in maintenance already" in obstacles(begun(roll, cluster.seen()), cluster.seen())[0]
    assert obstacles(begun(a_roll("h1"), cluster.seen()), cluster.seen()) == ()


def test_a_host_to_be_rolled_over_that_is_fenced_is_an_obstacle() -> None:
    cluster = Cluster(states={"h2": HostState.FENCED})
    del cluster.homes["a2"]
    assert obstacles(begun(a_roll(), cluster.seen()), cluster.seen()) == ("h2 is fenced: as the test says",)


# --- several at once ---------------------------------------------------------------------------------------------


def test_hosts_emptied_at_once_take_nothing_of_each_other() -> None:
    seen = Cluster(homes={"a1": "h1", "a2": "h2"}).seen()
    assert seen.watch is not None
    plans = plan_evacuations((H1, H2), seen.view, seen.watch, seen.verdicts, seen.policy)
    assert [(plan.host, [(m.vm, m.target) for m in plan.moves]) for plan in plans] == [
        (H1, [("a1", H3)]),
        (H2, [("a2", H3)]),
    ]


def test_what_fits_for_one_host_and_not_for_two_at_once_is_an_obstacle() -> None:
    cluster = Cluster(homes={"a1": "h1", "a2": "h2"}, memory=3000)
    assert obstacles(a_roll("h1", "h2"), cluster.seen()) == ()
    against = obstacles(a_roll("h1", "h2", at_once=2), cluster.seen())
    assert len(against) == 1
    assert "cannot leave h" in against[0]


def test_a_wave_enters_each_stage_together() -> None:
    made = driven("h1", "h2", at_once=2)
    assert made.on() == Evacuate(hosts=(H1, H2))
    for host in ("h1", "h2"):
        made.cluster.docs[host] = HostDoc(id=HostId(host), evacuate=True)
    made.cluster.emptied("h1", to="h3")
    assert isinstance(made.on(), Wait), "no command before both are empty"
    made.cluster.emptied("h2", to="h3")
    for host in ("h1", "h2"):
        act = made.on()
        assert isinstance(act, Run)
        assert act.host == host
        made.ran(host)
    made.cluster.boots = {"h1": "i2"}
    made.cluster.now += 0.5
    made.on()
    assert isinstance(made.after(STEADY_ANEW_S), Wait), "h2 may still go down"
    assert made.after(STEADY_S) == Activate(hosts=(H1, H2))


# --- stopping, and going on --------------------------------------------------------------------------------------


def test_a_failed_command_ends_the_roll_and_is_run_again_when_it_is_resumed() -> None:
    made = at_the_command()
    made.on()
    made.ran("h1", 3, "no space left\n")
    assert because(made.on()) == "the command failed on h1 with exit code 3"
    roll = stopped(made.roll, "the command failed on h1 with exit code 3")
    assert told(roll) == (
        "stopped at h1: the command failed on h1 with exit code 3; no host is done; in hand: h1, empty and in "
        "maintenance, the command failed with exit code 3; not begun: h2, h3"
    )
    assert "--resume" in how_to_go_on(roll)
    made.roll = resumed(roll, made.cluster.seen(), Resumption.UNSAID, "t2", Instant(T0 + 99))
    assert isinstance(made.on(), Run)
    vouched = resumed(roll, made.cluster.seen(), Resumption.RAN, "t2", Instant(T0 + 99))
    assert vouched.turn(H1).stage is Stage.RETURN


def test_a_command_whose_end_nobody_knows_is_not_run_again_unsaid() -> None:
    made = at_the_command()
    made.on()
    assert "nobody knows how the command ended on h1" in because(made.on())
    roll = stopped(made.roll, INTERRUPTED)
    assert "--again" in how_to_go_on(roll)
    with pytest.raises(WishRefused, match="nobody knows how the command ended on h1"):
        resumed(roll, made.cluster.seen(), Resumption.UNSAID, "t2", Instant(0))
    again = resumed(roll, made.cluster.seen(), Resumption.AGAIN, "t2", Instant(T0 + 99))
    assert isinstance(Driven(again, made.cluster).on(), Run)
    ran = resumed(roll, made.cluster.seen(), Resumption.RAN, "t2", Instant(T0 + 99))
    assert ran.turn(H1).stage is Stage.RETURN


@pytest.mark.parametrize("moment", [driven, at_the_return, at_home])
def test_a_killed_roll_goes_on_where_reality_is(moment: Any) -> None:
    made = moment()
    made.on()
    made.roll = resumed(made.roll, Cluster(now=T0 + 99).seen(), Resumption.UNSAID, "t2", Instant(T0 + 199))
    made.cluster.now = T0 + 99
    made.pace = Pace()
    if moment is driven:  # the wish was granted, and the host emptied, while nobody had the roll in hand
        made.cluster.emptied("h1", to="h2")
        assert isinstance(made.on(), Run)
    elif moment is at_the_return:
        made.after(0.5)
        assert made.after(STEADY_S) == Activate(hosts=(H1,))
    else:
        made.cluster.home("h1")
        assert made.on() == Evacuate(hosts=(H2,))


def test_an_evacuation_that_was_never_asked_for_is_asked_for_when_the_roll_is_resumed() -> None:
    made = driven()
    act = made.ask()
    assert isinstance(act, Keep)
    made.roll = resumed(act.roll, Cluster(now=T0 + 99).seen(), Resumption.UNSAID, "t2", Instant(T0 + 199))
    assert made.on() == Evacuate(hosts=(H1,))


def test_waits_begin_anew_when_a_roll_is_resumed() -> None:
    made = at_the_return()
    made.cluster.silent["h1"] = 9999.0
    made.after(LIMITS.return_s - 100)
    late = resumed(stopped(made.roll, INTERRUPTED), made.cluster.seen(), Resumption.UNSAID, "t2", Instant(9e9))
    assert isinstance(Driven(late, made.cluster).after(LIMITS.return_s - 1), Wait)


def test_a_roll_that_another_command_has_in_hand_or_that_is_finished_is_not_resumed() -> None:
    made = at_the_return()
    with pytest.raises(WishRefused, match="another command has this roll in hand"):
        resumed(made.roll, made.cluster.seen(), Resumption.UNSAID, "t2", Instant(0))
    every = [replace(made.roll.turn(H1), host=host, stage=Stage.DONE) for host in (H1, H2, H3)]
    with pytest.raises(WishRefused, match="nothing is left of the roll"):
        resumed(stopped(made.roll.put(*every), ""), made.cluster.seen(), Resumption.UNSAID, "t2", Instant(0))


def test_a_roll_over_a_host_that_left_the_cluster_file_is_not_resumed() -> None:
    made = at_the_return()
    fewer = Cluster(hosts=("h1", "h2"), homes={"a2": "h2"}).seen()
    with pytest.raises(WishRefused, match="h3 is no host of this cluster; it has h1, h2"):
        resumed(stopped(made.roll, INTERRUPTED), fewer, Resumption.UNSAID, "t2", Instant(0))


def test_of_what_a_command_says_its_last_words_are_kept() -> None:
    made = at_the_command()
    made.on()
    made.ran("h1", 1, "x" * OUTPUT_KEPT + "the end")
    kept = made.roll.turn(H1).output
    assert len(kept) == OUTPUT_KEPT
    assert kept.endswith("the end")


def test_what_is_told_of_a_stopped_roll_names_done_in_hand_and_not_begun() -> None:
    made = at_home()
    made.cluster.home("h1")
    act = made.ask()
    while isinstance(act, Keep):
        made.roll = act.roll
        act = made.ask()
    roll = stopped(made.roll, INTERRUPTED)
    head = "stopped at h2: interrupted; done: h1; in hand: h2, "
    assert told(roll) == f"{head}not yet asked to be emptied; not begun: h3"
    assert told(answered(roll, [H2])) == f"{head}being emptied, which goes on by itself; not begun: h3"
    assert how_to_go_on(roll) == "go on with `fangnetz maintenance roll --resume`"
