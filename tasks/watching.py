"""Probes and read-only power questions, on the queue `probe`; silent in the event stream."""

from __future__ import annotations

import structlog
from celery import shared_task

from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.units import DeviceName, HostId
from tasks.names import PROBE, READ_POWER
from tasks.runtime import WrongQueue, runtime

log = structlog.get_logger(__name__)


@shared_task(name=PROBE, ignore_result=True, send_events=False)
def probe_hosts() -> None:
    """Probe every host once."""
    parts = runtime()
    if parts.probe is None:
        raise WrongQueue(f"a {parts.role} process does not probe")
    try:
        parts.probe()
    except StoreUnreachable as error:
        log.warning("probe", error=str(error))


@shared_task(name=READ_POWER, ignore_result=True, send_events=False)
def read_power(host: str, devices: list[str]) -> None:
    """Ask a host's fence devices for their status, read-only."""
    parts = runtime()
    if parts.power is None:
        raise WrongQueue(f"a {parts.role} process asks no fence device")
    try:
        parts.power.ask(HostId(host), [DeviceName(name) for name in devices])
    except StoreUnreachable as error:
        log.warning("power", error=str(error))
