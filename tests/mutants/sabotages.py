"""The sabotages, as plain values: one piece of code replaced by a wrong one, and which rule that offends.

`stories` are played first; only if they see nothing are all other scenarios and stories by chance.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """`old` stands exactly once in `file` (below `fangnetz/`). `rule`: the number of the rule it offends, or a word."""

    name: str
    rule: str
    file: str
    old: str
    new: str
    stories: tuple[str, ...] = ()
    more: tuple[tuple[str, str, str], ...] = ()
    """Further (file, old, new): guards behind the guard, which would hide that this one is gone."""


SABOTAGES: tuple[Sabotage, ...] = (
    # -- proof ----------------------------------------------------------------------------------------------------
    Sabotage(
        name="whatever a device reads is proof",
        rule="2a",
        file="core/fencing.py",
        old="            counts_as_off(latest.get(device), bindings.get((spec.id, device)), incarnation, heard_at)\n",
        new="            device in latest\n",
        stories=("network/one_host_cut", "fencing/bmc_dark"),
    ),
    Sabotage(
        name="the power is not read back after the cut",
        rule="2a",
        file="engine/steps/fence.py",
        old="            readings = self._read_all(attempt, level)\n            proof = self._proof(attempt, readings, kind)",
        new="            readings = {n: replace(r, power=Power.OFF, asked_at=self._store.now(), answered_at=self._store.now())"
        " for n, r in readings.items()}\n            proof = self._proof(attempt, readings, kind)",
        stories=("fencing/bmc_slow", "network/one_host_cut"),
    ),
    Sabotage(
        name="a binding is not asked for",
        rule="2a",
        file="core/fencing.py",
        old="        and binding_state(binding, incarnation) is BindingState.BOUND\n        and reading.guid == binding.guid",
        new="        and reading.guid == binding.guid",
        stories=("fencing/lying_bmc_found_out_before_its_host_is_cut",),
    ),
    Sabotage(
        name="a device that lied is believed again",
        rule="2a",
        file="core/fencing.py",
        old="    if binding.read_off:\n        return BindingState.READ_OFF\n",
        new="",
        stories=("fencing/lying_bmc_found_out_before_its_host_is_cut",),
    ),
    Sabotage(
        name="an error of a device is read as off",
        rule="2a",
        file="core/fencing.py",
        old="        and reading.power is Power.OFF\n        and reading.asked_at > heard_at",
        new="        and reading.power is not Power.ON\n        and reading.asked_at > heard_at",
        stories=("fencing/bmc_dark", "network/bmc_link_cut_of_a_lost_host", "fencing/wrong_password"),
        more=(("core/fencing.py", "        and reading.guid == binding.guid\n", ""),),
    ),
    Sabotage(
        name="a proof of an earlier boot is taken for this one's",
        rule="2",
        file="core/fencing.py",
        old="    if proof is None or proof.void or not incarnation or proof.incarnation != incarnation:\n        return False\n"
        "    return not contradicted(proof, beat)",
        new="    if proof is None or proof.void or not incarnation:\n        return False\n"
        "    return not contradicted(proof, beat)",
        stories=("power/comes_back_and_rejoins", "power/flapping"),
    ),
    Sabotage(
        name="a sign of life does not void a proof",
        rule="2a",
        file="core/fencing.py",
        old="    return beat is not None and beat.incarnation == proof.incarnation and beat.received_at > off_since",
        new="    return False",
        stories=("fencing/lying_bmc_while_the_worker_is_down",),
    ),
    Sabotage(
        name="a person's word stands against signs of life",
        rule="2d",
        file="core/decide/wishes.py",
        old='    if life:\n        raise WishRefused(f"{host} cannot be confirmed off: {life}")\n',
        new="",
        stories=("operators/confirm_off_of_a_host_whose_worker_is_down",),
    ),
    # -- orders and promises --------------------------------------------------------------------------------------
    Sabotage(
        name="a refusal is reported without a promise",
        rule="3",
        file="engine/steps/vm.py",
        old="        self._held.promise(order, sentence)\n        attempt = context.step.key",
        new="        attempt = context.step.key",
        stories=("placement/start_refused_once", "placement/start_refused_everywhere"),
    ),
    Sabotage(
        name="a stop is reported without a promise",
        rule="3",
        file="engine/steps/vm.py",
        old='        sentence = f"{order.vm} is stopped on {order.host}"\n        self._held.promise(order, sentence)',
        new='        sentence = f"{order.vm} is stopped on {order.host}"',
        stories=("operators/stop_and_start",),
    ),
    Sabotage(
        name="a start without an answer is taken for a refusal",
        rule="3",
        file="engine/steps/vm.py",
        old='            return again(f"{order.host} was asked to start {order.vm} and its libvirt did not answer: {error}")',
        new="            return self._refuse(context, order, str(error))",
        stories=("hosts/libvirt_hangs_as_a_start_is_sent", "hosts/libvirt_hung_while_it_starts"),
        more=(
            (
                "engine/steps/vm.py",
                '            self._hypervisor.settled(order.vm)\n        except HypervisorUnreachable as error:\n            return again(f"{sentence}',
                '            pass\n        except HypervisorUnreachable as error:\n            return again(f"{sentence}',
            ),
        ),
    ),
    Sabotage(
        name="a generation is not raised for a new owner",
        rule="3",
        file="sim/store/journal.py",
        old="        number = Generation(m.next_number(give.expected, give.floor))",
        new="        number = Generation(give.expected)",
        stories=("power/power_loss",),
    ),
    Sabotage(
        name="numbers come back after the store was rolled back",
        rule="4",
        file="sim/store/memory.py",
        old="        return max(*(number + 1 for number in seen), self.now_us())",
        new="        return max(number + 1 for number in seen)",
        stories=("store/rolled_back", "store/wiped"),
    ),
    Sabotage(
        name="an order is carried out whatever boot, life, deadline and number it names",
        rule="3",
        file="sim/store/journal.py",
        old='    order = step.order\n    if step.kind not in AT_A_HOST:\n        return ""\n',
        new='    order = step.order\n    if True:\n        return ""\n',
        stories=("messages/late_and_out_of_order", "store/rolled_back", "power/reset_with_a_quick_boot"),
    ),
    Sabotage(
        name="an epoch that is over is not noticed",
        rule="3",
        file="sim/store/memory.py",
        old="        return self.epoch == epoch and self.lease_memory == self.identity",
        new="        return True",
        stories=("controllers/control_frozen_before_it_writes",),
    ),
    Sabotage(
        name="the last look before an effect is left out",
        rule="5",
        file="engine/execute.py",
        old="        self.still_held()\n        self.renew()\n        permitted_until",
        new="        permitted_until",
        stories=("hosts/worker_frozen_before_create", "controllers/fence_freeze_at_fence_before_cut"),
    ),
    # -- numbers and lives of the store ---------------------------------------------------------------------------
    Sabotage(
        name="the hold after a change of the store is left out",
        rule="4",
        file="core/quorum.py",
        old="        if not _inventory_known(view, host)\n",
        new="        if False and not _inventory_known(view, host)\n",
        stories=("store/wiped_while_a_host_is_dark", "store/wiped_and_a_host_is_gone"),
    ),
    Sabotage(
        name="a write that no replica confirmed counts",
        rule="4",
        file="sim/store/server.py",
        old="        if confirmed and self.replicas:\n            if self.replicas < 0:",
        new="        if False and self.replicas:\n            if self.replicas < 0:",
        stories=("store/failover", "store/failover_during_a_failover"),
    ),
    Sabotage(
        name="the lease is taken while another holds it",
        rule="4",
        file="sim/store/life.py",
        old="    if m.holder is not None and not mine and m.lease_until > at:\n        return None\n",
        new="",
        stories=("power/power_loss",),
    ),
    # -- one executor ---------------------------------------------------------------------------------------------
    Sabotage(
        name="a step's lease is not asked for",
        rule="5",
        file="sim/store/journal.py",
        old="    if step.state is StepState.RUNNING and not mine and until > now:\n"
        '        return _refused(identity, key, "leased", until - now), step.state\n',
        new="",
        stories=("messages/all_doubled",),
    ),
    Sabotage(
        name="a step that is done is done again",
        rule="5",
        file="sim/store/journal.py",
        old='    if step.settled:\n        return "settled"\n',
        new="",
        stories=("messages/all_doubled", "messages/late_by_an_hour"),
    ),
    Sabotage(
        name="a host is switched on while a lost executor may cut it",
        rule="5",
        file="core/decide/returns.py",
        old="    if view.now < max(record.cut_possible_until, record.since + policy.power_on_after_s):",
        new="    if False:",
        stories=("fencing/power_on_again", "controllers/fence_freeze_at_fence_sent"),
    ),
    # -- mass failure and silence ---------------------------------------------------------------------------------
    Sabotage(
        name="brakes are off",
        rule="6",
        file="core/quorum.py",
        old="    found: list[Brake] = []\n    doc = view.host_docs.get(host)",
        new="    return ()\n    found: list[Brake] = []\n    doc = view.host_docs.get(host)",
        stories=("network/all_hosts_cut", "network/split_in_halves"),
    ),
    Sabotage(
        name="one host more than allowed may be lost",
        rule="6",
        file="core/quorum.py",
        old="    return max(1, math.floor(voters * share))",
        new="    return max(1, math.floor(voters * share)) + 1",
        stories=("power/two_lost_at_once", "network/split_in_halves"),
    ),
    Sabotage(
        name="no host may be lost where a third of them is none",
        rule="6",
        file="core/quorum.py",
        old="    return max(1, math.floor(voters * share))",
        new="    return math.floor(voters * share)",
        stories=("network/one_of_two_hosts_cut",),
    ),
    Sabotage(
        name="the startup grace is left out",
        rule="6",
        file="core/quorum.py",
        old="    if in_grace(view, watch, policy) and unreported:",
        new="    if False and unreported:",
        stories=("store/wiped_while_a_host_is_cut",),
    ),
    Sabotage(
        name="a host nobody could ask is called lost",
        rule="7",
        file="core/detector.py",
        old='        return verdict(Finding.UNKNOWN, f"{missing}, and no prober that reaches others could ask it", *signals)',
        new='        return verdict(Finding.LOST, f"{missing}, and no prober that reaches others could ask it", *signals)',
        stories=("network/controller_in_charge_cut", "network/all_hosts_cut"),
    ),
    Sabotage(
        name="a host that answers probes is called lost",
        rule="evidence",
        file="core/detector.py",
        old="    if answered:\n        return verdict(\n            Finding.SUSPECT,",
        new="    if answered:\n        return verdict(\n            Finding.LOST,",
        stories=("hosts/worker_killed", "hosts/libvirt_hung"),
    ),
    Sabotage(
        name="a gap of the store counts as a host's silence",
        rule="7",
        file="core/detector.py",
        old="        before = None if previous is None or gap else previous.hosts.get(host)",
        new="        before = None if previous is None else previous.hosts.get(host)",
        stories=("store/back_just_before_a_host_freezes",),
    ),
    # -- reality --------------------------------------------------------------------------------------------------
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
    # -- moves ----------------------------------------------------------------------------------------------------
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
    # -- liveness -------------------------------------------------------------------------------------------------
    Sabotage(
        name="nobody sends lost steps again",
        rule="9",
        file="engine/tick.py",
        old="            if step.not_before <= now and not young:",
        new="            if False:",
        stories=("messages/all_lost", "controllers/work_killed_at_plan_claimed"),
    ),
    Sabotage(
        name="a VM that ended is not started again",
        rule="9",
        file="core/decide/vms.py",
        old="                self._ended_by_itself(record, owner)",
        new="                pass",
        stories=("vms/crash",),
    ),
    Sabotage(
        name="a plan made from what others placed meanwhile is written",
        rule="3",
        file="sim/store/journal.py",
        old="    if assigns and m.placements != placements:",
        new="    if False:",
        stories=("placement/two_lost_and_room_for_one",),
    ),
    Sabotage(
        name="a guest that arrived on a host's next boot is left waiting",
        rule="9",
        file="core/decide/arrivals.py",
        old="            if beat.incarnation != record.owner_incarnation:\n                reason",
        new="            if beat.incarnation != record.owner_incarnation:\n                return found\n                reason",
        stories=("migration/target_boots_anew_behind_a_split",),
    ),
    # -- relocation -----------------------------------------------------------------------------------------------
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
    # -- placement rules ------------------------------------------------------------------------------------------
    Sabotage(
        name="a host that is not allowed takes a VM",
        rule="placement",
        file="core/rules.py",
        old="            if rules.strict and rules.allowed and host not in rules.allowed:",
        new="            if False:",
        stories=("placement/only_where_it_is_allowed",),
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
