"""What proves a host off: its own device, seen ON while this boot lived, reads OFF after the boot's last word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.fencing import (
    BindingState,
    bind,
    binding_state,
    contradicted,
    counts_as_off,
    proof_from_readings,
    protection,
    stands,
    unbind,
)
from fangnetz.core.model import Binding, Heartbeat, OffProof, Power, PowerReading, ProofKind
from fangnetz.core.units import DeviceName, HostId, Incarnation, Instant
from tests.core.world import LIFE, T0, beat, binding, guid_of, off_proof, reading, spec, view

I1 = Incarnation("i1")
HEARD = Instant(T0 - 2)
OFF = reading("h1", Power.OFF, T0)
BOUND = binding("h1")


def counts(off: PowerReading | None = OFF, bound: Binding | None = BOUND, boot: Incarnation = I1) -> bool:
    return counts_as_off(off, bound, boot, HEARD)


def test_a_bound_plug_that_reads_off_counts() -> None:
    assert counts()


@pytest.mark.parametrize("power", [Power.ON, Power.UNKNOWN])
def test_only_off_counts_and_an_error_is_not_off(power: Power) -> None:
    assert not counts(replace(OFF, power=power))


def test_no_reading_counts_for_nothing() -> None:
    assert not counts(None)


def test_off_from_a_plug_never_seen_on_is_no_proof() -> None:
    assert not counts(bound=None)


def test_seen_on_in_another_boot_is_not_seen_on() -> None:
    assert not counts(bound=binding("h1", boot="i0"))
    assert not counts(boot=Incarnation("i2"))
    assert not counts(boot=Incarnation(""))


@pytest.mark.parametrize("asked", [T0 - 2, T0 - 2.5])
def test_a_reading_not_younger_than_the_last_report_is_no_proof(asked: float) -> None:
    assert not counts(reading("h1", Power.OFF, asked, took=1.0))


def test_a_swapped_guid_is_no_proof() -> None:
    assert not counts(replace(OFF, guid=guid_of("h2")))
    assert not counts(bound=binding("h1", matches=False))
    assert not counts(replace(OFF, guid=""))


def test_a_binding_nobody_could_test_is_no_proof() -> None:
    assert not counts(bound=binding("h1", matches=None))


def test_a_plug_seen_on_after_the_question_disproves_it() -> None:
    assert not counts(bound=binding("h1", seen_on=T0 + 1))


def test_a_plug_that_read_off_while_its_boot_lived_is_not_believed() -> None:
    assert not counts(bound=replace(BOUND, read_off=True))
    assert binding_state(replace(BOUND, read_off=True), I1) is BindingState.READ_OFF


@pytest.mark.parametrize(
    ("asked", "boot", "spoils"),
    [(T0, "i1", True), (T0, "i2", False), (T0 - 100.0, "i1", False)],
    ids=["it lies", "about another boot", "before it was seen on"],
)
def test_off_while_the_boot_reports_spoils_its_binding(asked: float, boot: str, spoils: bool) -> None:
    off = replace(reading("h1", Power.OFF, asked), incarnation=Incarnation(boot))
    found = unbind(off, beat("h1", T0 + 2), binding("h1", seen_on=T0 - 50))
    assert (found is not None and found.read_off) is spoils


def test_off_that_was_asked_for_while_the_host_was_silent_spoils_nothing() -> None:
    assert unbind(replace(OFF, incarnation=Incarnation("")), beat("h1", T0 + 2), BOUND) is None
    assert unbind(OFF, beat("h1", T0 - 1), BOUND) is None, "it was not heard again"
    assert unbind(OFF, beat("h1", T0 + 2), None) is None


# --- binding -----------------------------------------------------------------------------------------------------

ON = reading("h1", Power.ON, T0, boot="i1")
AFTER = beat("h1", T0 + 0.5)


def test_on_between_two_reports_of_one_boot_is_remembered() -> None:
    made = bind(ON, AFTER)
    assert made is not None
    assert binding_state(made, I1) is BindingState.BOUND
    assert made.seen_on_at == T0


@pytest.mark.parametrize(
    ("said", "after"),
    [
        (replace(ON, power=Power.OFF), AFTER),
        (replace(ON, power=Power.UNKNOWN), AFTER),
        (replace(ON, incarnation=Incarnation("")), AFTER),
        (ON, beat("h1", T0 + 0.5, boot="i2")),
        (ON, beat("h1", T0 + 0.05)),
        (ON, beat("h1", T0 - 1)),
    ],
    ids=["off", "unknown", "nobody alive before", "another boot after", "at the very answer", "not heard since"],
)
def test_nothing_else_is(said: PowerReading, after: Heartbeat) -> None:
    assert bind(said, after) is None


def test_a_host_that_cannot_read_its_own_guid_is_not_tested() -> None:
    for said, after in ((ON, replace(AFTER, bmc_guids=())), (replace(ON, guid=""), AFTER)):
        made = bind(said, after)
        assert made is not None
        assert binding_state(made, I1) is BindingState.NOT_TESTED


def test_a_device_of_another_machine_is_a_mismatch() -> None:
    made = bind(replace(ON, guid=guid_of("h2")), AFTER)
    assert made is not None
    assert binding_state(made, I1) is BindingState.MISMATCH


# --- levels ------------------------------------------------------------------------------------------------------

PDUS = spec("h1", levels=(("ipmi",), ("pdu-a", "pdu-b")))


def proof_of(*said: PowerReading) -> OffProof | None:
    bound = {(HostId("h1"), DeviceName(d)): binding("h1", device=d) for d in ("ipmi", "pdu-a", "pdu-b")}
    return proof_from_readings(PDUS, I1, HEARD, said, bound, now=Instant(T0 + 1), life=LIFE)


def test_all_devices_of_a_level_must_be_off() -> None:
    a, b = (reading("h1", Power.OFF, T0, device=d) for d in ("pdu-a", "pdu-b"))
    assert proof_of(a) is None
    assert proof_of(a, replace(b, power=Power.ON)) is None
    assert proof_of(a, replace(b, power=Power.UNKNOWN)) is None
    proof = proof_of(a, b)
    assert proof is not None
    assert proof.evidence == (a, b)


def test_a_dark_first_level_leaves_it_to_the_next() -> None:
    dark = reading("h1", Power.UNKNOWN, T0)
    assert proof_of(dark) is None
    assert proof_of(dark, *(reading("h1", Power.OFF, T0, device=d) for d in ("pdu-a", "pdu-b"))) is not None


def test_a_host_without_devices_and_an_empty_level_are_never_proven() -> None:
    for levels in ((), ((),)):
        assert proof_from_readings(spec("h1", levels=levels), I1, HEARD, (OFF,), {}, now=Instant(T0), life=LIFE) is None


def test_a_proof_names_its_boot_and_keeps_its_evidence() -> None:
    proof = proof_of(OFF)
    assert proof is not None
    assert (proof.host, proof.incarnation, proof.kind) == ("h1", "i1", ProofKind.ALREADY_OFF)
    assert proof.evidence == (OFF,)


# --- how long a proof stands -------------------------------------------------------------------------------------


def test_a_proof_stands_for_its_boot_only() -> None:
    proof = off_proof("h1", T0)
    assert stands(proof, I1, None)
    assert stands(proof, I1, beat("h1", T0 - 1))
    assert stands(proof, I1, beat("h1", T0 + 9, boot="i2"))
    assert not stands(proof, Incarnation("i2"), None)
    assert not stands(proof, Incarnation(""), None)
    assert not stands(None, I1, None)
    assert not stands(replace(proof, void=True), I1, None)


def test_a_later_report_of_that_boot_voids_it() -> None:
    assert not stands(off_proof("h1", T0), I1, beat("h1", T0 + 0.1))


def test_a_report_between_the_answer_and_the_verdict_voids_it_too() -> None:
    """The device was read, the host spoke, and only then was the proof written down."""
    proof = off_proof("h1", T0 + 1, evidence=(reading("h1", Power.OFF, T0),))
    assert contradicted(proof, beat("h1", T0 + 0.5))
    assert not stands(proof, I1, beat("h1", T0 + 0.5))
    assert stands(proof, I1, beat("h1", T0 + 0.02))


# --- protection --------------------------------------------------------------------------------------------------


def test_a_host_is_protected_if_one_level_is_wholly_bound() -> None:
    whole = view(T0, bindings=[binding("h1", device="pdu-a"), binding("h1", device="pdu-b")])
    half = view(T0, bindings=[binding("h1", device="pdu-a")])
    assert protection(whole, PDUS, I1).protected
    assert not protection(half, PDUS, I1).protected
    assert not protection(whole, PDUS, Incarnation("i2")).protected
    assert not protection(whole, spec("h1", levels=()), I1).protected
    assert any("ipmi" in s for s in protection(half, PDUS, I1).sentences)
