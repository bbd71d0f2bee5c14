"""What this host lacks for a VM that is to come, how a migration comes on, and how libvirt's log says one ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
from fangnetz.adapters.libvirt.domain_xml import Mark, as_element, mark_in, with_mark
from fangnetz.adapters.libvirt.migrating import last_end, progress_of
from fangnetz.core.errors import HypervisorRefused
from fangnetz.core.units import Generation, VmId

WEB = VmId("web")


def xml(devices: str = "", name: str = "web") -> str:
    return (
        f"<domain type='test'><name>{name}</name><memory>4096</memory><os><type>hvm</type></os>"
        f"<devices>{devices}</devices></domain>"
    )


@pytest.fixture
def hypervisor(tmp_path: Path) -> Iterator[LibvirtHypervisor]:
    made = LibvirtHypervisor("test:///default", BootFilesOnDisk(tmp_path / "run"))
    yield made
    made.close()


# --- what it lacks -----------------------------------------------------------------------------------------------


def test_a_host_that_lacks_nothing_says_nothing(hypervisor: LibvirtHypervisor, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.touch()
    there = (
        f"<disk type='file' device='disk'><source file='{disk}'/><target dev='vda'/></disk>"
        "<interface type='network'><source network='default'/></interface>"
        "<interface type='bridge'><source bridge='lo'/></interface>"
    )
    hypervisor.receivable(WEB, xml(there))


@pytest.mark.parametrize(
    ("devices", "lacks"),
    [
        ("<disk type='file' device='disk'><source file='/nowhere/web.raw'/></disk>", "the disk /nowhere/web.raw"),
        ("<disk type='block' device='disk'><source dev='/dev/none'/></disk>", "the disk /dev/none"),
        ("<interface type='network'><source network='blue'/></interface>", "no active network blue"),
        ("<interface type='bridge'><source bridge='br-none'/></interface>", "no bridge br-none"),
    ],
)
def test_what_it_lacks_is_said(hypervisor: LibvirtHypervisor, devices: str, lacks: str) -> None:
    with pytest.raises(HypervisorRefused, match=lacks):
        hypervisor.receivable(WEB, xml(devices))


def test_all_that_it_lacks_is_said_at_once(hypervisor: LibvirtHypervisor) -> None:
    both = (
        "<interface type='bridge'><source bridge='br-a'/></interface>"
        "<interface type='bridge'><source bridge='br-b'/></interface>"
    )
    with pytest.raises(HypervisorRefused, match="br-a; it has no bridge br-b"):
        hypervisor.receivable(WEB, xml(both))


def test_a_vm_that_is_here_already_does_not_come(hypervisor: LibvirtHypervisor) -> None:
    vm = VmId("here-already")
    hypervisor.create(vm, xml(name=vm), Generation(3))
    try:
        with pytest.raises(HypervisorRefused, match="is on this host already"):
            hypervisor.receivable(vm, xml(name=vm))
    finally:
        hypervisor.destroy(vm)


@pytest.mark.parametrize("broken", ["", "<domain", "no xml"])
def test_a_broken_definition_is_refused(hypervisor: LibvirtHypervisor, broken: str) -> None:
    with pytest.raises(HypervisorRefused, match="not well-formed"):
        hypervisor.receivable(WEB, broken)


# --- the mark ----------------------------------------------------------------------------------------------------


def test_what_arrives_is_marked_and_the_mark_comes_off() -> None:
    arriving = Mark(generation=Generation(9), arriving=True)
    assert 'arriving="yes"' in with_mark(xml(), WEB, arriving)
    assert mark_in(as_element(arriving)) == arriving
    assert mark_in(as_element(Mark(generation=Generation(9)))).arriving is False


# --- how it ended ------------------------------------------------------------------------------------------------

BOOT = "2026-11-26 16:53:12.001+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.9\nLC_ALL=C \\\n"
MIGRATES = "2026-11-26 16:53:17.384+0000: initiating migration\n"


def ends(how: str) -> str:
    return f"2026-11-26 16:53:17.630+0000: shutting down, reason={how}\n2026-11-26T16:53:17Z qemu: terminating\n"


@pytest.mark.parametrize(
    ("log", "how"),
    [
        (BOOT + MIGRATES + ends("migrated"), "migrated"),
        (BOOT + MIGRATES + ends("crashed"), "crashed"),
        (BOOT + MIGRATES, ""),
        (BOOT + ends("migrated") + BOOT, ""),
        (BOOT + ends("migrated") + BOOT + ends("shutdown"), "shutdown"),
        (ends("migrated"), "migrated"),
        ("", ""),
    ],
    ids=["migrated", "crashed after it went on", "under way", "started again", "an earlier run", "cut", "empty"],
)
def test_only_the_last_run_says_how_it_ended(log: str, how: str) -> None:
    assert last_end(log) == how


# --- how it comes on ---------------------------------------------------------------------------------------------


class Domain:
    """Answers as QEMU's driver does in a migration (values seen with libvirt 9.0)."""

    def __init__(self, answer: dict[str, Any] | int) -> None:
        self._answer = answer

    def jobStats(self) -> dict[str, Any]:
        if isinstance(self._answer, int):
            error = libvirt.libvirtError("no")
            error.err = (self._answer, 10, "no", 2, "", None, None, -1, -1)
            raise error
        return self._answer


LEAVING = {
    "type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
    "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
    "time_elapsed": 1500,
    "data_total": 200 * 1024 * 1024,
    "data_processed": 50 * 1024 * 1024,
    "data_remaining": 100 * 1024 * 1024,
    "memory_bps": 120 * 1024 * 1024,
    "memory_dirty_rate": 512,
    "memory_page_size": 4096,
    "memory_iteration": 2,
    "downtime": 300,
}


def test_progress_is_in_mib_and_seconds() -> None:
    now = progress_of(Domain(LEAVING))  # type: ignore[arg-type]
    assert now is not None
    assert (now.elapsed_s, now.total_mib, now.sent_mib, now.remaining_mib) == (1.5, 200.0, 50.0, 100.0)
    assert (now.speed_mib_s, now.dirty_mib_s, now.rounds, now.share) == (120.0, 2.0, 2, 0.5)
    assert now.downtime_s == 0.3


@pytest.mark.parametrize(
    "answer",
    [
        {**LEAVING, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN},
        {**LEAVING, "type": libvirt.VIR_DOMAIN_JOB_NONE},
        {},
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    ],
)
def test_what_is_no_migration_out_of_here_has_no_progress(answer: dict[str, Any] | int) -> None:
    assert progress_of(Domain(answer)) is None  # type: ignore[arg-type]


def test_a_libvirt_that_does_not_answer_is_not_taken_for_no_migration() -> None:
    with pytest.raises(libvirt.libvirtError):
        progress_of(Domain(libvirt.VIR_ERR_RPC))  # type: ignore[arg-type]
