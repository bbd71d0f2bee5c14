"""A move between two hosts: the numbers it comes on by, the copy that arrives, and ways to send it."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from fangnetz.core.convergence import Advice, Progress
from fangnetz.core.model import Destination, Sighting
from fangnetz.core.policy import Compression
from fangnetz.core.units import Generation, Incarnation, Seconds, VmId
from fangnetz.ports import Departed, Departure, Hypervisor, Migration
from tests.adapters.conftest import libvirtd, neighbour
from tests.contract.movers import THERE, Movers, RealMovers, SimMovers

__all__ = ["libvirtd", "neighbour"]
G7, G9 = Generation(7), Generation(9)
TO = Destination(host=THERE, incarnation=Incarnation("b"), generation=G9)


@pytest.fixture(params=[pytest.param("libvirtd", marks=pytest.mark.lab), "twin"])
def movers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Movers]:
    if request.param == "twin":
        yield SimMovers()
        return
    made = RealMovers(request.getfixturevalue("libvirtd"), request.getfixturevalue("neighbour"), tmp_path)
    yield made
    made.close()


@pytest.fixture
def vm(movers: Movers) -> VmId:
    """One that runs here and takes a few seconds to leave."""
    name = movers.new_vm()
    movers.here.create(name, movers.xml(name), G7)
    movers.slowly(name)
    return name


def move(movers: Movers, vm: VmId, advise: Callable[[Progress], Advice], **how: Any) -> Departed:
    migration = Migration(vm=vm, generation=G7, to=TO, downtime_s=Seconds(0.3), bound_s=Seconds(60.0), **how)
    return movers.here.migrate(migration, lambda: None, advise)


def seen(hypervisor: Hypervisor, vm: VmId) -> tuple[Sighting, Generation | None] | None:
    return next(((d.state, d.generation) for d in hypervisor.domains() if d.vm == vm), None)


def test_a_move_is_told_of_by_numbers_that_go_one_way_until_it_has_left(movers: Movers, vm: VmId) -> None:
    told: list[Progress] = []

    def advise(now: Progress) -> Advice:
        told.append(now)
        return Advice()

    assert move(movers, vm, advise).how is Departure.LEFT
    assert (seen(movers.here, vm), seen(movers.there, vm)) == (None, (Sighting.INCOMING, G9))
    assert len(told) >= 5
    for before, after in itertools.pairwise(told):
        assert before.elapsed_s <= after.elapsed_s
        assert before.sent_mib <= after.sent_mib
        assert before.rounds <= after.rounds
    assert all(0 <= now.remaining_mib <= now.total_mib for now in told)
    assert all(0 <= now.share <= 1 for now in told)
    assert 0 < told[-1].elapsed_s < 60
    last = told[-1]
    assert last.total_mib >= 32
    assert last.remaining_mib < last.total_mib
    assert last.share > told[0].share
    assert (last.sent_mib > 0, last.rounds >= 1) == (True, True)
    assert max(now.speed_mib_s for now in told) > 0
    assert max(now.downtime_s for now in told) > 0
    assert all(now.dirty_mib_s >= 0 for now in told)


def test_the_same_move_is_told_of_by_the_same_numbers_on_a_virtual_clock() -> None:
    def played() -> list[Progress]:
        movers, told = SimMovers(), list[Progress]()
        name = VmId("web")
        movers.here.create(name, movers.xml(name), G7)

        def advise(now: Progress) -> Advice:
            told.append(now)
            return Advice()

        move(movers, name, advise)
        return told

    assert played() == played() != []


@pytest.mark.parametrize(("connections", "compression"), [(1, "none"), (4, "none"), (1, "xbzrle")])
def test_a_vm_moves_over_several_connections_or_compressed_where_that_is_asked_for_and_only_there(
    movers: Movers, vm: VmId, connections: int, compression: str
) -> None:
    used: set[str] = set()
    answers: list[set[str]] = []

    def advise(_now: Progress) -> Advice:
        if isinstance(movers, RealMovers) and not used:
            used.update(told_to_qemu(movers, vm, answers))
        return Advice()

    departed = move(movers, vm, advise, connections=connections, compression=Compression(compression))
    assert departed.how is Departure.LEFT, departed.sentence
    assert seen(movers.there, vm) == (Sighting.INCOMING, G9)
    if isinstance(movers, RealMovers):
        if not answers:
            pytest.skip("on this busy machine it had left before QEMU could be asked")
        multifd = {"multifd", "4 channels"} if connections > 1 else set[str]()
        assert used == multifd | {compression} - {"none"}


@pytest.mark.parametrize("movers", [pytest.param("libvirtd", marks=pytest.mark.lab)], indirect=True)
def test_a_compression_that_this_libvirt_does_not_know_leaves_the_vm_where_it_is(movers: Movers, vm: VmId) -> None:
    assert isinstance(movers, RealMovers)
    if movers.hands.getLibVersion() >= 9_004_000:
        pytest.skip("this libvirt knows them all")
    departed = move(movers, vm, lambda _now: Advice(), connections=2, compression=Compression.ZSTD)
    assert departed.how is Departure.STAYED
    assert "zstd" in departed.sentence
    assert (seen(movers.here, vm), seen(movers.there, vm)) == ((Sighting.RUNNING, G7), None)


def told_to_qemu(movers: RealMovers, vm: VmId, answers: list[set[str]]) -> set[str]:
    """What QEMU was told to use for the migration under way; asked until it was told anything, for a second."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        try:
            on = {each["capability"] for each in asked(movers, vm, "query-migrate-capabilities") if each["state"]}
            channels = asked(movers, vm, "query-migrate-parameters")["multifd-channels"]
        except libvirt.libvirtError:
            break  # it has left
        answers.append(on)
        if found := on & {"multifd", "xbzrle", "compress"}:
            return found | ({f"{channels} channels"} if "multifd" in on else set())
    return set()


def asked(movers: RealMovers, vm: VmId, command: str) -> Any:
    domain = movers.hands.lookupByName(vm)
    return json.loads(libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": command}), 0))["return"]
