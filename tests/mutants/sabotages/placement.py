"""Where VMs may run."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="a host that is not allowed takes a VM",
        rule="placement",
        file="core/rules.py",
        old="            if rules.strict and rules.allowed and host not in rules.allowed:",
        new="            if False:",
        stories=("placement/only_where_it_is_allowed",),
    ),
    Sabotage(
        name="what was measured long ago counts for ever",
        rule="placement",
        file="core/demand.py",
        old="        if view.now - at > FRESH_S:",
        new="        if False:",
        stories=("placement/measured_of_long_ago_does_not_count",),
    ),
    Sabotage(
        name="a host that is idle is taken to have room",
        rule="placement",
        file="core/placement.py",
        old="        if self.policy.capacity is Capacity.RANK:",
        new='        if self.policy.capacity is Capacity.RANK or self.policy.rank_by.value == "measured":',
        stories=("placement/measured_never_overbooks",),
    ),
    Sabotage(
        name="load that is measured ranks nothing",
        rule="placement",
        file="core/ranking.py",
        old="        busy = self._busy(unit, room) if self._measured else 0.0",
        new="        busy = 0.0",
        stories=("placement/measured_the_idle_host_takes_it",),
    ),
    Sabotage(
        name="zones rank nothing",
        rule="placement",
        file="core/ranking.py",
        old="        near = len(self._near(unit, room, where)) if self._zones else 0",
        new="        near = 0",
        stories=("placement/apart_in_different_zones",),
    ),
    Sabotage(
        name="two that run apart meet",
        rule="placement",
        file="core/rules.py",
        old="                if host in where.get(other, ()) or other in unit:",
        new="                if False:",
        stories=("placement/apart_after_a_loss",),
    ),
    Sabotage(
        name="apart holds only for the one that says so",
        rule="placement",
        file="core/rules.py",
        old="                self._apart.setdefault(other, set()).add(vm)",
        new="                pass",
        stories=("placement/apart_said_by_the_other",),
    ),
    Sabotage(
        name="one of a group goes where the others are not",
        rule="placement",
        file="core/rules.py",
        old="                if hosts and host not in hosts:",
        new="                if False:",
        stories=("placement/together_and_room_for_one", "placement/ends_where_its_group_is_not"),
    ),
    Sabotage(
        name="a VM whose host has no place for it waits for that host",
        rule="9",
        file="core/decide/vms.py",
        old="            if state is VmState.WAITING:  # its owner",
        new="            if False:  # its owner",
        stories=("placement/ends_where_its_group_is_not",),
    ),
    Sabotage(
        name="a move under way takes no room where it goes",
        rule="placement",
        file="core/rooms.py",
        old="        if _is_on_its_way(op) and op.target is not None and op.subject in view.vm_records",
        new="        if False",
        stories=("placement/move_takes_the_group_along",),
    ),
)
