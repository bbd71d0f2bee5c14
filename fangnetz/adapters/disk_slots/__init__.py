"""Slots as files of one block each in a folder on the shared storage: `ports.DiskSlots`."""

from fangnetz.adapters.disk_slots.folder import SlotFolder

__all__ = ["SlotFolder"]
