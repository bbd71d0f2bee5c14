"""The lab: real libvirt hosts, shared storage, BMCs and Redis on one machine, for tests, demo and bench.

A host is a set of namespaces with the real libvirtd, the real QEMU and the real worker inside; pulling its plug is
killing its init. It needs root, no Docker and no KVM. Nothing in the product imports it.
"""

from fangnetz.lab.errors import LabError, LabUsageError
from fangnetz.lab.lab import Lab

__all__ = ["Lab", "LabError", "LabUsageError"]
