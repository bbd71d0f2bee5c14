"""Live migration."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="every VM leaves at once",
        rule="10",
        file="core/decide/pacing.py",
        old="        return not full and not waits and self.moving < self.policy.moves_max",
        new="        return not waits",
        stories=("evacuation/a_group_larger_than_the_limit_leaves_at_once",),
    ),
    Sabotage(
        name="a host that is emptied still takes VMs",
        rule="10",
        file="core/rooms.py",
        old="        if doc is not None and (doc.maintenance or (doc.evacuate and host != reopened)):",
        new="        if doc is not None and doc.maintenance:",
        more=(("core/rooms.py", "record.state not in states or beat is None", "beat is None"),),
        stories=("evacuation/a_guest_ends_meanwhile",),
    ),
    Sabotage(
        name="a host is called empty with VMs on it",
        rule="10",
        file="core/decide/evacuations.py",
        old="        if not left:",
        new="        if True:",
        stories=("evacuation/no_room_for_all",),
    ),
    Sabotage(
        name="what an evacuation stopped is started elsewhere unasked",
        rule="10",
        file="core/recovery.py",
        old="    if vm in waiting:\n",
        new="    if False:\n",
        stories=("evacuation/it_waits_stopped_in_maintenance", "evacuation/the_store_is_wiped_after_the_stop"),
    ),
    Sabotage(
        name="no file names what an evacuation stops",
        rule="8",
        file="core/decide/evacuations.py",
        old="stopped=tuple(sorted({*doc.stopped, *stopped})))",
        new="stopped=())",
        stories=("evacuation/it_waits_stopped_in_maintenance",),
    ),
    Sabotage(
        name="a host in quarantine is not emptied",
        rule="liveness",
        file="core/decide/hosts.py",
        old="_EMPTIABLE = frozenset({HostState.ONLINE, HostState.QUARANTINED})",
        new="_EMPTIABLE = frozenset({HostState.ONLINE})",
        stories=("quarantine/it_is_emptied",),
    ),
    Sabotage(
        name="what a host kept waits for it although a person confirmed that it is off",
        rule="liveness",
        file="core/decide/fence_wishes.py",
        old="record.owner == host and record.kept]",
        new="False]",
        stories=("shutdown/a_kept_vms_host_is_confirmed_off",),
    ),
    Sabotage(
        name="what was stopped to leave a host that is emptied cannot go back there",
        rule="10",
        file="core/rooms.py",
        old="        states = _MAY_COME_BACK if host == reopened else _OPEN",
        new="        states = _OPEN",
        stories=("relocation/a_host_is_emptied_and_no_other_takes_it",),
    ),
    Sabotage(
        name="a VM that cannot be moved while it runs is",
        rule="relocation",
        file="core/decide/moves.py",
        old="    if fixed and kind is OperationKind.MIGRATE:",
        new="    if False:",
        stories=("relocation/one_vm",),
    ),
)
