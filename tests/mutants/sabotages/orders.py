"""Orders and promises: what is checked before an effect, and what is written before a word."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
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
        old="        self.still_held()\n        self.renew(begins=begins)\n        permitted_until",
        new="        permitted_until",
        stories=("hosts/worker_frozen_before_create", "controllers/fence_freeze_at_fence_before_cut"),
    ),
)
