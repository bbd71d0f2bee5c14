"""The libvirt adapter on a real libvirtd with QEMU (TCG) and virtlockd, all in namespaces of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable, StorageLeaseHeld
from fangnetz.core.model import Sighting
from fangnetz.core.units import Generation, Instant, Seconds, VmId
from tests.adapters.conftest import Libvirtd, wait_for

pytestmark = pytest.mark.lab

QUICK = Seconds(1.0)


def xml(vm: str, devices: str = "") -> str:
    return f"""<domain type="qemu" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0"><name>{vm}</name>
    <memory unit="MiB">32</memory><vcpu>1</vcpu><os><type arch="x86_64" machine="q35">hvm</type></os>
    <devices>{devices}</devices>
    <qemu:commandline><qemu:arg value="-name"/><qemu:arg value="kept"/></qemu:commandline></domain>"""


def lease(libvirtd: Libvirtd, key: str) -> str:
    (libvirtd.shared / "fn" / key).touch()
    return f"<lease><lockspace>fn</lockspace><key>{key}</key><target path='{libvirtd.shared}'/></lease>"


def disk(libvirtd: Libvirtd, name: str) -> str:
    path = libvirtd.shared / name
    path.write_bytes(b"\0" * 1048576)
    source = f"<driver type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/>"
    return f"<disk type='file'>{source}</disk>"


@pytest.fixture
def boot(tmp_path: Path) -> BootFilesOnDisk:
    return BootFilesOnDisk(tmp_path / "run")


@pytest.fixture
def hypervisor(libvirtd: Libvirtd, boot: BootFilesOnDisk) -> Iterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(libvirtd.uri, boot, settle=Seconds(2))
    yield hypervisor
    for domain in hypervisor.domains():
        assert wait_for(lambda vm=domain.vm: ended(hypervisor, vm), 30)  # type: ignore[misc]
    hypervisor.close()


def ended(hypervisor: LibvirtHypervisor, vm: VmId) -> bool:
    try:
        hypervisor.destroy(vm)
    except HypervisorUnreachable:
        return False
    return True


def seen(hypervisor: LibvirtHypervisor) -> dict[str, tuple[Sighting, Generation | None]]:
    return {domain.vm: (domain.state, domain.generation) for domain in hypervisor.domains()}


def test_a_real_vm_starts_is_seen_and_ends(hypervisor: LibvirtHypervisor, libvirtd: Libvirtd) -> None:
    told = threading.Event()
    hypervisor.watch(told.set)
    assert hypervisor.domains() == ()
    told.clear()
    hypervisor.create(VmId("web"), xml("web"), Generation(7))
    assert told.wait(5)
    assert seen(hypervisor) == {"web": (Sighting.RUNNING, 7)}
    other = libvirt.open(libvirtd.uri)
    domain = other.lookupByName("web")
    assert not domain.isPersistent()
    assert "kept" in domain.XMLDesc()
    domain.suspend()
    assert seen(hypervisor) == {"web": (Sighting.PAUSED, 7)}
    other.close()
    hypervisor.destroy(VmId("web"))
    assert hypervisor.domains() == ()


def test_a_real_copy_is_paused_keeps_its_mark_and_ends(hypervisor: LibvirtHypervisor) -> None:
    vm, sent = VmId("web"), Instant(1_700_000_000.25)
    hypervisor.create(vm, xml(vm), Generation(7), start_sent_at=sent)
    with pytest.raises(HypervisorRefused):
        hypervisor.suspend(vm, Generation(6))
    for _ in range(2):
        hypervisor.suspend(vm, Generation(7))
        assert seen(hypervisor) == {vm: (Sighting.PAUSED, 7)}
    assert [(domain.start_sent_at, domain.held) for domain in hypervisor.domains()] == [(sent, True)]
    hypervisor.shutdown(vm)  # a paused guest is asked all the same; it is switched off when it does not obey
    hypervisor.destroy(vm)
    assert hypervisor.domains() == ()


def test_what_a_real_vm_uses_is_its_qemu_s_memory_and_time(hypervisor: LibvirtHypervisor, libvirtd: Libvirtd) -> None:
    hypervisor.create(VmId("web"), xml("web"), Generation(7))
    (before,) = hypervisor.consumed()
    assert before.vm == "web"
    assert before.memory_mib is not None
    assert before.memory_mib != 32, "what it is given is not what it holds"
    assert wait_for(lambda: hypervisor.consumed()[0].cpu_s > before.cpu_s, 30), "its firmware computes"
    other = libvirt.open(libvirtd.uri)
    other.lookupByName("web").suspend()
    assert hypervisor.consumed() == ()
    other.close()


def test_a_held_lease_is_named_and_leaves_nothing_behind(hypervisor: LibvirtHypervisor, libvirtd: Libvirtd) -> None:
    hypervisor.create(VmId("one"), xml("one", lease(libvirtd, "db1")), Generation(1))
    with pytest.raises(StorageLeaseHeld):
        hypervisor.create(VmId("two"), xml("two", lease(libvirtd, "db1")), Generation(2))
    assert seen(hypervisor) == {"one": (Sighting.RUNNING, 1)}
    hypervisor.destroy(VmId("one"))
    hypervisor.create(VmId("two"), xml("two", lease(libvirtd, "db1")), Generation(3))
    assert seen(hypervisor) == {"two": (Sighting.RUNNING, 3)}


def test_a_missing_lease_file_is_a_refusal_but_no_held_lease(hypervisor: LibvirtHypervisor, libvirtd: Libvirtd) -> None:
    devices = lease(libvirtd, "gone")
    (libvirtd.shared / "fn" / "gone").unlink()
    with pytest.raises(HypervisorRefused) as refused:
        hypervisor.create(VmId("web"), xml("web", devices), Generation(1))
    assert type(refused.value) is HypervisorRefused


def test_a_disk_in_use_is_a_held_lease(hypervisor: LibvirtHypervisor, libvirtd: Libvirtd) -> None:
    devices = disk(libvirtd, "disk.raw")
    hypervisor.create(VmId("one"), xml("one", devices), Generation(1))
    with pytest.raises(StorageLeaseHeld):
        hypervisor.create(VmId("two"), xml("two", devices), Generation(1))
    assert seen(hypervisor) == {"one": (Sighting.RUNNING, 1)}


def test_a_missing_disk_is_a_refusal(hypervisor: LibvirtHypervisor, libvirtd: Libvirtd) -> None:
    devices = disk(libvirtd, "lost.raw")
    (libvirtd.shared / "lost.raw").unlink()
    with pytest.raises(HypervisorRefused) as refused:
        hypervisor.create(VmId("web"), xml("web", devices), Generation(1))
    assert type(refused.value) is HypervisorRefused
    assert hypervisor.domains() == ()


def test_a_hung_libvirtd_is_unreachable_in_time_and_well_again_after(libvirtd: Libvirtd, boot: BootFilesOnDisk) -> None:
    hypervisor = LibvirtHypervisor(libvirtd.uri, boot, question_bound=QUICK)
    assert hypervisor.domains() == ()
    libvirtd.freeze()
    try:
        for _ in range(12):
            began = time.monotonic()
            with pytest.raises(HypervisorUnreachable):
                hypervisor.domains()
            assert time.monotonic() - began < 3
        assert threading.active_count() < 40
    finally:
        libvirtd.thaw()
    assert wait_for(lambda: answers(hypervisor), 20)
    assert wait_for(lambda: not hypervisor._questions.abandoned, 20)
    hypervisor.close()


def test_a_start_sent_to_a_frozen_libvirtd_is_not_taken_for_refused_nor_ended(
    libvirtd: Libvirtd, boot: BootFilesOnDisk
) -> None:
    hypervisor = LibvirtHypervisor(libvirtd.uri, boot, create_bound=QUICK, settle=Seconds(3))
    told: list[str] = []
    assert hypervisor.domains() == ()
    vm = VmId("late")
    try:
        with pytest.raises(HypervisorUnreachable):  # it freezes between the adapter's questions and its createXML
            hypervisor.create(vm, xml(vm), Generation(4), libvirtd.freeze)
        with pytest.raises(HypervisorUnreachable):
            hypervisor.settled(vm)
    finally:
        libvirtd.thaw()
    # The thawed libvirtd starts it after all. Whoever ends it now must not be told "gone" before it was there.
    deadline = time.monotonic() + 30
    while not told and time.monotonic() < deadline:
        try:
            hypervisor.destroy(vm)
            told.append("gone")
        except HypervisorUnreachable:
            time.sleep(0.05)
    assert told == ["gone"]
    for _ in range(20):
        assert vm not in seen(hypervisor)
        time.sleep(0.1)
    hypervisor.close()


STARTER = """
import sys
from pathlib import Path
from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
def last_look():
    print("now", flush=True)
    sys.stdin.readline()
boot = BootFilesOnDisk(Path(sys.argv[2]))
LibvirtHypervisor(sys.argv[1], boot).create(sys.argv[3], sys.argv[4], 4, last_look)
"""


def test_a_start_a_killed_worker_sent_to_a_frozen_libvirtd_is_not_taken_for_ended(
    libvirtd: Libvirtd, tmp_path: Path
) -> None:
    vm, run_dir = VmId("late"), tmp_path / "run"
    worker = subprocess.Popen(
        [sys.executable, "-c", STARTER, libvirtd.uri, run_dir, vm, xml(vm)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stdout.readline() == "now\n"
    libvirtd.freeze()
    try:
        worker.stdin.write("go on\n")
        worker.stdin.flush()
        assert wait_for(lambda: any(run_dir.rglob("late.json")), 10)
        time.sleep(0.5)  # it hangs in createXML now
        worker.kill()
        worker.communicate()
        next_worker = LibvirtHypervisor(
            libvirtd.uri, BootFilesOnDisk(run_dir), question_bound=QUICK, settle_inherited=Seconds(20)
        )
        with pytest.raises(HypervisorUnreachable):
            next_worker.settled(vm)
    finally:
        libvirtd.thaw()
    # Whoever ends it must not be told "gone" before it was there.
    gone, deadline = False, time.monotonic() + 90
    while not gone and time.monotonic() < deadline:
        gone = ended(next_worker, vm)
        time.sleep(0.05)
    assert gone
    for _ in range(20):
        assert wait_for(lambda: answers(next_worker), 30)
        assert vm not in seen(next_worker)
        time.sleep(0.1)
    next_worker.close()


def test_a_killed_libvirtd_is_noticed_and_found_again(libvirtd: Libvirtd, hypervisor: LibvirtHypervisor) -> None:
    told = threading.Event()
    hypervisor.watch(told.set)
    hypervisor.create(VmId("web"), xml("web"), Generation(7))
    libvirtd.signal(signal.SIGKILL)
    with pytest.raises(HypervisorUnreachable):
        hypervisor.domains()
    libvirtd.restart()
    assert wait_for(lambda: answers(hypervisor), 30)
    assert seen(hypervisor) == {"web": (Sighting.RUNNING, 7)}
    told.clear()
    hypervisor.destroy(VmId("web"))
    assert told.wait(5)


def test_a_migrations_target_is_incoming_and_no_copy_until_it_runs(
    hypervisor: LibvirtHypervisor, libvirtd: Libvirtd, neighbour: Libvirtd, tmp_path: Path
) -> None:
    target, vm = LibvirtHypervisor(neighbour.uri, BootFilesOnDisk(tmp_path / "neighbour")), VmId("web")
    hypervisor.create(vm, xml(vm), Generation(7))
    source_side, target_side = libvirt.open(libvirtd.uri), libvirt.open(neighbour.uri)
    how = {libvirt.VIR_MIGRATE_PARAM_URI: "tcp://127.0.0.1:49400", libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 1}
    domain = source_side.lookupByName(vm)
    moving = threading.Thread(target=domain.migrate3, args=(target_side, how, libvirt.VIR_MIGRATE_LIVE))
    here, there = set(), set()
    moving.start()
    while moving.is_alive():
        there |= set(seen(target).values())
        here |= set(seen(hypervisor).values())
        time.sleep(0.02)
    moving.join()
    assert there <= {(Sighting.INCOMING, 7), (Sighting.RUNNING, 7)}
    assert (Sighting.INCOMING, 7) in there
    assert here <= {(Sighting.RUNNING, 7), (Sighting.PAUSED, 7)}
    assert seen(hypervisor) == {}
    assert seen(target) == {"web": (Sighting.RUNNING, 7)}
    target.destroy(vm)
    for side in (source_side, target_side):
        side.close()
    target.close()


def test_an_idle_poll_costs_less_than_a_hundredth_of_a_core(hypervisor: LibvirtHypervisor) -> None:
    for number in range(2):
        hypervisor.create(VmId(f"vm{number}"), xml(f"vm{number}"), Generation(1))
    hypervisor.domains()
    began = time.process_time()
    for _ in range(100):
        hypervisor.domains()
    assert (time.process_time() - began) / 100 < 0.005


def answers(hypervisor: LibvirtHypervisor) -> bool:
    try:
        hypervisor.domains()
    except HypervisorUnreachable:
        return False
    return True
