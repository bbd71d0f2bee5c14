"""A slot per host on the shared storage, in a folder or on a device: `ports.DiskSlots`."""

from fangnetz.adapters.disk_slots.asked import AskedSlots
from fangnetz.adapters.disk_slots.places import format_device

__all__ = ["AskedSlots", "format_device"]
