"""libvirt's domain states in our words.

Never calls a domain a mere migration target unless libvirt says so: a doubtful one counts as a copy.
"""

from __future__ import annotations

import libvirt

from fangnetz.core.model import Sighting

_BY_STATE = {
    libvirt.VIR_DOMAIN_NOSTATE: Sighting.RUNNING,  # active by the listing, so it counts
    libvirt.VIR_DOMAIN_RUNNING: Sighting.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Sighting.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: Sighting.PAUSED,  # by hand, by an I/O error, while starting: not healthy, not gone
    libvirt.VIR_DOMAIN_SHUTDOWN: Sighting.STOPPING,
    libvirt.VIR_DOMAIN_SHUTOFF: Sighting.STOPPING,  # listed as active: its QEMU is being cleaned away
    libvirt.VIR_DOMAIN_CRASHED: Sighting.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Sighting.PAUSED,
}
_MAYBE_INCOMING = frozenset({libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP})
"""A migration's source is paused for the same reason in its last moments, hence the question below."""


def sighting_of(domain: libvirt.virDomain, state: int, reason: int) -> Sighting:
    """Return the state; asks libvirt once more only for a domain that may be a migration's target."""
    if state == libvirt.VIR_DOMAIN_PAUSED and reason in _MAYBE_INCOMING and _is_incoming(domain):
        return Sighting.INCOMING
    return _BY_STATE.get(state, Sighting.PAUSED)


def _is_incoming(domain: libvirt.virDomain) -> bool:
    # The target of a migration refuses this question ("available only on the source host"); all others answer it.
    try:
        operation = domain.jobStats().get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN)
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED and domain.isActive())
    return bool(operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN)
