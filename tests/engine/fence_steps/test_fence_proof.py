"""A fence that goes as it should: off, read back, and proven."""

from __future__ import annotations

from dataclasses import replace

from fangnetz.core.model import Power, ProofKind
from fangnetz.core.units import DeviceName, Seconds
from fangnetz.engine.execute import Next
from fangnetz.ports import PowerAnswer
from tests.contract.fence_devices import ScriptedDevice
from tests.engine.bench import Bench
from tests.engine.fence_steps.fencing import (
    fence,
    lost_host,
    proof,
)


def test_a_lost_host_is_switched_off_and_read_back(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    assert fence(bench).next is Next.GO_ON
    assert (ipmi.orders, ipmi.power) == ([Power.OFF], Power.OFF)
    found = proof(bench)
    assert found is not None
    assert (found.host, found.incarnation, found.kind) == ("h1", "i1", ProofKind.READ_BACK_OFF)
    (read,) = found.evidence
    assert (read.device, read.power, read.guid, read.raw) == ("ipmi", Power.OFF, ipmi.guid, "plug is off")
    facts = bench.step("fence").facts
    assert facts["fence_sent_at"] <= read.asked_at <= read.answered_at <= facts["fence_proven_at"]
    assert facts["answer/ipmi"] == "accepted"
    assert facts["read/ipmi"] == "off: plug is off"
    assert "fence_sent" in bench.events()


def test_a_bound_plug_that_is_off_already_is_proof_without_an_order(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.power = Power.OFF
    assert fence(bench).next is Next.GO_ON
    found = proof(bench)
    assert found is not None
    assert (ipmi.orders, found.kind) == ([], ProofKind.ALREADY_OFF)
    assert "fence_sent_at" not in bench.step("fence").facts


def test_a_slow_plug_is_waited_for(bench: Bench) -> None:
    (ipmi,) = lost_host(bench)
    ipmi.slow_for = 0.7
    assert fence(bench).next is Next.GO_ON
    assert (ipmi.orders, ipmi.power) == ([Power.OFF], Power.OFF)


def test_all_devices_of_a_level_must_be_off(bench: Bench) -> None:
    devices = lost_host(bench, ("a", "b"))
    assert fence(bench).next is Next.GO_ON
    assert [d.power for d in devices] == [Power.OFF, Power.OFF]
    found = proof(bench)
    assert found is not None
    assert {r.device for r in found.evidence} == {"a", "b"}


def test_only_what_is_on_is_switched(bench: Bench) -> None:
    a, b = lost_host(bench, ("a", "b"))
    a.power = Power.OFF
    assert fence(bench).next is Next.GO_ON
    assert (a.orders, b.orders) == ([], [Power.OFF])


def test_a_proof_that_was_there_and_was_withdrawn_is_not_used(bench: Bench) -> None:
    bench.members()
    bench.failover(proof=bench.proof("h1"))
    bench.ledger.write([replace(bench.proof("h1"), void=True)])
    bench.skip_to("fence")
    ipmi = bench.devices[DeviceName("ipmi")] = ScriptedDevice(name=DeviceName("ipmi"), guid="guid-of-h1")
    assert fence(bench).next is not Next.GO_ON
    assert (proof(bench), ipmi.orders) == (None, [])


def test_a_proof_that_was_there_already_is_used(bench: Bench) -> None:
    bench.members()
    bench.failover(proof=bench.proof("h1"))
    bench.skip_to("fence")
    assert fence(bench).next is Next.GO_ON
    assert proof(bench) == bench.found().proof


def test_a_person_may_have_a_living_host_fenced(bench: Bench) -> None:
    (ipmi,) = lost_host(bench, forced_by="ada")
    bench.report()
    bench.watch()
    assert fence(bench).next is Next.GO_ON
    assert ipmi.orders == [Power.OFF]


def test_a_sign_of_life_after_the_reading_makes_it_no_proof(bench: Bench) -> None:
    (ipmi,) = lost_host(bench, forced_by="ada")
    ipmi.power = Power.OFF
    asked = ipmi.status

    def status(bound: Seconds) -> PowerAnswer:
        answer = asked(bound)
        bench.report("h1")
        return answer

    ipmi.status = status
    assert fence(bench).next is Next.AGAIN
    assert proof(bench) is None
