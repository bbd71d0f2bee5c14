"""A host whose document cannot be read: nobody can tell its last boot, and only a report or a person lifts its hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fangnetz.core.actions import Action, OpenOperation, PutHostDoc, RememberProof, SettleWish
from fangnetz.core.model import (
    UNKNOWN_BOOT,
    ClusterView,
    Heartbeat,
    HostDoc,
    HostRecord,
    HostState,
    OffProof,
    VmRecord,
    VmState,
    WishKind,
)
from fangnetz.core.operations import OperationKind
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import unheard_in_this_life
from fangnetz.core.units import HostId, Instant
from tests.core.world import T0, beat, binding, decided, host_record, off_proof, view, vm_doc, vm_record, watched, wish

H1 = HostId("h1")
BROKEN = HostDoc(id=H1, maintenance=True, reason="it cannot be read", incarnation=UNKNOWN_BOOT)
WAITING = vm_record("web", None, 0, state=VmState.WAITING)


def wiped(
    *said: Heartbeat,
    doc: HostDoc = BROKEN,
    record: HostRecord | None = None,
    proofs: tuple[OffProof, ...] = (),
    vm: VmRecord = WAITING,
    hosts: tuple[str, ...] = ("h1", "h2", "h3"),
) -> ClusterView:
    """A life of the store that began 100 s ago, long after this controller; h1 says only what is given."""
    return view(
        T0,
        hosts=hosts,
        beats=[*said, beat("h2", T0 - 0.1), beat("h3", T0 - 0.1)],
        docs=[doc],
        records=[host_record("h2"), host_record("h3"), *([record] if record is not None else [])],
        bindings=[binding(h) for h in ("h1", "h2", "h3")],
        vms=[(vm_doc("web"), vm)],
        life_since=T0 - 100,
        proofs=proofs,
    )


def held(seen: ClusterView) -> tuple[HostId, ...]:
    return unheard_in_this_life(seen, watched(seen), Policy())


def starts(seen: ClusterView) -> list[str]:
    opened = [a.operation for a in decided(seen).actions if isinstance(a, OpenOperation)]
    return [op.subject for op in opened if op.kind is OperationKind.START]


REMEMBERED = {
    "nothing": wiped(),
    "its record names a boot proven off": wiped(record=host_record("h1", HostState.FENCED, proof=off_proof("h1", T0))),
    "files name a boot proven off": wiped(proofs=(off_proof("h1", T0 - 50),)),
    "it is not in the cluster file": wiped(hosts=("h2", "h3")),
}


@pytest.mark.parametrize("memory", list(REMEMBERED))
def test_it_holds_every_start_beyond_the_grace_whatever_boot_is_proven_off(memory: str) -> None:
    seen = REMEMBERED[memory]
    assert held(seen) == (H1,)
    assert starts(seen) == []


def test_it_holds_nothing_once_it_is_heard() -> None:
    seen = wiped(beat("h1", T0 - 0.1), record=host_record("h1"))
    assert held(seen) == ()
    assert starts(seen) == ["web"]


def wished(seen: ClusterView, kind: WishKind) -> tuple[SettleWish, list[Action]]:
    actions = list(decided(replace(seen, wishes=(wish(kind, "h1"),))).actions)
    (settled,) = [a for a in actions if isinstance(a, SettleWish)]
    return settled, actions[: actions.index(settled)]


def test_it_is_not_fenced_by_wish_since_no_cut_could_be_proven() -> None:
    settled, actions = wished(wiped(), WishKind.HOST_FENCE)
    assert not settled.granted
    assert "confirm-off" in settled.sentence
    assert actions == []


@pytest.mark.parametrize("hosts", [("h1", "h2", "h3"), ("h2", "h3")], ids=["in the file", "outside"])
def test_a_person_confirms_it_off_once_and_for_no_later_unknown_boot(hosts: tuple[str, ...]) -> None:
    settled, actions = wished(wiped(hosts=hosts), WishKind.HOST_CONFIRM_OFF)
    assert settled.granted
    (doc,) = [a.doc for a in actions if isinstance(a, PutHostDoc)]
    remembered: list[OffProof | None] = [a.proof for a in actions if isinstance(a, RememberProof)]
    (proof,) = remembered or [a.operation.proof for a in actions if isinstance(a, OpenOperation)]
    assert proof is not None
    assert doc.incarnation == proof.incarnation != UNKNOWN_BOOT
    # Files say it from the next life on: the hold goes, and comes again if the document breaks once more.
    older = replace(proof, proven_at=Instant(T0 - 500))
    assert held(wiped(doc=doc, proofs=(older,), hosts=hosts)) == ()
    assert held(wiped(proofs=(older,), hosts=hosts)) == (H1,)


def test_a_persons_word_is_about_the_boot_that_owns_its_vms_if_the_store_knows_it() -> None:
    owned = vm_record("web", "h1", 5, state=VmState.LOST)
    fenced = host_record("h1", HostState.FENCED, proof=off_proof("h1", T0 - 1))
    for seen in (wiped(vm=owned), wiped(record=host_record("h1")), wiped(record=fenced)):
        settled, actions = wished(seen, WishKind.HOST_CONFIRM_OFF)
        assert settled.granted
        assert [a.operation.incarnation for a in actions if isinstance(a, OpenOperation)] == ["i1"]
