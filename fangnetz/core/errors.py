"""Errors by who must act: the world, nobody (we are no longer in charge), a person, or us."""

from __future__ import annotations


class FangnetzError(Exception):
    """Everything Fangnetz raises on purpose. The text is one sentence a person understands."""


class WorldError(FangnetzError):
    """The world said no, or said nothing. Never evidence that something is off or stopped."""


class StoreUnreachable(WorldError):
    """The store did not answer in time; nothing is known about what it would have said."""


class HypervisorUnreachable(WorldError):
    """libvirt did not answer; the VM's state is not known."""


class StartNotSent(HypervisorUnreachable):
    """This call has sent libvirt nothing, so nothing comes of it. Whether the VM runs by another is not known."""


class HypervisorRefused(WorldError):
    """libvirt answered and said no; the domain does not run because of this call."""


class StorageLeaseHeld(HypervisorRefused):
    """The VM's storage lease is held by somebody: the disk may have a writer."""


class FenceRefused(WorldError):
    """The fence device answered and refused (wrong password, missing right)."""


class FenceUnreachable(WorldError):
    """The fence device did not answer within its bound."""


class StorageUnreachable(WorldError):
    """The shared storage did not answer in time, or not in a way that can be used."""


class StaleToken(FangnetzError):
    """We are no longer in charge of this (epoch, lease or attempt passed on): stop quietly."""


class Paused(StaleToken):
    """The cluster is paused: this effect must not begin now. Nothing of it was done."""


class Conflict(FangnetzError):
    """What the decision was made from has changed meanwhile: look again and decide anew."""


class SettingsError(FangnetzError):
    """A person must mend a file: the text names file, line, key, value and rule."""


class StoredContentError(FangnetzError):
    """The store holds content this version does not understand: the text names the key and the rule."""


class WishRefused(FangnetzError):
    """An operator's wish cannot be granted; the text says why."""


class IllegalTransition(FangnetzError):
    """A state machine was asked for a step its table does not hold: we are wrong."""


class InvariantBroken(FangnetzError):
    """Something that must hold at every instant does not: we are wrong, stop loudly."""
