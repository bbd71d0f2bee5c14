"""Live migrations that leave this host: sent peer to peer, watched, helped on or ended, judged by libvirt's own word.

The copy that arrives stays paused whatever happens on the way (VIR_MIGRATE_PAUSED). Without that, an answer lost at the
very end makes libvirt let both run: the target because it was told to, the source because it never heard so.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import libvirt

from fangnetz.adapters.libvirt.bounded import Deadline
from fangnetz.adapters.libvirt.connection import Connections, Link
from fangnetz.adapters.libvirt.domain_xml import Mark, with_mark
from fangnetz.adapters.libvirt.refusals import NOT_THERE, translate
from fangnetz.core.convergence import Advice, Progress
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable, WorldError
from fangnetz.core.policy import Compression
from fangnetz.core.units import HostId, Seconds, VmId
from fangnetz.ports import Migration

LOOK_EVERY_S = 0.2
BEGIN_BOUND = Seconds(10.0)
"""A migration that could not be sent within this is not sent any more."""
KNOCK_S = 2.0
_PORTS = {"tcp": 16509, "tls": 16514}
LOG_TAIL_BYTES = 65536
FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PAUSED
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
MIB = 1024 * 1024
_STARTS = re.compile(r"^\S+ \S+: starting up", re.MULTILINE)
_ENDS = re.compile(r"shutting down, reason=(\w+)")


class Sent:
    """One migration that this process sent: whether it has begun, whether libvirt has answered, and with what."""

    def __init__(self) -> None:
        self.begun, self.answered = threading.Event(), threading.Event()
        self.refused: Exception | None = None
        """Why nothing was sent."""
        self.error: WorldError | None = None
        """libvirt's answer, if it was no success."""


class Outgoing:
    """The migrations of one process. Thread-safe: a VM has one at a time, under its lock."""

    def __init__(self, connections: Connections, uris: Callable[[HostId], str], log_dir: Path) -> None:
        """`uris`: by host, how its libvirt is reached from here. `log_dir`: where libvirt keeps a log of each VM."""
        self._connections, self._uris, self._log_dir = connections, uris, log_dir
        self._sent: dict[VmId, Sent] = {}

    def send(self, migration: Migration, mark: Mark, still: Callable[[], object]) -> Sent:
        """Send it from a thread of its own, and return once it is on its way. Raises what kept it from that."""
        sent = self._sent[migration.vm] = Sent()
        deadline = Deadline(BEGIN_BOUND)
        thread = threading.Thread(
            target=self._carry_out, args=(sent, migration, mark, still, deadline), name="migration", daemon=True
        )
        thread.start()
        if not sent.begun.wait(BEGIN_BOUND):
            raise HypervisorUnreachable(
                f"libvirt did not answer within {BEGIN_BOUND:g} s; {migration.vm} was not sent."
            )
        if sent.refused is not None:
            raise sent.refused
        return sent

    def of(self, vm: VmId) -> Sent | None:
        return self._sent.get(vm)

    def _carry_out(
        self, sent: Sent, migration: Migration, mark: Mark, still: Callable[[], object], deadline: Deadline
    ) -> None:
        try:
            with self._connections.lend() as link:
                self._through(link, sent, migration, mark, still, deadline)
        except libvirt.libvirtError as error:
            sent.error = translate(error)
            sent.refused = None if sent.begun.is_set() else sent.error
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread, not swallowed
            sent.refused = error.with_traceback(None)
        finally:
            sent.begun.set()
            sent.answered.set()

    def _through(
        self,
        link: Link,
        sent: Sent,
        migration: Migration,
        mark: Mark,
        still: Callable[[], object],
        deadline: Deadline,
    ) -> None:
        domain = link.connection.lookupByName(migration.vm)
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
        arrives = with_mark(xml, migration.vm, replace(mark, generation=migration.to.generation, arriving=True))
        try:
            uri = self._uris(migration.to.host)
        except KeyError:
            raise HypervisorRefused(f"This host's cluster file does not name {migration.to.host}.") from None
        words = {
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: arrives,
            libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{urlsplit(uri).hostname}",
        }
        with contextlib.suppress(libvirt.libvirtError):  # it is what QEMU takes by itself, or is asked for again below
            domain.migrateSetMaxDowntime(round(migration.downtime_s * 1000))
        _knock(uri)
        still()
        deadline.check()
        sent.begun.set()
        faster, more = speeding_up(migration)
        domain.migrateToURI3(uri, {**words, **more}, FLAGS | faster)

    # -- what libvirt says of it --

    def went(self, vm: VmId) -> bool:
        """Whether libvirt's own log of the VM says that its last run here ended by a migration."""
        try:
            with (self._log_dir / f"{vm}.log").open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return False
        return last_end(text) == "migrated"


def speeding_up(migration: Migration) -> tuple[int, dict[str, int | str]]:
    """Return the flags and parameters of what is to make it faster; a libvirt that knows none of it refuses."""
    flags, words = 0, dict[str, int | str]()
    if migration.connections > 1:
        flags |= libvirt.VIR_MIGRATE_PARALLEL
        words[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = migration.connections
    if migration.compression is not Compression.NONE:
        flags |= libvirt.VIR_MIGRATE_COMPRESSED
        words[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = migration.compression.value
    return flags, words


def _knock(uri: str) -> None:
    """Raise HypervisorRefused if nobody listens there: libvirt itself would wait two minutes for a host that is off."""
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[2])
    if parts.hostname is None or port is None:
        return
    try:
        socket.create_connection((parts.hostname, port), KNOCK_S).close()
    except OSError as error:
        raise HypervisorRefused(f"its libvirt does not listen at {parts.hostname}, port {port}: {error}.") from error


def last_end(log: str) -> str:
    """Return how the last run in libvirt's log of a domain ended, by its own word; empty while it has not."""
    starts = [found.end() for found in _STARTS.finditer(log)]
    ends = list(_ENDS.finditer(log, starts[-1] if starts else 0))
    return ends[-1].group(1) if ends else ""


_NO_JOB = NOT_THERE | {
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
}
"""It is not here any more, is itself a migration's target, or of a kind that does not migrate."""


def progress_of(domain: libvirt.virDomain) -> Progress | None:
    """Return how a migration out of here comes on, None if none is under way."""
    try:
        stats = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_JOB:
            return None
        raise
    leaving = stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE or not leaving:
        return None
    return Progress(
        elapsed_s=Seconds(stats.get("time_elapsed", 0) / 1000),
        total_mib=stats.get("data_total", 0) / MIB,
        sent_mib=stats.get("data_processed", 0) / MIB,
        remaining_mib=stats.get("data_remaining", 0) / MIB,
        speed_mib_s=stats.get("memory_bps", 0) / MIB,
        dirty_mib_s=stats.get("memory_dirty_rate", 0) * stats.get("memory_page_size", 4096) / MIB,
        rounds=stats.get("memory_iteration", 0),
        downtime_s=Seconds(stats.get("downtime", 0) / 1000),
    )


def help_on(domain: libvirt.virDomain, advice: Advice) -> None:
    """Do what was advised. A migration that ended meanwhile needs nothing."""
    with contextlib.suppress(libvirt.libvirtError):
        if advice.end:
            domain.abortJob()
        elif advice.downtime_s is not None:
            domain.migrateSetMaxDowntime(round(advice.downtime_s * 1000))


def rest(sent: Sent | None) -> None:
    """Between two looks at a migration; not after libvirt has answered: the guest stands still meanwhile."""
    if sent is None:
        time.sleep(LOOK_EVERY_S)
    else:
        sent.answered.wait(LOOK_EVERY_S)
