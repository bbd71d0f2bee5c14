"""Reality outranks the record, carefully."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
    Sabotage(
        name="a copy is adopted whoever owns the VM",
        rule="8",
        file="core/decide/vms.py",
        old="            if not mine and not self._may_adopt(record, host):",
        new="            if False:",
        stories=("vms/started_by_hand_while_its_host_is_dark",),
    ),
    Sabotage(
        name="an older copy is left beside the owner's",
        rule="8",
        file="core/decide/vms.py",
        old="            and seen.generation < record.generation\n        }",
        new="            and False\n        }",
        stories=("vms/older_copy_beside_the_owners",),
    ),
    Sabotage(
        name="the owner's copy is paused and not the later one",
        rule="8",
        file="core/copies.py",
        old="        if None not in starts and len(latest) == 1:\n            return latest[0]",
        new="        if None not in starts and len(latest) == 1:\n            return min(equal, key=lambda host: equal[host].start_sent_at or 0)",
        stories=("vms/started_a_second_time_by_hand",),
    ),
    Sabotage(
        name="a host rejoins with a VM of another owner",
        rule="pipeline",
        file="core/decide/returns.py",
        old="        if vm.owner != host or vm.generation != seen.generation:",
        new="        if False:",
        stories=("hosts/returns_with_a_vm_of_another",),
    ),
    Sabotage(
        name="a new life of the store begins by its machine's clock, whatever was seen before",
        rule="4",
        file="sim/store/life.py",
        old="        m.go_on_after(micros(seen))",
        new="        pass",
        more=(("sim/store/records.py", "        m.go_on_after(entry.version)", "        pass"),),
        stories=("store/clock_set_back_and_wiped",),
    ),
)
