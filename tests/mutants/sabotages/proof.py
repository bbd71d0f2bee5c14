"""What counts as proof that a host is off."""

from __future__ import annotations

from tests.mutants.sabotages.sabotage import Sabotage

SABOTAGES: tuple[Sabotage, ...] = (
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
        old="    return beat is not None and beat.incarnation == proof.incarnation and beat.received_at > _off_since(proof)",
        new="    return False",
        stories=("fencing/lying_bmc_while_the_worker_is_down",),
    ),
    Sabotage(
        name="a person's word stands against signs of life",
        rule="2d",
        file="core/decide/fence_wishes.py",
        old='    if life:\n        raise WishRefused(f"{host} cannot be confirmed off: {life}")\n',
        new="",
        stories=("operators/confirm_off_of_a_host_whose_worker_is_down",),
    ),
)
