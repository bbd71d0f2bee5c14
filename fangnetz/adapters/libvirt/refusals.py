"""What libvirt's errors mean: who must act, and above all whether libvirt answered at all.

Never takes a broken connection or a timeout for a refusal: a refused start may be tried on another host.
"""

from __future__ import annotations

import libvirt

from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable, StorageLeaseHeld, WorldError

NOT_THERE = frozenset({libvirt.VIR_ERR_NO_DOMAIN})


def has_ended(error: libvirt.libvirtError, domain: libvirt.virDomain) -> bool:
    """Whether this error to a question about a domain only says that it is not here, or does not run any more.

    One that has just ended is still found for a moment, and then libvirt finds its question invalid.
    """
    if error.get_error_code() in NOT_THERE:
        return True
    if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
        return False
    try:
        return not domain.isActive()
    except libvirt.libvirtError as now:
        if now.get_error_code() in NOT_THERE:
            return True
        raise


_TRANSPORT = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
"""Raised on our side of the connection. The same code 38 (system error) from elsewhere is libvirtd's own answer."""
_NO_ANSWER = frozenset(
    {
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    }
)
_CONNECTION_WORDS = ("client socket is closed", "connection closed", "keepalive", "end of file while reading data")
_LEASE_WORDS = ('failed to get "write" lock', 'failed to get shared "write" lock', "is another process using the image")
"""QEMU's own image lock; it says them through libvirt's internal error."""


def translate(error: libvirt.libvirtError) -> WorldError:
    """Return the error of ours that says the same."""
    code = error.get_error_code()
    words = (error.get_error_message() or str(error)).strip()
    if (
        code is None
        or code in _NO_ANSWER
        or error.get_error_domain() in _TRANSPORT
        or any(sign in words.lower() for sign in _CONNECTION_WORDS)
    ):
        return HypervisorUnreachable(f"libvirt gave no usable answer: {words}.")
    # virtlockd and sanlock both say "resource busy"; it reaches us only after libvirt has removed the domain again.
    if code == libvirt.VIR_ERR_RESOURCE_BUSY or any(sign in words.lower() for sign in _LEASE_WORDS):
        return StorageLeaseHeld(f"Somebody holds the storage: {words}.")
    return HypervisorRefused(f"libvirt refused: {words}.")
