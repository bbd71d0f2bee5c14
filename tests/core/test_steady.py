"""What keeps a host or a VM from being passed over: whatever anybody could still have to do with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fangnetz.core.decide.steady import host_is_steady, vm_is_steady
from fangnetz.core.detector import Finding, Verdict
from fangnetz.core.model import (
    DROPPED,
    FROM_FILE,
    REMOVED,
    Destination,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostState,
    HypervisorHealth,
    Leaving,
    OffProof,
    ProofKind,
    Sighting,
    VmDoc,
    VmRecord,
    VmSighting,
    VmSpec,
    VmState,
    VmWish,
)
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, MiB, Seconds, VmId

HOST, BOOT, OTHER = HostId("h1"), Incarnation("b1"), Incarnation("b0")
PROOF = OffProof(
    host=HOST, incarnation=BOOT, kind=ProofKind.ALREADY_OFF, proven_at=Instant(1.0), sentence="h1 is off"
)  # fmt: skip
OF_HOST: dict[str, Any] = {
    "record": HostRecord(id=HOST, state=HostState.ONLINE, incarnation=BOOT, proof=replace(PROOF, incarnation=OTHER)),
    "verdict": Verdict(
        host=HOST, finding=Finding.ALIVE, incarnation=BOOT, silent_for=Seconds(0.0), signals=(), sentence="h1 reports"
    ),
    "beat": Heartbeat(
        host=HOST,
        incarnation=BOOT,
        sequence=1,
        hypervisor=HypervisorHealth.OK,
        inventory=(),
        inventory_age_s=Seconds(0.0),
    ),
    "doc": HostDoc(id=HOST, incarnation=BOOT),
    "remembered": replace(PROOF, incarnation=OTHER),
}
VM = VmId("vm1")
OF_VM: dict[str, Any] = {
    "doc": VmDoc(spec=VmSpec(id=VM, memory_mib=MiB(512), cpus=1), xml="", wish=VmWish.RUNNING, source=FROM_FILE),
    "record": VmRecord(
        id=VM,
        state=VmState.RUNNING,
        owner=HOST,
        owner_incarnation=BOOT,
        generation=Generation(7),
        since=Instant(1.0),
    ),
    "host": HOST,
    "boot": BOOT,
    "seen": VmSighting(vm=VM, state=Sighting.RUNNING, generation=Generation(7)),
}


def test_a_host_that_is_well_and_a_vm_that_runs_where_it_belongs_are_steady() -> None:
    assert host_is_steady(**OF_HOST)
    assert vm_is_steady(**OF_VM)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        *(("verdict", {"finding": finding}) for finding in Finding if finding is not Finding.ALIVE),
        ("verdict", {"incarnation": OTHER}),
        *(("record", {"state": state}) for state in HostState if state is not HostState.ONLINE),
        ("record", {"incarnation": OTHER}),
        ("record", {"proof": PROOF}),
        ("record", {"suspected_at": Instant(2.0)}),
        ("record", {"leaving_at": Instant(2.0)}),
        ("beat", {"leaving": Leaving.REBOOT}),
        ("beat", {"incarnation": OTHER}),
        ("doc", {"incarnation": OTHER}),
        ("doc", {"maintenance": True}),
        ("doc", {"evacuate": True}),
        ("doc", {"quarantine": "it was lost three times"}),
        ("remembered", {"incarnation": BOOT}),
        ("remembered", {"incarnation": BOOT, "void": True}),
    ],
)
def test_a_host_is_not_passed_over_if(what: str, change: dict[str, Any]) -> None:
    assert not host_is_steady(**{**OF_HOST, what: replace(OF_HOST[what], **change)})


@pytest.mark.parametrize("what", ["beat", "doc"])
def test_a_host_of_which_nothing_is_known_is_not_passed_over(what: str) -> None:
    assert not host_is_steady(**{**OF_HOST, what: None})


@pytest.mark.parametrize(
    ("what", "change"),
    [
        *(("record", {"state": state}) for state in VmState if state is not VmState.RUNNING),
        ("record", {"owner": HostId("h2")}),
        ("record", {"owner": None}),
        ("record", {"owner_incarnation": OTHER}),
        ("record", {"generation": Generation(8)}),
        ("record", {"moving": Destination(host=HostId("h2"), incarnation=OTHER, generation=Generation(8))}),
        ("record", {"kept": Generation(7)}),
        ("record", {"failures": 1}),
        *(("seen", {"state": state}) for state in Sighting if state is not Sighting.RUNNING),
        ("seen", {"generation": None}),
        ("seen", {"generation": Generation(8)}),
        ("seen", {"held": True}),
        *(("doc", {"wish": wish}) for wish in VmWish if wish is not VmWish.RUNNING),
        ("doc", {"source": DROPPED}),
        ("doc", {"source": REMOVED}),
    ],
)
def test_a_vm_is_not_passed_over_if(what: str, change: dict[str, Any]) -> None:
    assert not vm_is_steady(**{**OF_VM, what: replace(OF_VM[what], **change)})
