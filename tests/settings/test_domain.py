"""The domain XML of the short form, and what is read out of any domain XML."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.errors import SettingsError
from fangnetz.core.units import MiB, VmId
from fangnetz.settings import (
    BlockDisk,
    FileDisk,
    IscsiDisk,
    ShortVm,
    StorageLease,
    domain_uuid,
    domain_xml,
    read_domain,
    unfit_for_ha,
    vm_doc_from_xml,
)

PLAIN = ShortVm(
    cluster="demo",
    vm=VmId("db1"),
    memory_mib=MiB(256),
    cpus=2,
    virt="qemu",
    disk=IscsiDisk(address="10.0.1.5", port=3260, target="iqn.2026-11.net.example:db1", lun=1),
)
FULL = replace(
    PLAIN,
    kernel="/shared/vmlinuz",
    initrd="/shared/initrd",
    cmdline="console=ttyS0 a=\"<&>\" b='é'",
    bridge="br0",
    lease=StorageLease(lockspace="fn", path="/shared/fn"),
)
FORMS = {
    "iscsi": PLAIN,
    "full": FULL,
    "file": replace(PLAIN, disk=FileDisk(path="/shared/a.qcow2", format="qcow2")),
    "block": replace(PLAIN, disk=BlockDisk(path="/dev/disk/by-id/a")),
}


def without_kvm(folder: Path) -> tuple[str, ...]:
    """What runs a command where nobody finds a KVM device: one that only pretends costs QEMU's probing minutes."""
    if os.geteuid() != 0 or not Path("/dev/kvm").exists():
        return ()
    (folder / "no-kvm").touch(mode=0o444)
    hide = 'mount --bind "$0" /dev/kvm && mount -o remount,bind,ro /dev/kvm && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", hide, str(folder / "no-kvm"))


@pytest.mark.skipif(shutil.which("virsh") is None, reason="libvirt-clients is not installed")
def test_libvirt_takes_every_form_and_validates_it(tmp_path: Path) -> None:
    """By libvirt's own QEMU driver, embedded in virsh: no daemon, nothing outside the folder."""
    script = []
    for name, short in FORMS.items():
        file = tmp_path / f"{name}.xml"
        file.write_text(domain_xml(replace(short, vm=VmId(name))))
        script.append(f"define --validate {file}")
    with tempfile.TemporaryDirectory(prefix="fnlv-") as root:  # short: a unix socket's path has 107 bytes
        done = subprocess.run(
            [*without_kvm(tmp_path), "virsh", "-c", f"qemu:///embed?root={root}", "; ".join(script)],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("defined from") == len(FORMS)


@pytest.mark.parametrize("short", FORMS.values(), ids=FORMS)
def test_what_is_written_is_read_back(short: ShortVm) -> None:
    facts = read_domain(domain_xml(short))
    assert (facts.name, facts.memory_mib, facts.cpus) == (short.vm, short.memory_mib, short.cpus)
    assert facts.uuid == domain_uuid("demo", VmId("db1")).hex
    assert len(facts.disks) == 1


@pytest.mark.parametrize("virt", ["kvm", "qemu"])
@pytest.mark.parametrize("short", FORMS.values(), ids=FORMS)
def test_the_short_form_is_fit(short: ShortVm, virt: str) -> None:
    assert unfit_for_ha(domain_xml(replace(short, virt=virt))) == ()


def test_the_domain_ends_when_the_guest_powers_off_or_crashes() -> None:
    root = ET.fromstring(domain_xml(PLAIN))
    assert [root.findtext(tag) for tag in ("on_poweroff", "on_reboot", "on_crash")] == ["destroy", "restart", "destroy"]


def test_writes_go_past_the_hosts_memory() -> None:
    for short in FORMS.values():
        driver = ET.fromstring(domain_xml(short)).find("devices/disk/driver")
        assert driver is not None
        assert driver.get("cache") == "none"


def test_the_lease_leads_virtlockd_to_the_vms_file() -> None:
    lease = ET.fromstring(domain_xml(FULL)).find("devices/lease")
    assert lease is not None
    target = lease.find("target")
    assert target is not None
    # virtlockd joins target path / lockspace / key
    joined = f"{target.get('path')}/{lease.findtext('lockspace')}/{lease.findtext('key')}"
    assert joined == "/shared/fn/db1"


def test_identity_is_stable_and_no_two_vms_share_it() -> None:
    assert domain_xml(FULL) == domain_xml(replace(FULL))
    others = [replace(FULL, vm=VmId("db2")), replace(FULL, cluster="other")]
    facts = [read_domain(domain_xml(short)) for short in (FULL, *others)]
    assert len({fact.uuid for fact in facts}) == 3
    macs = {domain_xml(short).split("mac address=")[1][:19] for short in (FULL, *others)}
    assert len(macs) == 3
    # A guest's identity must survive upgrades: this value may never change.
    assert str(domain_uuid("demo", VmId("db1"))) == "984dca74-7e88-59fd-a8ab-45a1e0bbe12c"


def _domain(inside: str, attributes: str = "type='kvm'") -> str:
    return f"<domain {attributes}><name>a</name>{inside}</domain>"


@pytest.mark.parametrize(
    ("element", "mib"),
    [
        ("<memory>1048576</memory>", 1024),
        ("<memory unit='KiB'>1025</memory>", 2),
        ("<memory unit='b'>1</memory>", 1),
        ("<memory unit='MiB'>512</memory>", 512),
        ("<memory unit='GiB'>2</memory>", 2048),
        ("<memory unit='MB'>1000</memory>", 954),
        ("<memory unit='G'> 1 </memory>", 1024),
    ],
)
def test_memory_is_read_in_every_unit_and_rounded_up(element: str, mib: int) -> None:
    assert read_domain(_domain(element)).memory_mib == mib


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "<memory/>",
        "<memory>0</memory>",
        "<memory>-1</memory>",
        "<memory>1.5</memory>",
        "<memory>" + "9" * 5000 + "</memory>",
        "<memory unit='bananas'>1</memory>",
        "<memory>1024</memory><vcpu>0</vcpu>",
        "<memory>1024</memory><vcpu>two</vcpu>",
        "<memory>1024</memory><uuid>no</uuid>",
    ],
)
def test_a_size_that_cannot_be_read_is_refused(inside: str) -> None:
    with pytest.raises(SettingsError):
        read_domain(_domain(inside))


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain>",
        "<network/>",
        "<domain><memory>1024</memory></domain>",
        "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><domain><name>&b;</name></domain>",
        "<!DOCTYPE domain SYSTEM 'x'><domain><name>a</name><memory>1024</memory></domain>",
        "<?xml version='1.0' encoding='nonsense'?><domain/>",
        "<?xml version='1.0' encoding='utf-16'?><domain/>",
        "<a>" * 100_000,
        "<a>" * 100_000 + "</a>" * 100_000,
        "x" * (1 << 21),
        "\ud800",
        "\0",
    ],
    ids=range(13),
)
def test_what_is_no_domain_is_refused_with_a_sentence(xml: str) -> None:
    with pytest.raises(SettingsError):
        read_domain(xml)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for xml in (text, _domain(text), f"<domain type='kvm'><name>a</name><memory>{text}</memory></domain>"):
        with contextlib.suppress(SettingsError):
            assert vm_doc_from_xml(xml).spec.memory_mib > 0


def test_only_disks_for_one_writer_count() -> None:
    disks = (
        "<memory>1024</memory><devices>"
        "<disk type='file'><source file='/s/a'/></disk>"
        "<disk type='file' device='cdrom'><source file='/s/iso'/></disk>"
        "<disk type='file'><source file='/s/ro'/><readonly/></disk>"
        "<disk type='block'><source dev='/dev/x'/><shareable/></disk>"
        "<disk type='network'><source protocol='rbd' name='p/i'><host name='m2'/><host name='M1'/></source></disk>"
        "<disk type='network'><source protocol='iscsi' name='IQN.a:b/1'><host name='h'/></source></disk>"
        "<disk type='file' device='cdrom'/>"
        "</devices>"
    )
    assert read_domain(_domain(disks)).disks == ("/s/a", "rbd p/i at m1,m2", "iscsi iqn.a:b/1")
