"""What is said against a domain: refused where no other host can start it, warned of where it may be so."""

from __future__ import annotations

import pytest

from fangnetz.settings import UnfitLevel, unfit_for_ha

REFUSE, WARN = UnfitLevel.REFUSE, UnfitLevel.WARN


def _domain(devices: str = "", rest: str = "", kind: str = "kvm") -> str:
    uuid = "<uuid>2f7a3c0e-5f0d-4b7e-9d55-0c1f6f0a8b11</uuid>"
    return f"<domain type='{kind}'><name>a</name>{uuid}{rest}<devices>{devices}</devices></domain>"


MAC = "<mac address='52:54:00:00:00:01'/>"
FILE = "<disk type='file' device='disk'><source file='{}'/><target dev='vda'/></disk>"

UNFIT = [
    (REFUSE, _domain("<hostdev mode='subsystem' type='pci'/>")),
    (REFUSE, _domain("<hostdev mode='subsystem' type='usb'/>")),
    (REFUSE, _domain("<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>")),
    (REFUSE, _domain(f"<interface type='hostdev'>{MAC}</interface>")),
    (REFUSE, _domain("<disk type='nvme'><source/></disk>")),
    (REFUSE, _domain("<tpm><backend type='passthrough'/></tpm>")),
    (REFUSE, _domain("<graphics type='vnc' passwd='x'/>")),
    (REFUSE, _domain(kind="lxc")),
    (WARN, _domain(f"<interface type='direct'>{MAC}<source dev='eth0'/></interface>")),
    (WARN, _domain(f"<interface type='network'>{MAC}</interface>")),
    (WARN, _domain("<interface type='bridge'><source bridge='br0'/></interface>")),
    (WARN, _domain("<tpm><backend type='emulator'/></tpm>")),
    (WARN, _domain("<disk type='file' device='cdrom'><source file='/shared/a.iso'/></disk>")),
    (WARN, _domain("<disk type='block'><source dev='/dev/sdb'/></disk>")),
    (WARN, _domain("<disk type='volume'><source pool='default' volume='a'/></disk>")),
    (WARN, _domain("<disk type='file'><driver cache='unsafe'/><source file='/shared/a'/></disk>")),
    (WARN, _domain("<filesystem type='mount'/>")),
    (WARN, _domain("<serial type='dev'/>")),
    (WARN, _domain(rest="<os><nvram>/var/lib/libvirt/qemu/nvram/a.fd</nvram></os>")),
    (WARN, _domain(rest="<os firmware='efi'/>")),
    (WARN, _domain(rest="<cpu mode='host-passthrough'/>")),
    (WARN, _domain(rest="<on_poweroff>preserve</on_poweroff>")),
    (WARN, "<domain type='kvm'><name>a</name></domain>"),
    *((WARN, _domain(FILE.format(path))) for path in ("/tmp/a", "/var/lib/libvirt/images/a", "/root/a", "/home/u/a")),
]
FIT = [
    _domain(),
    _domain(FILE.format("/shared/a.qcow2")),
    _domain(FILE.format("/tmpfs-not/a")),
    _domain("<disk type='file' device='cdrom'/>"),
    _domain("<disk type='file' device='cdrom'><source file='/x.iso' startupPolicy='optional'/></disk>"),
    _domain(f"<interface type='bridge'>{MAC}<source bridge='br0'/></interface>"),
    _domain("<disk type='block'><source dev='/dev/disk/by-id/x'/></disk>"),
    _domain("<graphics type='vnc'/>"),
    _domain(rest="<os firmware='efi'><nvram>/shared/a.fd</nvram></os>"),
    _domain(rest="<memoryBacking><hugepages/></memoryBacking><numatune><memory nodeset='0'/></numatune>"),
]


@pytest.mark.parametrize(("level", "xml"), UNFIT)
def test_what_binds_a_domain_to_one_host_is_named_once(level: UnfitLevel, xml: str) -> None:
    assert [item.level for item in unfit_for_ha(xml)] == [level]


@pytest.mark.parametrize("xml", FIT)
def test_what_any_host_can_give_is_no_matter(xml: str) -> None:
    assert unfit_for_ha(xml) == ()


def test_everything_is_named_and_the_refused_first() -> None:
    found = unfit_for_ha(_domain(FILE.format("/tmp/a") + "<hostdev type='pci'/><tpm><backend type='emulator'/></tpm>"))
    assert [item.level for item in found] == [REFUSE, WARN, WARN]
    assert "/tmp/a" in " ".join(map(str, found))
