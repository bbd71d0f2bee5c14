"""The VMs' domain XML: plain files of transient domains, nothing of Fangnetz in them. Never starts one."""

from __future__ import annotations

import uuid
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from fangnetz.lab.guest import COMMAND_LINE, GuestImage
from fangnetz.lab.plan import ISCSI_PORT, Plan
from fangnetz.lab.storage import LUN, target_of

VM_MEMORY_MIB = 128
HIGHEST_PRIORITY = 100


def xml_path(plan: Plan, vm: str) -> Path:
    """Return where a VM's domain XML is kept."""
    return plan.folder / "vms" / f"{vm}.xml"


def priority_of(plan: Plan, vm: str) -> int:
    """Return a VM's priority: vm1 is the most important."""
    return HIGHEST_PRIORITY - plan.vms.index(vm)


def write_definitions(plan: Plan, image: GuestImage) -> None:
    """Write every VM's domain XML."""
    for vm in plan.vms:
        xml_path(plan, vm).write_text(_domain_xml(plan, vm, image))


def _domain_xml(plan: Plan, vm: str, image: GuestImage) -> str:
    lease = ""
    if plan.storage_lock:
        folder = quoteattr(f"{plan.folder}/shared")
        lease = f"\n    <lease><lockspace>fn</lockspace><key>{vm}</key><target path={folder}/></lease>"
    # rdrand: the boot id must be random from the first instant. Nothing that only slows the boot: no USB, balloon,
    # graphics or PCI bridges.
    return f"""\
<domain type='qemu'>
  <name>{vm}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, f"{vm}.{plan.tag}.lab.fangnetz")}</uuid>
  <memory unit='MiB'>{VM_MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{escape(str(image.kernel))}</kernel>
    <initrd>{escape(str(image.initrd))}</initrd>
    <cmdline>{escape(COMMAND_LINE)}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>qemu64</model>
    <feature policy='require' name='rdrand'/>
  </cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>{lease}
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='iscsi' name='{target_of(plan, vm)}/{LUN}'>
        <host name='{plan.address("storage", "storage")}' port='{ISCSI_PORT}'/>
      </source>
      <target dev='vda' bus='virtio'/>
      <address type='pci' bus='0' slot='3'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'>
      <source path='/var/log/libvirt/qemu/{vm}.console.log' append='on'/>
      <target port='0'/>
    </serial>
  </devices>
</domain>
"""
