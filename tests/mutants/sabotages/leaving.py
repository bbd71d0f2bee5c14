"""Hosts that go down in order."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="an announced shutdown is a goodbye, whatever still runs",
        rule="9",
        file="core/leaving.py",
        old=" and beat.hypervisor is HypervisorHealth.OK and not not_let_go(view, host)",
        new="",
        stories=("shutdown/power_loss_amid_the_goodbye", "shutdown/no_controller_answers"),
    ),
    Sabotage(
        name="a VM that was to be kept waits for its host although it ran when the power failed",
        rule="9",
        file="core/leaving.py",
        old="        return owner if beat.promised(record.id) >= record.generation else None\n",
        new="        return owner\n",
        stories=("shutdown/power_loss_amid_a_reboot_that_keeps",),
    ),
    Sabotage(
        name="a kept VM starts wherever there is room",
        rule="shutdown",
        file="core/recovery.py",
        old="    if home is None:\n        return ways\n",
        new="    return ways\n",
        stories=("shutdown/keep_over_a_shutdown", "shutdown/reboot_keeps"),
    ),
    Sabotage(
        name="a host that goes down takes VMs",
        rule="shutdown",
        file="core/rooms.py",
        old="        if beat.leaving is not Leaving.NO:",
        new="        if False:",
        stories=("shutdown/power_loss_amid_the_goodbye", "shutdown/a_hanging_guest"),
        more=(("engine/steps/vm.py", "        elif self._boot.leaving() is not Leaving.NO:", "        elif False:"),),
    ),
    Sabotage(
        name="what moved away for a reboot does not come home",
        rule="shutdown",
        file="core/decide/evacuations.py",
        old="away=away, failback=not doc.evacuate)",
        new="away=away)",
        stories=("shutdown/evacuate_over_a_reboot",),
    ),
    Sabotage(
        name="moves away from a host that goes down have no deadline",
        rule="shutdown",
        file="core/leaving.py",
        old="        moves = not deadline_over(view, host, policy) and _another",
        new="        moves = _another",
        stories=("shutdown/the_deadline_passes",),
    ),
    Sabotage(
        name="a reboot that keeps does not say so in the record",
        rule="shutdown",
        file="core/decide/partings.py",
        old="kept=record.generation if keep else Generation(0)",
        new="kept=Generation(0)",
        stories=("shutdown/reboot_keeps",),
    ),
)
